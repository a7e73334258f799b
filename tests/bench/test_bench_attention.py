"""`bench attention`: the order of the rounds, the ratios, what is called, the floor, the output. No times."""

from __future__ import annotations

import json
import random
import statistics
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
from vsf_lib.bench.attention.calls import ALPHA, BETA, METHODS, USUAL, Call, Cell, calls, unguided
from vsf_lib.bench.attention.course import measure
from vsf_lib.bench.attention.machine import file_name, machine_name, peak_bytes
from vsf_lib.bench.attention.shapes import SHAPES, Shape, Work, floor
from vsf_lib.bench.attention.table import table
from vsf_lib.bench.attention.timing import interleaved, ratio
from vsf_lib.bench.methods import NAMES
from vsf_lib.errors import ModelError, OutputError, SettingsError

CPU = torch.device("cpu")
KEYS = {
    "shape", "method", "kernel", "auto", "negative_tokens", "batch", "heads", "heads_of_model", "ratio",
    "ratio_min", "ratio_max", "extra_bytes", "unguided_bytes", "floor", "floor_moved", "seconds",
    "unguided_seconds",
}  # fmt: skip


def small(name: str, batch: int = 1, n_n: int = 5) -> Cell:
    """A shape of that name, as small as its kind allows."""
    shape = replace(SHAPES[name], heads=2, width=16, image=random.randint(20, 40), text=random.randint(6, 12))
    return Cell(shape, batch, n_n, CPU, torch.float32)


class Clock:
    """Seconds that pass only when a run takes them."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, seconds: Sequence[float]) -> Any:
        left = iter(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += next(left)

        return run


# --- rounds and ratios


def test_every_round_has_all_and_begins_with_another() -> None:
    clock = Clock()
    runs = [clock.taking(name, [1.0] * 8) for name in "abc"]
    interleaved(runs, 4, calls=2, clock=clock, wait=lambda: clock.order.append("|"))
    assert "".join(clock.order) == "".join(f"|{x}{x}|" for x in "abcbcacababc")


def test_seconds_are_of_each_round_in_order_and_by_the_call() -> None:
    clock = Clock()
    rounds, repeat = 5, 3
    taken = {name: [random.uniform(0.1, 9) for _ in range(rounds * repeat)] for name in "abcd"}
    found = interleaved(
        [clock.taking(*item) for item in taken.items()], rounds, calls=repeat, clock=clock, wait=lambda: None
    )
    for seconds, own in zip(found, taken.values(), strict=True):
        mean = [sum(own[r * repeat : (r + 1) * repeat]) / repeat for r in range(rounds)]
        assert seconds == pytest.approx(mean)


def test_the_ratio_is_of_rounds_and_not_of_medians() -> None:
    own, other = [1.0, 10.0, 2.0], [2.0, 11.0, 8.0]
    assert ratio(other, own) == (2.0, 1.1, 4.0)
    drawn = [[random.uniform(1, 2) for _ in range(6)] for _ in range(2)]
    by_hand = sorted(b / a for a, b in zip(*drawn, strict=True))
    assert ratio(drawn[1], drawn[0]) == pytest.approx(((by_hand[2] + by_hand[3]) / 2, by_hand[0], by_hand[5]))


def test_rows_have_the_ratios_of_a_clock_of_their_own() -> None:
    """Each look at the clock finds more time gone, so that seconds follow from a run's place in its round."""
    looks: list[int] = []

    def clock() -> float:
        looks.append(len(looks))
        return float(len(looks) ** 2)

    cell, rounds = small("sd35-large-1024"), 3
    rows = measure(cell, ["none", "nasa"], rounds=rounds, repeat=1, clock=clock)
    assert len(looks) == 2 * 3 * rounds
    # By the promise of the order: unguided, none, nasa, each round begun with the next of them.
    seconds = [[], [], []]
    for number in range(rounds):
        for place in range(3):
            look = 2 * (3 * number + place) + 1
            seconds[(number + place) % 3].append((look + 1) ** 2 - look**2)
    for row, found in zip(rows, seconds[1:], strict=True):
        ratios = [a / b for a, b in zip(found, seconds[0], strict=True)]
        assert row["ratio"] == pytest.approx(statistics.median(ratios), abs=1e-4)
        assert (row["ratio_min"], row["ratio_max"]) == pytest.approx((min(ratios), max(ratios)), abs=1e-4)


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
@pytest.mark.parametrize("name", list(SHAPES))
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
    rows = measure(small("flux-1024"), ["nag", "nasa"], rounds=1, repeat=1)
    assert [(row["method"], row.get("failed")) for row in rows] == [
        ("nasa", None),
        ("nag", "no valid execution plans"),
    ]
    found = {"machine": {"name": "x"}, "versions": {"torch": "x"}, "dtype": "x", "rounds": 1, "rows": rows}
    assert "failed: nag by sdpa on flux-1024: no valid execution plans" in table(found)


# --- memory


def test_the_peak_counts_temporaries_and_the_result() -> None:
    def run() -> torch.Tensor:
        big = torch.ones(3000)  # 12,000 bytes
        return (big * 2)[:10].clone()  # 12,000 more, and 40

    run()
    assert peak_bytes(CPU, run) == 24_040
    assert peak_bytes(torch.device("meta"), run) is None


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
    rows = {row["method"]: row for row in measure(cell, USUAL, rounds=1, repeat=1)}
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
    assert floor("cfg", shape, n) == Work(2.0, 2.0)
    assert floor("none", shape, n) == Work(1.0, 1.0)


def test_the_floor_of_the_real_shapes() -> None:
    """By hand: 4429^2 = 19,616,041 pairs, and 2 * 4096 * 20 + 20^2 = 164,240 more."""
    assert floor("vsf", SHAPES["sd35-large-1024"], 20).flops == pytest.approx(1 + 164_240 / 19_616_041)
    assert floor("vsf", SHAPES["sd35-large-1024"], 20).moved == pytest.approx(1 + 20 / 4429)
    assert floor("vsf", SHAPES["wan-1.3b-480p"], 20).flops == pytest.approx(532 / 512)
    assert floor("vsf", SHAPES["wan-1.3b-480p"], 20).moved == pytest.approx(1 + 20 / (32760 + 512))
    assert floor("nag", SHAPES["wan-1.3b-480p"], 20).flops == 2.0


def test_the_shapes_are_the_models() -> None:
    assert [(s.heads, s.width, s.image, s.text) for s in SHAPES.values()] == [
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
    """The shapes, with a few tokens each."""
    for name, shape in SHAPES.items():
        monkeypatch.setitem(SHAPES, name, replace(shape, width=16, image=24, text=8))


def test_the_whole_of_it(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    plot = tmp_path / "new" / "attention.png"
    assert run("--device", "cpu", "--rounds", "2", "--negatives", "3,5", "--plot", str(plot), "--json") == 0
    out, err = capsys.readouterr()
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert file.name == f"{file_name(machine_name(CPU))}.json"
    found = json.loads(file.read_text("utf-8"))
    assert found["machine"] == {
        "name": machine_name(CPU),
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }
    assert found["versions"]["torch"] == torch.__version__
    assert (found["dtype"], found["rounds"], found["calls"]) == ("float32", 2, 1)
    assert all(set(row) == KEYS for row in found["rows"])
    combinations = [
        (row["shape"], row["negative_tokens"], row["method"], row["kernel"]) for row in found["rows"]
    ]
    assert len(set(combinations)) == len(combinations) == 2 * (3 * 8 + 7)
    for row in found["rows"]:
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert (row["heads"], row["batch"]) == (2, 1) and row["heads_of_model"] == SHAPES[row["shape"]].heads
    # Never silently fewer.
    assert "2 of 38 heads" in out and "fewer heads than the models have" in out
    assert "vsf           cpu-flash *" in out and "8 of 8" not in out
    assert "7 of 8: wan-1.3b-480p, batch 1, 5 negative tokens" in err
    with Image.open(plot) as image:
        assert image.width > 1000 and len(image.convert("L").getcolors(256) or []) > 20
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".vsf-")]


def test_choices_are_kept_to(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    words = ("--device", "cpu", "--shapes", "flux-1024", "--methods", "vsf,nag-unpadded", "--heads", "all")
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


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ("--shapes sdxl", SettingsError, "--shapes has 'sdxl', but there are sd35-large-1024"),
        ("--shapes flux-1024,flux-1024", SettingsError, "--shapes has flux-1024 twice"),
        ("--shapes ,", SettingsError, "--shapes is empty"),
        ("--methods vsf,magic", SettingsError, "--methods has 'magic', but there are none, vsf"),
        ("--negatives 0", SettingsError, "--negatives has '0'"),
        ("--negatives 5,x", SettingsError, "--negatives has 'x', but must be whole numbers from 1 to 4096"),
        ("--batches -1", SettingsError, "--batches has '-1'"),
        ("--heads 0", SettingsError, "--heads has '0', but must be whole numbers from 1 to 1024, or all"),
        ("--rounds 0", SettingsError, "--rounds has '0'"),
        ("--device tpu", SettingsError, "device is 'tpu'"),
        ("--device cuda:99", ModelError, "this machine has no cuda:99"),
        ("--plot x.pdf", OutputError, "the plot is a .png file"),
        ("--json .", OutputError, "--json: . cannot be written"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_measured(
    words: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsf_lib.bench.attention import course

    monkeypatch.setattr(course, "measure", lambda *args, **others: pytest.fail("it was measured"))
    with pytest.raises(error) as raised:
        run(*words.split(" "))
    assert says in str(raised.value)


def test_the_usual_run_is_what_the_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert command._CPU.heads == 2 and command._GPU.heads is None and command._GPU.batches == "1,4"
    assert set(USUAL) <= set(METHODS) and unguided(small("flux-1024")).method == "none"
    with pytest.raises(SystemExit):
        run("--help")
    help_ = " ".join(capsys.readouterr().out.split())
    for name in METHODS:
        assert name in help_
