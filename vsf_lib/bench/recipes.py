"""`bench scenes --recipes`: what each recipe really does on a small model, as a contact sheet and in numbers.

The seeds are those of `generate --recipe NAME --seed 1`, so that each picture of the sheet can be had alone.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vsf_lib.bench.drawing import BATCH, Method, draw_each
from vsf_lib.bench.pairs import Pair
from vsf_lib.bench.results import conditions, write_json, write_whole
from vsf_lib.bench.subject import Subject
from vsf_lib.errors import SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.recipes import RECIPES, SCENES, Example, Recipe
from vsf_lib.scenes.judge import Verdict
from vsf_lib.scenes.world import KINDS
from vsf_lib.settings import Settings
from vsf_lib.strip import Tile, stacked, strip
from vsf_lib.sweep import WITHOUT

_SHOWN = 4
"""Seeds on the sheet."""
_COLUMNS = ("object", "named", "parts", "clean")


def check(args: Namespace) -> None:
    """Raises SettingsError for a flag that recipes have no use for."""
    if args.pairs is not None:
        raise SettingsError("--pairs is not for --recipes, which draws one prompt for each: give --seeds")


def run(args: Namespace, subject: Subject) -> None:
    """Draws every recipe that the small models can show, prints a table and writes the sheet."""
    seeds = range(1, (args.seeds or (_SHOWN if args.quick else BATCH)) + 1)
    rows, sheets = {}, []
    for recipe in (recipe for recipe in RECIPES if SCENES in recipe.examples):
        example = recipe.examples[SCENES]
        settings = preset_for(subject.model).settings(**example.values)
        drawn = {
            name: draw_example(subject.pipe, example, way, seeds=seeds, steps=subject.steps)
            for name, way in ((WITHOUT, Settings(method="off")), ("with", settings))
        }
        rows[recipe.name] = {
            name: measured(example, subject.judge(pictures)) for name, pictures in drawn.items()
        }
        sheets.append(sheet_of(recipe, example, settings, drawn[WITHOUT], drawn["with"]))
    result = {
        "study": "recipes",
        **conditions(subject.model, 1, len(seeds), subject.steps),
        "recipes": rows,
    }
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)
    sheet = stacked(sheets)
    write_whole(
        args.sheet, lambda part: sheet.save(part, format="PNG", optimize=True), "the contact sheet", "--sheet"
    )
    print(f"contact sheet: {args.sheet}")


def draw_example(
    pipe: Any, example: Example, settings: Settings, *, seeds: Sequence[int], steps: int
) -> np.ndarray:
    """Pictures uint8 `[len(seeds), 64, 64, 3]`."""
    pair = Pair(example.prompt, example.negative_prompt, "", "", "", None)
    return draw_each(pipe, [(pair, seed) for seed in seeds], Method("recipe", settings), steps=steps)


def measured(example: Example, verdicts: Sequence[Verdict]) -> dict[str, float]:
    """What the judge sees: shares of pictures with the prompt's object, with what the negative prompt names,
    and drawn cleanly; how many parts a picture has."""
    kind = next(word for word in example.prompt.split() if word in KINDS)
    rows = [
        (
            seen.kind == kind,
            example.negative_prompt in {seen.kind, seen.colour, seen.place, *seen.parts},
            len(seen.parts),
            seen.clean,
        )
        for seen in verdicts
    ]
    means = np.array(rows, dtype=float).mean(0).tolist()
    return {name: round(mean, 3) for name, mean in zip(_COLUMNS, means, strict=True)}


def table(result: dict[str, Any]) -> str:
    """The numbers as text: without > with."""
    lines = [f"{'recipe':<16}" + "".join(f" {name:>12}" for name in _COLUMNS)]
    for name, row in result["recipes"].items():
        cells = (f"{row[WITHOUT][column]:.2f} > {row['with'][column]:.2f}" for column in _COLUMNS)
        lines.append(f"{name:<16}" + "".join(f" {cell:>12}" for cell in cells))
    lines.append(
        f"{result['model']}: without > with the negative prompt; one prompt a recipe, {result['seeds']} "
        f"seeds, {result['steps']} steps; torch {result['versions']['torch']}, diffusers "
        f"{result['versions']['diffusers']}"
    )
    return "\n".join(lines)


def sheet_of(
    recipe: Recipe, example: Example, settings: Settings, without: np.ndarray, guided: np.ndarray
) -> Image.Image:
    """One recipe's part of the sheet: its title, and a row of pairs."""
    tiles = []
    for seed, (one, other) in enumerate(zip(without[:_SHOWN], guided[:_SHOWN], strict=True), start=1):
        tiles.append(Tile(Image.fromarray(one), f"seed {seed}, {WITHOUT}", plain=True))
        tiles.append(Tile(Image.fromarray(other), f"seed {seed}, with"))
    values = Method(recipe.name, settings).describe()
    title = f"{recipe.name}: {recipe.summary}\n{example.prompt} / not: {example.negative_prompt} ({values})"
    return strip(tiles, columns=2 * _SHOWN, title=title)
