"""The benchmark with an untrained model: what a picture depends on, the numbers' shape, the sheet."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vsf_lib.bench.drawing import BATCH, Method, draw, score
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.scenes import Bench, add_arguments, run, table
from vsf_lib.bench.sheet import write_sheet
from vsf_lib.errors import ModelError, OutputError, SettingsError
from vsf_lib.scenes.judge import Judge, JudgeNet, Verdict
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.settings import Settings

METHODS = {"none", "vsf", "vsf-strong", "difference", "nag", "nag-strong", "nasa", "cfg"}


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet())


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the rounding of sums that a batch of another size adds up in another order."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 2)


@pytest.mark.parametrize(
    "method",
    [
        Method("none", Settings(method="off")),
        Method("vsf", Settings(alpha=1.0)),
        Method("nag", Settings(method="nag")),
        Method("nasa", Settings(method="nasa")),
        Method("cfg", Settings(method="off"), guidance_scale=3.0),
    ],
    ids=lambda method: method.name,
)
def test_a_picture_depends_on_its_own_seed_and_prompts_only(untrained: Any, method: Method) -> None:
    pairs = make_pairs(3)
    all_of_them = draw(untrained, pairs, method, seeds=(1, 2), steps=1)
    assert all_of_them.shape == (6, 64, 64, 3)
    assert all_of_them.dtype == np.uint8
    first = draw(untrained, pairs[:1], method, seeds=(1,), steps=1)
    assert close(all_of_them[0], first[0])
    assert not close(all_of_them[3], first[0]), "the second seed"
    assert not close(all_of_them[1], first[0]), "the second pair"


def test_guidance_reaches_the_pictures(untrained: Any) -> None:
    pairs = make_pairs(1)
    none = draw(untrained, pairs, Method("none", Settings(method="off")), seeds=(1,), steps=1)
    for settings in (Settings(alpha=4.0), Settings(method="nag"), Settings(method="nasa", nasa_alpha=1.0)):
        guided = draw(untrained, pairs, Method("x", settings), seeds=(1,), steps=1)
        assert not np.array_equal(none, guided), settings.method


def test_more_pictures_than_a_batch_keep_their_order(untrained: Any) -> None:
    pairs = make_pairs(BATCH + 1)
    off = Method("none", Settings(method="off"))
    last = draw(untrained, pairs, off, seeds=(1,), steps=1)[BATCH]
    # The seed counts from the pair's place, so the pair alone gets the seed of the first.
    assert not close(last, draw(untrained, pairs[BATCH:], off, seeds=(1,), steps=1)[0])
    assert close(last, draw(untrained, [pairs[0]] * BATCH + pairs[BATCH:], off, seeds=(1,), steps=1)[BATCH])


def test_score_is_the_shares_in_the_order_of_draw() -> None:
    pairs = make_pairs(2)

    def seen(index: int, **changes: Any) -> Verdict:
        pair = pairs[index]
        parts = frozenset({pair.asked} if pair.asked else ())
        values = {"kind": pair.kind, "colour": pair.colour, "place": pair.place, "parts": parts}
        return Verdict(**{**values, "clean": True, "clean_probability": 1.0, **changes})

    kept = {pairs[1].negative_prompt, pairs[1].asked} - {None}
    verdicts = [seen(0), seen(1, parts=frozenset(kept)), seen(0, clean=False), seen(1, kind="nothing")]
    result = score(lambda pictures: verdicts, pairs, np.zeros((4, 64, 64, 3)))  # type: ignore[arg-type]
    assert (result.positive, result.negative, result.quality, result.count) == (0.75, 0.75, 0.75, 4)
    assert result.as_json() == {"positive": 0.75, "negative": 0.75, "quality": 0.75}


def test_compare_without_sweeps(untrained: Any, judge: Judge) -> None:
    result, rows, titles = Bench(untrained, judge, steps=1, pairs=2, seeds=1, sweeps=False).compare()
    assert json.loads(json.dumps(result)) == result
    assert set(result["methods"]) == METHODS
    for row in result["methods"].values():
        assert set(row) == {"positive", "negative", "quality", "values"}
        assert all(0 <= row[name] <= 1 for name in ("positive", "negative", "quality"))
    assert (result["pairs"], result["seeds"], result["steps"]) == (2, 1, 1)
    assert "alpha_at_removal" not in result
    assert [name for name, _ in rows] == list(result["methods"])
    assert all(pictures.shape == (2, 64, 64, 3) for _, pictures in rows)
    assert titles == [f"{p.prompt}\nnot {p.negative_prompt}" for p in make_pairs(2)]
    lines = table(result).splitlines()
    assert [line.split()[0] for line in lines[1:9]] == list(result["methods"])


def test_sweeps_choose_among_their_candidates(untrained: Any, judge: Judge) -> None:
    bench = Bench(untrained, judge, steps=1, pairs=1, seeds=1, sweeps=True, tuning=1)
    result, _, _ = bench.compare()
    assert set(result["alpha_at_removal"]) == {"50%", "90%"}
    assert set(result["sweeps"]) == {"nag", "nasa", "cfg", "vsf", "difference"}
    for name in ("nag", "nasa", "cfg"):
        assert result["methods"][name]["values"] in [entry["values"] for entry in result["sweeps"][name]]
    assert set(result["methods"]) == METHODS | {"vsf-paper", "vsf-kept", "difference-kept"}
    assert "words" not in result["methods"]["vsf-paper"]["values"]
    assert "VSF alpha at 50% removal" in table(result)


def test_sheet_shows_every_picture(tmp_path: Path) -> None:
    rows = [(name, np.full((2, 64, 64, 3), value, np.uint8)) for name, value in (("none", 10), ("vsf", 200))]
    file = tmp_path / "new" / "sheet.png"
    write_sheet(file, rows, ["one\nnot wheels", "two\nnot roof"])
    with Image.open(file) as image:
        pixels = np.asarray(image)
    for value in (10, 200):
        assert (pixels == value).all(2).sum() >= 2 * 128 * 128


def test_sheet_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="contact sheet"):
        write_sheet(tmp_path / "file" / "sheet.png", [("none", np.zeros((1, 64, 64, 3), np.uint8))], ["a"])


def call(*words: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_command_writes_json_and_sheet(
    untrained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped judge and a folder of the untrained model."""
    untrained.save_pretrained(tmp_path / "model")
    target, sheet = tmp_path / "deep" / "result.json", tmp_path / "sheet.png"
    words = ("--quick", "--pairs", "1", "--seeds", "1", "--steps", "1", "--model", str(tmp_path / "model"))
    assert call(*words, "--json", str(target), "--sheet", str(sheet)) == 0
    result = json.loads(target.read_text("utf-8"))
    assert set(result["methods"]) == METHODS
    assert sheet.is_file()
    out = capsys.readouterr().out
    assert "vsf-strong" in out
    assert out.rstrip().endswith(str(sheet))


@pytest.mark.parametrize("option", ["--steps", "--pairs", "--seeds"])
def test_counts_below_one_are_refused(option: str) -> None:
    with pytest.raises(SettingsError, match=option):
        call(option, "0")


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="scenes train"):
        load_pipeline(tmp_path)
