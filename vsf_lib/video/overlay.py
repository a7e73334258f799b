"""Packages for the worker alone: what a WebUI has in another version, in a folder that only the worker sees.

Owns which versions go together, and that such a folder is made whole or not at all: into a temporary one,
tried there, then renamed. A folder that is there is never changed; other versions are another folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vsf_lib.errors import OutputError
from vsf_lib.jobs.child import NO_WINDOW
from vsf_lib.jobs.locks import only_one

_LEAST = {"diffusers": (0, 34), "peft": (0, 17), "accelerate": (1, 0), "imageio-ffmpeg": (0, 5)}
"""From which on the worker can use what is there: Wan with Kijai's LoRA keys, biases fused to scale."""
_PINS = {
    (2, 4): ("diffusers==0.35.2", "huggingface-hub==0.34.4"),
    (0, 0): ("diffusers==0.34.0", "huggingface-hub==0.30.2"),
}
"""By the oldest torch for which they are meant. Both go with transformers 4.46, as Forge has it."""
_ALWAYS = (
    "peft==0.17.1",
    "accelerate==1.10.1",
    "imageio-ffmpeg==0.6.0",
    "ftfy==6.3.1",
    "wcwidth==0.2.13",
    "gguf==0.17.1",
)
"""Diffusers before 0.37 calls ftfy (which needs wcwidth) for Wan without asking whether it is there."""
_TRIAL = (
    "import diffusers, peft, accelerate, imageio_ffmpeg; diffusers.WanPipeline, diffusers.AutoencoderKLWan"
)


def pins(found: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What has to be installed for the worker; nothing where the program's own packages will do.

    `found` maps package names to versions; by default this process's.
    """
    there = _installed() if found is None else found
    if all(_numbers(there.get(name, "0")) >= least for name, least in _LEAST.items()):
        return ()
    torch = _numbers(there.get("torch", "0"))
    return (*next(chosen for least, chosen in _PINS.items() if torch >= least), *_ALWAYS)


def folder(root: Path, wanted: tuple[str, ...]) -> Path | None:
    """The folder in `root` that has exactly `wanted`, or None while there is none."""
    path = root / _name(wanted)
    return path if path.is_dir() else None


def install(root: Path, wanted: tuple[str, ...], say: Callable[[str], None] = lambda line: None) -> Path:
    """Makes that folder and returns it; raises OutputError, and leaves nothing, if it cannot be used.

    `say` gets pip's lines. No package of this Python is touched.
    """
    final = root / _name(wanted)
    with only_one(root / "lock") as mine:
        if not mine:
            raise OutputError("the packages are being installed by another page: wait for that")
        if final.is_dir():
            return final
        part = root / f".{_name(wanted)}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-input"]
            _run([*pip, "--disable-pip-version-check", "--target", str(part), *wanted], say)
            say("trying the packages")
            trial = f"import sys; sys.path.insert(0, {str(part)!r}); {_TRIAL}"
            _run([sys.executable, "-X", "utf8", "-c", trial], say)
            part.replace(final)
        except OSError as error:
            raise OutputError(f"cannot make {final}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return final


def _run(command: list[str], say: Callable[[str], None]) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_TARGET")
    }
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env=environment,
        creationflags=NO_WINDOW,
    )
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        last = line.strip() or last
        say(line.rstrip())
    if process.wait():
        raise OutputError(f"installing the packages for videos failed: {last[:300]}")


def _installed() -> dict[str, str]:
    found = {}
    for name in ("torch", *_LEAST):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _name(wanted: tuple[str, ...]) -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256("\n".join((python, *wanted)).encode()).hexdigest()[:16]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
