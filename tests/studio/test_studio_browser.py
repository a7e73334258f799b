"""The studio's Image tab in a real browser, with the small model: needs gradio, selenium and Chromium."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("gradio")
pytest.importorskip("diffusers")

from browser import browsing
from studio_page import StudioPage

from vsf_lib.metadata import parse_parameters, read_png
from vsf_lib.studio import open_page
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.video.desk import Desk, Places, Rights

FEW = {"steps": 2}
LONG = {"steps": 1000}
"""So many that a warm model is not done before a test has pressed its buttons."""


class Served:
    """The studio over a folder, in which several visitors may come."""

    def __init__(self, root: Path, *, paths: bool = True) -> None:
        self.outputs = root / "Bilder für alle"
        self.images = ImageDesk(self.outputs, root / "models", paths=paths)
        rights = Rights(install=False, paths=paths, delete=False, open_folder=False)
        places = Places(self.outputs / "video-queue", self.outputs / "videos")
        self.videos = Desk(places, rights, around=self.images.around)
        self._page = open_page(self.videos, self.images, port=0)
        self.url = self._page.__enter__()

    def close(self) -> None:
        self._page.__exit__(None, None, None)
        self.images.close()
        self.videos.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("studio"))
    yield made
    made.close()


@pytest.fixture
def page(served: Served) -> Iterator[StudioPage]:
    with browsing(f"{served.url}?__theme=light") as driver:
        yield StudioPage(driver)


def test_the_first_visitor_sees_what_it_does_without_scrolling(tmp_path: Path) -> None:
    fresh = Served(tmp_path)
    try:
        for theme in ("light", "dark"):
            with browsing(f"{fresh.url}?__theme={theme}") as driver:
                page = StudioPage(driver)
                assert len(page.images("#vsf_image_slider")) == 2
                assert "a red car on a field (not: wheels)" in page.caption()
                for seen in ("prompt", "negative", "generate", "slider", "caption"):
                    top, bottom, height = page.box(f"#vsf_image_{seen}")
                    assert top >= 0, seen
                    assert bottom <= 800, seen
                    assert height > 0, seen
                assert "an ordinary negative prompt does nothing" in page.find("#vsf_image_negative").text
                assert driver.execute_script("return document.documentElement.scrollWidth") <= 1280
        with browsing(fresh.url) as driver:
            page = StudioPage(driver, width=390, height=844, phone=True)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
            assert page.box("#vsf_image_slider")[0] < page.box("#vsf_image_alpha")[0], "settings come later"
        assert list(fresh.outputs.glob("*.png")) == []
    finally:
        fresh.close()


def test_from_a_picture_to_a_restored_form(page: StudioPage, served: Served) -> None:
    example = page.images("#vsf_image_slider")
    page.fill_form("a blue bird at night", "beak", alpha=2.33, seed=11, **FEW)
    page.generate()
    page.finished()
    page.until(
        lambda: "a blue bird at night (not: beak) · seed 11, vsf, alpha 2.33" in page.caption(), "none"
    )
    page.until(lambda: page.images("#vsf_image_slider") != example, "the slider shows the example")
    file = served.outputs / "a-blue-bird-at-night-11.png"
    settings = parse_parameters(read_png(file)).settings
    assert settings is not None
    assert (settings.alpha, settings.negative_tokens) == (2.33, "words"), "no slider has rounded it"
    assert page.find("#vsf_image_preset label:nth-child(3) input").is_selected(), "own values"

    pictures = page.images("#vsf_image_slider")
    page.click("#vsf_image_view label:nth-child(2) input")
    page.until(lambda: page.images("#vsf_image_slider") != pictures, "no heat map over it")
    page.click("#vsf_image_view label:nth-child(3) input")
    page.until(lambda: page.shows("#vsf_image_picture img"), "no steps")

    for restore in ("button", "file", "again", "beside"):
        page.fill_form("a red car", "", alpha=1, seed=1, steps=5)
        if restore == "button":
            page.click("#vsf_image_reuse")
        elif restore == "beside":
            page.drop("#vsf_image_caption", file)
        else:
            page.until(lambda: page.shows("#vsf_image_dropped button"), "the zone is not empty")
            page.find("#vsf_image_dropped input[type=file]").send_keys(str(file))
        page.until(lambda: "the parameters of a-blue-bird-at-night-11.png" in page.said(), restore)
        prompt = "#vsf_image_prompt textarea"
        page.until(lambda: page.value(prompt) == "a blue bird at night", restore)  # noqa: B023
        found = [page.value(f"#vsf_image_{name} input[type=number]") for name in ("alpha", "seed", "steps")]
        assert found == ["2.33", "11", "2"], restore
        assert page.value("#vsf_image_negative textarea") == "beak", restore
    page.generate()
    page.finished()
    again = served.outputs / "a-blue-bird-at-night-11-2.png"
    page.until(again.exists, "not drawn again")
    assert again.read_bytes() == file.read_bytes(), "all of its parameters were restored"

    page.fill_form("a yellow boat", "sail", alpha=1, seed=5, **LONG)
    page.generate()
    page.driver.refresh()
    page.until(lambda: page.shows("#vsf_image_slider img"), "no page")
    page.until(lambda: "step" in page.said(), "the job is lost to the page")
    assert page.busy()
    assert page.value(prompt) == "a yellow boat"
    assert page.value("#vsf_image_steps input[type=number]") == "1000"
    page.click("#vsf_image_cancel")
    page.until(lambda: "cancelled" in page.said(), "not cancelled")
    assert not page.busy()

    with browsing(served.url) as driver:  # a new visitor, as after a restart
        other = StudioPage(driver)
        other.until(lambda: len(other.images("#vsf_image_history")) >= 2, "no history")
        other.until(lambda: "a blue bird at night" in other.caption(), "not the latest")


def test_wrong_input_is_told_and_nothing_waits(page: StudioPage, served: Served) -> None:
    page.fill_form("a dragon on a field", "wheels")
    page.click("#vsf_image_generate")
    page.until(lambda: "does not know: 'dragon'. It knows the things car, house" in page.said(), "no word")
    page.fill_form(" ", "wheels")
    page.click("#vsf_image_generate")
    page.until(lambda: "the prompt is empty" in page.said(), "no word of the prompt")
    assert "--" not in page.said()
    assert not page.busy()
    for name, typed, says in (
        ("alpha", 101, "alpha is 101, but must be a number from 0 to 100"),
        ("alpha", "", "Alpha is empty, but must be a number from 0 to 100"),
        ("steps", "", "steps is empty"),
        ("seed", 1.5, "seed is 1.5, but must be a whole number"),
        ("seed", -2, "or -1 for a new one each time"),
    ):
        page.fill_form("a red car", "wheels", alpha=3, steps=2, seed=1)
        page.fill_form("a red car", "wheels", **{name: typed})
        page.click("#vsf_image_generate")
        page.until(lambda: says in page.said(), says)  # noqa: B023
        assert page.value(f"#vsf_image_{name} input[type=number]") == str(typed), "moved in silence"
    (served.outputs / "notes.png").write_bytes(b"no picture")
    page.find("#vsf_image_dropped input[type=file]").send_keys(str(served.outputs / "notes.png"))
    page.until(lambda: "notes.png is not a PNG file" in page.said(), "no word of the file")


def test_two_tabs_wait_for_one_another_and_cancel_their_own(page: StudioPage, served: Served) -> None:
    with browsing(served.url) as driver:
        other = StudioPage(driver)
        shown = other.images("#vsf_image_slider"), other.caption()
        page.fill_form("a green", "", **LONG)
        page.fill_form("a white cat in the snow", "tail", seed=3, **LONG)
        page.generate()
        page.until(lambda: "step" in page.said(), "no progress")
        other.fill_form("a red car", "wheels", seed=4, **FEW)
        other.generate()
        other.until(lambda: "1 before this one" in other.said(), "it does not wait")
        other.click("#vsf_image_cancel")
        other.until(lambda: "cancelled" in other.said(), "not cancelled")
        assert page.busy(), "the other's job"
        other.generate()
        assert (other.images("#vsf_image_slider"), other.caption()) == shown, "another's half-made state"
        page.click("#vsf_image_cancel")
        page.until(lambda: "cancelled" in page.said(), "not cancelled")
        page.finished()
        other.finished()
        other.until(lambda: "a red car (not: wheels) · seed 4" in other.caption(), "not drawn")
        assert "a red car (not: wheels)" not in page.caption()
    assert not list(served.outputs.glob("a-white-cat*"))


def test_a_sweep_is_shown_as_strip_and_film(page: StudioPage, served: Served) -> None:
    pytest.importorskip("imageio_ffmpeg")
    page.open_more()
    page.fill("#vsf_image_sweep textarea", "alpha=0,3")
    page.fill_form("a yellow house", "roof", seed=5, **FEW)
    page.click("#vsf_image_sweep_go")
    page.until(page.busy, "it does not run")
    page.finished()
    page.until(lambda: page.shows("#vsf_image_film video"), "no film")
    assert page.shows("#vsf_image_picture img")
    assert not page.shows("#vsf_image_slider")
    film = served.outputs / "a-yellow-house-5-sweep-alpha.mp4"
    page.fill("#vsf_image_sweep textarea", "beta=0,1")
    page.find("#vsf_image_dropped input[type=file]").send_keys(str(film))
    page.until(lambda: page.value("#vsf_image_sweep textarea") == "alpha=0,3", "not restored")


def test_a_recipe_and_a_preset_move_the_sliders(page: StudioPage) -> None:
    def alpha() -> str:
        return page.value("#vsf_image_alpha input[type=number]")

    assert alpha() == "3"
    page.click("#vsf_image_preset label:nth-child(2) input")
    page.until(lambda: alpha() == "4", "the sliders do not follow the preset")
    page.click("#vsf_image_method label:nth-child(2) input")
    page.until(lambda: alpha() == "7", "the sliders do not follow the method")
    page.fill("#vsf_image_alpha input[type=number]", 2)
    page.until(lambda: page.find("#vsf_image_preset label:nth-child(3) input").is_selected(), "a preset")
    box = page.find("#vsf_image_recipe input")
    box.click()
    box.send_keys("semi")
    time.sleep(1)
    box.send_keys("\ue007")
    page.until(lambda: page.value("#vsf_image_negative textarea") == "bird", "no example")


def test_files_are_served_from_the_outputs_alone(served: Served, tmp_path: Path) -> None:
    def status(path: Path) -> int:
        try:
            address = f"{served.url}gradio_api/file={quote(str(path))}"
            with urllib.request.urlopen(address, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    inside, beside = served.outputs / "inside.png", served.outputs / "beside.txt"
    for file in (inside, beside):
        file.write_text("inside", encoding="utf-8")
    queue = served.outputs / "video-queue" / "queue.sqlite"
    queue.parent.mkdir(parents=True, exist_ok=True)
    if not queue.exists():
        queue.write_bytes(b"")
    refused = (beside, secret, queue, Path(__file__))
    assert [status(path) for path in (inside, *refused)] == [200, 403, 403, 403, 403]


def test_a_page_that_is_loaded_anew_shows_the_same_tab(page: StudioPage) -> None:
    """With gradio a page also stands still that is told to open the tab which is open."""

    def opened() -> str:
        tabs = page.driver.find_elements("css selector", "button[role=tab][aria-selected=true]")
        return tabs[0].text if tabs else ""

    for name in ("Video", "Image"):
        page.driver.execute_script(
            "[...document.querySelectorAll('button[role=tab]')].find((one) => one.innerText.trim() === "
            "arguments[0]).click()",
            name,
        )
        page.until(lambda: opened() == name, "not opened")  # noqa: B023
        page.driver.refresh()
        page.until(lambda: page.driver.find_elements("css selector", "button[role=tab]"), "no page")
        time.sleep(3)
        page.until(lambda: opened() == name, f"{name} is not opened again")  # noqa: B023
        shown = "#vsf_video_prompt textarea" if name == "Video" else "#vsf_image_prompt textarea"
        page.until(lambda: page.shows(shown), "the tab is empty")  # noqa: B023
