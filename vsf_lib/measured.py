"""Values of the methods that VSF is compared with, as measured on the models that come with this package.

Each is where its sweep on tuning pairs, which are not the benchmark's own, chose it: the rows "nag" and
"nasa" of docs/evidence.md. Data alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

SCENES = "this project: python -m vsf_lib bench scenes"
VIDEO = f"{SCENES} --video"


@dataclass(frozen=True)
class Measured:
    """Values of one method on one model."""

    values: Mapping[str, Any]
    source: str


def _at(source: str, **values: Any) -> Measured:
    return Measured(MappingProxyType(values), source)


BASELINES: Mapping[tuple[str, str], Measured] = MappingProxyType({
    ("scenes", "nag"): _at(SCENES, nag_phi=8.0, nag_tau=2.5, nag_alpha=0.25),
    ("scenes", "nasa"): _at(SCENES, nasa_alpha=0.15),
    ("flux-schnell", "nag"): _at(SCENES, nag_phi=8.0, nag_tau=2.5, nag_alpha=0.25),
    ("flux-schnell", "nasa"): _at(SCENES, nasa_alpha=0.25),
    ("flux-dev", "nag"): _at(SCENES, nag_phi=4.0, nag_tau=2.5, nag_alpha=0.5),
    ("flux-dev", "nasa"): _at(SCENES, nasa_alpha=0.15),
    ("wan", "nag"): _at(VIDEO, nag_phi=4.0, nag_tau=2.5, nag_alpha=0.5),
})  # fmt: skip
"""By the model's own name, exactly, and the baseline's: a file or folder of a like name is a real model."""
