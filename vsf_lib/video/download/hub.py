"""The hub, through huggingface_hub: which files a download needs, fetching one, and what its errors mean.

Owns the choice of files and the words for what goes wrong. huggingface_hub does the work, in the versions
that the WebUIs have: it resumes, compares, and reads HF_ENDPOINT, HF_TOKEN and the proxies' variables.
(Tried: 0.26 to 0.36. 2.4 works too, but begins the file anew that it was interrupted in.)
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError, OutputError, VSFError
from vsf_lib.files import reason
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.download.landing import INDEX, DamagedError, Remote, inside
from vsf_lib.video.single_file.headers import SAFETENSORS

_PLAIN = ("tokenizer", "scheduler")
_HEAVY = {
    "transformer": "diffusion_pytorch_model",
    "transformer_2": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""The parts of a WanPipeline with weights, and the stem of their files: no variants, no other formats."""
_ALWAYS = ("transformer", "vae", "text_encoder")
_CHUNK = 2**20
"""Bytes between two writes: an interruption loses no more of a file."""
_CLIENTS = ("requests", "urllib3", "httpx", "httpcore")
"""Of HTTP, in one or another version of huggingface_hub."""
_KEPT = "what was fetched is kept, and the next attempt goes on from there"
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Listing:
    """What is to be fetched."""

    version: str
    files: tuple[Remote, ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


def prepare() -> None:
    """Sets huggingface_hub up, before it is imported: quiet, and by a way that can be resumed."""
    os.environ.update(
        HF_HUB_DISABLE_XET="1",  # hf_xet and hf_transfer begin an interrupted file anew
        HF_HUB_ENABLE_HF_TRANSFER="0",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_DISABLE_SYMLINKS_WARNING="1",
    )
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    try:
        from huggingface_hub import constants, file_download
    except ImportError as error:
        raise ModelError(f"downloads need huggingface_hub ({error}): pip install huggingface_hub") from error
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    if not hasattr(constants, "HF_HUB_DISABLE_XET") and hasattr(file_download, "is_xet_available"):
        file_download.is_xet_available = lambda: False  # 0.30 to 0.33 cannot be told otherwise


def listing(source: Source, version: str | None = None) -> Listing:
    """The files of a source with their sizes, of `version` as long as the server has it."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import RevisionNotFoundError

    api = HfApi(library_name="vsf")
    try:
        info = api.model_info(source.id, revision=version, files_metadata=True, timeout=30)
    except RevisionNotFoundError:
        if version is None:
            raise
        info = api.model_info(source.id, files_metadata=True, timeout=30)
    remote = {item.rfilename: item for item in info.siblings or []}
    names = [_named(source, list(remote))] if source.file else _needed(source, list(remote))
    files = []
    for name in names:
        inside(Path(), name)
        size = remote[name].size
        if size is None:
            raise ModelError(f"the server does not tell the size of {name}: check HF_ENDPOINT")
        files.append(Remote(name, size, _checksum(remote[name].lfs)))
    # Configurations first: what is wrong with them is found before the weights are fetched.
    files.sort(key=lambda file: (file.name != INDEX, file.size))
    if info.gated and files:  # the list of a gated repository is public, its files are not
        get_hf_file_metadata(hf_hub_url(source.id, files[0].name, revision=info.sha))
    return Listing(str(info.sha), tuple(files))


def get(source: Source, version: str, file: Remote, folder: Path) -> None:
    """Fetches one file into `folder`, or the rest of it."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(source.id, file.name, revision=version, local_dir=folder, library_name="vsf")


def transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    error = _root(error)
    if isinstance(error, DamagedError):
        return True
    status = _status(error)
    if status is not None:
        return status in (408, 416, 429) or status >= 500
    # "Consistency check failed" is a bare OSError; the system's own have a number.
    return _network(error) or (type(error) is OSError and error.errno is None)


def overrun(error: BaseException) -> bool:
    """Whether the part of a file is not of that file, so that going on from it cannot help."""
    return _status(_root(error)) == 416


def told(error: BaseException, source: Source, root: Path) -> VSFError | None:
    """The error in our words, or None for a defect."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    error = _root(error)
    status = _status(error)
    words: str | None = None
    if isinstance(error, VSFError):
        return error
    if isinstance(error, GatedRepoError):
        words = (
            f"{source.id} is gated: accept its licence at https://huggingface.co/{source.id} and {_LOG_IN}"
        )
    elif isinstance(error, RepositoryNotFoundError):
        words = f"there is no repository {source.id}, or it is private: check the name, or {_LOG_IN}"
    elif isinstance(error, EntryNotFoundError):
        words = f"{source} is not on the server: check the name"
    elif isinstance(error, HFValidationError):
        words = f"{source.id!r} is no name on the hub: give OWNER/NAME"
    elif isinstance(error, OfflineModeIsEnabled):
        words = "huggingface_hub is offline: unset HF_HUB_OFFLINE to download"
    elif status in (401, 403):
        words = f"the server refuses {source.id} ({status}): the token has no right to it, so {_LOG_IN}"
    elif status is not None:
        words = f"the server says {status} for {source}: try again later; {_KEPT}"
    elif isinstance(error, DamagedError):
        words = f"{error}, again and again: try again later"
    elif _network(error) or transient(error):
        words = f"the connection to {_endpoint()} failed: check the network and its proxy; {_KEPT}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"the disk of {root} is full: free space on it; {_KEPT}")
    elif isinstance(error, OSError):
        return OutputError(f"cannot write to {root}: {reason(error)}; {_KEPT}")
    return None if words is None else ModelError(words)


def _needed(source: Source, names: list[str]) -> list[str]:
    """Of a pipeline's repository, what WanPipeline reads."""
    if INDEX not in names:
        files = sorted(name for name in names if name.endswith(SAFETENSORS))
        remedy = f"name one of its files, such as {source.id}/{files[0]}" if files else "choose another"
        raise ModelError(f"{source.id} is no model in diffusers' format, it has no {INDEX}: {remedy}")
    needed = [INDEX]
    for name in names:
        part, _, file = name.partition("/")
        if part in _HEAVY:
            weights = rf"{_HEAVY[part]}(-\d+-of-\d+)?\.safetensors|{_HEAVY[part]}\.safetensors\.index\.json"
            if file == "config.json" or re.fullmatch(weights, file):
                needed.append(name)
        elif part in _PLAIN and file.endswith((".json", ".model", ".txt")):
            needed.append(name)
    for part in _ALWAYS:
        if not any(name.startswith(f"{part}/") and name.endswith(SAFETENSORS) for name in needed):
            raise ModelError(
                f"{source.id} has no {SAFETENSORS} files for its {part}: other formats can run code, so none "
                "is fetched; choose another repository"
            )
    return needed


def _named(source: Source, names: list[str]) -> str:
    """The file that is meant, which may have been moved to another folder since."""
    if source.file in names:
        return source.file
    same = [name for name in names if name.rsplit("/", 1)[-1] == source.name]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(source.file, same or names, n=1)
    remedy = f"did you mean {source.id}/{near[0]}?" if near else "check the name"
    raise ModelError(f"{source.id} has no file {source.file}: {remedy}")


def _checksum(large: Any) -> str | None:
    found = large.get("sha256") if isinstance(large, dict) else getattr(large, "sha256", None)
    return found if isinstance(found, str) else None


def _root(error: BaseException) -> BaseException:
    """What is behind huggingface_hub's "not in the cache either"."""
    from huggingface_hub.utils import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _network(error: BaseException) -> bool:
    from huggingface_hub.utils import LocalEntryNotFoundError

    if any(kind.__module__.startswith(_CLIENTS) for kind in type(error).__mro__):
        return True
    return isinstance(error, (LocalEntryNotFoundError, ConnectionError, TimeoutError))


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
