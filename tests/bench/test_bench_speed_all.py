"""Studies of speed: the time they share, what does not fit, scaling, and `bench speed`, all of them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from vsf_lib.bench.attention import command as attention
from vsf_lib.bench.model import command as model
from vsf_lib.bench.speed import command, course, study
from vsf_lib.bench.speed.course import Call, Cell, Work
from vsf_lib.bench.speed.machine import file_name, machine_name
from vsf_lib.bench.speed.scaling import scaling_table, series
from vsf_lib.bench.speed.shapes import FAMILIES, Scale
from vsf_lib.bench.speed.table import floors, table
from vsf_lib.bench.speed.timing import Pace

CPU = torch.device("cpu")


def asked(module: Any, *words: str) -> Any:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return module.read(parser.parse_args(["--device", "cpu", *words]))


# --- studies


def test_the_time_is_shared_by_the_cells_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cells in 90 seconds, of which the first takes 60."""
    now, taken, shares = [0.0], iter([60.0, 5.0, 5.0]), []
    monkeypatch.setattr(study, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def measure(cell: Cell, pace: Pace) -> list[Any]:
        shares.append(pace.seconds)
        now[0] += next(taken)
        return []

    found = asked(attention, "--shapes", "flux-64,flux-128,flux-256", "--negatives", "5", "--seconds", "90")
    assert study.conduct(found, measure)["rows"] == []
    assert shares == [30.0, 15.0, 25.0]


def test_a_cell_that_does_not_fit_says_so_and_the_others_go_on() -> None:
    def measure(cell: Cell, pace: Pace) -> list[Any]:
        if cell.shape.name == "flux-64":
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        head = {**cell.head("attention"), "part": "all", "whole": True}
        own, vsf = (Call(name, "sdpa", lambda: torch.zeros(3)) for name in ("none", "vsf"))
        return course.measure(cell, head, own, [vsf], lambda name: Work(1, 1), pace=pace)

    found = study.conduct(asked(attention, "--shapes", "flux-64,flux-128", "--negatives", "5"), measure)
    first, second = found["rows"]
    assert (first["method"], first["failed"], first["shape"]) == ("all", "out of memory", "flux-64")
    assert second["shape"] == "flux-128"
    text = table(found)
    assert "failed: all by - on flux-64: out of memory" in text and "Flux, 128x128: all, batch 1" in text

    def broken(cell: Cell, pace: Pace) -> list[Any]:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        study.conduct(asked(attention), broken)


def row(tokens: int, n: int, ratio: float, method: str = "vsf", floor: float = 1.0) -> dict[str, Any]:
    return {
        "family": "flux", "shape": f"flux-{tokens}", "shown": f"Flux, {tokens} wide",
        "part": "2 of 57 blocks", "batch": 1, "method": method, "kernel": "flash",
        "image_tokens": tokens, "negative_tokens": n,
        "ratio": ratio, "ratio_min": ratio, "ratio_max": ratio, "extra_bytes": 3_000_000, "floor": floor,
        "rounds": 4, "auto": True, "whole": False,
    }  # fmt: skip


def test_the_scaling_says_whether_the_ratio_falls() -> None:
    rows = [row(1024, 77, 1.5), row(1024, 20, 1.2), row(256, 20, 1.3), row(1024, 5, 1.1), row(4096, 20, 1.05)]
    found = series(rows)
    assert [r["ratio"] for r in found.sizes] == [1.3, 1.2, 1.05]
    assert [r["ratio"] for r in found.lengths] == [1.1, 1.2, 1.5]
    head = {"study": "model-scaling", "machine": {"name": "x"}, "versions": {"torch": "x"}, "dtype": "x"}
    text = scaling_table({**head, "rows": rows})
    assert "vsf as the size grows: 1.300, 1.200, 1.050: falls" in text
    lines = [line.split() for line in text.split("\n") if line.startswith(("256", "1024", "4096"))]
    assert [line[2:5] for line in lines] == [
        ["256", "20", "1.0000"], ["1024", "5", "1.0000"], ["1024", "20", "1.0000"], ["1024", "77", "1.0000"],
        ["4096", "20", "1.0000"],
    ]  # fmt: skip
    rows[-1]["ratio"] = 1.25
    assert "vsf as the size grows: 1.300, 1.200, 1.250: does not fall throughout" in scaling_table(
        {**head, "rows": rows}
    )


def test_floors_stand_once() -> None:
    of_method = {"none": 1.0, "vsf": None, "vsf-masked": None, "nag": 1.9, "nasa": 1.9, "cfg": 2.0}
    rows = [row(64, n, 1.0, method, floor or 1.0 + n) for n in (5, 9) for method, floor in of_method.items()]
    assert floors(rows) == {
        "vsf": {5: 6.0, 9: 10.0},
        "nag, nasa": {5: 1.9, 9: 1.9},
        "cfg": {5: 2.0, 9: 2.0},
    }


# --- bench speed


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """All studies on networks of a few channels, at the least sizes."""
    for name, family in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, name, replace(family, heads=2, width=16, text=8))
    shapes = ("sd35-large-64", "flux-64", "wan-1.3b-64-1f")
    scale = Scale((64, 128), (1, 5), 64, 1)
    for module in (attention, model):
        usual = replace(
            module.USUALS.cpu_quick,
            shapes=shapes,
            families=("sd35-medium",),
            scale=scale,
            negatives="3,20",
            part=1,
        )
        monkeypatch.setattr(
            module, "USUALS", replace(module.USUALS, cpu_quick=usual, cpu_scaling_quick=usual)
        )


def test_one_command_measures_all_into_one_file(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["--quick", "--device", "cpu", "--plots", "plots"])) == 0
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert file.name == f"{file_name(machine_name(CPU))}.json"
    found = json.loads(file.read_text("utf-8"))
    assert set(found) == {"study", "machine", "versions", "dtype", "rows"}
    assert set(found["versions"]) == {"torch", "diffusers", "vsf"}
    of_study = {name: [r for r in found["rows"] if r["study"] == name] for name in
                ("attention", "model", "attention-scaling", "model-scaling")}  # fmt: skip
    assert sum(map(len, of_study.values())) == len(found["rows"])
    assert [len(rows) for rows in of_study.values()] == [3 * 2 * 7, 3 * 2 * 7, 3 * 3, 3 * 3]
    assert not [r for r in found["rows"] if "failed" in r]
    assert {"shape", "method", "kernel", "ratio", "ratio_min", "ratio_max", "extra_bytes"} <= set(
        found["rows"][0]
    )
    plots = sorted(path.stem for path in (tmp_path / "plots").iterdir())
    assert plots == sorted(of_study)
    for path in (tmp_path / "plots").iterdir():
        with Image.open(path) as image:
            assert image.width > 1000 and len(image.convert("L").getcolors(256) or []) > 20
    out = capsys.readouterr().out
    assert "1 of 2 heads" in out and "1 of 38 blocks" in out and "floor of vsf" in out
    assert "vsf as the size grows: " in out and "fewer blocks than the models have" in out


def test_an_interrupt_keeps_what_was_measured(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "found.json"

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "measure", interrupted)
    parser = ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(KeyboardInterrupt):
        command.run(parser.parse_args(["--quick", "--device", "cpu", "--json", str(file)]))
    assert {r["study"] for r in json.loads(file.read_text("utf-8"))["rows"]} == {"attention"}
