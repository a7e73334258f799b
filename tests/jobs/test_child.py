"""How a child process is started: with whose packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vsf_lib.jobs.child import Child

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="the Python is a script")
def test_another_environment_s_python_sees_nothing_of_this_one_s(tmp_path, monkeypatch):
    python, told = tmp_path / "python", tmp_path / "told"
    python.write_text('#!/bin/sh\nprintf "%s|%s" "$PYTHONPATH" "$PYTHONHOME" > "$TOLD"\n')
    python.chmod(0o755)
    for name in ("PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, str(tmp_path / "mine"))
    Child("any", "the child", python=python, environment={"TOLD": str(told)}).close()
    assert told.read_text() == f"{ROOT}|"
    monkeypatch.setattr(sys, "executable", str(python))
    Child("any", "the child", environment={"TOLD": str(told)}).close()
    mine = str(tmp_path / "mine")
    assert told.read_text() == f"{ROOT}{os.pathsep}{mine}|{mine}"
