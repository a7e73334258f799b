"""The history that lies in the outputs folder: what belongs together, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import BASE, noise, save, save_group
from PIL import Image

from vsf_lib.errors import SettingsError
from vsf_lib.heatmap import Scale, overlay
from vsf_lib.images.besides import free_path
from vsf_lib.metadata import COMPARISON, COMPARISON_VALUE
from vsf_lib.studio.history import EXAMPLE, History, large, read_entry, thumbnail


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def test_a_picture_and_what_goes_with_it_are_one_entry(tmp_path: Path, rng: np.random.Generator) -> None:
    made = save_group(tmp_path, rng)
    (entry,) = History(tmp_path).latest(9)
    assert entry.path.name == "car-7.png"
    assert all(same(*pair) for pair in zip(entry.pictures(), (made["without"], made["with"]), strict=True))
    assert entry.caption == "a red car on a field (not: wheels) · seed 7, vsf, alpha 2.33"


def test_overlays_are_those_of_the_heat_map(tmp_path: Path, rng: np.random.Generator) -> None:
    made = save_group(tmp_path, rng)
    (entry,) = History(tmp_path).latest(9)
    scale = Scale.of(made["shares"])
    expected = [
        overlay(made[name].resize((448, 336), Image.Resampling.NEAREST), made["shares"], scale)
        for name in ("without", "with")
    ]
    found = entry.overlays()
    assert len(found) == 2
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_the_latest_come_first_and_others_pictures_are_passed_over(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for number, age in enumerate((30, 10, 20)):
        save(tmp_path / f"x-{number}.png", noise(rng), age=age)
    save(tmp_path / "webui.png", noise(rng), replace(BASE, version="f2.0.1v1.10.1"))
    noise(rng).save(tmp_path / "plain.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x-0.png").read_bytes()[:300])
    (tmp_path / "folder.png").mkdir()
    history = History(tmp_path)
    assert [entry.path.name for entry in history.latest(9)] == ["x-1.png", "x-2.png", "x-0.png"]
    assert [entry.path.name for entry in history.latest(2)] == ["x-1.png", "x-2.png"]
    save(tmp_path / "x-0.png", noise(rng), replace(BASE, seed=8), age=5)
    assert [entry.parameters.seed for entry in history.latest(9)] == [8, 7, 7], "a file that was replaced"


def test_nothing_is_remembered_of_files_that_are_gone_or_replaced(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    history = History(tmp_path)
    for age in (30, 20, 10):
        save(tmp_path / "x.png", noise(rng), age=age)
        save(tmp_path / f"y-{age}.png", noise(rng), age=age)
        history.latest(9)
    assert len(history._known) == 4
    for path in tmp_path.glob("y-*.png"):
        path.unlink()
    assert [entry.path.name for entry in history.latest(9)] == ["x.png"]
    assert [*history._known] == [tmp_path / "x.png"]


def test_what_was_left_alone_is_an_entry_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    save_group(tmp_path, rng)
    (tmp_path / "car-7.png").unlink()
    assert {entry.path.name for entry in History(tmp_path).latest(9)} == {
        "car-7-without.png",
        "car-7-heatmap.png",
    }


def test_a_new_picture_does_not_take_over_what_an_older_one_left(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    assert free_path(tmp_path, "Car", 7).name == "car-7.png"
    save_group(tmp_path, rng)
    assert free_path(tmp_path, "Car", 7).name == "car-7-2.png"
    (tmp_path / "car-7.png").unlink()
    assert free_path(tmp_path, "Car", 7).name == "car-7-2.png", "its heat map is not the new one's"
    (tmp_path / "car-7-2-without.png").touch()
    assert free_path(tmp_path, "Car", 7).name == "car-7-3.png"


@pytest.mark.parametrize("change", [{"seed": 8}, {"steps": 9}, {"prompt": "a red car"}, {"model": "other"}])
def test_what_an_older_picture_left_is_not_shown_beside_another(
    tmp_path: Path, rng: np.random.Generator, change: dict[str, Any]
) -> None:
    """As `generate` may take the name of a picture that was deleted."""
    save_group(tmp_path, rng)
    image = noise(rng)
    save(tmp_path / "car-7.png", image, replace(BASE, **change))
    (entry,) = History(tmp_path).latest(9)
    assert (entry.sheet, entry.overlays()) == (None, ())
    (shown,) = entry.pictures()
    assert same(shown, image)


def test_a_guided_picture_is_never_called_the_unguided_one(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path / "x.png", noise(rng))
    save(tmp_path / "x-without.png", noise(rng))
    (entry,) = History(tmp_path).latest(9)
    assert len(entry.pictures()) == 1


def test_a_damaged_heat_map_does_not_hide_its_picture(tmp_path: Path, rng: np.random.Generator) -> None:
    save_group(tmp_path, rng)
    sheet = tmp_path / "car-7-heatmap.png"
    sheet.write_bytes(sheet.read_bytes()[:300])
    (entry,) = History(tmp_path).latest(9)
    assert entry.overlays() == ()
    assert len(entry.pictures()) == 2


def test_a_comparison_of_the_command_line_is_taken_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    sides = noise(rng), noise(rng)
    sheet = Image.new("RGB", (128, 48))
    for left, side in zip((0, 64), sides, strict=True):
        sheet.paste(side, (left, 0))
    save(tmp_path / "x.png", sheet, replace(BASE, extra={COMPARISON: COMPARISON_VALUE}))
    (entry,) = History(tmp_path).latest(9)
    assert all(same(*pair) for pair in zip(entry.pictures(), sides, strict=True))
    assert same(thumbnail(entry).resize((64, 48), Image.Resampling.NEAREST), sides[1]), "the guided one"


def test_a_sweep_is_its_strip_and_its_film(tmp_path: Path, rng: np.random.Generator) -> None:
    strip = noise(rng, 300, 100)
    save(tmp_path / "x.png", strip, replace(BASE, extra={"VSF sweep": "alpha=0:4:2"}))
    save(tmp_path / "x-without.png", noise(rng))
    (entry,) = History(tmp_path).latest(1)
    assert entry.film is None
    (tmp_path / "x.mp4").write_bytes(b"film")
    assert entry.film == tmp_path / "x.mp4"
    assert [picture.size for picture in entry.pictures()] == [(300, 100)]
    assert entry.caption.endswith("seed 7, sweep alpha=0:4:2")


def test_only_pictures_of_the_folder_are_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path / "elsewhere" / "x.png", noise(rng))
    history = History(tmp_path / "outputs")
    with pytest.raises(SettingsError, match="does not lie in"):
        history.entry(tmp_path / "elsewhere" / "x.png")
    with pytest.raises(SettingsError, match="does not lie in"):
        history.entry(tmp_path / "outputs" / ".." / "elsewhere" / "x.png")
    with pytest.raises(SettingsError, match="not there any more"):
        history.entry(tmp_path / "outputs" / "x.png")


def test_pictures_are_shown_large_and_small(rng: np.random.Generator, tmp_path: Path) -> None:
    small = noise(rng)
    shown = large(small)
    assert shown.size == (512, 384)
    assert same(shown.resize(small.size, Image.Resampling.NEAREST), small), "every pixel is a square"
    assert max(large(noise(rng, 1500, 700)).size) == 1024
    save(tmp_path / "x.png", small)
    assert max(thumbnail(History(tmp_path).latest(1)[0]).size) <= 192


def test_the_first_visitor_s_example_is_a_comparison_of_the_small_model() -> None:
    entry = read_entry(EXAMPLE)
    assert entry is not None
    assert [picture.size for picture in entry.pictures()] == [(64, 64)] * 2
    assert entry.parameters.settings is not None
    assert (entry.parameters.model, entry.parameters.settings.negative_prompt) == ("scenes", "wheels")
