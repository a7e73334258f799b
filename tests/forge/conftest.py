"""A real Forge with this repository as its extension, for the tests in this folder.

VSF_FORGE_ROOT names a folder of Forge with checkpoints of SD3.5 and Flux, or of Forge Neo with checkpoints of
Flux and Wan (small random ones do), and VSF_FORGE_PYTHON its Python (default: the one of its venv). Without
the first, everything here is skipped.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from forge_client import Forge, ForgeError

ROOT = os.environ.get("VSF_FORGE_ROOT")
REPOSITORY = Path(__file__).parents[2]
ARGUMENTS = """
    --api --server-name 127.0.0.1 --skip-torch-cuda-test --skip-prepare-environment --skip-install
    --skip-version-check --skip-python-version-check
"""
OF_SOME = ("--always-cpu", "--cpu", "--no-download-sd-model", "--do-not-download-clip")
"""Arguments that are given to a host whose sources know them; others refuse to start with them."""
EXTENSIONS = {"vsf": REPOSITORY, "vsf-trials": Path(__file__).parent / "trials"}
STARTS_WITHIN = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        needed = "VSF_OLD_HOST_ROOT" if item.path.stem == "test_old_host" else "VSF_FORGE_ROOT"
        if not os.environ.get(needed):
            item.add_marker(pytest.mark.skip(reason=f"{needed} names no WebUI"))


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., AbstractContextManager[Forge]]]:
    """`with start() as host` is a new process of the host with this repository among its extensions.

    It has the API alone, with `page=True` the page too.
    """
    root = Path(str(ROOT))
    with ExitStack() as undo:
        for name, folder in EXTENSIONS.items():
            link = root / "extensions" / name
            if not link.exists():
                link.symlink_to(folder, target_is_directory=True)
                undo.callback(link.unlink)
        yield lambda page=False: _process(root, tmp_path_factory.mktemp("forge") / "log.txt", page=page)


@pytest.fixture(scope="session")
def forge(start: Callable[..., AbstractContextManager[Forge]]) -> Iterator[Forge]:
    """The host that most tests share."""
    with start() as host:
        yield host


@contextmanager
def _process(root: Path, log: Path, *, page: bool) -> Iterator[Forge]:
    """A host at a port of its own, stopped afterwards. One that does not answer fails with its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A named server counts as public, where the page would install nothing.
    arguments = [*ARGUMENTS.split(), "--enable-insecure-extension-access" if page else "--nowebui"]
    known = (root / "modules/cmd_args.py").read_text("utf-8") + (root / "backend/args.py").read_text("utf-8")
    arguments += [argument for argument in OF_SOME if f'"{argument}"' in known]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [_python(root), "launch.py", "--port", str(port), *arguments],
            cwd=root,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "GRADIO_ANALYTICS_ENABLED": "False",
                **_with_ffmpeg(),
            },
        )
    try:
        host = Forge(port)
        deadline = time.monotonic() + STARTS_WITHIN
        while not _answers(host):
            assert server.poll() is None, log.read_text("utf-8", "replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")[-3000:]
            time.sleep(1)
        yield host
        said = log.read_text("utf-8", "replace").splitlines()
        ours = [line for line in said if line.startswith("*** Error") and "extensions/vsf" in line]
        assert not ours, f"the host has logged errors of ours: {ours[:3]}"
    finally:
        server.terminate()
        server.wait(60)


def _with_ffmpeg() -> dict[str, str]:
    """The tests' own ffmpeg lent to the host, if there is one.

    Not on its PATH: where gradio finds one there, it wants ffprobe beside it.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        return {}
    return {"IMAGEIO_FFMPEG_EXE": imageio_ffmpeg.get_ffmpeg_exe()}


def _python(root: Path) -> str:
    own = root / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return os.environ.get("VSF_FORGE_PYTHON") or str(own if own.exists() else sys.executable)


def _answers(host: Forge) -> bool:
    try:
        host.request("/sdapi/v1/samplers")
    except (OSError, ForgeError):
        return False
    return True


@pytest.fixture(scope="session")
def model(forge: Forge) -> Any:
    """`model("turbo")` is the title of the first checkpoint with that in its name; skips where none has.

    Those in fewer bits are passed over unless asked for: `model("turbo", "fp8")`.
    """
    titles = [str(entry["title"]) for entry in forge.request("/sdapi/v1/sd-models")]

    def find(*parts: str) -> str:
        for title in titles:
            others = [storage for storage in ("fp8", "gguf", "nf4") if storage not in parts]
            if all(part in title for part in parts) and not any(storage in title for storage in others):
                return title
        pytest.skip(f"this Forge has no checkpoint with {' and '.join(parts)} in its name")

    return find
