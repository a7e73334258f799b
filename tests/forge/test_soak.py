"""Two hundred generations in one host: models, sizes, settings, errors and interrupts in no order.

What is off must stay bit-identical to its first picture, what is on to its own first one, and in the end
nothing of ours may be left on the model or in memory.
"""

from __future__ import annotations

import random
import re
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from forge_client import HIRES, Answer, Forge, ForgeError, same

GENERATIONS = 200
CENSUS_EVERY = 4
NOTHING = ("hooks", "forwards", "taps", "ours")
"""Of what a census counts, what there must be none of between generations."""
KINDS = ("turbo", "medium", "dev", "schnell")
SHAPES: dict[str, dict[str, Any]] = {
    "square": {},
    "tall": {"width": 192, "height": 320},
    "two": {"batch_size": 2, "n_iter": 2},
    "hires": HIRES,
    "cfg": {"cfg_scale": 3, "negative_prompt": "dark"},
    "heun": {"sampler_name": "Heun", "steps": 4},
}
GUIDED: dict[str, dict[str, Any]] = {
    "auto": {"negative_prompt": "wheels"},
    "strong": {"negative_prompt": "the windows of a very long house", "alpha": 6.0, "beta": 1.0},
    "late": {"negative_prompt": "wheels", "alpha": 2.0, "start": 0.3},
    "difference": {"negative_prompt": "wheels", "method": "difference"},
    "nag": {"negative_prompt": "wheels", "method": "nag"},
    "changing": {"negative_prompt": "[wheels:roof:0.5]", "alpha": 2.0},
}
WRONG: dict[str, dict[str, Any]] = {
    "bounds": {"negative_prompt": "wheels", "alpha": -1},
    "window": {"negative_prompt": "wheels", "start": 0.41, "end": 0.42},
    "unknown": {"negative_prompt": "wheels", "alfa": 1},
}
BLOCKS = {
    "turbo": "joint_blocks.2",
    "medium": "joint_blocks.1",
    "dev": "single_blocks.1",
    "schnell": "double_blocks.1",
}


class Soak:
    """The first picture of every request, and what each kind of step does to it."""

    def __init__(self, forge: Forge, model: Callable[[str], str], chance: random.Random) -> None:
        self.forge, self.model, self.chance = forge, model, chance
        self.first: dict[tuple[str, ...], Answer] = {}

    def off(self, kind: str, shape: str) -> None:
        answer = self.forge.txt2img(self.model(kind), **SHAPES[shape])
        assert not any("VSF" in text for text in answer.infotexts)
        self._as_before(answer, kind, shape)

    def on(self, kind: str, shape: str) -> None:
        name = self.chance.choice(list(GUIDED))
        answer = self.forge.txt2img(self.model(kind), GUIDED[name], **SHAPES[shape])
        assert all("VSF" in text for text in answer.infotexts)
        self._as_before(answer, kind, shape, name)

    def wrong(self, kind: str, shape: str) -> None:
        with pytest.raises(ForgeError, match=r"alpha is -1|alfa|none of \d+ steps"):
            self.forge.txt2img(self.model(kind), WRONG[self.chance.choice(list(WRONG))], **SHAPES[shape])

    def broken(self, kind: str, shape: str) -> None:
        trial = {"block": BLOCKS[kind], "call": self.chance.choice([1, 2, 3])}
        error = self.chance.choice(["RuntimeError", "OutOfMemoryError"])
        vsf = self.chance.choice([*GUIDED.values(), None])
        with pytest.raises(ForgeError, match="forced by a test"):
            self.forge.txt2img(
                self.model(kind), vsf, trial={"raise": {**trial, "error": error}}, **SHAPES[shape]
            )

    def stopped(self, kind: str, shape: str) -> None:
        way = self.chance.choice(["interrupt", "skip"])
        vsf = GUIDED[self.chance.choice(list(GUIDED))]
        values = {**SHAPES[shape], "steps": 40}
        thrown: list[BaseException] = []

        def draw() -> None:
            try:
                self.forge.txt2img(self.model(kind), vsf, **values)
            except ForgeError as error:
                thrown.append(error)

        job = threading.Thread(target=draw)
        job.start()
        while job.is_alive() and self.forge.request("/sdapi/v1/progress")["state"]["sampling_step"] < 2:
            time.sleep(0.05)
        while job.is_alive():  # a skip ends one batch of several
            self.forge.request(f"/sdapi/v1/{way}", {})
            time.sleep(0.2)
        job.join()
        assert not thrown

    def _as_before(self, answer: Answer, *key: str) -> None:
        first = self.first.setdefault(key, answer)
        assert same(answer, first), key
        assert answer.infotexts == first.infotexts, key


def census(forge: Forge, title: str) -> dict[str, int]:
    """What the host holds just before a generation: see `trials/`."""
    text = forge.txt2img(title, trial={"census": True}).infotexts[0]
    found = re.search(r"VSF trials census: ([a-z0-9 ]+)", text)
    assert found is not None, text
    words = found[1].split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


def test_two_hundred_generations(forge: Forge, model: Any) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    soak = Soak(forge, model, chance)
    first: dict[str, dict[str, int]] = {}
    for _ in range(2):  # once all models have been used
        for kind in KINDS:
            soak.off(kind, "square")
            first[kind] = census(forge, model(kind))
    assert not any(first[kind][name] for kind in KINDS for name in NOTHING)
    used: list[float] = []
    steps = [soak.off] * 3 + [soak.on] * 4 + [soak.wrong, soak.broken, soak.stopped]
    for i in range(GENERATIONS):
        step, kind, shape = chance.choice(steps), chance.choice(KINDS), chance.choice(list(SHAPES))
        if step == soak.stopped and shape == "heun":
            shape = "square"
        try:
            step(kind, shape)
        except (AssertionError, ForgeError) as error:
            what = f"{step.__name__}({kind}, {shape})"
            raise AssertionError(f"generation {i} of seed {seed}, {what}: {error}") from error
        used.append(forge.request("/sdapi/v1/memory")["ram"]["used"])
        if (
            i % CENSUS_EVERY == CENSUS_EVERY - 1
        ):  # of the very model that was just used: another is another object
            now = census(forge, model(kind))
            assert not any(now[name] for name in NOTHING), (i, seed, step.__name__, kind, now)
            assert now["megabytes"] <= first[kind]["megabytes"] + 32, (i, seed, step.__name__, kind, now)
    quarter = GENERATIONS // 4
    early, late = statistics.median(used[quarter : 2 * quarter]), statistics.median(used[-quarter:])
    assert late < early * 1.05, f"resident memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MB"
