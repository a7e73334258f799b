"""Video files: what they carry, that they repeat, and that they are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_frames import read_frames

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.video import files
from vsf_lib.video.files import read_infotext, write_video

pytest.importorskip("imageio_ffmpeg")

TEXT = 'a red car, no = ; # \\ signs\nNegative prompt: ä 文 🚗\nSteps: 8, VSF negative prompt: "a, b: c"'


def moving(count=9, height=48, width=64):
    """A bright square on its way over a dark picture."""
    frames = np.full((count, height, width, 3), 30, np.uint8)
    for i, frame in enumerate(frames):
        frame[10:26, 4 * i : 4 * i + 16] = (220, 60, 20)
    return frames


@pytest.mark.parametrize(("suffix", "error"), [(".mp4", 8), (".webm", 8), (".gif", 8)])
def test_frames_and_text_come_back(tmp_path, suffix, error):
    path = tmp_path / "späte Videos" / f"a b{suffix}"
    frames = moving()
    assert write_video(path, frames, TEXT, fps=8, quality=10) == path
    got = read_frames(path)
    assert got.shape == frames.shape
    assert np.abs(got.astype(int) - frames).mean() < error
    assert read_infotext(path) == TEXT
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == TEXT + "\n"
    assert len(list(path.parent.iterdir())) == 2, "nothing else is left"


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_text_is_in_the_file_itself(tmp_path, suffix):
    path = write_video(tmp_path / f"x{suffix}", moving(), TEXT)
    path.with_suffix(".txt").unlink()
    moved = path.rename(tmp_path / f"y{suffix}")
    assert read_infotext(moved) == TEXT


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=80).filter(str.strip))
def test_any_text_comes_back(tmp_path, text):
    path = write_video(tmp_path / "x.mp4", moving(1), text.strip())
    path.with_suffix(".txt").unlink()
    assert read_infotext(path) == text.strip()


def test_the_same_frames_give_the_same_file(tmp_path):
    one, other = (write_video(tmp_path / name, moving(), TEXT) for name in ("a.mp4", "b.mp4"))
    assert one.read_bytes() == other.read_bytes()


def test_quality_costs_bytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    sizes = [write_video(tmp_path / "x.mp4", noise, TEXT, quality=q).stat().st_size for q in (1, 5, 10)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_pictures_one_by_one(tmp_path):
    folder = write_video(tmp_path / "x.png", moving(3), TEXT)
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert read_infotext(folder / "00001.png") == TEXT


def test_an_older_file_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", moving(), "old")
    before = path.read_bytes()
    monkeypatch.setitem(files._OPTIONS, ".mp4", lambda quality: ["-c:v", "no-such-codec"])
    with pytest.raises(OutputError, match="ffmpeg failed"):
        write_video(path, moving(), "new")
    assert path.read_bytes() == before
    assert path.with_suffix(".txt").read_text() == "old\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_another_text_of_that_name_is_not_replaced(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("my precious notes\n")
    with pytest.raises(OutputError, match=r"notes\.txt, but that holds another text: choose another name"):
        write_video(tmp_path / "notes.mp4", moving(), TEXT)
    assert notes.read_text() == "my precious notes\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for suffix in ("gif", "mp4"):  # parameters make room for parameters
        write_video(tmp_path / f"x.{suffix}", moving(), "a car\nSteps: 8, Sampler: Euler, Seed: 1")


def test_without_ffmpeg_it_says_what_to_install(tmp_path, monkeypatch):
    import imageio_ffmpeg

    def missing():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(OutputError, match="pip install imageio-ffmpeg"):
        write_video(tmp_path / "x.mp4", moving(), TEXT)
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from vsf_lib.errors import OutputError
from vsf_lib.video.files import write_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (9, 96, 128, 3), np.uint8)
try:
    write_video(Path(sys.argv[1]) / "x.mp4", noise, "text", quality=10)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
def test_a_full_disk_leaves_nothing(tmp_path):
    root = str(__import__("pathlib").Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), root], capture_output=True, text=True, check=True
    )
    assert "ffmpeg failed" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0\0\0\x18ftypmp42" + b"\0" * 50])
def test_what_is_no_video_is_told(tmp_path, content):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"x\.mp4 cannot be read as a video .*: give a file"):
        read_infotext(path)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"cannot read .*x\.txt"):
        read_infotext(tmp_path / "x.txt")
    with pytest.raises(SettingsError, match="there is no file"):
        read_infotext(tmp_path / "gone.mp4")


DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" minBufferTime="PT1S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="0" bandwidth="1" width="64" height="48"><BaseURL>{name}</BaseURL><SegmentBase/>
</Representation></AdaptationSet></Period></MPD>
"""


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile {name}\n", DASH])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_playlist_under_a_videos_name_opens_no_other_file(tmp_path, suffix, playlist):
    write_video(tmp_path / "secret.mp4", moving(), TEXT)
    path = tmp_path / f"x{suffix}"
    path.write_text(playlist.format(name="secret.mp4"))
    with pytest.raises(SettingsError, match=r"x.* cannot be read as a video \(mp4, webm, gif\): give"):
        read_infotext(path)


@pytest.mark.skipif(sys.platform == "win32", reason="a script in ffmpeg's place")
def test_a_file_that_is_read_for_ever_is_given_up(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", moving(1), TEXT)
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr(files, "_PATIENCE", 0.3)
    with pytest.raises(SettingsError, match=r"did not end within 0\.3 s"):
        read_infotext(path)


def test_a_name_is_never_taken_for_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = Path("data:x.mp4") if sys.platform != "win32" else Path("x.mp4")
    write_video(tmp_path / "y.mp4", moving(), TEXT).rename(tmp_path / name)
    assert read_infotext(name) == TEXT
    assert read_frames(name).shape == moving().shape


def test_wrong_names_and_frames_are_told(tmp_path):
    with pytest.raises(OutputError, match="is no video"):
        write_video(tmp_path / "x.avi", moving(), TEXT)
    with pytest.raises(OutputError, match="no frames"):
        write_video(tmp_path / "x.mp4", moving().astype(float), TEXT)


def test_pictures_are_those_of_one_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    write_video(tmp_path / "a.png", frames, "long\nSteps: 1")
    write_video(tmp_path / "a.png", frames[:2], "short\nSteps: 1")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["00000.png", "00001.png"]
    assert read_infotext(tmp_path / "a") == read_infotext(tmp_path / "a.png") == "short\nSteps: 1"
    assert read_infotext(tmp_path / "a.txt") == "short\nSteps: 1"
    (tmp_path / "a" / "mine.png").write_bytes(b"x")
    with pytest.raises(OutputError, match="other files, such as mine"):
        write_video(tmp_path / "a.png", frames, "long\nSteps: 1")
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.txt"], "nothing unfinished is left"
