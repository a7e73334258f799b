"""A scenes model without its skill, from which small models of other kinds are taught in tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vsf_lib.scenes.model import FOLDER
from vsf_lib.scenes.training import autoencoder, flow
from vsf_lib.scenes.training.networks import STUDENT_LAYERS, Networks
from vsf_lib.scenes.training.traces import load_teacher


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scenes model without its skill."""
    folder = tmp_path_factory.mktemp("out") / FOLDER.name
    networks = Networks.build(autoencoder.build(), 4, STUDENT_LAYERS)
    torch.manual_seed(6)
    for parameter in networks.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    networks.pipeline(flow.SHIFT).to(dtype=torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(shared: Path) -> Networks:
    return load_teacher(shared)
