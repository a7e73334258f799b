"""`generate --sweep`: pictures as drawn alone, files that repeat themselves, errors before any loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_frames import read_frames

import vsf_lib.video.files as video_files
from vsf_lib.metadata import parse_parameters, read_png, write_png
from vsf_lib.strip import PANEL, TILE, fit
from vsf_lib.sweep import sweepable

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and limits as POSIX has them")
CAR = ("generate", "--prompt", "a red car", "--negative-prompt", "wheels", "--seed", "5", "--steps", "2")
BUILT_IN = ("generate", "--prompt", "a red car", "--negative-prompt", "wheels")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()


def tile_of(path: str | Path, sides: tuple[int, int]) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(fit(picture, sides))


@pytest.fixture
def draw(run, model):
    """Draws into a named file and gives its path."""

    def call(name: str, *words: str) -> Path:
        outcome = run(*words, *(() if "--from-image" in words else ("--model", model)), "--out", name)
        assert (outcome.code, outcome.out) == (0, f"{Path(name).absolute()}\n"), outcome.err
        return Path(name)

    return call


@pytest.fixture
def alone(draw) -> list[np.ndarray]:
    """The tiles of a sweep over alpha 0, 1.5 and 3, drawn one by one by ordinary calls."""
    words = [("--method", "off"), *(("--alpha", alpha) for alpha in ("0", "1.5", "3"))]
    return [draw(f"alone-{i}.png", *CAR, *others) for i, others in enumerate(words)]


def test_strip_is_the_pictures_that_generate_draws_alone(draw, alone):
    strip = pixels(draw("strip.png", *CAR, "--sweep", "alpha=0:3:1.5"))
    assert strip.shape[1] == 4 * 136 + 8
    for i, path in enumerate(alone):
        tile = tile_of(path, TILE)
        assert np.array_equal(strip[8 : 8 + 128, 8 + 136 * i : 136 * (i + 1)], tile)
        assert all(i == j or not np.array_equal(tile, tile_of(other, TILE)) for j, other in enumerate(alone))
    told, first = parse_parameters(read_png("strip.png")), parse_parameters(read_png(alone[1]))
    assert told.extra == {**first.extra, "VSF sweep": "alpha=0:3:1.5"}
    assert told.settings == first.settings, "those of the first value, as the WebUIs' grids have it"
    assert 'VSF sweep: "alpha=0:3:1.5"' in read_png("strip.png")


def test_strip_repeats_to_the_bit_and_yields_to_flags(draw, alone):
    first = draw("first.png", *CAR, "--sweep", " alpha = 0.0, 1.50,3 ")
    again = draw("again.png", "generate", "--from-image", "first.png")
    assert first.read_bytes() == again.read_bytes()
    assert draw("one.png", "generate", "--from-image", "first.png", "--alpha", "1.5").read_bytes() == (
        Path(alone[2]).read_bytes()
    )
    other = draw("other.png", "generate", "--from-image", "first.png", "--sweep", "beta=0,1", "--alpha", "3")
    told = parse_parameters(read_png(other))
    assert told.extra["VSF sweep"] == "beta=0,1"
    assert told.settings is not None
    assert (told.settings.alpha, told.settings.beta) == (3.0, 0.0)
    draw("pair.png", *CAR, "--compare")
    swept = draw("swept.png", "generate", "--from-image", "pair.png", "--sweep", "alpha=1,2")
    assert "VSF comparison" not in read_png(swept)


def test_film_frame_by_frame(run):
    """Of the built-in model, whose pictures differ by more than H.264 loses."""
    pytest.importorskip("imageio_ffmpeg")

    def draw(name: str, *words: str) -> Path:
        outcome = run(*words, "--out", name)
        assert outcome.code == 0, outcome.err
        return Path(name)

    bird = ("generate", "--recipe", "semi-abstract", "--seed", "2", "--steps", "4")
    path = draw("film.mp4", *bird, "--sweep", "alpha=0:6:3", "--fps", "6", "--loop")
    frames = read_frames(path).astype(int)
    assert len(frames) == 4, "0, 3, 6 and back over 3"
    side = PANEL[0]
    ways = [("--method", "off"), *(("--alpha", alpha) for alpha in ("0", "3", "6"))]
    without, *values = (
        tile_of(draw(f"{i}.png", *bird, *way), PANEL).astype(int) for i, way in enumerate(ways)
    )
    for frame, expected in zip(frames, (0, 1, 2, 1), strict=True):
        assert np.abs(frame[:side, :side] - without).mean() < 2
        right = frame[:side, side + 8 : 2 * side + 8]
        distances = [np.abs(right - other).mean() for other in values]
        assert int(np.argmin(distances)) == expected
        assert distances[expected] < 2
    told = parse_parameters(video_files.read_infotext(path))
    assert (told.extra["VSF sweep"], told.extra["VSF fps"], told.extra["VSF loop"]) == (
        "alpha=0:6:3",
        "6",
        "there and back",
    )
    for tag in video_files.TAGS:
        made, _ = video_files._read(path, "-f", "ffmetadata")
        assert f"{tag}=a blue bird in the snow" in made.decode()
    assert path.with_suffix(".txt").read_text() == video_files.read_infotext(path) + "\n"
    described = video_files._read(path, "-map", "0:v:0", "-f", "null")[1]
    assert "h264" in described
    assert " 6 fps" in described
    again = draw("again.mp4", "generate", "--from-image", "film.mp4")
    assert again.read_bytes() == path.read_bytes()
    strip = draw("strip.png", "generate", "--from-image", "film.mp4")
    assert "VSF fps" not in read_png(strip)


@pytest.mark.parametrize("suffix", [".gif", ".webm"])
def test_other_films(draw, suffix):
    pytest.importorskip("imageio_ffmpeg")
    path = draw(f"film{suffix}", *CAR, "--sweep", "alpha=1:3:1")
    assert len(read_frames(path)) == 3
    assert 'VSF sweep: "alpha=1:3:1"' in video_files.read_infotext(path)


def test_json_lists_paths_values_and_seconds(run, model, monkeypatch):
    monkeypatch.setattr("vsf_lib.cli.console._PATIENCE", float("inf"))  # a slow machine tells how far it is
    outcome = run(*CAR, "--model", model, "--sweep", "beta=1:0:0.5", "--batch", "2", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    assert [Path(item["path"]).name for item in told["images"]] == [
        "a-red-car-5-sweep-beta.png",
        "a-red-car-6-sweep-beta.png",
    ]
    for item in told["images"]:
        assert item["infotext"] == read_png(item["path"])
        assert (item["sweep"], item["values"]) == ("beta=1:0:0.5", [1.0, 0.5, 0.0])
        assert len(item["value_seconds"]) == 3
        assert sum(item["value_seconds"]) < item["seconds"]
    assert told["seconds"] == pytest.approx(sum(item["seconds"] for item in told["images"]))
    assert [parse_parameters(item["infotext"]).seed for item in told["images"]] == [5, 6]


def test_progress_counts_all_pictures(run, model, monkeypatch):
    monkeypatch.setattr("vsf_lib.cli.console._PATIENCE", -1.0)
    outcome = run(*CAR, "--model", model, "--sweep", "alpha=1,2")
    lines = outcome.err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["1 of 3 pictures", "2 of 3 pictures"]
    assert all(line.endswith(" s left") for line in lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = run(*CAR, "--model", model, "--sweep", "alpha=1,2").err
    for label in ("1/3 without: ", "2/3 alpha 1: ", "3/3 alpha 2: "):
        assert label in shown
    assert "pictures," not in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sweep", "alpha"), "must be like alpha=0:8:0.5"),
        (("--sweep", "alhpa=1"), "did you mean alpha?"),
        (("--sweep", "alpha=0:101:1"), "at 101: alpha is 101.0"),
        (("--sweep", "alpha=0:100:0.1"), "has 1001 values, but at most 200"),
        (("--sweep", "nag_phi=1:8:1"), "method vsf does not read: choose one of alpha, beta"),
        (("--sweep", "nag_phi=0:8:1", "--method", "nag"), "nag_phi is 0, with which nag guides nothing"),
        (("--sweep", "alpha=1", "--alpha", "2"), "--alpha gives it one value: drop one"),
        (("--sweep", "alpha=1", "--compare"), "drop --compare"),
        (("--sweep", "alpha=1", "--negative-prompt", ""), "--sweep needs a negative prompt"),
        (("--sweep", "alpha=1", "--method", "off"), "--sweep has nothing to sweep with method off"),
        (("--sweep", "start=0:1:0.25", "--end", "0.5"), "at 0.5: start is 0.5 and end is 0.5"),
        (
            ("--sweep", "end=0.1:1:0.1", "--start", "0.05", "--steps", "4"),
            "at 0.1: none of 4 steps lies between",
        ),
        (("--sweep", "negative_scale=0:8:1"), "acts on Flux models only"),
        (("--sweep", "alpha=1", "--fps", "0", "--out", "x.mp4"), "fps is 0"),
        (("--sweep", "alpha=1", "--fps", "4"), "--fps is for a film: end --out in .mp4"),
        (("--sweep", "alpha=1", "--loop", "--out", "x.png"), "--loop is for a film"),
        (("--sweep", "alpha=1", "--out", "x.avi"), "end the name in .png or .mp4"),
        (("--sweep", "alpha=1", "--out", "missing/x.mp4", "--device", "cuda:99"), "no cuda:99"),
        (("--loop",), "--loop goes with --sweep"),
        (("--fps", "4"), "--fps goes with --sweep"),
        (("--fps", "0"), "--fps goes with --sweep"),
        (("--sweep", "foo=1,2"), f"no setting 'foo': choose one of {', '.join(sweepable())}\n"),
        (("--out", "x.mp4"), "end the name in .png"),
    ],
)
def test_refused_in_one_line_before_a_model_is_loaded(run, tmp_path, monkeypatch, words, says):
    pictures = pytest.importorskip("vsf_lib.images.pictures")
    monkeypatch.setattr(pictures, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    outcome = run(*BUILT_IN, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_it_says_so_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    outcome = run(*BUILT_IN, "--sweep", "alpha=0:8:0.5", "--out", "new/x.mp4", "--device", "cuda:99")
    assert outcome.code == 2
    assert outcome.err == (
        "error: there is no ffmpeg to write videos with: pip install imageio-ffmpeg, or end --out in .png "
        "for a strip of pictures\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ('VSF sweep: "alpha=0:9"', "not LOW:HIGH:STEP"),
        ("VSF sweep: alpha=1, VSF fps: many", "VSF fps is 'many' in the infotext"),
        ("VSF sweep: alpha=1, VSF fps: 1000", "fps is 1000"),
    ],
)
def test_unreadable_sweeps_of_older_pictures_are_told(run, tmp_path, pair, says):
    text = (
        "a car\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 3, Size: 64x64, Model: scenes, "
        "VSF negative prompt: wheels, "
    )
    write_png("old.png", Image.new("RGB", (8, 8)), text + pair)
    outcome = run("generate", "--from-image", "old.png")
    assert outcome.code == 2
    assert says in outcome.err


def test_a_video_is_sent_to_its_own_command(run, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    video_files.write_video(
        Path("x.mp4"), np.zeros((1, 64, 64, 3), np.uint8), "a car\nSteps: 2, VSF frames: 1, Seed: 3"
    )
    outcome = run("generate", "--from-image", "x.mp4")
    assert outcome.code == 2
    assert "video --from-file" in outcome.err


def start(
    folder: Path,
    *words: str,
    code: str = "from vsf_lib.cli import main\nimport sys\nsys.exit(main(sys.argv[1:]))",
):
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


# Interrupts itself as ffmpeg is about to be called or, with a picture that never ends, while it draws.
INTERRUPTED = """
import os, signal, sys
import vsf_lib.video.files as files
from vsf_lib.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
encode = files._encode
def interrupted(part, *others):
    part.write_bytes(b"half a film")
    os.kill(os.getpid(), signal.SIGINT)
    encode(part, *others)
files._encode = interrupted
sys.exit(main(sys.argv[1:]))
"""


@POSIX
def test_interruption_leaves_nothing(tmp_path, model):
    words = (*CAR, "--model", model, "--sweep", "alpha=1,2", "--out", str(tmp_path / "new" / "x.mp4"))
    process = start(tmp_path, *words, code=INTERRUPTED)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted: no unfinished result was left behind\n"
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from vsf_lib.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
sys.exit(main(sys.argv[1:]))
"""


@POSIX
def test_full_disk_leaves_the_old_film(tmp_path, model):
    """A strip is written as every picture is, which has its own test."""
    old = tmp_path / "x.mp4"
    old.write_bytes(b"the old one")
    words = (*CAR, "--model", model, "--sweep", "alpha=1,2,3,4,5,6", "--out", str(old))
    process = start(tmp_path, *words, code=LIMITED)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert old.read_bytes() == b"the old one"
