"""`bench forge` on the real host: what it measures is what the host says it drew."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from forge_client import Forge

from vsf_lib.bench.forge.command import measure
from vsf_lib.bench.forge.host import Asked, Host


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
def test_steps_on_and_off(forge: Forge, model: Any, kind: str) -> None:
    asked = Asked("a red car", "wheels", 256, 256, "Euler", "Simple", 1, model(kind), 2.0, None)
    found = measure(Host(forge.url), asked, ["vsf", "nag"], (1, 12), 1, clock=time.perf_counter)
    assert [row["method"] for row in found["rows"]] == ["vsf", "nag"]
    for row in found["rows"]:
        assert row["seconds_per_step"] != 0
        assert "VSF alpha: 2" in row["parameters"] or "VSF method: " in row["parameters"]
    assert "VSF" not in found["unguided_parameters"]
    without = [re.sub(r", VSF.*?(?=, Version|$)", "", row["parameters"]) for row in found["rows"]]
    assert all("Steps: 12, " in text for text in (*without, found["unguided_parameters"]))
