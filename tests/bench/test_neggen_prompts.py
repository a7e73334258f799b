"""The lists of prompts: ours, the small models', and any in the authors' format; methods by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vsf_lib.bench.drawing import Method
from vsf_lib.bench.methods import NAMES, method_named, methods_named, usual_methods
from vsf_lib.bench.neggen.keys import digest, fingerprint
from vsf_lib.bench.neggen.prompts import Item, load_items, pair_of
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.errors import SettingsError
from vsf_lib.presets import baseline, preset_for
from vsf_lib.scenes.model import check_words
from vsf_lib.scenes.world import is_held_out

ENTRY = {
    "prompt": "A boat.",
    "missing_element": "oars",
    "question_1": "Is it a boat?",
    "question_2": "Are the oars missing?",
}


def test_our_own_list_is_varied_and_does_not_give_the_element_away() -> None:
    items = load_items("own")
    assert len(items) == len({item.prompt for item in items}) == 30
    assert len({item.missing_element for item in items}) == 30
    for item in items:
        for word in re.findall(r"\w+", item.missing_element.lower()):
            assert not re.search(rf"\b{re.escape(word.rstrip('s'))}s?\b", item.prompt.lower()), item
        assert item.missing_element in item.question_1, item
        assert item.question_2.endswith(f"the {item.missing_element} missing?"), item


def test_the_small_models_list_is_of_what_they_were_not_trained_on() -> None:
    items = load_items("scenes")
    assert len(items) == 30
    for item in items:
        check_words(item.prompt, "prompt")
        check_words(item.missing_element, "missing element")
        pair = pair_of(item)
        assert pair is not None
        assert (pair.prompt, pair.negative_prompt) == (item.prompt, item.missing_element)
        assert is_held_out(pair.kind, pair.colour, pair.place)
        assert pair.prompt in item.question_1
    assert [item.prompt for item in items] == [pair.prompt for pair in make_pairs(30)]


@pytest.mark.parametrize(
    "prompt", ["a blue boat on a beach.", "A blue boat, on a beach", "A blue boat on a beach!"]
)
def test_the_small_models_judge_reads_prompts_as_they_do(prompt: str) -> None:
    check_words(prompt, "prompt")
    pair = pair_of(Item(prompt, "Sail.", "Is it a boat?", "Is the sail missing?"))
    assert (pair is None) == ("," in prompt), "a comma is a word to the models"
    if pair is not None:
        assert (pair.prompt, pair.negative_prompt) == ("a blue boat on a beach", "sail")


def test_a_file_in_the_authors_format(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json.new"
    for content in ([{**ENTRY, "id": 7, "prompt": " A boat. "}, ENTRY], {"prompts": [ENTRY, ENTRY]}):
        file.write_text(json.dumps(content), "utf-8")
        items = load_items(str(file))
        assert [item.prompt for item in items] == ["A boat.", "A boat."]
        assert items[1].question_2 == ENTRY["question_2"]


@pytest.mark.parametrize(
    ("content", "tells"),
    [
        ("nothing", "cannot read"),
        ("[]", "no list"),
        ('"x"', "no list"),
        ("[1]", "entry 1 is 1"),
        (json.dumps([ENTRY, {**ENTRY, "question_2": " "}]), "entry 2 has no question_2"),
        (json.dumps([{"prompt": "a", "missing_element": "b"}]), "entry 1 has no question_1"),
        (json.dumps([{**ENTRY, "missing_element": 3}]), "entry 1 has no missing_element"),
    ],
)
def test_a_wrong_list_is_told_with_the_entry(tmp_path: Path, content: str, tells: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content, "utf-8")
    with pytest.raises(SettingsError, match=tells):
        load_items(str(file))


def test_a_list_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="own or scenes"):
        load_items("not-there.json")


def test_methods_have_their_presets_values() -> None:
    model = "stabilityai/stable-diffusion-3.5-large-turbo"
    found = {method.name: method for method in usual_methods(model)}
    assert tuple(found) == NAMES
    assert found["vsf-strong"].settings == preset_for(model, strong=True).settings()
    assert found["nag-strong"].settings == baseline("nag-strong").settings()
    assert (found["none"].settings.method, found["none"].guidance_scale) == ("off", 1.0)
    assert found["cfg"].guidance_scale > 1


def test_a_method_takes_values_of_its_own() -> None:
    method = method_named("vsf: alpha=2.5 :end=0.5:negative_tokens=all", "scenes")
    expected = preset_for("scenes").settings().changed(alpha=2.5, end=0.5, negative_tokens="all")
    assert method == Method("vsf:alpha=2.5:end=0.5:negative_tokens=all", expected)
    assert method_named("cfg:scale=4.5", "scenes").guidance_scale == 4.5
    assert [method.name for method in methods_named("none, nag:nag_phi=8,", "scenes")] == [
        "none",
        "nag:nag_phi=8",
    ]


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("", "empty"),
        (",", "empty"),
        ("vfs", "there is no method 'vfs'"),
        ("vsf,nag,vsf", "vsf stands twice"),
        ("vsf:alpha", "vsf:alpha=2"),
        ("vsf:alpha=lots", "alpha is 'lots'"),
        ("vsf:alpha=-1", "alpha is '-1'"),
        ("vsf:alhpa=1", "did you mean alpha"),
        ("nag:alpha=1", "nag does not read"),
        ("vsf:method=nag", "does not take"),
        ("vsf:negative_prompt=x", "does not take"),
        ("vsf:hires_pass=first", "does not read"),
        ("none:alpha=1", "does not take"),
        ("cfg:scale=1", "above 1"),
        ("cfg:scale=nan", "above 1"),
        ("cfg:alpha=1", "does not take"),
    ],
)
def test_wrong_methods_are_told(text: str, tells: str) -> None:
    with pytest.raises(SettingsError, match=tells):
        methods_named(text, "scenes")


def test_a_key_is_of_the_content_and_not_of_its_order() -> None:
    assert digest({"a": 1, "b": [1.5, "ü"]}) == digest({"b": [1.5, "ü"], "a": 1})
    assert len({digest(x) for x in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"})}) == 4


def test_a_fingerprint_is_of_the_files_wherever_they_lie(tmp_path: Path) -> None:
    def model(name: str, weights: bytes, config: str = "{}") -> Path:
        folder = tmp_path / name
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(config, "utf-8")
        (folder / "README.md").write_text(name, "utf-8")
        return folder

    big = bytes(range(256)) * 4096 * 8  # 8 MB, of which samples are read
    first = fingerprint(model("a", big))
    assert fingerprint(model("b", big)) == first
    trained = bytes(byte ^ 1 for byte in big)
    others = [
        model("c", trained),
        model("d", big[:-1]),
        model("e", big, '{"x": 1}'),
        model("f", big[:-1] + b"x"),
        model("g", b"x" + big[1:]),
    ]
    assert first not in {fingerprint(folder) for folder in others}
    assert fingerprint(tmp_path / "a" / "part" / "model.safetensors") != fingerprint(
        tmp_path / "c" / "part" / "model.safetensors"
    )
