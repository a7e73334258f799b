"""Packages for the worker alone: which, and that a folder of them is whole or not there."""

from __future__ import annotations

import sys
import zipfile

import pytest

from vsf_lib.errors import OutputError
from vsf_lib.video import overlay

FORGE = {"torch": "2.3.1+cu121", "diffusers": "0.31.0", "peft": "0.13.2", "accelerate": "0.31.0"}
ENOUGH = {
    "torch": "2.11.0",
    "diffusers": "0.37.1",
    "peft": "0.17.1",
    "accelerate": "1.12.0",
    "imageio-ffmpeg": "0.6.0",
}


def test_versions_go_by_what_is_there():
    assert overlay.pins(ENOUGH) == ()
    assert "diffusers==0.34.0" in overlay.pins(FORGE)
    assert "diffusers==0.35.2" in overlay.pins({**FORGE, "torch": "2.12.1"})
    assert "peft==0.17.1" in overlay.pins({**ENOUGH, "peft": "0.15.2"})
    without = {name: found for name, found in ENOUGH.items() if name != "imageio-ffmpeg"}
    assert overlay.pins(without)


def wheel(folder, name, body):
    """A package of one module, as pip installs it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", body)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return str(path)


@pytest.fixture
def wanted(tmp_path):
    pytest.importorskip("pip")
    files = tmp_path / "wheels"
    files.mkdir()
    return (wheel(files, "peft", "x = 1"), wheel(files, "vsf_trial_package", "x = 2"))


def test_a_folder_is_made_once_and_not_changed(tmp_path, wanted, monkeypatch):
    monkeypatch.setattr(overlay, "_TRIAL", "import peft, vsf_trial_package; assert peft.x == 1")
    root = tmp_path / "späte Pakete"
    assert overlay.folder(root, wanted) is None
    said = []
    made = overlay.install(root, wanted, said.append)
    assert overlay.folder(root, wanted) == made
    assert any("vsf_trial_package" in line.replace("-", "_") for line in said)
    before = (made / "peft.py").stat().st_mtime_ns
    assert overlay.install(root, wanted) == made
    assert (made / "peft.py").stat().st_mtime_ns == before
    assert overlay.folder(root, wanted[:1]) is None, "other versions are another folder"
    assert "vsf_trial_package" not in sys.modules


def test_what_cannot_be_used_is_not_left_there(tmp_path, wanted, monkeypatch):
    monkeypatch.setattr(overlay, "_TRIAL", "import no_such_package_at_all")
    with pytest.raises(OutputError, match="no_such_package_at_all"):
        overlay.install(tmp_path / "root", wanted)
    with pytest.raises(OutputError, match="failed"):
        overlay.install(tmp_path / "root", (str(tmp_path / "gone.whl"),))
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["lock"]


def test_two_at_once_are_told(tmp_path, wanted):
    from vsf_lib.jobs.locks import only_one

    with only_one(tmp_path / "root" / "lock"), pytest.raises(OutputError, match="another page"):
        overlay.install(tmp_path / "root", wanted)
