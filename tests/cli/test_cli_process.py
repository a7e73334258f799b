"""The command as a process: exit codes, streams, interruption, a full disk, and what is imported when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vsf_lib.metadata import read_png

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and limits as POSIX has them")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "vsf_lib", *words]


def environment(**others: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **others}


def call(folder: Path, *words: str, **others: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
        **others,  # type: ignore[call-overload]
    )


def test_streams_of_a_picture(tmp_path, model):
    done = call(
        tmp_path,
        *("generate", "--prompt", "a red car", "--negative-prompt", "wheels", "--alpha", "1", "--compare"),
        *("--steps", "2", "--seed", "1", "--model", model, "--json", "--out", "Bilder ü/x.png"),
    )
    assert (done.returncode, done.stderr) == (0, ""), "libraries keep quiet, and nothing is to be noted"
    told = json.loads(done.stdout)
    assert Path(told["path"]) == tmp_path / "Bilder ü" / "x.png"
    assert told["infotext"] == read_png(told["path"])


@pytest.fixture
def interruptible():
    """A runner that was started in the background ignores SIGINT, and its children would too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@POSIX
def test_interruption_leaves_whole_pictures_only(tmp_path, model, interruptible):
    process = subprocess.Popen(
        command(*("generate", "--prompt", "a car", "--steps", "1", "--model", model, "--batch", "100000")),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: no unfinished result was left behind"
    assert "Traceback" not in err
    written = list((tmp_path / "outputs").iterdir())
    assert Path(first) in written
    for path in written:
        assert read_png(path)


@POSIX
def test_interruption_while_something_is_imported(tmp_path):
    (tmp_path / "start.py").write_text(
        "import runpy, sys, vsf_lib.cli.generate as generate\n"
        "generate.resolve = lambda args: exec('raise KeyboardInterrupt')\n"
        "sys.argv[1:] = ['generate', '--prompt', 'a car']\n"
        "runpy.run_module('vsf_lib', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-m", "start"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted: no unfinished result was left behind\n")


LIMITED = """
import resource, sys
from vsf_lib.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""


@POSIX
def test_full_disk_leaves_the_old_picture(tmp_path, model):
    old = tmp_path / "x.png"
    old.write_bytes(b"the old one")
    done = subprocess.run(
        [
            *(sys.executable, "-c", LIMITED),
            *("generate", "--prompt", "a car", "--steps", "1", "--model", model, "--out", str(old)),
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: cannot write {old}: File too large")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert old.read_bytes() == b"the old one"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_standard_output_that_takes_nothing(tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("--version"),
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: cannot write to standard output: No space left on device")
    assert done.stderr.count(b"\n") == 1


def test_console_that_lacks_a_character(tmp_path):
    done = subprocess.run(
        command("generate", "--prompt", "a car", "--size", "größe 😀"),
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="ascii:strict", PYTHONUTF8="1"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: the size is 'gr??e ?'")


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("--help", ["torch", "pydantic", "PIL", "numpy"]),
        ("generate --help", ["torch", "diffusers", "transformers", "numpy"]),
        ("generate --prompt a --alpha nan", ["torch", "diffusers", "transformers", "numpy"]),
        ("generate --prompt a --out /dev/null", ["torch", "diffusers", "transformers", "numpy"]),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path, words, absent):
    code = f"import sys; from vsf_lib.cli import main; main({words.split()!r}); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    imported = done.stdout.splitlines()[-1].split()
    assert "vsf_lib.cli" in imported
    assert [name for name in absent if name in imported] == []


def test_defects_keep_their_traceback(tmp_path):
    code = (
        "import sys, vsf_lib.cli as cli, vsf_lib.cli.generate as generate\n"
        "generate.resolve = lambda args: 1 / 0\n"
        "sys.exit(cli.main(['generate', '--prompt', 'a car']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
