"""What the tests of the script "VSF sweep" share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import small_flux
from small_host import Model, weighted
from small_sweep import WebUI


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WebUI:
    made = WebUI(tmp_path)
    monkeypatch.setitem(sys.modules, "modules", made.modules)
    return made


@pytest.fixture
def model() -> Model:
    return Model(weighted(small_flux.SmallFlux()))
