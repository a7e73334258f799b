"""The tokenizer that goes with a UMT5 file: inside of it, beside it, or fetched once for another model.

Owns the order in which it is looked for, and the proof that it is UMT5's: ids from another tokenizer would be
other words. Nothing is fetched.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file.headers import Header

_EMBEDDED = "spiece_model"
_FILES = ("tokenizer.json", "spiece.model")
_FOLDER = "tokenizer"
_REPOSITORIES = (
    ("google/umt5-xxl", ""),
    ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", f"{_FOLDER}/"),
    ("Wan-AI/Wan2.1-T2V-14B-Diffusers", f"{_FOLDER}/"),
)
_PAD, _END = 0, 1
_SPARE = 1024
"""Rows of UMT5's table beyond its tokenizer's words: its 256384 rows are rounded up."""


@dataclass(frozen=True)
class Source:
    """A tokenizer's file, or the tensor of a weights file that is one."""

    file: Path
    tensor: str = ""


def of_file(header: Header) -> Source:
    """For an encoder in one file; raises ModelError with what to put where."""
    inside = next((name for name in header.tensors if name.endswith(_EMBEDDED)), None)
    if inside is not None:
        return Source(header.path, inside)
    beside = header.path.parent
    found = _in(beside / header.path.stem) or _in(beside) or _in(beside / _FOLDER) or _cached()
    if found is None:
        raise ModelError(
            f"{header.path.name} has no tokenizer in it: put tokenizer.json or spiece.model of "
            f"google/umt5-xxl into {beside / _FOLDER}, or use Comfy-Org's umt5_xxl file, which has it inside"
        )
    return Source(found)


def of_folder(folder: Path) -> Source:
    """For an encoder in diffusers' format; raises ModelError with what to put where."""
    found = _in(folder.parent / _FOLDER) or _in(folder / _FOLDER) or _in(folder) or _cached()
    if found is None:
        raise ModelError(
            f"{folder} has no tokenizer: put tokenizer.json or spiece.model of google/umt5-xxl into "
            f"{folder.parent / _FOLDER}"
        )
    return Source(found)


def load(source: Source, rows: int) -> Any:
    """The tokenizer, for an encoder of so many `rows`; raises ModelError if it is another's."""
    try:
        tokenizer = _read(source)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"cannot read the tokenizer of {source.file.name}: {str(error).splitlines()[0][:200]}"
        ) from error
    ids = tokenizer("a")["input_ids"]
    if not rows - _SPARE <= len(tokenizer) <= rows or tokenizer.pad_token_id != _PAD or ids[-1:] != [_END]:
        raise ModelError(
            f"the tokenizer of {source.file} has {len(tokenizer)} words, pads with {tokenizer.pad_token_id} "
            f"and ends with {ids[-1:]}, but the text encoder has {rows} words, {_PAD} and [{_END}]: it is "
            "another model's; use google/umt5-xxl's"
        )
    return tokenizer


def _read(source: Source) -> Any:
    if source.tensor:
        from safetensors import safe_open

        with safe_open(source.file, "np") as file:
            content = file.get_tensor(source.tensor).tobytes()
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / _FILES[1]
            model.write_bytes(content)
            return _sentencepiece(model)
    if source.file.name == _FILES[1]:
        return _sentencepiece(source.file)
    if (source.file.parent / "tokenizer_config.json").is_file():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(source.file.parent), local_files_only=True)
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(source.file), eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def _sentencepiece(model: Path) -> Any:
    from transformers import T5Tokenizer

    # The other behaviour differs only behind special tokens within a text, and needs protobuf.
    return T5Tokenizer(str(model), extra_ids=0, legacy=True)


def _in(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def _cached() -> Path | None:
    """A file that was fetched for another program."""
    from huggingface_hub import try_to_load_from_cache

    for repository, folder in _REPOSITORIES:
        for name in _FILES:
            found = try_to_load_from_cache(repository, folder + name)
            if isinstance(found, str):
                return Path(found)
    return None
