"""`bench scenes --pointing` with an untrained model, and judges and finders that say what they are told."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vsf_lib.bench.drawing import Method, draw
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.pointing import PROBE_BETA, Pointing, controls, table
from vsf_lib.bench.scenes import add_arguments, run
from vsf_lib.scenes.finder import CHANNELS
from vsf_lib.scenes.judge import Verdict
from vsf_lib.scenes.world import KINDS, PARTS
from vsf_lib.settings import Settings

VSF = Settings(alpha=2.0, beta=1.0, negative_tokens="words")
PAIRS = 3


class Finder:
    """Finds every part but those named in the upper left quarter, and the object in the upper half."""

    def __init__(self, *missing: str) -> None:
        self._missing = missing

    def masks(self, images: np.ndarray) -> np.ndarray:
        masks = np.zeros((len(images), len(CHANNELS), 64, 64), bool)
        masks[:, : len(PARTS), :32, :32] = True
        masks[:, -1, :32] = True
        for part in self._missing:
            masks[:, PARTS.index(part)] = False
        return masks


def everything(images: np.ndarray) -> list[Verdict]:
    return [Verdict("car", "red", "field", frozenset(PARTS), True, 1.0) for _ in images]


def nothing(images: np.ndarray) -> list[Verdict]:
    return [Verdict("car", "red", "field", frozenset(), True, 1.0) for _ in images]


def pointing(untrained: Any, judge: Any, finder: Any) -> Pointing:
    return Pointing(untrained, judge, finder, VSF, steps=2, pairs=PAIRS, seeds=1)


def test_rates_are_those_of_the_recorded_shares(untrained: Any) -> None:
    result, sheet = pointing(untrained, everything, Finder()).measure()
    assert (result["pictures"], result["counted"]) == (PAIRS, PAIRS)
    assert json.loads(json.dumps(result)) == result
    for mode, settings in (("guided", VSF), ("probe", VSF.changed(beta=PROBE_BETA))):
        reports: list[Any] = []
        draw(untrained, make_pairs(PAIRS), Method("x", settings), seeds=(1,), steps=2, reports=reports)
        (report,) = reports
        views = result["rates"][f"{mode}, own word"]
        assert list(views)[:3] == ["mean", "first step", "last step"]
        assert len(views) == 3 + len(report.layers)

        def rate(share: Any) -> float:
            """Of peaks in the upper left quarter: token 8 r + c with r and c below 4."""
            peaks = share.argmax(-1).tolist()
            return round(sum(p // 8 < 4 and p % 8 < 4 for p in peaks) / PAIRS, 4)

        assert views["mean"]["overlaps"] == rate(report.share.double().mean(0))
        assert views["first step"]["overlaps"] == rate(report.share.double()[0])
        assert views["last step"]["overlaps"] == rate(report.share.double()[-1])
        for number, name in enumerate(report.layers):
            view = views[name.removesuffix(".attn")]
            assert view["overlaps"] == rate(report.layer_share.double()[:, number].mean(0))
    assert result["chance"] == {
        "picture": {"overlaps": 0.25, "centred": 0.25},
        "object": {"overlaps": 0.5, "centred": 0.5},
    }
    assert result["area"] == {"picture": 0.25, "object": 0.5}
    assert sum(part["count"] for part in result["parts"].values()) == PAIRS
    assert sheet is not None
    assert len(sheet.titles) == PAIRS
    assert {pictures.shape[0] for _, pictures in sheet.rows} == {PAIRS}


def test_the_probe_leaves_the_pictures_alone(untrained: Any) -> None:
    strong = VSF.changed(alpha=100, beta=0)
    result, _ = Pointing(untrained, everything, Finder(), strong, steps=2, pairs=PAIRS, seeds=1).measure()

    def drawn(settings: Settings) -> np.ndarray:
        return draw(untrained, make_pairs(PAIRS), Method("x", settings), seeds=(1,), steps=2).astype(int)

    plain, probe = drawn(Settings(method="off")), drawn(strong.changed(beta=PROBE_BETA))
    change = np.abs(probe - plain).max()
    assert result["probe_changes_by_at_most"] == change
    assert change <= 2, "linear layers that see more rows round otherwise"
    assert np.abs(drawn(strong) - plain).max() > 10


def test_recording_changes_no_picture(untrained: Any) -> None:
    pairs = make_pairs(2)
    reports: list[Any] = []
    recorded = draw(untrained, pairs, Method("x", VSF), seeds=(1,), steps=2, reports=reports)
    assert np.array_equal(recorded, draw(untrained, pairs, Method("x", VSF), seeds=(1,), steps=2))
    assert reports[0].layer_share is not None


def test_only_pictures_in_which_both_see_the_part_count(untrained: Any) -> None:
    none, sheet = pointing(untrained, nothing, Finder()).measure()
    assert (none["counted"], sheet) == (0, None)
    assert "0 of 3 pictures" in table(none)
    first = make_pairs(PAIRS)[0].negative_prompt
    same = sum(pair.negative_prompt == first for pair in make_pairs(PAIRS))
    some, sheet = pointing(untrained, everything, Finder(first)).measure()
    assert some["counted"] == PAIRS - same
    assert first not in some["parts"]


def test_controls_name_other_parts() -> None:
    pairs = make_pairs(60)
    others = controls(pairs)
    assert others == controls(pairs)
    for name, own in (("sibling", True), ("stranger", False)):
        for pair, other in zip(pairs, others[name], strict=True):
            assert other.prompt == pair.prompt
            assert other.negative_prompt != pair.negative_prompt
            assert (other.negative_prompt in KINDS[pair.kind]) == own
    assert len({other.negative_prompt for other in others["stranger"]}) > 10


def test_command_writes_json_and_sheet(
    untrained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsf_lib.scenes import finder, judge

    monkeypatch.setattr(judge.Judge, "load", classmethod(lambda cls: everything))
    monkeypatch.setattr(finder.Finder, "load", classmethod(lambda cls: Finder()))
    untrained.save_pretrained(tmp_path / "model")
    target, sheet = tmp_path / "pointing.json", tmp_path / "pointing.png"
    parser = ArgumentParser()
    add_arguments(parser)
    words = ("--pointing", "--pairs", "2", "--seeds", "1", "--steps", "1", "--model", str(tmp_path / "model"))
    assert run(parser.parse_args([*words, "--json", str(target), "--sheet", str(sheet)])) == 0
    result = json.loads(target.read_text("utf-8"))
    assert (result["model"], result["counted"]) == ("scenes", 2)
    out = capsys.readouterr().out
    for line in ("guided, own word", "probe, sibling word", "a random cell of the object", str(sheet)):
        assert line in out
    with Image.open(sheet) as image:
        assert image.width > 2 * 128
