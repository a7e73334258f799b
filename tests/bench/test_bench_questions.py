"""`--questions` with untrained models: what is asked of which, and how arms are compared."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vsf_lib.bench.asked import Question, questions_for
from vsf_lib.bench.bootstrap import Bootstrap
from vsf_lib.bench.lines import vsf_line
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.questions import PAIRS_SEED, _answer, answer, table
from vsf_lib.bench.scenes import add_arguments, run
from vsf_lib.bench.subject import Subject, load_subject
from vsf_lib.bench.tracing import Curve
from vsf_lib.errors import SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.scenes.judge import Judge, JudgeNet
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.training import flux
from vsf_lib.settings import Settings

LIKE = preset_for("scenes").settings()


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet())


@pytest.fixture(scope="module")
def small_flux(tmp_path_factory: pytest.TempPathFactory, untrained: Any) -> Any:
    """A Flux pipeline around a random transformer, with all else from the SD3.5 one."""
    shared, folder = (tmp_path_factory.mktemp(name) for name in ("shared", "flux"))
    untrained.save_pretrained(shared)
    torch.manual_seed(7)
    transformer = flux.build(guidance=False, double=1, single=1)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    transformer.save_pretrained(folder)
    return load_pipeline(folder, shared)


@pytest.mark.parametrize(
    ("folder", "name", "steps"), [("model", "scenes", 8), ("flux-schnell", "flux-schnell", 4)]
)
def test_a_folder_is_of_the_kind_that_its_name_says(
    untrained: Any, tmp_path: Path, folder: str, name: str, steps: int
) -> None:
    """Whose presets and steps its benchmark then takes."""
    untrained.save_pretrained(tmp_path / folder)
    subject = load_subject(str(tmp_path / folder), None)
    assert (subject.model, subject.steps) == (name, steps)
    assert load_subject(str(tmp_path / folder), 3).steps == 3


def test_what_is_asked_of_every_model(untrained: Any) -> None:
    asked = questions_for(untrained, LIKE, ["wheels", "roof"], two_kinds=False)
    arms = {question.title: [arm.name for arm in question.arms] for question in asked}
    assert list(map(len, arms.values())) == [5, 4, 5, 4, 4]
    betas = [arm.method(1.0).settings.beta for arm in asked[0].arms]
    assert betas == [0.0, 0.25, 0.5, 1.0, 2.0]
    windows = {(s.start, s.end) for s in (arm.method(1.0).settings for arm in asked[1].arms)}
    assert windows == {(0, 1), (0, 0.5), (0.25, 1), (0.5, 1)}
    formulas = [arm.method(1.0) for arm in asked[2].arms]
    assert [method.settings.method for method in formulas] == ["vsf", "difference", "vsf", "vsf", "vsf"]
    assert len({method.form for method in formulas}) == 4
    for question, tokens in zip(asked[3:], ("all", "words"), strict=True):
        assert {arm.method(1.0).settings.negative_tokens for arm in question.arms} == {tokens}
        assert [bool(arm.method(1.0).encode) for arm in question.arms] == [False, False, True, True]
        assert question.arms[1].method(1.0).form is not None


def test_what_is_asked_of_flux_beside_that(small_flux: Any) -> None:
    like = preset_for("flux-schnell").settings()
    asked = questions_for(small_flux, like, ["wheels"], two_kinds=True)
    assert len(asked) == 7
    assert [arm.method(1.0).settings.blocks for arm in asked[0].arms] == ["both", "double"]
    moved = {
        (s.negative_scale, s.pooled_shift, s.blocks)
        for s in (arm.method(1.0).settings for arm in asked[1].arms)
    }
    assert moved == {(a, b, c) for a in (0, 2, 8) for b in (0, 0.1) for c in ("both", "double")}


def arm_of(alphas: list[float], gone: list[int], kept: list[int], name: str) -> Curve:
    """Ten pairs, of which so many lose the part, keep the prompt, and are clean like the prompt is kept."""
    table = np.zeros((len(alphas), 10, 3))
    for i, (lost, left) in enumerate(zip(gone, kept, strict=True)):
        table[i, :lost, 1] = 1
        table[i, :left, 0] = table[i, :left, 2] = 1
    return Curve(vsf_line(name, "vsf", Settings()), np.array(alphas), table)


def test_arms_are_compared_where_they_remove_as_much() -> None:
    """The second needs four times the alpha and then keeps one more prompt of ten."""
    first = arm_of([1.0, 4.0], [2, 8], [10, 6], "first")
    second = arm_of([4.0, 16.0], [2, 8], [10, 8], "second")
    question = Question("which", (first.line, second.line))
    found = _answer(question, [first, second], Bootstrap(10))
    one, other = (arm["at_removal"]["0.5"] for arm in found["arms"])
    assert one["alpha"][0] == pytest.approx(2.0)
    assert other["alpha"][0] == pytest.approx(8.0)
    assert one["positive"][0] == pytest.approx(0.8)
    assert other["positive"][0] == pytest.approx(0.9)
    assert one["positive_gain"] == [0.0, 0.0, 0.0]
    assert other["positive_gain"][0] == other["quality_gain"][0] == pytest.approx(0.1)
    low, high = other["positive_gain"][1:]
    assert low <= 0.1 <= high
    # Paired: no resample can show the second to be worse, which their separate bands would allow.
    assert low >= 0
    assert other["positive"][1] < one["positive"][2]
    far = found["arms"][0]["at_removal"]["0.7"]
    assert far["alpha"][0] == pytest.approx(4 ** (5 / 6))
    assert found["arms"][1]["best"]["positive"] == pytest.approx(0.9)
    assert "second" in table(
        {
            "questions": [found],
            "model": "scenes",
            "pairs": 10,
            "seeds": 1,
            "steps": 8,
            "versions": {"torch": "2", "diffusers": "0"},
            "bands": "bootstrap",
        }
    )


def test_an_arm_that_never_removes_as_much_says_so() -> None:
    first, weak = arm_of([1.0, 4.0], [2, 8], [10, 6], "first"), arm_of([1.0, 4.0], [2, 3], [10, 9], "weak")
    found = _answer(Question("which", (first.line, weak.line)), [first, weak], Bootstrap(10))
    matched = found["arms"][1]["at_removal"]["0.5"]
    assert matched["alpha"][0] is None
    assert matched["positive_gain"][0] is None
    assert found["arms"][1]["usable"]["alphas"] == [None, None]


def call(*words: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_command_writes_numbers(
    untrained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsf_lib.bench.lines.ALPHAS", (1.0,))
    untrained.save_pretrained(tmp_path / "model")
    file = tmp_path / "questions.json"
    words = ("--questions", "--quick", "--pairs", "1", "--steps", "4", "--model", str(tmp_path / "model"))
    assert call(*words, "--json", str(file)) == 0
    result = json.loads(file.read_text("utf-8"))
    assert result["held_out"] is False
    assert {"torch", "diffusers"} <= set(result["versions"])
    out = capsys.readouterr().out
    assert "1 tuning pairs (not held out) x 1 seeds" in out
    for question in result["questions"]:
        assert question["title"] in out
        for arm in question["arms"]:
            assert arm["name"] in out
            assert len(arm["points"]) == 1
            assert set(arm["at_removal"]) == {"0.5", "0.7"}


def test_flux_answers_its_own_questions(small_flux: Any, judge: Judge, monkeypatch: Any) -> None:
    """Each arm at one alpha, on one pair."""
    monkeypatch.setattr("vsf_lib.bench.lines.ALPHAS", (1.0,))
    subject = Subject(small_flux, judge, "flux-schnell", 4)
    assert subject.two_kinds
    result = answer(subject, pairs=1, seeds=1, rounds=0)
    assert len(result["questions"]) == 7
    assert json.loads(json.dumps(result)) == result
    assert "lambda 8, pooled shift 0.1, double" in table(result)


def test_too_few_steps_to_divide_are_refused() -> None:
    with pytest.raises(SettingsError, match="--steps is 3"):
        call("--questions", "--steps", "3")


def test_tuning_pairs_are_not_the_benchmarks() -> None:
    tuning = make_pairs(120, held_out=False, seed=PAIRS_SEED)
    assert not {pair.prompt for pair in tuning} & {pair.prompt for pair in make_pairs()}


def test_arms_can_be_told_apart(untrained: Any) -> None:
    """No two arms of a question draw the same."""
    for question in questions_for(untrained, LIKE, ["wheels"], two_kinds=False):
        methods = {replace(arm.method(1.0), name="") for arm in question.arms}
        assert len(methods) == len(question.arms), question.title
