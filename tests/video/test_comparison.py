"""Two videos of one seed in one file: what stands where, what it says, and what ends it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from vsf_lib.cli import main
from vsf_lib.errors import OutputError, PromptError, SettingsError
from vsf_lib.jobs import messages
from vsf_lib.metadata import parse_parameters, read_png, write_png
from vsf_lib.settings import Settings
from vsf_lib.video import progress, sampling
from vsf_lib.video.comparison import WITH, WITHOUT, delete_still, side_by_side, still, still_of, write_still
from vsf_lib.video.files import read_infotext
from vsf_lib.video.job import VideoJob
from vsf_lib.video.worker import Maker

VSF = Settings(negative_prompt="wheels", alpha=2.0)


@pytest.fixture
def job(wan):
    def make(**values):
        usual = {"model": str(wan), "width": 80, "height": 64, "frames": 5, "steps": 3, "settings": VSF}
        return VideoJob.create(**{"prompt": "a red car", **usual, **values})

    return make


@pytest.fixture(scope="module")
def maker():
    """With the model loaded once, its events in `events`."""
    made = Maker(lambda event: made.events.append(event), lambda: made.stop())
    made.events, made.stop = [], lambda: False
    return made


@pytest.fixture(autouse=True)
def fresh(maker):
    maker.events.clear()
    maker.stop = lambda: False


def frames_of(folder: str) -> np.ndarray:
    pictures = []
    for file in sorted(Path(folder).glob("*.png")):
        with Image.open(file) as picture:
            pictures.append(np.asarray(picture).copy())
    return np.stack(pictures)


def enlarged(frames: np.ndarray, times: int) -> np.ndarray:
    return frames.repeat(times, axis=1).repeat(times, axis=2)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_halves_are_the_videos_without_and_with(maker, job, tmp_path, scale):
    """With classifier-free guidance, too, both have an empty unconditional prompt."""
    asked = job(guidance_scale=scale, compare=True)
    end = maker.run(asked, tmp_path / "both.png")
    assert isinstance(end, messages.Result), end
    both = frames_of(end.path)
    empty = {**VSF.model_dump(), "method": "off", "negative_prompt": ""}
    plain = frames_of(maker.run(asked.changed(compare=False, settings=empty), tmp_path / "plain.png").path)
    guided = frames_of(maker.run(asked.changed(compare=False), tmp_path / "guided.png").path)
    assert not np.array_equal(plain, guided)
    width = 4 * 80
    assert np.array_equal(both[:, : 4 * 64, :width], enlarged(plain, 4))
    assert np.array_equal(both[:, : 4 * 64, -width:], enlarged(guided, 4))
    assert end.report["steps"] == [0, 1, 2]
    with Image.open(end.still) as picture:
        sheet = np.asarray(picture).copy()
    top, below = (sheet[y : y + 4 * 64] for y in _rows(sheet, 4 * 64))
    for row, frames in ((top, plain), (below, guided)):
        x = _column(row)
        small = np.asarray(Image.fromarray(frames[0]).resize((320, 256), Image.Resampling.NEAREST))
        assert np.array_equal(row[:, x : x + 320], small)


def _rows(sheet: np.ndarray, height: int) -> tuple[int, int]:
    """Where the two rows of pictures begin: the first line, and the first behind the labels."""
    filled = (sheet != 255).any(axis=2).mean(axis=1) > 0.9
    starts = [y for y in range(1, len(filled)) if filled[y] and not filled[y - 1]]
    assert len(starts) == 2
    return starts[0], starts[1]


def _column(row: np.ndarray) -> int:
    return int((row != 255).any(axis=2).all(axis=0).argmax())


def test_it_says_so_and_is_made_again_from_its_file_and_its_still(maker, job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["video", "--model", job().model, "--prompt", "a red car", "--size", "80x64", "--frames", "5"]
    words += ["--steps", "2", "--seed", "3", "--negative-prompt", "wheels", "--compare"]
    assert main(words) == 0
    output = capsys.readouterr()
    path, picture = map(Path, output.out.split())
    assert path.name == "a-red-car-3-compare.mp4"
    assert picture.name == "a-red-car-3-compare-strip.png"
    text = read_infotext(path)
    assert parse_parameters(text).extra["VSF comparison"] == "left without, right with the negative prompt"
    assert "VSF alpha" in text
    assert read_png(picture) == text
    told = [line for line in output.err.splitlines() if line.startswith("step")]
    assert [line.split(",")[0].split(" (")[0] for line in told] == [f"step {n} of 4" for n in (1, 2, 3, 4)]
    assert [line.split(" (")[1][:-1] for line in told] == [WITHOUT, WITHOUT, WITH, WITH]
    for source in (path, picture):
        assert VideoJob.from_infotext(read_infotext(source)).compare
    again = maker.run(VideoJob.from_infotext(text), tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == path.read_bytes()
    assert read_png(again.still) == text


def test_progress_never_goes_back_and_says_which_video_it_is(maker, job, tmp_path):
    maker.run(job(compare=True), tmp_path / "x.mp4")
    seen = [event for event in maker.events if isinstance(event, messages.Progress)]
    sampled = [event for event in seen if event.stage == "sampling"]
    assert [(event.step, event.steps) for event in sampled] == [(n, 6) for n in range(1, 7)]
    assert [event.part for event in sampled] == [WITHOUT] * 3 + [WITH] * 3
    shares = [progress.share(event.stage, event.step, event.steps) for event in seen]
    assert shares == sorted(shares)
    assert [event.stage for event in seen][-2:] == ["decoding", "writing"]
    assert progress.cost(job(compare=True)) == 2 * progress.cost(job())


@pytest.mark.parametrize("after", [1, 4])
def test_a_cancel_in_either_half_leaves_nothing_and_the_model_as_it_was(maker, job, tmp_path, after):
    off = job(settings=Settings(method="off"))
    before = frames_of(maker.run(off, tmp_path / "before.png").path)
    maker.events.clear()
    maker.stop = lambda: any(getattr(event, "step", 0) == after for event in maker.events)
    assert isinstance(maker.run(job(compare=True), tmp_path / "x.mp4"), messages.Cancelled)
    assert max(event.step for event in maker.events if isinstance(event, messages.Progress)) == after
    assert not list(tmp_path.glob("x*"))
    maker.stop = lambda: False
    assert np.array_equal(frames_of(maker.run(off, tmp_path / "after.png").path), before)


def test_halves_that_are_not_what_they_would_be_called_are_not_written(maker, job, tmp_path, monkeypatch):
    make = sampling.make

    def unreported(*values):
        return replace(make(*values), report=None)

    monkeypatch.setattr(sampling, "make", unreported)
    end = maker.run(job(compare=True), tmp_path / "x.mp4")
    assert isinstance(end, messages.Failed)
    assert "not without and with guidance" in end.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        (
            Settings(method="off", negative_prompt="wheels"),
            SettingsError,
            "nothing to compare with method off",
        ),
        (Settings(), PromptError, "a comparison needs a negative prompt"),
    ],
)
def test_without_guidance_there_is_nothing_to_compare(job, settings, kind, says):
    with pytest.raises(kind, match=says):
        job(settings=settings, compare=True)
    with pytest.raises(kind, match=says):
        job(compare=True).changed(settings=settings.model_dump())


def test_large_videos_are_not_made_larger_or_smaller():
    rng = np.random.default_rng()
    plain, guided = rng.integers(0, 256, (2, 3, 480, 832, 3), dtype=np.uint8)
    both = side_by_side(plain, guided)
    assert both.shape[1] % 2 == both.shape[2] % 2 == 0
    assert np.array_equal(both[:, :480, :832], plain)
    assert np.array_equal(both[:, :480, -832:], guided)
    assert 2 * 832 < both.shape[2] < 2 * 832 + 20
    assert 480 < both.shape[1] < 520


def test_a_strip_has_the_first_and_the_last_frame():
    frames = np.arange(17, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    sheet = np.asarray(still(frames + 10, frames + 100))
    for value in (10, 26, 100, 116):
        assert (sheet == value).all(axis=2).sum() >= 256 * 256
    assert not (sheet == 11).all(axis=2).any(), "not all of them"
    assert np.asarray(still(frames[:1], frames[:1])).shape[1] < 300


def test_a_strip_takes_the_place_of_an_older_one_only(job, tmp_path):
    video, text = tmp_path / "x.mp4", job(compare=True).infotext()
    picture = Image.new("RGB", (4, 4))
    assert write_still(video, picture, text) == write_still(video, picture, text) == tmp_path / "x-strip.png"
    write_png(tmp_path / "x-strip.png", picture, "Steps: 8, Sampler: Euler, CFG scale: 1")
    with pytest.raises(OutputError, match="choose another name"):
        write_still(video, picture, text)
    delete_still(video, text)
    assert (tmp_path / "x-strip.png").exists()
    write_png(tmp_path / "x-strip.png", picture, text)
    delete_still(video, text.replace("Seed: 0", "Seed: 1"))
    assert (tmp_path / "x-strip.png").exists()
    delete_still(video, text)
    assert not (tmp_path / "x-strip.png").exists()


def test_a_picture_in_the_way_does_not_cost_the_video(maker, job, tmp_path):
    shutil.copy(_picture(tmp_path / "mine.png"), tmp_path / "x-strip.png")
    end = maker.run(job(compare=True, steps=1), tmp_path / "x.mp4")
    assert (end.path, end.still) == (str(tmp_path / "x.mp4"), "")
    assert any("x-strip.png" in event.text for event in maker.events if isinstance(event, messages.Note))
    assert (tmp_path / "x-strip.png").read_bytes() == (tmp_path / "mine.png").read_bytes()


def test_the_strip_of_pictures_in_a_folder_lies_beside_the_folder(tmp_path):
    (tmp_path / "my.film").mkdir()
    assert still_of(tmp_path / "my.film").name == "my.film-strip.png"
    assert still_of(tmp_path / "my.film.mp4").name == "my.film-strip.png"


def _picture(path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(path)
    return path


@pytest.mark.parametrize("size", [(64, 64), (832, 480), (480, 832)])
def test_a_strip_s_longest_label_ends_before_the_next_frame(size):
    """At any shape, and is as large as it can be there: pages show the strip much smaller."""
    frames = np.zeros((6, size[1], size[0], 3), np.uint8)
    sheet = np.asarray(still(frames, frames)).astype(int)
    width = (sheet.shape[1] - 8) // 6 - 8
    assert (sheet[:, 8 + width : 16 + width] == sheet[0, 0]).all(), "the gap behind the first frame"
    label = sheet[:, 8 : 8 + width] - sheet[0, 0]
    beneath = np.abs(label[sheet.shape[0] // 2 - 4 - 12 : sheet.shape[0] // 2 - 4]).sum(-1)
    assert np.flatnonzero(beneath.any(0)).max() > 0.75 * width
