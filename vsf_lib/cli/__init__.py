"""The command line: which commands there are, and how what goes wrong becomes one line and an exit code.

Exit codes: 0 done, 2 something that the user can mend (one line, no traceback unless `--debug`), 130
interrupted. Anything else is a defect and keeps its traceback. Knows no model; a command's module is imported
only when it is called.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from vsf_lib import __version__
from vsf_lib.cli.console import Console, close_broken_output
from vsf_lib.errors import SettingsError, VSFError, is_out_of_memory
from vsf_lib.program import program

__all__ = ["INTERRUPTED", "main"]

FAILED = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class _Command:
    """A module with `add_arguments(parser)` and `run(args)`."""

    module: str
    summary: str


_COMMANDS = {
    ("generate",): _Command("vsf_lib.cli.generate", "draw pictures without what the negative prompt names"),
    ("video",): _Command("vsf_lib.cli.video", "make a video without what the negative prompt names (Wan)"),
    ("studio",): _Command("vsf_lib.cli.studio", "a page in the browser for pictures and videos"),
    ("bench", "scenes"): _Command("vsf_lib.bench.scenes", "compare the methods on a small built-in model"),
    ("bench", "neggen"): _Command(
        "vsf_lib.bench.neggen.command", "the paper's protocol, with a judge: any model, method and prompts"
    ),
    ("bench", "attention"): _Command(
        "vsf_lib.bench.attention.command", "time and memory that guidance adds to one attention, by method"
    ),
    ("bench", "model"): _Command(
        "vsf_lib.bench.model.command", "the same for a step of a whole model, and how it grows with the size"
    ),
    ("bench", "speed"): _Command(
        "vsf_lib.bench.speed.command", "bench attention and bench model, all of both, into one file"
    ),
    ("bench", "forge"): _Command(
        "vsf_lib.bench.forge.command", "seconds per step in a running WebUI, guided against unguided"
    ),
    ("bench", "evidence"): _Command(
        "vsf_lib.bench.evidence", "write docs/evidence.md from what was measured"
    ),
    ("scenes", "train"): _Command("vsf_lib.scenes.training.command", "train a small built-in model again"),
}


class Parser(ArgumentParser):
    """Says what is wrong in one line, as every other error here, instead of with the whole usage."""

    def error(self, message: str) -> NoReturn:
        number = re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message, re.DOTALL)
        if number is not None:
            kind = "a whole number" if number[2] == "int" else "a number"
            message = f"{number[1]} is {number[3]}, but must be {kind}"
        choice = re.fullmatch(
            r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", message, re.DOTALL
        )
        if choice is not None:
            message = f"{choice[1]} is {choice[2]}, but must be one of {choice[3].replace(chr(39), '')}"
        raise SettingsError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; `argv` defaults to the process's arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    with Console(debug=debug) as console:
        try:
            code = _run(words)
            console.flush()
        except KeyboardInterrupt:
            _trace(debug)
            console.line("interrupted: no unfinished result was left behind")
            return INTERRUPTED
        except VSFError as error:
            _trace(debug)
            console.error(error)
            close_broken_output()
            return FAILED
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _trace(debug)
            console.error("out of memory: close other programs, or ask for less at a time")
            return FAILED
    return code


def _run(words: list[str]) -> int:
    name = _command_of(words)
    if name is None:
        return _overview(words)
    command = _COMMANDS[name]
    module = importlib.import_module(command.module)
    parser = Parser(
        prog=program(" ".join(name)),
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if "--debug" not in parser._option_string_actions:
        parser.add_argument("--debug", action="store_true", help="show tracebacks and what the libraries say")
    run: Callable[..., int] = module.run
    return _exit_code(lambda: run(parser.parse_args(words[len(name) :])))


def _command_of(words: list[str]) -> tuple[str, ...] | None:
    return next((name for name in _COMMANDS if tuple(words[: len(name)]) == name), None)


def _overview(words: list[str]) -> int:
    """For `--help`, `--version`, and everything that is no command."""
    width = max(len(" ".join(name)) for name in _COMMANDS)
    listed = "\n".join(f"  {' '.join(name):<{width}}  {item.summary}" for name, item in _COMMANDS.items())
    parser = Parser(
        prog=program(),
        usage="%(prog)s COMMAND ...",
        description=f"commands:\n{listed}\n\n{program('COMMAND --help')} tells more.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vsf {__version__}")
    named = [word for word in words if not word.startswith("-")]
    if not named:
        if not words:
            raise SettingsError(f"no command: choose one of {_names()} (see {program('--help')})")
        return _exit_code(lambda: _nothing(parser.parse_args(words)))
    if any(word in ("-h", "--help") for word in words):
        return _exit_code(lambda: _nothing(parser.parse_args(["--help"])))
    if (known := _command_of(named)) is not None:
        option = next(word for word in words if word.startswith("-"))
        raise SettingsError(f"options come after the command: {program(' '.join(known))} {option} ...")
    inside = [" ".join(name) for name in _COMMANDS if name[0] == named[0]]
    if inside and len(named) == 1:
        raise SettingsError(f"{named[0]} needs a second word: {', '.join(inside)} (see {program('--help')})")
    asked = " ".join(named[:2]) if inside else named[0]
    near = difflib.get_close_matches(asked, [" ".join(name) for name in _COMMANDS], n=1)
    remedy = f"did you mean {near[0]}?" if near else f"choose one of {_names()}"
    raise SettingsError(f"there is no command {asked!r}: {remedy} (see {program('--help')})")


def _nothing(_: object) -> int:
    return 0


def _names() -> str:
    return ", ".join(" ".join(name) for name in _COMMANDS)


def _exit_code(action: Callable[[], int]) -> int:
    """argparse leaves by SystemExit after `--help` and `--version`."""
    try:
        return action()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()
