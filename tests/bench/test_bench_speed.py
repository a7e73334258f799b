"""What the benchmarks of speed share: rounds, names, flags, memory, scaling; `bench speed`. No times."""

from __future__ import annotations

import random
import statistics
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vsf_lib.bench.attention import command as attention
from vsf_lib.bench.model import command as model
from vsf_lib.bench.speed import course
from vsf_lib.bench.speed.course import Call, Cell, Work
from vsf_lib.bench.speed.machine import peak_bytes
from vsf_lib.bench.speed.shapes import Scale, scaled, shape_named
from vsf_lib.bench.speed.timing import Pace, interleaved, ratio
from vsf_lib.errors import ModelError, OutputError, SettingsError

CPU = torch.device("cpu")


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
    interleaved(runs, Pace(4, calls=2), clock=clock, wait=lambda: clock.order.append("|"))
    assert "".join(clock.order) == "".join(f"|{x}{x}|" for x in "abcbcacababc")


def test_seconds_are_of_each_round_in_order_and_by_the_call() -> None:
    clock = Clock()
    rounds, repeat = 5, 3
    taken = {name: [random.uniform(0.1, 9) for _ in range(rounds * repeat)] for name in "abcd"}
    runs = [clock.taking(*item) for item in taken.items()]
    found = interleaved(runs, Pace(rounds, calls=repeat), clock=clock, wait=lambda: None)
    for seconds, own in zip(found, taken.values(), strict=True):
        mean = [sum(own[r * repeat : (r + 1) * repeat]) / repeat for r in range(rounds)]
        assert seconds == pytest.approx(mean)


@pytest.mark.parametrize(
    ("pace", "rounds"),
    [
        (Pace(9), 9),
        (Pace(9, seconds=1000), 9),
        (Pace(9, seconds=10), 5),  # two a round
        (Pace(9, seconds=11.9), 5),
        (Pace(9, seconds=1), 3),
        (Pace(9, seconds=-5), 3),
        (Pace(9, seconds=1, least=2), 2),
        (Pace(2, seconds=1000), 2),
    ],
)
def test_rounds_end_with_the_time_but_the_first_ones_are_made(pace: Pace, rounds: int) -> None:
    clock = Clock()
    clock.now = random.uniform(0, 1e6)
    runs = [clock.taking(name, [1.0] * 9) for name in "ab"]
    found = interleaved(runs, pace, clock=clock, wait=lambda: None)
    assert [len(seconds) for seconds in found] == [rounds, rounds]


def test_the_ratio_is_of_rounds_and_not_of_medians() -> None:
    own, other = [1.0, 10.0, 2.0], [2.0, 11.0, 8.0]
    assert ratio(other, own) == (2.0, 1.1, 4.0)
    drawn = [[random.uniform(1, 2) for _ in range(6)] for _ in range(2)]
    by_hand = sorted(b / a for a, b in zip(*drawn, strict=True))
    assert ratio(drawn[1], drawn[0]) == pytest.approx(((by_hand[2] + by_hand[3]) / 2, by_hand[0], by_hand[5]))


def cell(name: str = "flux-64", n_n: int = 5) -> Cell:
    return Cell(shape_named(name), 1, n_n, CPU, torch.bfloat16)


def calls(*names: str, run: Callable[[], Tensor] = lambda: torch.zeros(3)) -> list[Call]:
    return [Call(name, "sdpa", run) for name in names]


def measure(made: Sequence[Call], own: Call | None = None, **others: Any) -> list[dict[str, Any]]:
    others = {"pace": Pace(1), **others}
    own = own or calls("none")[0]
    return course.measure(cell(), {"part": "all"}, own, made, lambda name: Work(1.5, 1.25, 30, 40), **others)


def test_rows_have_the_ratios_of_a_clock_of_their_own() -> None:
    """Each look at the clock finds more time gone, so that seconds follow from a run's place in its round."""
    looks: list[int] = []

    def clock() -> float:
        looks.append(len(looks))
        return float(len(looks) ** 2)

    rounds = 3
    rows = measure(calls("none", "nasa"), pace=Pace(rounds), clock=clock)
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
        assert row["over_floor"] == pytest.approx(row["ratio"] - 1.5, abs=1e-4)
        assert (row["floor"], row["floor_moved"], row["rounds"], row["calls"]) == (1.5, 1.25, rounds, 1)
        assert (row["floor_added_flops"], row["floor_added_bytes"]) == (30, 2 * 40)


# --- memory


def test_the_peak_counts_temporaries_and_the_result() -> None:
    def run() -> torch.Tensor:
        big = torch.ones(3000)  # 12,000 bytes
        return (big * 2)[:10].clone()  # 12,000 more, and 40

    run()
    assert peak_bytes(CPU, run) == 24_040
    assert peak_bytes(torch.device("meta"), run) is None


@pytest.mark.parametrize("warm", [True, False])
def test_what_a_generation_keeps_counts_and_what_all_calls_share_does_not_where_it_is_warmed(
    warm: bool,
) -> None:
    """2,000 numbers are kept by a generation, 5,000 by the first call ever, and 10 come out."""
    kept: dict[str, Tensor] = {}

    def run() -> Tensor:
        for name, size in (("ever", 5000), ("generation", 2000)):
            if name not in kept:
                kept[name] = torch.zeros(size)
        return torch.zeros(10)

    call = Call("vsf", "x", run, (torch.zeros(7),), begin=lambda: kept.pop("generation", None))
    (row,) = measure([call], Call("none", "x", lambda: torch.zeros(10)), warm=warm)
    assert row["extra_bytes"] == 4 * (2000 + 7 + (0 if warm else 5000))


# --- names and sizes


def test_names_are_read_as_sizes() -> None:
    picture = shape_named("sd35-medium-768")
    assert (picture.name, picture.shown) == ("sd35-medium-768", "SD3.5 medium, 768x768")
    assert (picture.grid, picture.image, picture.heads) == ((1, 48, 48), 2304, 24)
    usual, short = shape_named("wan-1.3b-480p"), shape_named("wan-1.3b-480p-5f")
    assert usual.grid == (21, 30, 52) and usual.shown == "Wan 1.3B, 832x480, 81 frames"
    assert short.grid == (2, 30, 52) and short.name == "wan-1.3b-480p-5f"
    assert shape_named("wan-1.3b-720p-1f").grid == (1, 45, 80)
    assert shape_named("wan-1.3b-64-9f").grid == (3, 4, 4)


@pytest.mark.parametrize(
    "name",
    [
        "flux",
        "flux-1000",
        "flux-32",
        "flux-8192",
        "flux-480p",
        "flux-512-5f",
        "wan-1.3b-480p-6f",
        "wan-1.3b-500p",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        shape_named(name)


def test_a_scaling_grows_pictures_and_films() -> None:
    found = scaled(["flux", "wan-1.3b"], Scale((256, 2048), (1, 5), 2048, 1))
    assert [(shape.name, lengths) for shape, lengths in found] == [
        ("flux-256", False),
        ("flux-2048", True),
        ("wan-1.3b-480p-1f", True),
        ("wan-1.3b-480p-5f", False),
    ]
    assert [shape.image for shape, _ in found] == [256, 16384, 1560, 3120]


# --- flags


def asked(module: Any, *words: str) -> Any:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return module.read(parser.parse_args(["--device", "cpu", *words]))


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ("--shapes sdxl", SettingsError, "there is no shape 'sdxl': shapes are sd35-large-1024"),
        ("--shapes flux-1024,flux-1024", SettingsError, "--shapes has flux-1024 twice"),
        ("--shapes ,", SettingsError, "--shapes is empty"),
        ("--shapes flux-512 --scaling", SettingsError, "--shapes has 'flux-512', but there are sd35-large, "),
        ("--methods vsf,magic", SettingsError, "--methods has 'magic', but there are none, vsf"),
        ("--negatives 0", SettingsError, "--negatives has '0'"),
        ("--negatives 5,x", SettingsError, "--negatives has 'x', but must be whole numbers from 1 to 4096"),
        ("--batches -1", SettingsError, "--batches has '-1'"),
        ("--PART 0", SettingsError, "--PART has '0', but must be whole numbers from 1 to 1024, or all"),
        ("--rounds 0", SettingsError, "--rounds has '0'"),
        ("--seconds 0", SettingsError, "--seconds has '0'"),
        ("--device tpu", SettingsError, "device is 'tpu'"),
        ("--device cuda:99", ModelError, "this machine has no cuda:99"),
        ("--plot x.pdf", OutputError, "the plot is a .png file"),
        ("--json .", OutputError, "--json: . cannot be written"),
    ],
)
@pytest.mark.parametrize(
    ("module", "part"), [(attention, "heads"), (model, "blocks")], ids=["attention", "model"]
)
def test_what_is_wrong_is_named_before_anything_is_measured(
    module: Any, part: str, words: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "measure", lambda *args, **others: pytest.fail("it was measured"))
    parser = ArgumentParser()
    module.add_arguments(parser)
    with pytest.raises(error) as raised:
        module.run(parser.parse_args(words.replace("PART", part).split(" ")))
    assert says.replace("PART", part) in str(raised.value)


def test_the_length_runs_at_one_size_and_the_size_at_one_length() -> None:
    found = asked(attention, "--scaling", "--shapes", "flux")
    cells = [(cell.shape.name, cell.n_n) for cell in found.cells]
    assert cells == [
        ("flux-256", 20),
        ("flux-512", 20),
        ("flux-1024", 5),
        ("flux-1024", 20),
        ("flux-1024", 77),
        ("flux-2048", 20),
    ]
    assert (found.study, found.methods, found.every_kernel) == (
        "attention-scaling",
        ["none", "vsf", "nag"],
        False,
    )
    assert [c.n_n for c in asked(attention, "--scaling", "--shapes", "flux", "--negatives", "7,9").cells] == [
        7, 7, 7, 9, 7,
    ]  # fmt: skip


def test_a_cpu_measures_less_and_quick_still_less() -> None:
    usual, quick = asked(model), asked(model, "--quick")
    assert [c.shape.name for c in usual.cells] == [
        "sd35-large-512",
        "sd35-medium-512",
        "flux-384",
        "wan-1.3b-480p-1f",
    ]
    assert (usual.part, usual.warm, usual.every_kernel) == (1, False, True)
    assert asked(model, "--blocks", "all").part is None and asked(model, "--blocks", "7").part == 7
    assert quick.pace.most < usual.pace.most and quick.seconds < usual.seconds <= 300
    assert sum(c.shape.image for c in quick.cells) < sum(c.shape.image for c in usual.cells)
    gpu = model.USUALS.of("cuda", quick=False, scaling=False)
    assert (gpu.part, gpu.batches, gpu.negatives, gpu.warm) == (None, "1,4", "5,20,77", True)
