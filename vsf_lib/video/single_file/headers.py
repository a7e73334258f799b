"""What a file of weights says of itself: its tensors' names, shapes and types, of safetensors and GGUF files.

Reads headers alone, whatever the file's size, and knows no network. Needs neither torch nor the package gguf,
so that a page can ask what lies in a folder.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from vsf_lib.errors import ModelError

SAFETENSORS = ".safetensors"
GGUF = ".gguf"

GGML_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
"""GGUF's number for a type: its name, how many values a block has, and its bytes. The ones that every
diffusers since 0.34 can read."""

_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's number for a value in its header, as `struct` calls it."""
_STRING, _ARRAY = 8, 9
_MOST = 1 << 24
"""No header of a model counts anything beyond this: a damaged one is not believed."""
_DEEPEST = 4
"""The same of lists in lists."""
_AXES = 8


@dataclass(frozen=True)
class Entry:
    """One tensor."""

    shape: tuple[int, ...]
    kind: str
    """Its type, as safetensors names it (F16, BF16, F8_E4M3, ...), or GGUF (Q8_0, ...)."""


@dataclass(frozen=True)
class Header:
    """The tensors of one file by name."""

    path: Path
    tensors: Mapping[str, Entry]

    @property
    def gguf(self) -> bool:
        return self.path.suffix.lower() == GGUF


def read_header(path: Path) -> Header:
    """The header of a whole file; raises ModelError for any other."""
    if path.suffix.lower() not in (SAFETENSORS, GGUF):
        raise ModelError(
            f"{path.name} is no {SAFETENSORS} file: other formats can run code, so none is read; "
            f"get the model as {SAFETENSORS}"
        )
    try:
        stat = path.stat()
    except OSError:
        raise ModelError(f"there is no file {path}") from None
    if not path.is_file():
        raise ModelError(f"{path} is no file")
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, mtime: int, size: int) -> Header:
    """`mtime` and `size` tell a file from another one of the same name."""
    tensors = _of_gguf(path, size) if path.suffix.lower() == GGUF else _of_safetensors(path)
    if not tensors:
        raise ModelError(f"{path.name} is empty")
    return Header(path, tensors)


def _of_safetensors(path: Path) -> dict[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            return {name: Entry(tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _of_gguf(path: Path, size: int) -> dict[str, Entry]:
    try:
        with path.open("rb") as file:
            return _GGUF(file, path, size).tensors()
    except (struct.error, OSError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, why: object) -> ModelError:
    return ModelError(f"{path.name} is damaged or cut off: fetch it again ({why})")


class _GGUF:
    """The header's counts, its key-value pairs (passed over), then name, shape, type and place per tensor."""

    def __init__(self, file: IO[bytes], path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self._size = size
        self._alignment = 32

    def tensors(self) -> dict[str, Entry]:
        if self._file.read(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF file does")
        version, count, pairs = self._get("I"), self._count(), self._count()
        if version not in (2, 3):
            raise ValueError(f"its version is {version}, and only 2 and 3 are known")
        for _ in range(pairs):
            key, value = self._string(), self._value(self._get("I"))
            if key == "general.alignment":
                if not isinstance(value, int) or not 0 < value <= _MOST:
                    raise ValueError(f"its alignment is {str(value)[:40]}")
                self._alignment = value
        found: dict[str, Entry] = {}
        end = 0
        for _ in range(count):
            name = self._string()
            axes = self._count("I")
            if axes > _AXES:
                raise ValueError(f"{name} has {axes} axes")
            shape = tuple(reversed([self._count() for _ in range(axes)]))
            number, offset = self._get("I"), self._get("Q")
            if number not in GGML_TYPES:
                raise ModelError(
                    f"{self._path.name} has {name} in a form that diffusers cannot read (type {number}): use "
                    "one of Q4_0 to Q8_0, or Q2_K to Q6_K"
                )
            kind, block, bytes_ = GGML_TYPES[number]
            found[name] = Entry(shape, kind)
            end = max(end, offset + math.prod(shape) // block * bytes_)
        start = -(-self._file.tell() // self._alignment) * self._alignment
        if start + end > self._size:
            raise ValueError(f"{start + end - self._size} bytes are missing")
        return found

    def _get(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._file.read(struct.calcsize(f"<{form}")))[0]

    def _count(self, form: str = "Q") -> int:
        number = int(self._get(form))
        if number > _MOST:
            raise ValueError(f"it counts {number} things")
        return number

    def _string(self) -> str:
        return self._file.read(self._count()).decode("utf-8")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            if depth == _DEEPEST:
                raise ValueError(f"it has lists in lists, more than {_DEEPEST} deep")
            inner, length = self._get("I"), self._count()
            return [self._value(inner, depth + 1) for _ in range(length)]
        if kind not in _PLAIN:
            raise ValueError(f"a value has the unknown type {kind}")
        return self._get(_PLAIN[kind])
