"""Frames into a file and back: formats, quality, and the parameters that the file carries.

Owns how ffmpeg (the program that imageio-ffmpeg brings) is called and that a file appears whole or not at
all, beside a `.txt` of the same name. Knows no model.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.files import reason, written_whole
from vsf_lib.jobs.child import NO_WINDOW
from vsf_lib.metadata import read_png, write_png

TAGS = ("comment", "description")
"""Where players and image browsers look for a text."""
_CONTAINERS = "mov,mp4,matroska,webm,gif"
"""All that is read: other formats, such as a playlist under a video's name, make ffmpeg open other files."""
_PATIENCE = 120.0
"""Seconds for reading a file that somebody gave."""
_FULL = 256 - errno.ENOSPC
"""What ffmpeg returns as the disk is full: its own errors are negative, and cut to a byte."""
_SPECIAL = re.compile(r"([=;#\\\n])")
_LOSSLESS_CRF, _WORST_CRF = 8, 35
"""H.264's and VP9's scale at quality 10 and 1."""


def write_video(
    path: Path,
    frames: np.ndarray,
    infotext: str,
    *,
    fps: int = 16,
    quality: int = 8,
    program: str | None = None,
) -> Path:
    """Writes frames `[n, h, w, 3]` uint8 with their parameters; the format goes by the name's ending.

    `.mp4` (H.264, yuv420p), `.webm` (VP9), `.gif`, or `.png`: then a folder of that stem with one picture per
    frame. A `.txt` beside it holds the parameters, too. `program` is the ffmpeg to use (see `find_ffmpeg`).
    Returns what was made; raises OutputError, also where that name is another text's.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise OutputError(f"{frames.dtype} {frames.shape} are no frames: [n, h, w, 3] of uint8 are")
    suffix = path.suffix.lower()
    beside = path.with_suffix(".txt")
    if beside.exists() and not path.exists() and not _is_ours(beside):
        raise OutputError(
            f"{path} would get its parameters beside it in {beside.name}, but that holds another text: "
            "choose another name"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".png":
            return _write_pictures(path.with_suffix(""), frames, infotext)
        if suffix not in _OPTIONS:
            raise OutputError(
                f"{path} is no video: end the name in {', '.join(_OPTIONS)}, or .png for pictures"
            )
        with written_whole(beside) as text, written_whole(path) as part:
            text.write_text(infotext + "\n", encoding="utf-8", newline="\n")
            options = ["-f", suffix[1:], *_OPTIONS[suffix](quality)]
            _encode(part, frames, infotext, fps, options, program)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; check that its disk has room") from error
    return path


def check_ffmpeg() -> None:
    """Raises OutputError where there is no program to write videos with."""
    _program()


def find_ffmpeg(packages: Path | None = None) -> str | None:
    """The program to write videos with: this Python's, that of a folder of `packages`, or the system's.

    IMAGEIO_FFMPEG_EXE names one, as it does for imageio-ffmpeg, whether that is installed or not.
    """
    try:
        return _program()
    except OutputError:
        there = sorted(packages.glob("imageio_ffmpeg/binaries/ffmpeg*")) if packages is not None else []
        named = os.environ.get("IMAGEIO_FFMPEG_EXE")
        return named or (str(there[0]) if there else shutil.which("ffmpeg"))


def read_infotext(path: Path) -> str:
    """The parameters that a file carries, or its `.txt`; raises SettingsError where there are none."""
    pictures = path if path.is_dir() else path.with_suffix("") if path.suffix.lower() == ".png" else None
    if pictures is not None and not path.is_file() and (pictures / "00000.png").is_file():
        path = pictures / "00000.png"
    if not path.is_file():
        raise SettingsError(f"there is no file {path}")
    if path.suffix.lower() == ".png":
        return read_png(path)
    text = "" if path.suffix.lower() == ".txt" else _tags(path)
    beside = path.with_suffix(".txt")
    if not text and beside.is_file():
        text = _text(beside)
    if not text and path.suffix.lower() == ".gif":
        raise SettingsError(
            f"{path} carries no parameters, as no GIF does: take the text file of its name that was written "
            "beside it"
        )
    if not text:
        raise SettingsError(
            f"{path} carries no parameters: this program did not make it, or they were removed"
        )
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read {path}: {reason(error)}; give a file that this program made"
        ) from error


def delete_video(path: Path) -> None:
    """Deletes what `write_video` made, its `.txt` too, and nothing else; raises OutputError."""
    try:
        if path.is_dir():
            for picture in filter(_is_picture, path.iterdir()):
                picture.unlink()
            path.rmdir()
        path.unlink(missing_ok=True)
        path.with_suffix(".txt").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot delete {path}: {reason(error)}") from error


def _is_ours(text: Path) -> bool:
    """Whether a `.txt` holds parameters, by its last line, or nothing at all."""
    try:
        content = text.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    return not content or content.split("\n")[-1].startswith("Steps: ")


def _is_picture(path: Path) -> bool:
    return path.suffix == ".png" and path.stem.isdigit()


def _write_pictures(folder: Path, frames: np.ndarray, infotext: str) -> Path:
    """All of them or none, and none of an older video's among them."""
    other = next((path.name for path in folder.glob("*") if not _is_picture(path)), None)
    if other is not None:
        raise OutputError(f"{folder} holds other files, such as {other}: choose another folder")
    part = folder.with_name(f".vsf-{secrets.token_hex(8)}.part")
    try:
        part.mkdir()
        for number, frame in enumerate(frames):
            write_png(part / f"{number:05d}.png", Image.fromarray(frame), infotext)
        if folder.is_dir():
            delete_video(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    with written_whole(folder.with_suffix(".txt")) as text:
        text.write_text(infotext + "\n", encoding="utf-8", newline="\n")
    return folder


def _crf(quality: int) -> str:
    return str(round(_WORST_CRF + (_LOSSLESS_CRF - _WORST_CRF) * (quality - 1) / 9))


def _mp4(quality: int) -> list[str]:
    # One thread: x264 divides a picture among several, and how many there are changes the result.
    return ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", _crf(quality), "-threads", "1",
            "-movflags", "+faststart+use_metadata_tags"]  # fmt: skip


def _webm(quality: int) -> list[str]:
    return ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-crf", _crf(quality), "-b:v", "0", "-threads", "1"]


def _gif(quality: int) -> list[str]:
    return ["-filter_complex", "[1:v]split[a][b];[a]palettegen[p];[b][p]paletteuse"]


_OPTIONS = {".mp4": _mp4, ".webm": _webm, ".gif": _gif}


def _encode(
    part: Path, frames: np.ndarray, infotext: str, fps: int, options: Sequence[str], program: str | None
) -> None:
    _, height, width, _ = frames.shape
    with tempfile.TemporaryDirectory(prefix="vsf-") as folder:
        # Not on the command line: it is short on some systems, and other users may read it.
        tags = Path(folder) / "tags.txt"
        escaped = _SPECIAL.sub(r"\\\1", infotext)
        lines = [";FFMETADATA1", *(f"{tag}={escaped}" for tag in TAGS)]
        tags.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        _ffmpeg(
            "-y", "-f", "ffmetadata", "-i", str(tags),
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-",
            "-map_metadata", "0", *([] if "-filter_complex" in options else ["-map", "1:v"]), *options,
            str(part),
            given=np.ascontiguousarray(frames).data,
            program=program,
        )  # fmt: skip


def _tags(path: Path) -> str:
    made, _ = _read(path, "-f", "ffmetadata")
    text = made.decode("utf-8", "replace")
    found = re.findall(r"^(\w+)=((?:[^\\\n]|\\.)*)$", text, re.MULTILINE | re.DOTALL)
    named = {name.lower(): re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in found}
    return next((named[tag] for tag in TAGS if named.get(tag)), "")


def _read(path: Path, *options: str) -> tuple[bytes, str]:
    """What ffmpeg makes of a file that may be anybody's; raises SettingsError."""
    # `file:` so that no name is taken for an address.
    source = ["-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS, "-i", f"file:{path}"]
    try:
        return _ffmpeg(*source, *options, "-", patience=_PATIENCE)
    except _RefusedError as error:
        raise SettingsError(
            f"{path} cannot be read as a video (mp4, webm, gif): give a file that this program made"
        ) from error
    except _EndlessError as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


class _RefusedError(OutputError):
    """The program ended with an error of its own."""


class _EndlessError(OutputError):
    """The program did not end."""


def _ffmpeg(
    *arguments: str,
    given: memoryview | None = None,
    patience: float | None = None,
    program: str | None = None,
) -> tuple[bytes, str]:
    """What the program wrote to its output, and what it said; raises OutputError with its last line."""
    program = program or _program()
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-nostdin" if given is None else "-hide_banner", *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            creationflags=NO_WINDOW,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        raise _EndlessError(
            f"ffmpeg did not end within {patience:g} s: the file is damaged or too long"
        ) from error
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        if done.returncode == _FULL or "No space left" in said:
            raise OutputError("no space left on the disk")
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no reason given")
        raise _RefusedError(f"ffmpeg failed ({done.returncode}): {last.strip()[:300]}")
    return done.stdout, said


def _program() -> str:
    try:
        import imageio_ffmpeg

        program = shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        program = None
    if program is None:
        raise OutputError("there is no ffmpeg to write videos with: pip install imageio-ffmpeg")
    return program
