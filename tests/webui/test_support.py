"""Where the extension cannot work it says so, refuses what asks for it, and loads nothing."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vsf_lib.webui import support

REPOSITORY = Path(__file__).parents[2]

# A WebUI as small as can be, in which a script is run; argv: folder to run it in, its name, modules to hide.
HOST = """
import sys, types
import torch

class Script: pass
modules = types.ModuleType("modules")
modules.scripts = types.ModuleType("modules.scripts")
modules.scripts.Script, modules.scripts.AlwaysVisible = Script, object()
modules.script_callbacks = types.SimpleNamespace(
    on_cfg_denoiser=lambda f: None, on_ui_settings=lambda f: None, on_app_started=lambda f: None)
modules.infotext_utils = types.ModuleType("modules.infotext_utils")
modules.infotext_utils.PasteField = tuple
gradio = types.ModuleType("gradio")
for name, module in {"modules": modules, "modules.scripts": modules.scripts, "gradio": gradio,
                     "modules.infotext_utils": modules.infotext_utils}.items():
    sys.modules[name] = module
if "forge" in sys.argv:
    import pydantic
    pydantic.create_model("Used", x=(float, pydantic.Field(ge=0)))  # brings in what it loads late
    sys.modules["backend"] = types.ModuleType("backend")
    sys.modules["backend"].__spec__ = types.SimpleNamespace()
    from importlib import metadata
    real = metadata.version
    metadata.version = lambda name: "4.40.0" if name == "gradio" else real(name)
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
source = open(sys.argv[1] + "/scripts/" + sys.argv[2], encoding="utf-8").read()
spec = types.ModuleType("vsf")
exec(compile(source, sys.argv[2], "exec"), spec.__dict__)
new = sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
print(vars(spec).get("PROBLEM"))
print(",".join(new))
print(",".join(sorted(name for name in sys.modules if name.startswith("vsf_lib"))))
classes = {name: made for name, made in vars(spec).items() if isinstance(made, type)}
print(",".join(name for name, made in classes.items() if issubclass(made, Script)))
"""


def script(*arguments, name="vsf.py", root=REPOSITORY):
    """What loading a script in a process of its own finds wrong, what it loads, and its classes."""
    done = subprocess.run(
        [sys.executable, "-c", HOST, str(root), name, *arguments], capture_output=True, text=True, check=True
    )
    problem, packages, modules, classes = done.stdout.split("\n")[:4]
    return problem, packages.split(","), modules.split(","), classes


def test_in_forge_loading_the_script_loads_nothing_heavy():
    problem, packages, _, classes = script("forge")
    assert problem == "None"
    assert packages == ["vsf_lib"], "whatever the host has loaded already is free"
    assert classes == "VSF"


def test_in_another_webui_it_loads_one_module_and_says_what_it_needs():
    problem, packages, modules, classes = script()
    assert "Forge" in problem
    assert packages == ["vsf_lib"]
    assert modules == ["vsf_lib", "vsf_lib.webui", "vsf_lib.webui.support"]
    assert classes == "VSF"


def test_the_sweep_is_offered_where_it_works_alone():
    _, packages, _, classes = script("forge", name="vsf_sweep.py")
    assert set(packages) <= {"vsf_lib", "PIL", "numpy"}, "the last two are every WebUI's"
    assert classes == "VSFSweep"
    _, packages, modules, classes = script(name="vsf_sweep.py")
    assert classes == ""
    assert modules == ["vsf_lib", "vsf_lib.webui", "vsf_lib.webui.support"]


def test_an_update_without_a_restart_asks_for_one(tmp_path, monkeypatch):
    package = tmp_path / "vsf_lib"
    shutil.copytree(REPOSITORY / "vsf_lib" / "webui", package / "webui")
    before = support.fingerprint(package)
    (package / "webui" / "panel.py").write_text("# changed", encoding="utf-8")
    assert support.fingerprint(package) != before
    changed = support.fingerprint(package)
    (package / "webui" / "panel.py").rename(package / "webui" / "other.py")
    assert support.fingerprint(package) != changed
    monkeypatch.setattr(support, "_LOADED", before)
    assert "start it again" in support.problem()


def test_old_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "backend", SimpleNamespace(__spec__=SimpleNamespace()))
    versions = {"pydantic": "1.10.18", "gradio": "4.40.0"}
    monkeypatch.setattr(support, "version", versions.__getitem__)
    assert "pydantic 2 or newer, and this WebUI has 1.10.18" in support.problem()
    versions["pydantic"] = "2.8.2"
    assert support.problem() is None
    monkeypatch.setattr(support, "version", _missing)
    assert "has none" in support.problem()


def _missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], False),
        ([False], False),
        ([True, "Auto"], True),
        ([{"negative_prompt": "wheels"}], True),
        ([{"enabled": False}], False),
    ],
)
def test_what_counts_as_asking(arguments, asked):
    assert support.asked_for(arguments) is asked


def test_a_refusal_ends_the_generation_where_it_would_be_sampled():
    p = SimpleNamespace(sample=lambda: "a picture")
    support.refuse(p, "VSF needs Forge")
    with pytest.raises(RuntimeError, match="VSF needs Forge"):
        p.sample()
