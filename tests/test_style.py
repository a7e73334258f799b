"""The house style, as the tools see it: every file passes ruff, vsf_lib and install.py pass mypy."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("command", [["ruff", "check"], ["mypy"]], ids=["ruff", "mypy"])
def test_clean(command: list[str]) -> None:
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)} says:\n{result.stdout}{result.stderr}", pytrace=False)


def test_the_weights_do_not_say_on_whose_machine_they_were_made() -> None:
    configs = list((ROOT / "vsf_lib" / "scenes" / "weights").rglob("*.json"))
    assert configs
    assert not [path for path in configs if "_name_or_path" in path.read_text(encoding="utf-8")]
