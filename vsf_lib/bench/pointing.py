"""`bench scenes --pointing`: does the negative prompt's attention peak on the part that it names.

Where the part is, the part finder says of the picture drawn without a negative prompt: it was trained on
renders only and sees neither prompt nor attention. Owns the course of this benchmark and its output.
"""

from __future__ import annotations

import logging
import random
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vsf_lib.bench.pairs import Pair, make_pairs
from vsf_lib.bench.peaks import Hits, cells_on, chances, peak_hits
from vsf_lib.bench.results import conditions, write_json
from vsf_lib.bench.subject import Subject
from vsf_lib.heatmap import Scale, as_maps, overlay
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import SIZE
from vsf_lib.scenes.world import KINDS, PARTS
from vsf_lib.settings import Settings

log = logging.getLogger("vsf")

PROBE_BETA = 20.0
"""The negative weighs e^-20 of what it would: the picture is the unguided one but for rounding, while each
head's share still ranks the tokens as before."""
_COLUMNS = 12
_TILE = 160


@dataclass(frozen=True)
class Shares:
    """One drawing of all pairs."""

    name: str
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
    if sheet:
        from vsf_lib.bench.sheet import write_sheet

        write_sheet(args.sheet, sheet.rows, sheet.titles, scale=1)
        print(f"contact sheet: {args.sheet}")


@dataclass(frozen=True)
class Sheet:
    """What `write_sheet` is given."""

    rows: list[tuple[str, np.ndarray]]
    titles: list[str]


class Pointing:
    """One measurement: a model at its preset, the held-out pairs, and who says what a picture shows."""

    def __init__(
        self,
        pipe: Any,
        judge: Any,
        finder: Any,
        settings: Settings,
        *,
        steps: int,
        pairs: int,
        seeds: int,
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
        drawn = [self._pairs[index % len(self._pairs)] for index in range(len(unguided))]
        masks = self._finder.masks(unguided)
        part = np.stack([masks[i, PARTS.index(pair.negative_prompt)] for i, pair in enumerate(drawn)])
        seen = [pair.negative_prompt in v.parts for pair, v in zip(drawn, self._judge(unguided), strict=True)]
        counted = np.flatnonzero(np.array(seen) & part.any((1, 2)))
        result: dict[str, Any] = {
            "pictures": len(drawn),
            "counted": len(counted),
            "pairs": len(self._pairs),
            "seeds": len(self._seeds),
            "steps": self._steps,
            "settings": Method("vsf", self._settings).describe(),
        }
        if not len(counted):
            return result, None
        whole = masks[counted, -1] | part[counted]  # the last channel is the object
        part = part[counted]
        probe = self._settings.changed(beta=PROBE_BETA)
        words = {"own": self._pairs, **controls(self._pairs)}
        rows: dict[str, dict[str, dict[str, float]]] = {}
        maps: dict[str, np.ndarray] = {}
        for mode, settings in (("guided", self._settings), ("probe", probe)):
            for word, pairs in words.items():
                name = f"{mode}, {word} word"
                shares = self._draw(name, pairs, settings)
                if name == "probe, own word":
                    difference = np.abs(shares.pictures.astype(int) - unguided)
                    result["probe_changes_by_at_most"] = int(difference.max())
                grid = shares.maps.shape[-2:]
                on = cells_on(part, *grid)
                rows[name] = {view: _rates(peak_hits(m[counted], on)) for view, m in shares.views()}
                maps[name] = shares.maps[counted].mean((1, 2))
                log.info("%s: %s", name, rows[name])
        everywhere = np.ones((len(counted), *grid), bool)
        result["chance"] = {
            "picture": _rates(chances(on, everywhere)),
            "object": _rates(chances(on, cells_on(whole, *grid).overlaps)),
        }
        result["area"] = {
            "picture": round(float(part.mean()), 4),
            "object": round(float((part.sum((1, 2)) / whole.sum((1, 2))).mean()), 4),
        }
        result["rates"] = rows
        names = np.array([drawn[i].negative_prompt for i in counted])
        result["parts"] = {
            name: {
                "count": int((names == name).sum()),
                **{
                    mode: _rates(_only(peak_hits(maps[f"{mode}, own word"], on), names == name))
                    for mode in ("guided", "probe")
                },
            }
            for name in PARTS
            if (names == name).any()
        }
        return result, self._sheet(drawn, counted, unguided, part, maps, on)

    def _draw(self, name: str, pairs: Sequence[Pair], settings: Settings) -> Shares:
        from vsf_lib.adapters import Report
        from vsf_lib.bench.drawing import Method, draw

        reports: list[Report] = []
        pictures = draw(
            self._pipe, pairs, Method(name, settings), seeds=self._seeds, steps=self._steps, reports=reports
        )
        # [steps, layers, images, n_i] each
        recorded = [report.layer_share for report in reports if report.layer_share is not None]
        share = np.concatenate([r.double().numpy().transpose(2, 0, 1, 3) for r in recorded])
        return Shares(name, pictures, as_maps(share, SIZE, SIZE), reports[0].layers)

    def _sheet(
        self,
        drawn: Sequence[Pair],
        counted: np.ndarray,
        unguided: np.ndarray,
        part: np.ndarray,
        maps: dict[str, np.ndarray],
        on: Hits,
    ) -> Sheet:
        """The first counted pictures: as drawn, the part that was found, and the maps with their peaks."""
        first = range(min(_COLUMNS, len(counted)))
        pictures = [Image.fromarray(unguided[counted[k]]).resize((_TILE, _TILE), 0) for k in first]
        found = [
            Image.composite(p, p.convert("L").convert("RGB"), Image.fromarray(part[k]).resize(p.size, 0))
            for k, p in enumerate(pictures)
        ]
        rows = [("unguided", pictures), ("part found", found)]
        for name, mean in maps.items():
            hit = peak_hits(mean, on).overlaps
            marked = [_marked(pictures[k], mean[k], bool(hit[k])) for k in first]
            rows.append((name.replace(", ", "\n"), marked))
        titles = [f"{drawn[i].prompt}\nnot {drawn[i].negative_prompt}" for i in counted[: len(first)]]
        return Sheet([(name, np.stack([np.asarray(t) for t in tiles])) for name, tiles in rows], titles)


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


def _only(hits: Hits, which: np.ndarray) -> Hits:
    return Hits(hits.overlaps[which], hits.centred[which])


def _rates(hits: Hits) -> dict[str, float]:
    return {
        "overlaps": round(float(hits.overlaps.mean()), 4),
        "centred": round(float(hits.centred.mean()), 4),
    }


def _marked(picture: Image.Image, shares: np.ndarray, hit: bool) -> Image.Image:
    """`picture` under its map, with a frame around the peak: green on the part, white beside it."""
    shown = overlay(picture, shares, Scale.of(shares))
    row, column = np.unravel_index(shares.argmax(), shares.shape)
    height, width = (side // cells for side, cells in zip(shown.size[::-1], shares.shape, strict=True))
    left, top = int(column) * width, int(row) * height
    ink = (0, 255, 120) if hit else (255, 255, 255)
    ImageDraw.Draw(shown).rectangle((left, top, left + width - 1, top + height - 1), outline=ink, width=2)
    return shown


def table(result: dict[str, Any]) -> str:
    """The rates as text."""
    lines = []
    if result["counted"]:
        lines.append(f"{'peak of the map':<22} {'view':<26} {'on part':>8} {'centred':>8}")
        for name, views in result["rates"].items():
            for number, (view, rates) in enumerate(views.items()):
                if number and "own" not in name:
                    continue  # of other words the map that a user sees
                label = name if number == 0 else ""
                lines.append(f"{label:<22} {view:<26} {rates['overlaps']:8.3f} {rates['centred']:8.3f}")
        for what, rates in result["chance"].items():
            area = f"(area {result['area'][what]:.3f})"
            label = f"a random cell of the {what}"
            lines.append(f"{label:<32} {area:<16} {rates['overlaps']:8.3f} {rates['centred']:8.3f}")
    lines.append(
        f"{result['counted']} of {result['pictures']} pictures have the part unguided; {result['pairs']} "
        f"held-out pairs x {result['seeds']} seeds, {result['steps']} steps, {result['settings']}"
    )
    return "\n".join(lines)
