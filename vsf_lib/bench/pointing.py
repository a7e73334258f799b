"""`bench scenes --pointing`: does the negative prompt's attention peak on the part that it names.

Where the part is, the part finder says of the picture drawn without a negative prompt: it was trained on
renders only and sees neither prompt nor attention. Owns the course of this benchmark and its output.
"""

from __future__ import annotations

import logging
import random
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vsf_lib.bench.pairs import Pair, make_pairs
from vsf_lib.bench.peaks import Hits, cells_on, chances, peak_hits, ranked
from vsf_lib.bench.pointing_sheet import Sheet, make_sheet
from vsf_lib.bench.results import conditions, write_json
from vsf_lib.bench.subject import Subject
from vsf_lib.heatmap import as_maps
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import SIZE
from vsf_lib.scenes.world import KINDS, PARTS
from vsf_lib.settings import Settings

log = logging.getLogger("vsf")

PROBE_BETA = 20.0
"""The negative weighs e^-20 of what it would: the picture is the unguided one but for rounding, while each
head's share still ranks the tokens as before."""

Rates = dict[str, float]
"""How often the peak's cell overlaps the part, and its centre lies on it; `ranked` of the object's cells."""


def check(args: Namespace) -> None:
    """Nothing can be asked for that would fail later."""


def run(args: Namespace, subject: Subject) -> None:
    """Measures, prints and writes what was asked for."""
    from vsf_lib.scenes.finder import Finder

    bench = Pointing(
        subject.pipe,
        subject.judge,
        Finder.load(),
        preset_for(subject.model).settings(),
        steps=subject.steps,
        pairs=args.pairs or (20 if args.quick else 200),
        seeds=args.seeds or (1 if args.quick else 2),
    )
    result, sheet = bench.measure()
    head = conditions(subject.model, result["pairs"], result["seeds"], result["steps"])
    result = {"study": "pointing", **head, **result}
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)
    if sheet is not None:
        from vsf_lib.bench.sheet import write_sheet

        write_sheet(args.sheet, sheet.rows, sheet.titles, scale=1)
        print(f"contact sheet: {args.sheet}")


@dataclass(frozen=True)
class Shares:
    """One drawing of all pairs."""

    pictures: np.ndarray
    """uint8 `[n, 64, 64, 3]`"""
    maps: np.ndarray
    """float64 `[n, steps, layers, rows, columns]`"""
    layers: tuple[str, ...]

    def views(self) -> Iterator[tuple[str, np.ndarray]]:
        """What could be looked at, `[n, rows, columns]` each: the mean, which is the heat map, and parts."""
        yield "mean", self.maps.mean((1, 2))
        yield "first step", self.maps[:, 0].mean(1)
        yield "last step", self.maps[:, -1].mean(1)
        for number, layer in enumerate(self.layers):
            yield layer.removesuffix(".attn"), self.maps[:, :, number].mean(1)


@dataclass(frozen=True)
class Targets:
    """The pictures that show the part unguided, as judge and finder agree, and where."""

    which: np.ndarray
    """Their indices among all that are drawn, `[n]`."""
    pairs: list[Pair]
    part: np.ndarray
    """bool `[n, 64, 64]`"""
    whole: np.ndarray
    """The object with it, bool `[n, 64, 64]`."""

    def rates(self, maps: np.ndarray, only: np.ndarray | None = None) -> Rates:
        """Of maps `[n, rows, columns]`; `only` names some of the pictures, bool `[n]`."""
        rows, columns = maps.shape[1:]
        on, whole = cells_on(self.part, rows, columns), cells_on(self.whole, rows, columns)
        hits, order = peak_hits(maps, on), ranked(maps, on.overlaps, whole.overlaps)
        some = slice(None) if only is None else only
        rates = _rounded(Hits(hits.overlaps[some], hits.centred[some]))
        known = order[some][~np.isnan(order[some])]
        return rates | {"ranked": round(float(known.mean()), 4)} if known.size else rates

    def chances(self, rows: int, columns: int) -> dict[str, Rates]:
        """The same of random cells of the picture, and of those that the object touches."""
        on, whole = cells_on(self.part, rows, columns), cells_on(self.whole, rows, columns).overlaps
        return {
            "picture": _rounded(chances(on, np.ones_like(whole))),
            "object": _rounded(chances(on, whole)),
        }

    def areas(self) -> Rates:
        """How much of the picture and of the object the part covers, by pixels."""
        pixels = self.part.sum((1, 2))
        return {
            "picture": round(float(self.part.mean()), 4),
            "object": round(float((pixels / self.whole.sum((1, 2))).mean()), 4),
        }


class Pointing:
    """One measurement: a model at its preset, the held-out pairs, and who says what a picture shows."""

    def __init__(
        self, pipe: Any, judge: Any, finder: Any, settings: Settings, *, steps: int, pairs: int, seeds: int
    ) -> None:
        self._pipe, self._judge, self._finder = pipe, judge, finder
        self._settings, self._steps = settings, steps
        self._pairs = make_pairs(pairs)
        self._seeds = range(1, seeds + 1)

    def measure(self) -> tuple[dict[str, Any], Sheet | None]:
        """The results as JSON, and the contact sheet; no sheet if no picture has its part."""
        from vsf_lib.bench.drawing import Method, draw

        off = Method("none", Settings(method="off"))
        unguided = draw(self._pipe, self._pairs, off, seeds=self._seeds, steps=self._steps)
        targets = self._targets(unguided)
        result: dict[str, Any] = {
            "pictures": len(unguided),
            "counted": len(targets.which),
            "pairs": len(self._pairs),
            "seeds": len(self._seeds),
            "steps": self._steps,
            "settings": Method("vsf", self._settings).describe(),
        }
        if not len(targets.which):
            return result, None
        maps: dict[str, np.ndarray] = {}
        rates: dict[str, dict[str, Rates]] = {}
        modes = {"guided": self._settings, "probe": self._settings.changed(beta=PROBE_BETA)}
        for mode, settings in modes.items():
            for word, pairs in {"own": self._pairs, **controls(self._pairs)}.items():
                name = f"{mode}, {word} word"
                shares = self._draw(pairs, settings)
                views = {view: shown[targets.which] for view, shown in shares.views()}
                rates[name] = {view: targets.rates(shown) for view, shown in views.items()}
                maps[name] = views["mean"]
                log.info("%s: %s", name, rates[name])
                if (mode, word) == ("probe", "own"):
                    change = np.abs(shares.pictures.astype(int) - unguided).max()
                    result["probe_changes_by_at_most"] = int(change)
        result |= {
            "chance": targets.chances(*maps["probe, own word"].shape[1:]),
            "area": targets.areas(),
            "rates": rates,
            "parts": _by_part(targets, {mode: maps[f"{mode}, own word"] for mode in modes}),
        }
        titles = [f"{pair.prompt}\nnot {pair.negative_prompt}" for pair in targets.pairs]
        shown = {
            name: (mean, peak_hits(mean, cells_on(targets.part, *mean.shape[1:])).overlaps)
            for name, mean in maps.items()
        }
        return result, make_sheet(titles, unguided[targets.which], targets.part, shown)

    def _targets(self, unguided: np.ndarray) -> Targets:
        drawn = [self._pairs[index % len(self._pairs)] for index in range(len(unguided))]
        masks = self._finder.masks(unguided)
        part = np.stack([mask[PARTS.index(p.negative_prompt)] for mask, p in zip(masks, drawn, strict=True)])
        seen = [p.negative_prompt in v.parts for p, v in zip(drawn, self._judge(unguided), strict=True)]
        which = np.flatnonzero(np.array(seen) & part.any((1, 2)))
        whole = part | masks[:, -1]  # the last channel is the object
        return Targets(which, [drawn[index] for index in which], part[which], whole[which])

    def _draw(self, pairs: Sequence[Pair], settings: Settings) -> Shares:
        from vsf_lib.adapters import Report
        from vsf_lib.bench.drawing import Method, draw

        reports: list[Report] = []
        pictures = draw(
            self._pipe, pairs, Method("vsf", settings), seeds=self._seeds, steps=self._steps, reports=reports
        )
        # [steps, layers, images, n_i] each
        recorded = [report.layer_share for report in reports if report.layer_share is not None]
        share = np.concatenate([part.double().numpy().transpose(2, 0, 1, 3) for part in recorded])
        return Shares(pictures, as_maps(share, SIZE, SIZE), reports[0].layers)


def controls(pairs: Sequence[Pair], seed: int = 5) -> dict[str, list[Pair]]:
    """The same prompts with other negative words, whose maps should peak elsewhere.

    "sibling" is another part of the same object, "stranger" a part that such an object never has.
    """
    rng = random.Random(seed)
    siblings, strangers = [], []
    for pair in pairs:
        own = KINDS[pair.kind]
        sibling = rng.choice([part for part in own if part != pair.negative_prompt])
        siblings.append(replace(pair, negative_prompt=sibling))
        stranger = rng.choice([part for part in PARTS if part not in own])
        strangers.append(replace(pair, negative_prompt=stranger))
    return {"sibling": siblings, "stranger": strangers}


def _by_part(targets: Targets, maps: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The rates of each part by itself, and how many pictures they are of."""
    named = np.array([pair.negative_prompt for pair in targets.pairs])
    return {
        part: {
            "count": int((named == part).sum()),
            **{mode: targets.rates(shown, named == part) for mode, shown in maps.items()},
        }
        for part in PARTS
        if (named == part).any()
    }


def _rounded(hits: Hits) -> Rates:
    return {
        "overlaps": round(float(hits.overlaps.mean()), 4),
        "centred": round(float(hits.centred.mean()), 4),
    }


def table(result: dict[str, Any]) -> str:
    """The rates as text."""
    lines = []
    if result["counted"]:
        lines.append(f"{'peak of the map':<28} {'view':<28} {'on part':>8} {'centred':>8} {'ranked':>8}")
        for name, views in result["rates"].items():
            for view, rates in views.items():
                if view == "mean":
                    lines.append(f"{name:<28} {view:<28} {_numbers(rates)}")
                elif "own" in name:  # of the other words the map that a user would see says enough
                    lines.append(f"{'':<28} {view:<28} {_numbers(rates)}")
        for what, rates in result["chance"].items():
            area = f"{result['area'][what]:.1%} of it is the part"
            lines.append(f"{f'a random cell of the {what}':<28} {area:<28} {_numbers(rates)}")
        for part, rates in result["parts"].items():
            lines.append(f"{'probe, own word':<28} {part:<20} {rates['count']:7} {_numbers(rates['probe'])}")
    lines.append(
        f"{result['counted']} of {result['pictures']} pictures have the part unguided; {result['pairs']} "
        f"held-out pairs x {result['seeds']} seeds, {result['steps']} steps, {result['settings']}"
    )
    return "\n".join(lines)


def _numbers(rates: Rates) -> str:
    return " ".join(f"{rates[key]:8.3f}" if key in rates else " " * 8 for key in _KEYS).rstrip()


_KEYS = ("overlaps", "centred", "ranked")
