"""The infotext of a whole picture, and its way into and out of a PNG file.

Owns the three parts that the WebUIs write under a picture (prompt, their own negative prompt, pairs)
and the file's `parameters` chunk. Knows no pipeline, and of the settings only that they make pairs.
"""

from __future__ import annotations

import io
import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, PngImagePlugin

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.files import reason, written_whole
from vsf_lib.infotext import decode, encode, is_key, printable, read_pairs, write_pairs
from vsf_lib.settings import Settings, fields

CHUNK = "parameters"
# Names of our own values beside the settings' that pictures and videos share.
COMPARISON = "VSF comparison"
COMPARISON_VALUE = "left without, right with the negative prompt"
FINGERPRINT = "VSF model hash"
_NEGATIVE = "Negative prompt:"
# Exact copies, written only where the lines above the pairs cannot hold the text.
_EXACT_PROMPT = "VSF prompt"
_EXACT_NEGATIVE = "VSF host negative prompt"
_OWN = ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Version", _EXACT_PROMPT, _EXACT_NEGATIVE)
# What a reader takes for the line of pairs has at least so many of them.
_FEWEST_PAIRS = 3
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Parameters:
    """What a picture was made from.

    `negative_prompt` is the host's own, which CFG reads; the guided one is in `settings`. Settings that guide
    nothing (method off) are not written and come back as None.
    """

    prompt: str
    steps: int
    sampler: str
    cfg_scale: float
    seed: int
    width: int
    height: int
    negative_prompt: str = ""
    model: str = ""
    version: str = ""
    settings: Settings | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def format_parameters(parameters: Parameters) -> str:
    """The infotext; `parse_parameters` gives the same Parameters back, its settings in canonical form."""
    if not math.isfinite(parameters.cfg_scale):
        raise SettingsError(f"the CFG scale is {parameters.cfg_scale}, but must be a finite number")
    pairs: dict[str, str | float] = {
        "Steps": str(parameters.steps),
        "Sampler": encode(parameters.sampler, "Sampler"),
        "CFG scale": float(parameters.cfg_scale),
        "Seed": str(parameters.seed),
        "Size": f"{parameters.width}x{parameters.height}",
    }
    if parameters.model:
        pairs["Model"] = encode(parameters.model, "Model")
    if parameters.settings is not None:
        pairs.update(parameters.settings.infotext())
    head = _write_head(parameters.prompt, parameters.negative_prompt)
    shown = _read_head(head.lstrip().split("\n"))
    for key, text, read in zip(
        (_EXACT_PROMPT, _EXACT_NEGATIVE), (parameters.prompt, parameters.negative_prompt), shown, strict=True
    ):
        if text != read:
            pairs[key] = encode(text, key)
    pairs.update(_checked(parameters.extra))
    if parameters.version:
        pairs["Version"] = encode(parameters.version, "Version")
    return f"{head}\n{write_pairs(pairs)}".strip()


def parse_parameters(infotext: str) -> Parameters:
    """The Parameters of an infotext, ours or a WebUI's; SettingsError where it cannot be repeated."""
    *lines, last = infotext.strip().split("\n")
    pairs = read_pairs(last)
    if len(pairs) < _FEWEST_PAIRS:
        raise SettingsError('this text does not end in a line of parameters such as "Steps: 8, Sampler: ..."')
    prompt, negative = _read_head(lines)
    width, height = _size(pairs)
    ours = {*_OWN, *(setting.infotext for setting in fields())}
    return Parameters(
        prompt=_text(pairs, _EXACT_PROMPT, prompt),
        steps=_whole(pairs, "Steps"),
        sampler=_text(pairs, "Sampler"),
        cfg_scale=_number(pairs, "CFG scale"),
        seed=_whole(pairs, "Seed"),
        width=width,
        height=height,
        negative_prompt=_text(pairs, _EXACT_NEGATIVE, negative),
        model=_text(pairs, "Model"),
        version=_text(pairs, "Version"),
        settings=Settings.from_infotext(pairs),
        extra={key: decode(value) for key, value in pairs.items() if key not in ours},
    )


def write_png(path: str | os.PathLike[str], image: Image.Image, infotext: str) -> None:
    """Write `image` with its infotext, whole or not at all; only a whole file replaces an older one."""
    target = Path(path)
    content = _encode_png(target, image, infotext)
    try:
        if target.exists() and not target.is_file():
            # A device or a folder must not be replaced by a picture.
            raise OutputError(f"cannot write {target}: it is not an ordinary file; choose another name")
        with written_whole(target) as part:
            part.write_bytes(content)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot write {target}: {reason(error)}; check that its folder exists, is writable and has room"
        ) from error


def png_bytes(image: Image.Image, infotext: str) -> bytes:
    """What `write_png` would write; raises OutputError where Pillow cannot."""
    return _encode_png(Path("the picture"), image, infotext)


def read_png(path: str | os.PathLike[str]) -> str:
    """The infotext of a PNG file; raises SettingsError where the file is missing, damaged or carries none."""
    source = Path(path)
    try:
        content = source.read_bytes()
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {source}: {reason(error)}") from error
    if not content.startswith(_SIGNATURE):
        kind = "is empty" if not content else "is not a PNG file"
        raise SettingsError(f"{source} {kind}: pass a picture that this program or a WebUI saved as PNG")
    if not is_whole_png(content):
        raise SettingsError(f"{source} is damaged or cut off: copy it again from where it was made")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            # `text` reads to the end, because some programs move the text behind the pixels.
            infotext = picture.text.get(CHUNK, "")  # type: ignore[attr-defined]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SettingsError(f"cannot read {source}: {error}") from error
    if not infotext.strip():
        raise SettingsError(
            f'{source} carries no "{CHUNK}": no WebUI made it, or some program has removed them since'
        )
    return str(infotext)


def is_whole_png(content: bytes) -> bool:
    """Whether every chunk is there with its checksum, up to the one that ends the file."""
    if not content.startswith(_SIGNATURE):
        return False
    offset = len(_SIGNATURE)
    while offset + 12 <= len(content):
        length = int.from_bytes(content[offset : offset + 4], "big")
        end = offset + 8 + length
        name = content[offset + 4 : offset + 8]
        if content[end : end + 4] != zlib.crc32(content[offset + 4 : end]).to_bytes(4, "big"):
            return False
        if name == b"IEND":
            return True
        offset = end + 4
    return False


def _write_head(prompt: str, negative: str) -> str:
    return printable(prompt) + (f"\n{_NEGATIVE} {printable(negative)}" if negative else "")


def _read_head(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt as every reader of this format takes them from the lines above the pairs."""
    texts = ["", ""]
    part = 0
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            part, line = 1, line[len(_NEGATIVE) :].strip()
        texts[part] += f"\n{line}" if texts[part] else line
    return texts[0], texts[1]


def _checked(extra: Mapping[str, str]) -> dict[str, str]:
    taken = {*_OWN, *(setting.infotext for setting in fields())}
    for key in extra:
        if key in taken or not is_key(key):
            raise SettingsError(
                f"{key!r} cannot be the name of an extra infotext value: it is taken or not plain words"
            )
    return {key: encode(text, key) for key, text in extra.items()}


def _text(pairs: Mapping[str, str], key: str, default: str = "") -> str:
    return decode(pairs[key]) if key in pairs else default


def _number(pairs: Mapping[str, str], key: str) -> float:
    try:
        value = float(_present(pairs, key))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{key} is {pairs[key]!r} in the infotext, but must be a number")
    return value


def _whole(pairs: Mapping[str, str], key: str) -> int:
    try:
        return int(_present(pairs, key))
    except ValueError:
        raise SettingsError(f"{key} is {pairs[key]!r} in the infotext, but must be a whole number") from None


def _size(pairs: Mapping[str, str]) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", _present(pairs, "Size"))
    if match is None:
        raise SettingsError(f"Size is {pairs['Size']!r} in the infotext, but must be like 1024x1024")
    return int(match[1]), int(match[2])


def _present(pairs: Mapping[str, str], key: str) -> str:
    if key not in pairs:
        raise SettingsError(f"the infotext does not say {key}, so the picture cannot be repeated")
    return pairs[key]


def _encode_png(target: Path, image: Image.Image, infotext: str) -> bytes:
    """The whole file in memory, so that whatever Pillow refuses is known before a file exists."""
    text = PngImagePlugin.PngInfo()
    buffer = io.BytesIO()
    try:
        # Plain Latin-1 becomes tEXt, everything else iTXt.
        text.add_text(CHUNK, infotext)
        image.save(buffer, "PNG", pnginfo=text)
    except (OSError, ValueError, SystemError) as error:
        raise OutputError(f"cannot write {target}: {error}") from error
    return buffer.getvalue()
