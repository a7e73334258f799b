"""What the tests of the script "VSF sweep" share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import small_flux
import torch
from small_host import Model
from small_sweep import WebUI


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WebUI:
    made = WebUI(tmp_path)
    monkeypatch.setitem(sys.modules, "modules", made.modules)
    return made


@pytest.fixture
def model() -> Model:
    network = small_flux.SmallFlux()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.2 / parameter.shape[-1] ** 0.5))
    return Model(network.double().eval())
