"""Makes VSF run, with nothing but the standard library.

With arguments: makes `.venv` beside this file, installs the pinned requirements and runs `python -m vsf_lib`
there, or the test suite. Without: the WebUI's hook, which runs at every start of the host, so it only looks.
Must not know what vsf_lib's commands do, only which requirements they need.

No `from __future__ import annotations` here: the next lines must be reached on an old Python too.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  a person may start this with any Python
    print(f"VSF needs Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}.")
    sys.exit(2)

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "vsf-installed.json"
LOCK = ROOT / ".venv.lock"

# command -> the files of requirements/ that it needs beside run.txt, where there is such a file
COMMANDS_WITH_REQUIREMENTS = {
    "test": ("test", "studio", "bench"),
    "studio": ("studio",),
    "video": ("video",),
    "bench": ("bench",),
}
ASK_ABOVE = 1_000_000_000  # bytes of download
OLDEST_TORCH = (2, 3)
PIP_WITH_CHEAP_DRY_RUN = (25, 3)  # from here on a dry run fetches metadata only
PIP_WITH_RAW_PROGRESS = (24, 1)
SECONDS_BETWEEN_SIGNS_OF_LIFE = 20.0

# What vsf_lib imports inside a WebUI: (distribution, module, oldest version). All of it belongs to the host.
HOST_PACKAGES = (
    ("torch", "torch", OLDEST_TORCH),
    ("pydantic", "pydantic", (2, 8)),
    ("safetensors", "safetensors", ()),
    ("transformers", "transformers", ()),
    ("Pillow", "PIL", ()),
)

USAGE = """\
usage: python install.py [--torch system | --torch own | --torch-index URL] [--yes] [--install-only] COMMAND
  e.g. python install.py generate --prompt "a red car on a field" --negative-prompt "wheels" --compare
       python install.py video --prompt "a red car driving" --negative-prompt "wheels" --compare
       python install.py test          (the test suite; what follows goes to pytest)
  --torch system reuses this Python's torch, --torch-index URL fetches torch there, --torch own undoes both;
  the choice is kept. --yes asks nothing, --install-only does not run the command.
  A WebUI calls this file by itself: nothing to run by hand there."""

REASONS = (  # what pip prints -> what it means; the first that fits is told
    ("No space left|not enough space on the disk|Errno 28|WinError 112", "the disk is full"),
    ("Permission denied|Read-only file system", "a file or folder cannot be written"),
    ("name resolution|not known|getaddrinfo|NewConnectionError|Timeout", "the package index is out of reach"),
    ("No matching distribution", "the package index has no fitting version for this Python and system"),
)


class InstallError(Exception):
    """Something that the person can mend; the message says what, and `details` holds pip's last lines."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Options(NamedTuple):
    torch: str | None  # "own" (pinned, from the usual index), "system", an index URL, or None: as it was
    yes: bool
    command: list[str]
    only: bool = False  # install and stop


def main(arguments: list[str]) -> int:
    if not arguments and started_by_webui():
        return webui_hook()
    options = parse(arguments)
    if not options.command or options.command[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    name = next((word for word in options.command if not word.startswith("-")), "")
    prepare(options, sets_of(name))
    if options.only:
        return 0
    if options.command[0] == "test":
        settings = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
        return run(["pytest", *settings, *pytest_arguments(options.command[1:])])
    return run(["vsf_lib", *options.command], VSF_STARTED_AS=called())


def sets_of(command: str) -> list[str]:
    """The files of requirements/ that a command needs."""
    extra = COMMANDS_WITH_REQUIREMENTS.get(command, ())
    return ["torch", "run", *(file for file in extra if requirement_file(file).is_file())]


def has(command: str) -> bool:
    """Whether .venv has all that a command needs, in these versions."""
    return is_ready(Options(None, False, []), sets_of(command))


def parse(arguments: list[str]) -> Options:
    """Only the options before the command are ours; argparse would claim the command's too."""
    rest, torch, yes, only = list(arguments), None, False, False
    while rest:
        option, has_value, value = rest[0].partition("=")
        if option in ("--torch", "--torch-index"):
            if not has_value:
                rest.pop(0)
                value = rest[0] if rest else ""
            if torch or not value or (option == "--torch" and value not in ("system", "own")):
                raise InstallError(
                    f"{option} {value!r}: say --torch system, --torch own or --torch-index URL, once"
                )
            torch = value
        elif option == "--yes":
            yes = True
        elif option == "--install-only":
            only = True
        else:
            break
        rest.pop(0)
    return Options(torch, yes, rest, only)


def pytest_arguments(extra: list[str]) -> list[str]:
    """The whole suite, unless a file or test is named."""
    names_a_test = any(Path(word.split("::")[0]).exists() for word in extra if not word.startswith("-"))
    return extra if names_a_test else [str(ROOT / "tests"), *extra]


def called() -> str:
    """How this file was started, for the messages of a command: plain Python does not find vsf_lib.

    Not for the tests, which are about the messages as they are without.
    """
    path = sys.argv[0]
    return f'python "{path}"' if " " in path else f"python {path}"


def run(module_and_arguments: list[str], **variables: str) -> int:
    """`-I` keeps the caller's folder and PYTHONPATH (a WebUI sets it) from standing in for our packages."""
    command = [str(PYTHON), "-I", "-X", "utf8", "-m", *module_and_arguments]
    environment = {**clean_environment(), **variables}
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    process = subprocess.Popen(command, env=environment)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the child got it too, and decides
            return process.wait()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


# The WebUI's hook


def started_by_webui() -> bool:
    """The hosts run `python <extension>/install.py` with their own folder in front of PYTHONPATH."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return any((Path(place) / "modules" / "launch_utils.py").is_file() for place in places if place)


def webui_hook() -> int:
    """Silent where the host has all; it pins these packages, so a missing one is told and never installed."""
    import importlib.metadata
    import importlib.util

    lacks = []
    for distribution, module, oldest in HOST_PACKAGES:
        try:
            found = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            if importlib.util.find_spec(module) is None:
                lacks.append(distribution)
            continue
        if numbers(found) < oldest:
            lacks.append(f"{distribution} {'.'.join(map(str, oldest))} (it has {found})")
    if lacks:
        print(
            f"VSF: this WebUI lacks {', '.join(lacks)}. So VSF guides no pictures here; its video tab works, "
            "with packages of its own. It changes no host package."
        )
    return 0


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: `2.13.0+cpu` -> (2, 13)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


# The environment


def prepare(options: Options, sets: list[str]) -> None:
    """Brings .venv to what `sets` need. Nothing to do, the usual case, costs one start of a bare Python."""
    if is_ready(options, sets):
        return
    import importlib.util

    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise InstallError(
            f"{sys.executable} has no venv or ensurepip. Debian, Ubuntu: sudo apt install {package}. "
            "Instead of an embedded or portable Python use a full one from python.org."
        )
    with only_one_installer():
        if is_ready(options, sets):  # another call has done it meanwhile
            return
        stamp = read_stamp()
        torch = options.torch or stamp.get("torch", "own")
        make_venv(torch, stamp)
        packages = Path(ask_venv("__import__('sysconfig').get_path('purelib')"))
        # Relative, so that a moved checkout still works; ASCII, as Pythons read it in different encodings.
        # Its name sorts before vsf-system-torch.pth: a system Python that is linked to another checkout must
        # not lend its vsf_lib.
        (packages / "vsf-checkout.pth").write_text(os.path.relpath(ROOT, packages) + "\n", encoding="ascii")
        remove_half_installed(packages)
        torch_from = read_stamp().get("torch_from")
        # From here on .venv counts as unfinished, but the choice of torch and the person's "yes" are kept.
        agreed = options.yes or stamp.get("agreed", False)
        write_stamp({"torch": torch, "torch_from": torch_from, "agreed": agreed})
        sets = sorted(name for name in {*sets, *stamp.get("sets", {})} if requirement_file(name).is_file())
        digests = {name: digest(name) for name in sets}
        install(sets, torch, torch_from, agreed)
        write_stamp({"torch": torch, "torch_from": torch, "python": venv_python_version(), "sets": digests})


def is_ready(options: Options, sets: list[str]) -> bool:
    stamp = read_stamp()
    return (
        options.torch in (None, stamp.get("torch"))
        and all(stamp.get("sets", {}).get(name) == digest(name) for name in sets)
        and stamp.get("python") == venv_python_version()
    )


def requirement_file(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def digest(name: str) -> str:
    return hashlib.sha256(requirement_file(name).read_bytes()).hexdigest()


def read_stamp() -> dict[str, Any]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, Any]) -> None:
    fresh = STAMP.with_suffix(".new")
    fresh.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    fresh.replace(STAMP)


def venv_python_version() -> str | None:
    """`3.11`; None where .venv's Python is gone. A link to an upgraded Python tells the new version."""
    with contextlib.suppress(InstallError):
        return ask_venv("'%d.%d' % sys.version_info[:2]", "-S")
    return None


def ask_venv(expression: str, *flags: str) -> str:
    command = [str(PYTHON), "-I", "-X", "utf8", *flags, "-c", f"import sys; print({expression})"]
    try:
        return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"{PYTHON} does not work") from error


@contextlib.contextmanager
def only_one_installer() -> Iterator[None]:
    """The system releases this lock when its holder ends, however it ends, so it cannot go stale."""
    with LOCK.open("a+b") as file:
        if not try_lock(file.fileno()):
            say("Another install.py is at work here; waiting for it.")
            while not try_lock(file.fileno()):
                time.sleep(0.3)
        os.set_inheritable(file.fileno(), True)  # a pip that outlives a killed installer still holds it
        yield


def try_lock(descriptor: int) -> bool:
    """False where another process has it. A file system without locks counts as free."""
    import errno

    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def make_venv(torch: str, stamp: dict[str, Any]) -> None:
    """A new .venv where there is none, none that works, or one whose torch is from elsewhere than wanted."""
    exists, why = os.path.lexists(VENV), ""
    if exists:
        if not VENV.is_dir() or VENV.is_symlink():
            raise InstallError(f"{VENV} is not a folder of its own; move it away")
        works = pip_version() is not None and stamp.get("python") in (None, venv_python_version())
        elsewhere = "system" in (torch, stamp.get("torch")) and stamp.get("torch") != torch
        if works and not elsewhere:
            return
        why = "torch comes from elsewhere now" if works else "its Python is gone or it was left unfinished"
        if Path(sys.prefix).resolve() == VENV.resolve():
            raise InstallError(
                f".venv has to be rebuilt ({why}), but {sys.executable} is its own Python. "
                "Run deactivate, or start install.py with another Python."
            )
    folders = system_torch_folders() if torch == "system" else []
    if exists:
        say(f"Rebuilding .venv: {why}.")
        shutil.rmtree(VENV)
    watch([sys.executable, "-I", "-X", "utf8", "-m", "venv", str(VENV)], f"making {VENV}")
    if folders:
        packages = Path(ask_venv("__import__('sysconfig').get_path('purelib')"))
        lines = [f"import site; site.addsitedir({folder!a})\n" for folder in folders]
        (packages / "vsf-system-torch.pth").write_text("".join(lines), encoding="ascii")


def system_torch_folders() -> list[str]:
    """Where this Python finds torch and its other packages, after importing torch for real."""
    code = (
        "import importlib.metadata as m, json, os, sys, torch\n"
        "home = os.path.dirname(os.path.dirname(torch.__file__))\n"
        "others = [path for path in sys.path if path.endswith('-packages') and path != home]\n"
        "print(json.dumps([m.version('torch'), [home, *others]]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        found, folders = "no torch that can be imported", []
    else:
        version, folders = json.loads(result.stdout.splitlines()[-1])
        found = f"torch {version}" if numbers(version) < OLDEST_TORCH else ""
    if found:
        remedy = "install torch 2.3 or newer there, or leave --torch system out"
        raise InstallError(f"--torch system: {sys.executable} has {found}; {remedy}", result.stderr[-500:])
    return folders


def remove_half_installed(packages: Path) -> None:
    """pip writes INSTALLER after a package's files: one without was interrupted, yet counts as installed."""
    half = [info for info in packages.glob("*.dist-info") if not (info / "INSTALLER").is_file()]
    for folder in [*half, *packages.glob("~*")]:
        shutil.rmtree(folder, ignore_errors=True)


def install(sets: list[str], torch: str, torch_from: str | None, agreed: bool) -> None:
    """In one pip call, but for a torch from its own index: what else lies there may be stale."""
    named = [name for name in sets if name != "torch" or torch != "system"]
    wanted = [word for name in named for word in ("-r", str(requirement_file(name)))]
    if torch == "system":  # keeps pip from taking another one
        wanted.append("torch==" + ask_venv("__import__('importlib.metadata').metadata.version('torch')"))
    from_url = torch not in ("own", "system")
    if from_url:
        wanted += ["--extra-index-url", torch]

    with contextlib.suppress(InstallError):  # the pip that came with Python will do, with less to show
        pip(["--upgrade", "-r", str(requirement_file("pip"))], "preparing pip")
    if not agreed and sys.stdin is not None and sys.stdin.isatty():
        ask_before_download(wanted)
        write_stamp({**read_stamp(), "agreed": True})
    if from_url or torch_from not in (None, "system", torch):
        index = ["--index-url", torch] if from_url else []
        again = [] if torch_from == torch else ["--force-reinstall"]
        pip(["--no-deps", *again, *index, "-r", str(requirement_file("torch"))], "installing torch")
    pip(wanted, f"installing the pinned packages ({', '.join(sets)})")


def ask_before_download(wanted: list[str]) -> None:
    size = download_size(wanted)
    if size is not None and size <= ASK_ABOVE:
        return
    amount = "An unknown amount (perhaps 3 GB)" if size is None else f"About {size / 1e9:.1f} GB"
    print(f"{amount} will be downloaded for {VENV}. Go on? [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer or answer.strip().lower() in ("n", "no"):
        raise InstallError("stopped before the download. (--torch system would reuse a torch that you have.)")


def download_size(wanted: list[str]) -> int | None:
    """Bytes that pip would fetch; None where that cannot be told (an old pip, a server that does not say)."""
    import urllib.request
    from concurrent.futures import ThreadPoolExecutor

    if (pip_version() or ()) < PIP_WITH_CHEAP_DRY_RUN:
        return None
    report = VENV / "pip-report.json"
    pip(["--dry-run", "--report", str(report), *wanted], "adding up the download")
    urls = [item["download_info"]["url"] for item in json.loads(report.read_bytes())["install"]]

    def length(url: str) -> int:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as answer:
            return int(answer.headers["Content-Length"])

    try:
        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(length, [url for url in urls if not url.startswith("file:")]))
    except (OSError, TypeError, ValueError):
        return None


# pip, made calm


def pip_version() -> tuple[int, ...] | None:
    with contextlib.suppress(InstallError):
        return numbers(ask_venv("__import__('pip').__version__"))
    return None


def pip(arguments: list[str], doing: str) -> None:
    bar = "raw" if (pip_version() or ()) >= PIP_WITH_RAW_PROGRESS else "off"
    command = [
        str(PYTHON),
        "-I",
        "-u",
        "-X",
        "utf8",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
    ]
    options = ["--no-user", "--no-compile", "--no-warn-script-location", "--progress-bar", bar]
    watch([*command, "install", *options, *arguments], doing)


def watch(command: list[str], doing: str) -> None:
    """Runs `command` and shows what it is at: never its whole output, and never nothing for a minute."""
    import queue
    import threading

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
        encoding="utf-8",
        errors="replace",
        close_fds=False,  # hands down the lock
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    meter = Meter(doing)
    said: list[str] = []
    line: str | None = ""
    try:
        while line is not None:
            meter.show(line)
            if line and not line.startswith(("Progress ", "WARNING: Location", "Requirement already")):
                said.append(line)
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                line = ""
        failed = process.wait() != 0
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        meter.close()
    if failed:
        text = "\n".join(said)
        why = next((meaning for sign, meaning in REASONS if re.search(sign, text)), "see the lines above")
        raise InstallError(
            f"{doing} failed: {why}. The same command takes it up again.", "\n".join(said[-8:])
        )


class Meter:
    """One line, rewritten, on a terminal; elsewhere a line per step and a sign of life in between."""

    def __init__(self, doing: str) -> None:
        self.start = self.last = time.monotonic()
        self.doing, self.step, self.amount = doing, "", ""
        self.terminal = sys.stderr.isatty()
        if not self.terminal:
            say(f"{doing} ...")

    def show(self, line: str) -> None:
        progress = re.fullmatch(r"Progress (\d+) of (\d+)", line)
        fetching = re.match(r"Downloading ([\w.]+)-(\d[^-]*)\S* \(", line)
        if progress:
            self.amount = "{:.0f} of {:.0f} MB".format(*(int(part) / 1e6 for part in progress.groups()))
        elif fetching:
            self.step, self.amount = "fetching {} {}".format(*fetching.groups()), ""
        elif line.startswith("Collecting "):
            self.step, self.amount = f"looking up {line.split()[1]}", ""
        elif line.startswith("Installing collected packages"):
            self.step, self.amount = f"unpacking {line.count(',') + 1} packages", ""
        now = time.monotonic()
        if now - self.last < (0.2 if self.terminal else SECONDS_BETWEEN_SIGNS_OF_LIFE):
            return
        self.last = now
        minutes, seconds = divmod(int(now - self.start), 60)
        status = " ".join(
            part for part in (f"{minutes}:{seconds:02d} {self.doing}:", self.step, self.amount) if part
        )
        if self.terminal:
            print("\r" + status[:78].ljust(78), end="", file=sys.stderr, flush=True)
        else:
            say("  " + status)

    def close(self) -> None:
        if self.terminal:
            print("\r" + " " * 78, end="\r", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """To standard error: standard output belongs to the command."""
    print(line, file=sys.stderr, flush=True)


def entry() -> int:
    # So that ending this process also ends its pip, and says so by the exit code.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return main(sys.argv[1:])
    except KeyboardInterrupt:
        say("install.py: interrupted; the same command takes it up again.")
        return 130
    except InstallError as error:
        if error.details:
            say(error.details.rstrip())
        say(f"install.py: {error}")
    except OSError as error:
        say(f"install.py: {error}")
    return 2


if __name__ == "__main__":
    sys.exit(entry())
