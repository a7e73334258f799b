"""The films and files of the script "VSF sweep", and what its page shows of them."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_sweep import job, last_line, sweep

from vsf_lib import strip
from vsf_lib.errors import OutputError
from vsf_lib.strip import fit
from vsf_lib.sweep import FPS, LOOP
from vsf_lib.webui import sweep_panel, sweep_player
from vsf_lib.webui.sweep_host import ForgeSweeps
from vsf_lib.webui.sweep_script import FILMS, LACKS, run


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """vsf_lib.video.files, with this Python's ffmpeg."""
    pytest.importorskip("imageio_ffmpeg")
    from vsf_lib.video import files
    from vsf_lib.webui import folders

    monkeypatch.setattr(folders, "data_folder", lambda: tmp_path / "vsf-video")
    return files


def test_a_film_per_seed_beside_its_strip(webui, model, films):
    (webui.folder / "vsf-sweep-4.mp4").write_bytes(b"another")
    p = job(model=model, batch_size=2)
    made = sweep(p, "0:6:3", film=True, fps=6, loop=True)
    paths = [webui.folder / "vsf-sweep-3.mp4", webui.folder / "vsf-sweep-4-2.mp4"]
    assert made.extra_generation_params[FILMS] == [str(path) for path in paths]
    assert (webui.folder / "vsf-sweep-4.mp4").read_bytes() == b"another"
    from video_frames import read_frames

    for path, beside in zip(paths, made.infotexts, strict=False):
        assert len(read_frames(path)) == 4, "0, 3, 6 and back over 3"
        text = films.read_infotext(path)
        assert last_line(text) == {**last_line(beside), FPS: "6", LOOP: "there and back"}
        assert f"film of the sweep: {path}" in made.comments
        told = {name: reader(last_line(text)) for name, reader in sweep_panel.READERS.items()}
        assert told == {
            "setting": "alpha", "values": "0:6:3", "unguided": True, "film": True, "fps": 6, "loop": True,
        }  # fmt: skip


@pytest.mark.parametrize("unguided", [True, False])
def test_a_film_shows_each_picture_beside_the_first(webui, model, films, monkeypatch, unguided):
    given = []
    encode = films._encode
    monkeypatch.setattr(
        films, "_encode", lambda part, frames, *more: given.append(frames) or encode(part, frames, *more)
    )
    made = sweep(job(model=model), "0:6:3", film=True, unguided=unguided)
    still, *moving = [np.asarray(fit(image, strip.PANEL)) for image in made.images[1:]]
    moving = moving if unguided else [still, *moving]
    height, width, _ = still.shape
    (frames,) = given
    assert len(frames) == 3
    for frame, tile in zip(frames, moving, strict=True):
        assert np.array_equal(frame[:height, :width], still)
        assert np.array_equal(frame[:height, width + 8 : 2 * width + 8], tile)


def test_the_page_shows_the_films_of_its_job_alone(webui, model, films):
    host = ForgeSweeps()
    made = run(job(model=model), [{"values": "1,2"}], host)
    (film,) = made.extra_generation_params[FILMS]

    def told(*names: str) -> str:
        return json.dumps({"extra_generation_params": {FILMS: names}})

    shown = sweep_player.page(told(film), host.films)
    content = re.search(r'src="data:video/mp4;base64,([^"]*)"', shown)[1]
    assert base64.b64decode(content) == Path(film).read_bytes()
    assert Path(film).name in shown
    assert film not in shown, "where it lies on the server is in the job's comments"
    assert sweep_player.page(told(str(webui.folder / "vsf-sweep-3.png")), host.films) == "", (
        "a page's own wish"
    )
    for other in ("", "{}", "[]", '{"extra_generation_params": null}', told(), json.dumps({FILMS: 1})):
        assert sweep_player.page(other, host.films) == ""
    Path(film).unlink()
    assert sweep_player.page(told(film), host.films) == ""


def test_nothing_is_lost_where_a_file_cannot_be_written(webui, model, films, monkeypatch):
    def pictures(made: Any) -> list[bytes]:
        return [np.asarray(image).tobytes() for image in made.images]

    whole = sweep(job(model=model), "1,2", film=True)
    assert LACKS not in whole.extra_generation_params

    p = job(model=model, do_not_save_grid=True)
    unsaved = sweep(p, "1,2", film=True)
    assert "saves no grids" in unsaved.extra_generation_params[LACKS]
    webui.opts.grid_save = False
    assert "saves no grids" in sweep(job(model=model), "1,2", film=True).comments
    assert LACKS not in sweep(job(model=model), "1,2").extra_generation_params, "none was asked for"
    webui.opts.grid_save = True

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OutputError("ffmpeg failed (1): Unknown encoder 'libx264'")

    with monkeypatch.context() as patched:
        patched.setattr(webui.modules.images, "save_image", full)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "No space left on device" in unsaved.extra_generation_params[LACKS]
        assert pictures(unsaved) == pictures(whole)
    with monkeypatch.context() as patched:
        patched.setattr(films, "_encode", refuse)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "there is no film: ffmpeg failed (1): Unknown encoder" in unsaved.comments
        assert pictures(unsaved) == pictures(whole)
    with monkeypatch.context() as patched:
        patched.setattr(films, "find_ffmpeg", lambda packages: None)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "Install in the tab VSF Video" in unsaved.extra_generation_params[LACKS]
        assert pictures(unsaved) == pictures(whole)


def test_masks_are_no_pictures(webui, model):
    """The host puts them between."""
    webui.opts.return_mask = webui.opts.return_mask_composite = True
    drawn = SimpleNamespace(images=["grid", *"abcdef"], index_of_first_image=1)
    assert ForgeSweeps().pictures(SimpleNamespace(mask_for_overlay=object()), drawn) == ["a", "d"]
    assert ForgeSweeps().pictures(SimpleNamespace(mask_for_overlay=None), drawn) == list("abcdef")


def test_where_ffmpeg_is_looked_for(monkeypatch, tmp_path):
    from vsf_lib.video import files

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    assert files.find_ffmpeg() is None
    assert files.find_ffmpeg(tmp_path / "packages") is None
    system = tmp_path / ("ffmpeg.exe" if sys.platform == "win32" else "ffmpeg")
    system.write_bytes(b"")
    system.chmod(0o755)
    assert files.find_ffmpeg(tmp_path / "packages") == str(system)
    brought = tmp_path / "packages" / "imageio_ffmpeg" / "binaries" / "ffmpeg-linux-x86_64-v7.0.2"
    brought.parent.mkdir(parents=True)
    brought.write_bytes(b"")
    assert files.find_ffmpeg(tmp_path / "packages") == str(brought)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "mine"))
    assert files.find_ffmpeg(tmp_path / "packages") == str(tmp_path / "mine")
