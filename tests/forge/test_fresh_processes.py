"""Ten generations in a row, each compared with the same one as the first and only of a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from forge_client import HIRES, Forge, same

GENERATIONS: list[tuple[str, dict[str, Any] | None, dict[str, Any]]] = [
    ("turbo", {"negative_prompt": "wheels"}, {}),
    ("dev", {"negative_prompt": "roof", "alpha": 4, "beta": 1, "start": 0.3}, {"cfg_scale": 2}),
    ("medium", None, {"cfg_scale": 3, "negative_prompt": "dark"}),
    ("medium", {"method": "nag"}, {"negative_prompt": "wheels"}),
    ("schnell", {"negative_prompt": "[wheels:roof:0.5]"}, {"batch_size": 2}),
    ("turbo", {"negative_prompt": "wheels", "end": 0.7}, {"options": {"sd3_enable_t5": True}}),
    ("schnell", {"negative_prompt": "wheels", "blocks": "double"}, {"seed": 7}),
    ("turbo", {"negative_prompt": "a bird", "negative_tokens": "words"}, HIRES),
    ("dev", None, {}),
    ("turbo", {"negative_prompt": "wheels"}, {"sampler_name": "Heun", "steps": 5}),
]


def test_pictures_do_not_depend_on_what_was_made_before(
    start: Callable[..., AbstractContextManager[Forge]], forge: Forge, model: Any
) -> None:
    in_a_row = [forge.txt2img(model(kind), vsf, **values) for kind, vsf, values in GENERATIONS]
    for (kind, vsf, values), made in zip(GENERATIONS, in_a_row, strict=True):
        assert ("VSF" in made.infotexts[0]) == (vsf is not None)
        with start() as fresh:
            assert same(fresh.txt2img(model(kind), vsf, **values), made), (kind, vsf, values)
