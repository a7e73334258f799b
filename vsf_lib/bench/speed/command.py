"""`python -m vsf_lib bench speed`: attention and whole steps, at usual sizes and over sizes, into one file.

Owns the list of studies and the file that has them all, which grows with each of them, so that an interrupt
loses the one that runs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

from vsf_lib.bench.palette import check_drawable
from vsf_lib.bench.results import check_target, write_json
from vsf_lib.bench.speed.asked import FOLDER, add_machine_flags, machine
from vsf_lib.bench.speed.study import draw, show
from vsf_lib.cli.console import result


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--quick", action="store_true", help="less of all, to see in minutes that it runs")
    add_machine_flags(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"write the results here (default: {FOLDER}/MACHINE.json)"
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="draw attention.png, model.png and one of each scaling here",
    )


def run(args: Namespace) -> int:
    """Measures and prints; raises VSFError for what the user can mend."""
    from vsf_lib.bench.speed.machine import file_name, machine_name

    device, _ = machine(args)
    path = args.json or FOLDER / f"{file_name(machine_name(device))}.json"
    check_target(path, "--json")
    if args.plots is not None:
        check_drawable()
    words = ["--device", args.device, "--dtype", args.dtype, *["--quick"] * args.quick]
    whole: dict[str, Any] = {}
    for module, more in _studies():
        parser = ArgumentParser()
        module.add_arguments(parser)
        found = module.measure(module.read(parser.parse_args([*words, *more])))
        whole = _joined(whole, found)
        write_json(path, whole)
        show(found)
        result("")
        if args.plots is not None:
            draw(args.plots / f"{found['study']}.png", found)
    result(f"results: {path}")
    return 0


def _studies() -> list[tuple[ModuleType, list[str]]]:
    from vsf_lib.bench.attention import command as attention
    from vsf_lib.bench.model import command as model

    return [(module, more) for more in ([], ["--scaling"]) for module in (attention, model)]


def _joined(whole: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The rows of all studies, each with its study's name, under one head."""
    return {
        **found,
        "study": "speed",
        "versions": {**whole.get("versions", {}), **found["versions"]},
        "rows": [*whole.get("rows", []), *found["rows"]],
    }
