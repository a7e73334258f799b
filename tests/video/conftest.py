"""A small Wan in a folder with a difficult name, and a package of the tests' own that breaks the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

SABOTAGE = """
import os, time
import torch
from diffusers import WanTransformer3DModel

calls = []

def hook(module, args):
    if isinstance(module, WanTransformer3DModel):
        calls.append(1)
        if len(calls) == 2:
            {act}

torch.nn.modules.module.register_module_forward_pre_hook(hook)

def fix_text(text):
    return text
"""


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random Wan in diffusers' format."""
    wan_files = pytest.importorskip("wan_files")
    return wan_files.save(tmp_path_factory.mktemp("Modelle für Videos") / "wan klein")


@pytest.fixture
def sabotage(tmp_path):
    """`sabotage("raise ...")` is an overlay in which the second call of the model does that.

    Diffusers' Wan imports a package named ftfy wherever there is one.
    """

    def make(act: str) -> Path:
        folder = tmp_path / "overlay"
        (folder / "ftfy-6.0.dist-info").mkdir(parents=True)
        (folder / "ftfy-6.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: ftfy\nVersion: 6.0\n"
        )
        (folder / "ftfy.py").write_text(SABOTAGE.replace("{act}", act))
        return folder

    return make
