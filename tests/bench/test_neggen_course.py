"""The whole command with the small built-in model: what is kept, gone on with, asked again, and told."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vsf_lib.bench.neggen import work
from vsf_lib.bench.neggen.asking import scaled
from vsf_lib.bench.neggen.prompts import load_items
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.cli import INTERRUPTED, main
from vsf_lib.metadata import parse_parameters, read_png
from vsf_lib.scenes.judge import Judge

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["vsf", "nag:nag_phi=8", "none", "cfg"]
SMALL = ("--limit", "2", "--seeds", "2", "--steps", "2", "--methods", ",".join(METHODS))
PICTURES = 2 * 2 * len(METHODS)
KEY = "sk-test-9876543210-secret"


class Bench:
    """Calls the command in a folder of its own, and counts what it draws and asks."""

    def __init__(self, capsys: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder
        self.drawn = self.asked = 0
        self.stop: Callable[[], None] = lambda: None
        draw, ask = work.draw, work.ask

        def counted_draw(*args: Any) -> bytes:
            self.stop()
            self.drawn += 1
            return draw(*args)

        def counted_ask(*args: Any) -> Any:
            self.stop()
            self.asked += 1
            return ask(*args)

        monkeypatch.setattr(work, "draw", counted_draw)
        monkeypatch.setattr(work, "ask", counted_ask)
        monkeypatch.setattr("vsf_lib.bench.neggen.endpoint.time.sleep", lambda _: None)
        monkeypatch.setattr("vsf_lib.cli.console._PATIENCE", float("inf"))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.drawn = self.asked = 0
        self._capsys.readouterr()
        code = main(["bench", "neggen", "--out", str(self.folder), *words])
        out, err = self._capsys.readouterr()
        return code, out, err

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.folder / "results.json").read_text("utf-8"))

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def bench(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(capsys, monkeypatch, tmp_path / "Ergebnisse ü")


def test_a_whole_run_and_the_same_again(bench: Bench, tmp_path: Path) -> None:
    code, out, err = bench(*SMALL, "--json", str(tmp_path / "x.json"))
    assert code == 0, err
    assert (bench.drawn, bench.asked) == (PICTURES, PICTURES)
    found = bench.results
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == found
    items = load_items("scenes")[:2]
    assert [(p["seed"], p["prompt"], p["method"]) for p in found["pictures"]] == [
        (seed, item.prompt, method) for seed in (0, 1) for item in items for method in METHODS
    ]
    # What every picture says of itself, and what the judge says of it, against the judge called here.
    judge, pairs = Judge.load(), {(p.prompt, p.negative_prompt): p for p in make_pairs(30)}
    for row in found["pictures"]:
        path = bench.folder / "pictures" / row["picture"]
        told = parse_parameters(read_png(path))
        assert (told.prompt, told.seed, told.steps) == (row["prompt"], row["seed"], 2)
        if row["method"] in ("none", "cfg"):
            assert told.settings is None
            assert told.negative_prompt == (row["missing_element"] if row["method"] == "cfg" else "")
            assert told.cfg_scale == (3.0 if row["method"] == "cfg" else 1.0)
        else:
            assert told.settings is not None
            assert told.settings.method == row["method"].split(":")[0]
            assert told.settings.negative_prompt == row["missing_element"]
        pair = pairs[row["prompt"], row["missing_element"]]
        with Image.open(path) as image:
            verdict = judge(np.asarray(image.convert("RGB"))[None])[0]
        expected = [pair.positive(verdict), pair.negative(verdict), verdict.clean]
        assert [row["positive"], row["negative"], row["quality"]] == [float(x) for x in expected]
    for method in METHODS:
        rows = [row for row in found["pictures"] if row["method"] == method]
        for question in ("positive", "negative", "quality"):
            mean = sum(row[question] for row in rows) / len(rows)
            assert found["methods"][method][question][0] == pytest.approx(mean, abs=6e-5)
    assert f"{METHODS[1]}  " in out
    assert "less vsf, on the same prompts and seeds" in out
    before = bench.files()
    code, again, err = bench(*SMALL)
    assert (code, bench.drawn, bench.asked) == (0, 0, 0)
    assert again == out
    assert err == ""
    assert bench.files() == before


def test_the_pictures_are_those_that_generate_draws(bench: Bench, tmp_path: Path) -> None:
    assert bench("--limit", "1", "--seeds", "2", "--steps", "2", "--methods", "vsf")[0] == 0
    row = bench.results["pictures"][1]
    words = ("--prompt", row["prompt"], "--negative-prompt", row["missing_element"])
    assert main(["generate", *words, "--steps", "2", "--seed", "1", "--out", str(tmp_path / "x.png")]) == 0
    ours = bench.folder / "pictures" / row["picture"]
    assert ours.read_bytes() == (tmp_path / "x.png").read_bytes()


def test_what_is_there_already_is_used_by_longer_runs_and_other_orders(bench: Bench) -> None:
    assert bench(*SMALL)[0] == 0
    first = bench.results
    order = ("--methods", ",".join([*METHODS[::-1], "nasa"]))
    assert bench(*SMALL[:-2], *order, "--limit", "3")[0] == 0
    assert bench.drawn == bench.asked == 2 * 3 * 5 - PICTURES
    rows = {(r["prompt"], r["method"], r["seed"]): r for r in bench.results["pictures"]}
    assert all(rows[r["prompt"], r["method"], r["seed"]] == r for r in first["pictures"])
    kept = next(d for d in bench.results["differences"] if (d["method"], d["less"]) == ("vsf", "cfg"))
    assert kept["positive"][0] is not None


@pytest.mark.parametrize(
    "changed",
    [
        ("--steps", "3"),
        ("--methods", "vsf:alpha=2.9"),
        ("--methods", "vsf:end=0.5"),
        ("--dtype", "bfloat16"),
        ("--model", "flux-schnell"),
    ],
)
def test_changed_settings_use_nothing_of_before(bench: Bench, changed: tuple[str, ...]) -> None:
    words = ("--limit", "1", "--seeds", "1", "--steps", "2", "--methods", "vsf")
    assert bench(*words)[0] == 0
    assert bench(*words, *changed)[0] == 0
    assert bench.drawn == 1


def test_other_weights_use_nothing_of_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--limit", "1", "--seeds", "1", "--steps", "2", "--methods", "vsf")
    assert bench(*words)[0] == 0
    monkeypatch.setattr("vsf_lib.images.model.Model.fingerprint", lambda self: "trained again")
    work._artist.cache_clear()
    assert bench(*words)[0] == 0
    assert bench.drawn == 1
    work._artist.cache_clear()


def test_a_run_that_breaks_off_anywhere_goes_on_there(bench: Bench) -> None:
    """Interrupted before every piece of work by turns: in the end each was done once."""
    words = ("--limit", "1", "--seeds", "2", "--steps", "1", "--methods", "vsf,none")
    total = 0
    for turn in range(20):
        state = {"left": 1 + turn % 2}

        def stop(state: dict[str, int] = state) -> None:
            if not state["left"]:
                raise KeyboardInterrupt
            state["left"] -= 1

        bench.stop = stop
        code, _, err = bench(*words)
        total += bench.drawn + bench.asked
        if code == 0:
            break
        assert code == INTERRUPTED
        assert f"is kept in {bench.folder}: the same command goes on from there" in err
        assert not list(bench.folder.rglob("*.part"))
    else:
        pytest.fail("it does not come to an end")
    assert total == 8
    assert turn > 3


def test_a_damaged_picture_or_answer_is_made_again(bench: Bench) -> None:
    words = ("--limit", "1", "--seeds", "1", "--steps", "2", "--methods", "vsf,none")
    assert bench(*words)[0] == 0
    before = bench.files()
    pictures = sorted((bench.folder / "pictures").iterdir())
    answers = sorted((bench.folder / "answers").iterdir())
    pictures[0].write_bytes(pictures[0].read_bytes()[:-20])
    answers[0].write_bytes(b'{"positive": tr')
    answers[1].write_text("[]", "utf-8")
    assert bench(*words)[0] == 0
    assert (bench.drawn, bench.asked) == (1, 2)
    assert bench.files() == before


def test_a_killed_process_loses_nothing_that_was_there(bench: Bench) -> None:
    """The real thing: SIGKILL in the middle of drawing, then the same command again."""
    words = ("--limit", "6", "--seeds", "2", "--steps", "4", "--methods", "vsf,none")
    command = [sys.executable, "-m", "vsf_lib", "bench", "neggen", "--out", str(bench.folder), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(list(bench.folder.glob("pictures/*.png"))) < 3 and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it was done before it could be killed"
    finally:
        process.kill()
        process.wait()
    kept = {path: path.read_bytes() for path in bench.folder.glob("pictures/*.png")}
    assert 3 <= len(kept) < 24
    assert bench(*words)[0] == 0
    assert bench.drawn == 24 - len(kept)
    assert all(path.read_bytes() == content for path, content in kept.items())


class Eyes:
    """A scripted judge that answers by the picture, and not at all to some of them."""

    def __init__(self, said: Any) -> None:
        self._said = said
        self.unread: set[str] = set()
        self.seen: dict[str, dict[str, Any]] = {}

    def __call__(self, number: int, asked: dict[str, Any]) -> Any:
        url = asked["messages"][0]["content"][1]["image_url"]["url"]
        digest = hashlib.sha256(url.encode()).digest()
        answer = {
            "answer_1": bool(digest[0] & 1),
            "answer_2": bool(digest[1] & 1),
            "quality": digest[2] % 11 / 10,
        }
        self.seen[url] = answer
        if digest[3] % 4 == 0 and not self.unread:
            self.unread.add(url)
        return self._said(text="No comment." if url in self.unread else json.dumps(answer))


def remote(endpoint: Any, *more: str) -> tuple[str, ...]:
    return ("--judge", endpoint.address, "--judge-model", "m", *more)


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_run_with_an_endpoint(
    bench: Bench, endpoint: Any, said: Any, monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.script = eyes = Eyes(said)
    code, out, err = bench(*SMALL, *remote(endpoint, "--judge-jobs", jobs))
    assert code == 0, err
    unread = [p for p in bench.results["pictures"] if p["positive"] is None]
    assert len(unread) == len(eyes.unread)
    assert len(endpoint.asked) == PICTURES + 2 * len(unread), "what cannot be read is asked three times"
    for row in bench.results["pictures"]:
        shown = scaled((bench.folder / "pictures" / row["picture"]).read_bytes())
        url = next(url for url in eyes.seen if url.endswith(base64.b64encode(shown).decode()))
        answer = eyes.seen[url] if url not in eyes.unread else dict.fromkeys(eyes.seen[url])
        assert [row["positive"], row["negative"], row["quality"]] == list(answer.values())
    if unread:
        assert f"{unread[0]['method']}: the judge's answer could not be read for 1 of positive" in out
        counts = bench.results["methods"][unread[0]["method"]]["unread"]
        assert counts == {"positive": 1, "negative": 1, "quality": 1}
    for question in load_items("scenes")[:2]:
        texts = [asked["messages"][0]["content"][0]["text"] for asked in endpoint.asked]
        assert sum(question.question_1 in text and question.question_2 in text for text in texts) >= 8
    everything = b"".join(bench.files().values()) + (out + err).encode()
    assert KEY.encode() not in everything
    # Nothing is asked again, but for what was not read and if that is wanted.
    count = len(endpoint.asked)
    assert bench(*SMALL, *remote(endpoint))[1] == out
    assert len(endpoint.asked) == count
    eyes.unread.clear()
    eyes.unread.add("none of them")
    assert bench(*SMALL, *remote(endpoint, "--ask-again"))[0] == 0
    assert len(endpoint.asked) == count + len(unread)
    assert all(row["positive"] is not None for row in bench.results["pictures"])


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"text": "I see " + "very " * 90 + "much."}, "'I see very very"),
        ({"body": b"<html><title>Welcome</title></html>"}, "<html><title>Welcome"),
    ],
)
def test_a_judge_whom_nobody_can_read_is_an_error_that_shows_its_words(
    bench: Bench, endpoint: Any, said: Any, answer: dict[str, Any], shown: str
) -> None:
    endpoint.script = lambda *_: said(**answer)
    words = ("--limit", "1", "--seeds", "1", "--steps", "2", "--methods", "vsf,none")
    code, out, err = bench(*words, *remote(endpoint))
    assert code == 2
    assert "could not be read for 1 of positive" in out
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: no answer of the judge could be read for positive, negative, quality")
    for text in (out, last):
        assert shown in text
        assert "--ask-again" in text
        assert "check that --judge is the address" in text
    assert len(last) < 600
    assert len(bench.results["pictures"]) == 2, "what was drawn is kept"
    endpoint.script = lambda number, _: said(**answer) if number % 2 else said()
    count = len(endpoint.asked)
    assert bench(*words, *remote(endpoint))[0] == 2
    assert len(endpoint.asked) == count
    assert bench(*words, *remote(endpoint, "--ask-again"))[::2] == (0, "asking about 2 pictures\n")


def test_another_judge_or_question_is_asked_anew(bench: Bench, endpoint: Any, tmp_path: Path) -> None:
    words = ("--limit", "1", "--seeds", "1", "--steps", "2", "--methods", "vsf")
    for more in ((), ("--judge-model", "other")):
        assert bench(*words, *remote(endpoint, *more))[0] == 0
    assert len(endpoint.asked) == 2
    item = load_items("scenes")[0]
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{**vars(item), "question_1": "Is anything there?"}]), "utf-8")
    assert bench(*words, *remote(endpoint), "--prompts", str(file))[0] == 0
    assert (bench.drawn, bench.asked, len(endpoint.asked)) == (0, 1, 3)
    assert bench(*words)[0] == 0
    assert (bench.drawn, bench.asked, len(endpoint.asked)) == (0, 1, 3), "the small models' own judge"


def test_an_endpoint_that_fails_costs_only_what_it_failed_at(bench: Bench, endpoint: Any, said: Any) -> None:
    endpoint.script = lambda number, _: said(code=401, text="no") if number == 2 else said()
    code, out, err = bench(*SMALL, *remote(endpoint))
    assert (code, out) == (2, "")
    assert "HTTP 401" in err
    assert "the same command goes on from there" in err
    assert len(list((bench.folder / "answers").iterdir())) == 2
    assert bench(*SMALL, *remote(endpoint))[0] == 0
    assert len(endpoint.asked) == PICTURES + 1


def test_labels_measure_the_judge(bench: Bench, tmp_path: Path) -> None:
    assert bench(*SMALL)[0] == 0
    labels = [
        {"picture": row["picture"], **{q: bool(row[q]) for q in ("positive", "negative", "quality")}}
        for row in bench.results["pictures"]
    ]
    labels[0]["positive"] = not labels[0]["positive"]
    labels[1]["quality"] = None
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(labels), "utf-8")
    code, out, _ = bench(*SMALL, "--labels", str(file))
    assert code == 0
    found = bench.results["labels"]
    assert found["positive"]["accuracy"] == pytest.approx((PICTURES - 1) / PICTURES, abs=6e-5)
    assert found["negative"]["accuracy"] == 1.0
    assert found["quality"]["labels"] == PICTURES - 1
    assert "the judge against people" in out


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        (("--seeds", "0"), "--seeds is 0"),
        (("--judge-jobs", "0"), "--judge-jobs is 0"),
        (("--steps", "0"), "steps is 0"),
        (("--methods", "vfs"), "no method 'vfs'"),
        (("--methods", "vsf:start=0.95"), "guides none of 8 steps"),
        (("--model", "flux-dev", "--methods", "cfg"), "leave it out"),
        (("--prompts", "own"), "words that the scenes model does not know"),
        (("--prompts", "no.json"), "cannot read the list of prompts no.json"),
        (("--labels", "no.json"), "cannot read no.json"),
        (("--judge-model", "x"), "--judge-model goes with an endpoint"),
        (("--judge-adapter", "x"), "--judge-adapter goes with"),
        (("--judge-key-env", "X"), "--judge-key-env goes with"),
        (("--judge", "http://h/v1"), "needs --judge-model"),
        (("--judge", "http://me:secret@h/v1", "--judge-model", "x"), "name, a password or a query"),
        (("--judge", "https://h/v1?key=secret", "--judge-model", "x"), "name, a password or a query"),
        (("--judge", "http://h/v1", "--judge-model", "x", "--judge-key-env", "NOT_SET"), "NOT_SET"),
        (("--ray-workers", "2"), "goes with --ray"),
        (("--model", "some/model"), "no judge"),
        (("--model", "no model"), "there is no model 'no model'"),
        (("--size", "128"), "reads 64x64 pixels, not 128x128"),
        (("--judge", "no/such/folder"), "cannot get the judge"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(bench: Bench, words: tuple[str, ...], tells: str) -> None:
    small = () if "--seeds" in words else ("--seeds", "1")
    code, out, err = bench("--limit", "1", *small, *words)
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert tells in last
    assert "secret" not in err


def test_a_key_that_no_header_can_hold_is_not_shown(
    bench: Bench, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "se\ncret")
    code, _, err = bench("--limit", "1", *remote(endpoint, "--judge-key-env", "MY_KEY"))
    assert code == 2
    assert "MY_KEY" in err
    assert "cret" not in err.replace("secret", "")
    assert endpoint.asked == []


def test_any_folder_of_a_model_can_be_drawn_with(bench: Bench, endpoint: Any, tmp_path: Path) -> None:
    from vsf_lib.scenes.training import autoencoder
    from vsf_lib.scenes.training.networks import Networks

    folder = tmp_path / "some model"
    Networks.build(autoencoder.build(), 3).pipeline(2.0).save_pretrained(folder)
    words = ("--model", str(folder), "--limit", "1", "--seeds", "1", "--steps", "1", "--methods", "vsf,none")
    code, out, err = bench(*words, *remote(endpoint))
    assert code == 0, err
    assert "1 prompts x 1 seeds" in out
    assert bench.results["pictures"][0]["prompt"] == load_items("own")[0].prompt
    with Image.open(
        io.BytesIO((bench.folder / "pictures" / bench.results["pictures"][0]["picture"]).read_bytes())
    ) as x:
        assert list(x.size) == bench.results["size"]
