"""`bench scenes --recipes`: what is measured, and that the sheet has every recipe."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vsf_lib.bench.recipes import draw_example, measured, table
from vsf_lib.bench.scenes import add_arguments, run
from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.recipes import RECIPES, SCENES, Example
from vsf_lib.scenes.judge import Verdict
from vsf_lib.settings import Settings

SHOWN = [recipe for recipe in RECIPES if SCENES in recipe.examples]


def call(*words: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def seen(**changes: Any) -> Verdict:
    values = {"kind": "car", "colour": "red", "place": "field", "parts": frozenset({"wheels", "windows"})}
    return Verdict(**{**values, "clean": True, "clean_probability": 1.0, **changes})


def test_shares_of_what_the_judge_sees() -> None:
    verdicts = [
        seen(),
        seen(parts=frozenset()),
        seen(kind="boat", clean=False),
        seen(parts=frozenset({"wheels"})),
    ]
    row = measured(Example("a red car on a field", "wheels"), verdicts)
    assert row == {"object": 0.75, "named": 0.75, "parts": 1.25, "clean": 0.75}
    assert measured(Example("a red car", "car"), verdicts)["named"] == 0.75
    assert measured(Example("a car", "field"), [seen(), seen(place="snow")])["named"] == 0.5
    assert measured(Example("a car", "red"), [seen(), seen(colour="blue")])["named"] == 0.5


def test_seeds_are_those_of_generate(untrained: Any) -> None:
    example = Example("a red car", "wheels")
    off = draw_example(untrained, example, Settings(method="off"), seeds=(1, 2), steps=1)
    alone = untrained(
        "a red car",
        num_inference_steps=1,
        guidance_scale=1.0,
        height=64,
        width=64,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(2),
        output_type="np",
    ).images[0]
    assert np.abs((alone * 255).round() - off[1]).max() <= 2
    assert np.abs((alone * 255).round() - off[0]).max() > 2
    guided = draw_example(untrained, example, preset_for("scenes").settings(alpha=20), seeds=(1, 2), steps=1)
    assert not np.array_equal(guided, off), "the example's negative prompt guides"


def test_command_writes_numbers_and_a_sheet(
    untrained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained.save_pretrained(tmp_path / "model")
    sheet, target = tmp_path / "deep" / "sheet.png", tmp_path / "result.json"
    words = ("--recipes", "--quick", "--steps", "1", "--model", str(tmp_path / "model"))
    assert call(*words, "--sheet", str(sheet), "--json", str(target)) == 0
    result = json.loads(target.read_text("utf-8"))
    assert list(result["recipes"]) == [recipe.name for recipe in SHOWN]
    assert (result["seeds"], result["steps"]) == (4, 1)
    out = capsys.readouterr().out
    assert table(result) in out
    for recipe in SHOWN:
        assert f"\n{recipe.name} " in out
    with Image.open(sheet) as image:
        assert image.width == 8 * 136 + 8
        assert image.height > len(SHOWN) * 128
    assert sorted(path.name for path in sheet.parent.iterdir()) == ["sheet.png"]


def test_pairs_are_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(SettingsError, match="give --seeds"):
        call("--recipes", "--pairs", "3", "--model", "nowhere")


def test_a_sheet_that_cannot_be_written_is_known_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="--sheet"):
        call("--recipes", "--sheet", str(tmp_path / "file" / "sheet.png"))
