"""install.py: the hook in stand-in hosts, and whole installs from tiny local wheels. No network."""

from __future__ import annotations

import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST = {
    "torch": "2.3.1",
    "pydantic": "2.8.2",
    "safetensors": "0.4.2",
    "transformers": "4.46.1",
    "Pillow": "9.5.0",
}

# Fails on whatever a hook must not do, then runs install.py as the host does.
WATCHED_START = """
import runpy, sys
def watch(event, arguments):
    name = event.split(".")[0]
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
    starts = name == "subprocess" or event in ("os.system", "os.exec", "os.posix_spawn")
    if starts or writes or name in ("socket", "urllib"):
        print("FORBIDDEN", event, arguments[:2])
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = sorted({"torch", "pydantic", "transformers", "pip"} & set(sys.modules))
    if heavy:
        print("FORBIDDEN import", heavy)
"""


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vsf_install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The hook


def host(folder: Path, packages: dict[str, str]) -> Path:
    """A folder that looks like a WebUI with these packages installed beside it."""
    (folder / "modules").mkdir(parents=True)
    (folder / "modules" / "launch_utils.py").touch()
    for name, version in packages.items():
        info = folder / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
    return folder


def start_hook(webui: Path) -> subprocess.CompletedProcess[str]:
    """As Forge does, but -S hides this Python's own packages, so that only the stand-in's are found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(webui), str(webui / "site"), ""])}
    command = [sys.executable, "-S", "-c", WATCHED_START, str(ROOT / "install.py")]
    return subprocess.run(
        command, cwd=webui, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def test_hook_is_silent_and_touches_nothing_in_a_complete_host(tmp_path: Path) -> None:
    result = start_hook(host(tmp_path / "web ui ü", HOST))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pydantic": "1.10.13"}, ["pydantic 2.8 (it has 1.10.13)"]),
        ({"torch": "2.1.2+cu121"}, ["torch 2.3 (it has 2.1.2+cu121)"]),
        ({"Pillow": None, "safetensors": None}, ["lacks safetensors, Pillow."]),
    ],
)
def test_hook_tells_in_one_line_what_a_host_lacks_and_installs_nothing(
    tmp_path: Path, change: dict[str, str | None], words: list[str]
) -> None:
    packages = {name: version for name, version in {**HOST, **change}.items() if version is not None}
    result = start_hook(host(tmp_path / "webui", packages))
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    assert "FORBIDDEN" not in result.stdout
    for word in words:
        assert word in result.stdout


def test_a_person_without_arguments_gets_usage_and_help_needs_no_environment(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for arguments in ([], ["-h"], ["--help"], ["--yes", "--help"]):
        command = [sys.executable, str(tmp_path / "install.py"), *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0
        assert result.stdout.startswith("usage: python install.py")
    assert [path.name for path in tmp_path.iterdir()] == ["install.py"]


# Small parts


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate", "--yes"], (None, False, ["generate", "--yes"], False)),
        (["--yes", "--torch", "system", "test", "-k", "x"], ("system", True, ["test", "-k", "x"], False)),
        (["--torch-index=https://x/?a=b", "bench"], ("https://x/?a=b", False, ["bench"], False)),
        (
            ["--torch-index", "https://x", "--debug", "bench"],
            ("https://x", False, ["--debug", "bench"], False),
        ),
        (["--yes", "--install-only", "studio"], (None, True, ["studio"], True)),
    ],
)
def test_options_end_where_the_command_begins(
    install: ModuleType, arguments: list[str], expected: tuple[str | None, bool, list[str], bool]
) -> None:
    assert install.parse(arguments) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--torch"],
        ["--torch", "newest"],
        ["--torch="],
        ["--torch", "own", "--torch-index", "u"],
        ["--torch-index"],
    ],
)
def test_contradicting_options_are_refused(install: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(install.InstallError, match="--torch system, --torch own or --torch-index URL"):
        install.parse(arguments)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_pins_give_each_python_exactly_one_version_of_each_package(version: str) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    pinned: dict[str, str] = {}
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            requirement = requirements.Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"python_version": version}):
                assert re.fullmatch(r"==[\d.]+", str(requirement.specifier)), line
                assert requirement.name not in pinned, line
                pinned[requirement.name] = str(requirement.specifier)
    declared = {"torch", "diffusers", "transformers", "safetensors", "pydantic", "pillow", "numpy", "pytest"}
    assert declared <= set(pinned)
    assert pinned["numpy"] == ("==2.2.6" if version == "3.10" else "==2.4.6")


def test_named_tests_replace_the_whole_suite(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install.pytest_arguments(["-k", "hook"]) == [str(ROOT / "tests"), "-k", "hook"]
    assert install.pytest_arguments(["tests/test_install.py::test_x"]) == ["tests/test_install.py::test_x"]


def test_lock_is_held_by_one_and_released_with_its_holder(install: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a+b") as first, path.open("a+b") as second:
        assert install.try_lock(first.fileno())
        assert not install.try_lock(second.fileno())
        first.close()
        assert install.try_lock(second.fileno())


def test_silence_is_broken_and_long_lines_become_short(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 15))
    monkeypatch.setattr(install.time, "monotonic", lambda: float(next(clock)))
    meter = install.Meter("installing")
    for line in (
        "Collecting torch==2.13.0 (from -r torch.txt (line 1))",
        "  Downloading torch-2.13.0+cu128-cp311-cp311-manylinux_2_28_x86_64.whl (900.1 MB)".strip(),
        "Progress 0 of 900100000",
        "Progress 450050000 of 900100000",
        "",
        "",
    ):
        meter.show(line)
    assert capsys.readouterr().err.splitlines() == [
        "installing ...",
        "  0:30 installing: fetching torch 2.13.0+cu128",
        "  1:00 installing: fetching torch 2.13.0+cu128 450 of 900 MB",
        "  1:30 installing: fetching torch 2.13.0+cu128 450 of 900 MB",
    ]


@pytest.fixture
def server() -> Iterator[str]:
    """Serves files of 600 MB, as far as HEAD can see; /unsaid tells no size."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            if self.path != "/unsaid":
                self.send_header("Content-Length", "600000000")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize(
    ("files", "answer", "question", "goes_on"),
    [
        (["/a"], "", None, True),
        (["/a", "/b"], "\n", "About 1.2 GB", True),
        (["/a", "/b"], "n\n", "About 1.2 GB", False),
        (["/a", "/b"], "", "About 1.2 GB", False),  # the terminal is gone
        (["/unsaid"], "y\n", "An unknown amount", True),
        (["file:///of/any/size"], "", None, True),
    ],
)
def test_more_than_a_gigabyte_is_asked_for(
    install: ModuleType,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: list[str],
    answer: str,
    question: str | None,
    goes_on: bool,
) -> None:
    """pip's report is written by hand: not every machine has a pip that can make one without network."""
    urls = [file if file.startswith("file:") else server + file for file in files]

    def pip(arguments: list[str], doing: str) -> None:
        report = {"install": [{"download_info": {"url": url}} for url in urls]}
        Path(arguments[arguments.index("--report") + 1]).write_text(json.dumps(report), encoding="utf-8")

    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "pip", pip)
    monkeypatch.setattr(install, "pip_version", lambda: (26, 3))
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if goes_on:
        install.ask_before_download(["-r", "run.txt"])
    else:
        with pytest.raises(install.InstallError, match="before the download"):
            install.ask_before_download(["-r", "run.txt"])
    shown = capsys.readouterr().err
    assert shown.startswith(question) if question else shown == ""


# Whole installs


def wheel(folder: Path, name: str, version: str, source: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


class Checkout:
    """A checkout with the real install.py and tiny requirements, in a folder whose name is no plain word."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "x y ü"
        self.wheels = folder / "wheels"
        self.elsewhere = folder / "cwd"
        for path in (
            self.root / "requirements",
            self.root / "vsf_lib",
            self.root / "tests",
            self.wheels,
            self.elsewhere,
        ):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "install.py", self.root)
        (self.root / "pyproject.toml").touch()
        for name, line in {
            "pip": "",
            "torch": "torch==2.13.0",
            "run": "tiny==1.0",
            "test": "pytest==9.9",
        }.items():
            (self.root / "requirements" / f"{name}.txt").write_text(line + "\n", encoding="utf-8")
        (self.root / "vsf_lib" / "__init__.py").touch()
        (self.root / "vsf_lib" / "__main__.py").write_text(
            "import json, os, sys, torch, tiny\n"
            "if 'called' in sys.argv: sys.exit(os.environ['VSF_STARTED_AS'])\n"
            "print(json.dumps([sys.argv[1:], os.getcwd(), torch.where, tiny.version, __file__]))\n"
            "sys.exit(7 if 'seven' in sys.argv else 0)\n",
            encoding="utf-8",
        )
        # What lies in the caller's folder must not stand in for the installed packages.
        (self.elsewhere / "torch.py").write_text("where = 'cwd'", encoding="utf-8")
        wheel(self.wheels, "torch", "2.13.0", "where = 'index'")
        wheel(self.wheels, "tiny", "1.0", "version = '1.0'")
        wheel(self.wheels, "pytest", "9.9", "import json, sys\nprint(json.dumps(sys.argv[1:]))")

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "PYTHONPATH": str(self.elsewhere),
        }

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.root / "install.py"), *arguments],
            cwd=self.elsewhere,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Made once, since an environment takes seconds; the tests change it in turn and leave it ready."""
    made = Checkout(tmp_path_factory.mktemp("install"))
    results: list[subprocess.CompletedProcess[str]] = []
    callers = [
        threading.Thread(target=lambda: results.append(made.call("generate", "seven", "ü"))) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # Two first calls at once: both end well, one of them made the environment.
    assert [result.returncode for result in results] == [7, 7], results
    assert sum("making " in result.stderr for result in results) == 1
    yield made
    shutil.rmtree(made.root)


def said(result: subprocess.CompletedProcess[str]) -> list[object]:
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_a_second_call_only_runs_the_command_from_the_callers_folder(checkout: Checkout) -> None:
    result = checkout.call("generate", "--out", "a b.png", "--yes")
    main = str(checkout.root / "vsf_lib" / "__main__.py")
    expected = [["generate", "--out", "a b.png", "--yes"], str(checkout.elsewhere), "index", "1.0", main]
    assert said(result) == expected
    assert result.stderr == ""


def test_the_command_knows_how_people_call_it(checkout: Checkout) -> None:
    result = checkout.call("called")
    assert (result.returncode, result.stderr) == (1, f'python "{checkout.root / "install.py"}"\n')


def test_only_the_test_command_installs_the_tests_packages(checkout: Checkout) -> None:
    stamp = checkout.root / ".venv" / "vsf-installed.json"
    assert set(json.loads(stamp.read_text(encoding="utf-8"))["sets"]) == {"torch", "run"}
    root = str(checkout.root)
    expected = [
        "--rootdir",
        root,
        "-c",
        str(Path(root) / "pyproject.toml"),
        str(Path(root) / "tests"),
        "-k",
        "x",
    ]
    assert said(checkout.call("test", "-k", "x")) == expected
    assert set(json.loads(stamp.read_text(encoding="utf-8"))["sets"]) == {"torch", "run", "test"}


def test_a_failed_install_says_why_counts_as_unfinished_and_is_taken_up_again(checkout: Checkout) -> None:
    pins = checkout.root / "requirements" / "run.txt"
    pins.write_text("tiny==2.0\n", encoding="utf-8")
    for _ in range(2):
        result = checkout.call("generate")
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1].startswith("install.py: installing the pinned packages (run, ")
        assert "has no fitting version" in result.stderr.splitlines()[-1]
        assert "tiny==2.0" in result.stderr
        assert "Traceback" not in result.stderr
    wheel(checkout.wheels, "tiny", "2.0", "version = '2.0'")
    assert said(checkout.call("generate"))[3] == "2.0"


def test_a_half_installed_package_is_put_right(checkout: Checkout) -> None:
    """What a kill in the middle of pip leaves: a package that pip counts as installed, and no stamp."""
    packages = next((checkout.root / ".venv").glob("[Ll]ib/**/site-packages"))
    (packages / "tiny.py").unlink()
    (info,) = packages.glob("tiny-*.dist-info")
    (info / "INSTALLER").unlink()
    (checkout.root / ".venv" / "vsf-installed.json").unlink()
    assert said(checkout.call("generate"))[2] == "index"


def test_a_moved_checkout_still_works(checkout: Checkout) -> None:
    checkout.root = checkout.root.rename(checkout.root.with_name("moved ö"))
    result = checkout.call("generate")
    assert said(result)[4] == str(checkout.root / "vsf_lib" / "__main__.py")
    assert result.stderr == ""


def test_system_torch_is_checked_and_reused_and_replaces_the_installed_one(
    checkout: Checkout, tmp_path: Path
) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(checkout.elsewhere, site)
    (site / "torch.py").write_text("where = 'system'", encoding="utf-8")
    checkout.elsewhere = site  # on PYTHONPATH: the torch that this Python sees
    for version, returncode in (("2.1.0", 2), ("2.4.1+cpu", 0)):
        info = site / "torch.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n", encoding="utf-8"
        )
        result = checkout.call("--torch", "system", "generate")
        assert result.returncode == returncode, result.stderr
        if returncode:
            assert "has torch 2.1.0; install torch 2.3 or newer" in result.stderr
            assert said(checkout.call("generate"))[2] == "index"  # still there
    assert said(result)[2] == "system"
    assert "Rebuilding .venv" in result.stderr
    assert said(checkout.call("generate"))[2] == "system"  # the choice is kept


@pytest.mark.skipif(os.name == "nt", reason="the environment's Python is no link on Windows")
def test_an_environment_whose_python_is_gone_is_rebuilt(checkout: Checkout) -> None:
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    result = checkout.call("--torch", "own", "generate")
    assert said(result)[2] == "index"
    assert "Rebuilding .venv: its Python is gone" in result.stderr


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_that_cannot_make_environments_gets_one_line_with_the_remedy(
    tmp_path: Path, missing: str
) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    start = f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = sys.argv[1:]; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", start, str(tmp_path / "install.py"), "generate"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "sudo apt install python3." in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_install_only_does_not_run_the_command_and_is_told_to_others(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tab of an old WebUI installs so, and shows how far it is."""
    from vsf_lib.errors import SettingsError
    from vsf_lib.webui.apart.environment import Environment

    (checkout.root / "requirements" / "studio.txt").write_text("pytest==9.9\n", encoding="utf-8")
    for name, value in checkout.environment().items():
        monkeypatch.setenv(name, value)
    environment = Environment(checkout.root)
    assert not environment.ready
    assert next(iter(environment.torches())) == "kept"
    with pytest.raises(SettingsError, match="no torch"):
        environment.install("--yes")
    said = []
    environment.install("own")
    with pytest.raises(SettingsError, match="wait"):
        environment.install("own")
    while line := environment.installing:
        said.append(line)
        time.sleep(0.02)
    assert any("installing the pinned packages (run, studio" in line for line in said)
    assert environment.failed == ""
    assert environment.ready
    assert checkout.call("--install-only", "studio", "seven").returncode == 0
    (checkout.root / "requirements" / "studio.txt").write_text("pytest==99\n", encoding="utf-8")
    after = Environment(checkout.root)  # an update of the extension asks for other versions
    assert not after.ready
    after.install("kept")
    while after.installing:
        time.sleep(0.02)
    assert "no fitting version" in after.failed
