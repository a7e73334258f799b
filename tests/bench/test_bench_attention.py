"""`bench attention`: the order of the rounds, the ratios, what is called, the floor, the output. No times."""

from __future__ import annotations

import json
import random
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import (
    cross_attention,
    joint_attention,
    nag_attention,
    nag_cross_attention,
    nasa_attention,
    nasa_cross_attention,
    variant_attention,
    variant_cross_attention,
)
from vsf_lib.bench.attention import command
from vsf_lib.bench.attention.calls import calls, unguided
from vsf_lib.bench.attention.work import floor
from vsf_lib.bench.methods import NAMES
from vsf_lib.bench.speed import course
from vsf_lib.bench.speed.course import Call, Cell, Work
from vsf_lib.bench.speed.machine import file_name, machine_name
from vsf_lib.bench.speed.methods import ALPHA, BETA, METHODS, USUAL
from vsf_lib.bench.speed.shapes import FAMILIES, SHAPES, Shape, shape_named
from vsf_lib.bench.speed.table import table
from vsf_lib.bench.speed.timing import Pace

CPU = torch.device("cpu")
KEYS = {
    "study", "shape", "shown", "family", "image_tokens", "part", "whole", "method", "kernel", "auto",
    "negative_tokens", "batch", "heads", "heads_of_model", "ratio", "ratio_min", "ratio_max", "extra_bytes",
    "unguided_bytes", "floor", "floor_moved", "floor_added_flops", "floor_added_bytes", "over_floor",
    "seconds", "unguided_seconds", "rounds", "calls",
}  # fmt: skip
TINY = "sd35-large-64,sd35-medium-64,flux-64,wan-1.3b-64-1f"
"""The shapes, with 16 image tokens each."""


def small(name: str, batch: int = 1, n_n: int = 5) -> Cell:
    """A shape of that name, as small as its kind allows."""
    shape = shape_named(name)
    family = replace(shape.family, width=16, text=random.randint(6, 12))
    shape = replace(shape, family=family, heads=2, grid=(1, 1, random.randint(20, 40)))
    return Cell(shape, batch, n_n, CPU, torch.float32)


def measure(cell: Cell, methods: Sequence[str], **others: Any) -> list[dict[str, Any]]:
    return course.measure(
        cell,
        {**cell.head("attention"), "part": "all"},
        unguided(cell),
        calls(cell, methods),
        lambda method: floor(method, cell.shape, cell.n_n, cell.batch),
        pace=Pace(1),
        **others,
    )


# --- what is called


def expected(cell: Cell, call: Call) -> torch.Tensor:
    """What the library's own function gives for what the call holds."""
    s, method = cell.shape, call.method
    if method in ("none", "cfg"):
        return sdpa(*call.held)
    vsf = {"alpha": ALPHA, "beta": BETA}
    nag, nasa = {"phi": 4.0, "tau": 2.5, "alpha": 0.125}, {"alpha": 0.25}
    if not s.joint:
        q, k, v, k_n, v_n = call.held
        pair = {"negative": (k_n, v_n)}
        if method == "difference":
            return variant_cross_attention(q, k, v, variant="difference", **pair, **vsf)
        if method.startswith("nag"):
            return nag_cross_attention(q, k, v, **pair, **nag)
        if method.startswith("nasa"):
            return nasa_cross_attention(q, k, v, **pair, **nasa)
        return cross_attention(q, k, v, **pair, **vsf, kernel=call.kernel)
    q, k, v = call.held[:3]
    n = q.shape[2] - s.image - s.text
    if s.negative_first:
        where = {"negative": slice(n), "positive": slice(n, n + s.text), "image": slice(n + s.text, None)}
    else:
        where = {"image": slice(s.image), "positive": slice(s.image, s.image + s.text)}
        where["negative"] = slice(s.image + s.text, None)
    if method == "vsf-masked":  # the call holds the keys and values with the duplicate at their end
        negative = v[:, :, where["negative"]][:, :, :n]
        assert torch.equal(v[:, :, q.shape[2] :], negative * -ALPHA)
        k, v = k[:, :, : q.shape[2]], v[:, :, : q.shape[2]]
    if method == "difference":
        return variant_attention(q, k, v, variant="difference", **where, **vsf)
    if method.startswith("nag"):
        return nag_attention(q, k, v, **where, **nag)
    if method.startswith("nasa"):
        return nasa_attention(q, k, v, **where, **nasa)
    return joint_attention(q, k, v, **where, **vsf, kernel=call.kernel)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_every_call_gives_what_the_library_gives(name: str, batch: int) -> None:
    cell = small(name, batch, n_n=random.randint(1, 5))
    with torch.inference_mode():
        found = list(calls(cell, METHODS))
        for call in found:
            assert torch.equal(call.run(), expected(cell, call)), call.method
    assert list(dict.fromkeys(call.method for call in found)) == list(METHODS)
    vsf = [(call.kernel, call.auto) for call in found if call.method == "vsf"]
    assert vsf == [("cpu-flash", True), ("three-call", False)][: 2 if cell.shape.joint else 1]


@pytest.mark.parametrize("name", ["flux-1024", "wan-1.3b-480p"])
def test_only_the_unpadded_baselines_have_the_short_negative(name: str) -> None:
    cell = small(name)
    own, joint = cell.shape.image + cell.shape.text, cell.shape.joint
    with torch.inference_mode():
        for call in calls(cell, METHODS):
            if call.method in ("none", "cfg"):
                continue
            tokens = call.held[0].shape[2] - own if joint else call.held[3].shape[2]
            assert tokens == (cell.shape.text if call.method in ("nag", "nasa") else cell.n_n), call.method


def test_cfg_is_two_passes() -> None:
    passed: list[str] = []
    cell = small("sd35-large-1024")
    with torch.inference_mode():
        found = {call.method: call for call in calls(cell, ["none", "cfg"])}
        from torch.overrides import TorchFunctionMode

        class Counting(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is sdpa:
                    passed.append("pass")
                return func(*args, **(kwargs or {}))

        with Counting():
            found["none"].run()
            assert len(passed) == 1
            found["cfg"].run()
    assert len(passed) == 3


def test_a_method_that_fails_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **others: Any) -> Any:
        raise RuntimeError("no valid execution plans\nat somewhere")

    from vsf_lib.bench.attention import calls as module

    monkeypatch.setattr(module, "_JOINT", module._JOINT._replace(nag=refuse))
    rows = measure(small("flux-1024"), ["nag", "nasa"])
    assert [(row["method"], row.get("failed")) for row in rows] == [
        ("nasa", None),
        ("nag", "no valid execution plans"),
    ]
    head = {"study": "attention", "machine": {"name": "x"}, "versions": {"torch": "x"}, "dtype": "x"}
    found = {**head, "rows": rows}
    assert "failed: nag by sdpa on flux-1024: no valid execution plans" in table(found)


# --- memory


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The unguided kernel's buffers grow with the threads, and would hide what a small shape adds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_extra_bytes_are_what_is_held_and_allocated_beside_the_unguided() -> None:
    """CFG holds and takes no more at a time; the mask and the longer tensors count for the masked form."""
    cell = small("sd35-large-1024", n_n=7)
    rows = {row["method"]: row for row in measure(cell, USUAL)}
    assert rows["none"]["extra_bytes"] == rows["cfg"]["extra_bytes"] == 0
    s = cell.shape
    length, channel = s.image + s.text + 7, s.heads * s.width
    mask = length * (length + 7)
    held = channel * (length + 2 * (length + 7)) + mask - 3 * channel * (s.image + s.text)
    assert rows["vsf-masked"]["extra_bytes"] >= 4 * held
    for method in ("vsf", "difference", "nag", "nasa"):
        assert rows[method]["extra_bytes"] > 4 * 3 * channel * 7


# --- floor


def sees(shape: Shape, n: int, *, negative_pass: bool) -> int:
    """Pairs of a query and a key that take a product, counted one by one."""
    kinds = ["I"] * shape.image + ["P"] * shape.text + ["N"] * n
    looks = {("I", "I"), ("I", "P"), ("I", "N"), ("P", "I"), ("P", "P"), ("N", "I"), ("N", "N")}
    pairs = sum((a, b) in looks for a in kinds for b in kinds)
    return pairs + (shape.image**2 if negative_pass else 0)


def test_the_floor_is_a_count_of_pairs() -> None:
    shape = small("flux-1024").shape
    own, n = (shape.image + shape.text) ** 2, 5
    for method in ("vsf", "vsf-masked", "difference"):
        assert floor(method, shape, n).flops == pytest.approx(sees(shape, n, negative_pass=False) / own)
    for method, tokens in (("nag", shape.text), ("nasa", shape.text), ("nag-unpadded", n)):
        assert floor(method, shape, n).flops == pytest.approx(sees(shape, tokens, negative_pass=True) / own)
    channels = shape.heads * shape.width
    assert floor("cfg", shape, n) == Work(2.0, 2.0, 4 * own * channels, 4 * (own**0.5) * channels)
    assert floor("none", shape, n) == Work(1.0, 1.0)


def test_the_floor_of_the_real_shapes() -> None:
    """By hand: 4429^2 = 19,616,041 pairs, and 2 * 4096 * 20 + 20^2 = 164,240 more."""
    assert floor("vsf", shape_named("sd35-large-1024"), 20).flops == pytest.approx(1 + 164_240 / 19_616_041)
    assert floor("vsf", shape_named("sd35-large-1024"), 20).moved == pytest.approx(1 + 20 / 4429)
    assert floor("vsf", shape_named("wan-1.3b-480p"), 20).flops == pytest.approx(532 / 512)
    assert floor("vsf", shape_named("wan-1.3b-480p"), 20).moved == pytest.approx(1 + 20 / (32760 + 512))
    assert floor("nag", shape_named("wan-1.3b-480p"), 20).flops == 2.0


def test_the_shapes_are_the_models() -> None:
    assert [(s.heads, s.width, s.image, s.text) for s in map(shape_named, SHAPES)] == [
        (38, 64, 4096, 333),
        (24, 64, 4096, 333),
        (24, 128, 4096, 512),
        (12, 128, 32760, 512),
    ]
    assert set(METHODS) - set(NAMES) == {"vsf-masked", "nag-unpadded", "nasa-unpadded"}


# --- the command


def run(*words: str) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks, with few channels and words."""
    for name, family in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, name, replace(family, width=16, text=8))


def test_the_whole_of_it(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    plot = tmp_path / "new" / "attention.png"
    words = ("--device", "cpu", "--shapes", TINY, "--rounds", "2", "--negatives", "3,5", "--plot", str(plot))
    assert run(*words, "--json") == 0
    out, err = capsys.readouterr()
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert file.name == f"{file_name(machine_name(CPU))}-attention.json"
    found = json.loads(file.read_text("utf-8"))
    assert found["machine"] == {
        "name": machine_name(CPU),
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }
    assert found["versions"]["torch"] == torch.__version__
    assert (found["study"], found["dtype"]) == ("attention", "float32")
    assert all(set(row) == KEYS for row in found["rows"])
    combinations = [
        (row["shape"], row["negative_tokens"], row["method"], row["kernel"]) for row in found["rows"]
    ]
    assert len(set(combinations)) == len(combinations) == 2 * (3 * 8 + 7)
    for row in found["rows"]:
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["over_floor"] == pytest.approx(row["ratio"] - row["floor"], abs=2e-4)
        assert (row["heads"], row["batch"], row["rounds"], row["calls"]) == (2, 1, 2, 1)
        assert row["heads_of_model"] == FAMILIES[row["family"]].heads and not row["whole"]
    # Never silently fewer.
    assert "2 of 38 heads" in out and "fewer heads than the models have" in out
    assert "vsf           cpu-flash *" in out and "8 of 8" not in out
    assert "7 of 8: attention: wan-1.3b-64-1f, batch 1, 5 negative tokens" in err
    with Image.open(plot) as image:
        assert image.width > 1000 and len(image.convert("L").getcolors(256) or []) > 20
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".vsf-")]


def test_quick_takes_the_kernel_that_vsf_takes(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    assert (
        run("--device", "cpu", "--quick", "--shapes", "flux-64", "--methods", "vsf", "--json", str(file)) == 0
    )
    (row,) = json.loads(file.read_text("utf-8"))["rows"]
    assert (row["kernel"], row["heads"], row["negative_tokens"]) == ("cpu-flash", 1, 20)


def test_choices_are_kept_to(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    words = ("--device", "cpu", "--shapes", "flux-64", "--methods", "vsf,nag-unpadded", "--heads", "all")
    assert (
        run(
            *words,
            "--batches",
            "1,2",
            "--negatives",
            "4",
            "--rounds",
            "1",
            "--dtype",
            "bfloat16",
            "--json",
            str(file),
        )
        == 0
    )
    found = json.loads(file.read_text("utf-8"))
    assert found["dtype"] == "bfloat16"
    assert [(row["batch"], row["method"], row["kernel"], row["heads"]) for row in found["rows"]] == [
        (batch, *rest, 24)
        for batch in (1, 2)
        for rest in (("vsf", "cpu-flash"), ("vsf", "three-call"), ("nag-unpadded", "sdpa"))
    ]
    assert "fewer heads" not in capsys.readouterr().out


def test_the_usual_run_is_what_the_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert command._CPU.part == 2 and command._GPU.part is None and command._GPU.batches == "1,4"
    assert set(USUAL) <= set(METHODS) and unguided(small("flux-1024")).method == "none"
    with pytest.raises(SystemExit):
        run("--help")
    help_ = "".join(capsys.readouterr().out.split())  # which breaks at hyphens, too
    for name in (*METHODS, *SHAPES):
        assert name in help_
