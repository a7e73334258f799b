"""The panel in a real browser: needs selenium and Chromium with its driver beside what this folder needs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from forge_client import Forge
from video_page import VideoPage

from vsf_lib.presets import preset_for

PANEL = "script_{tab}_vsf_"


class Page(browser.Page):
    """One tab of the host's page, by the ids of its elements."""

    def __init__(self, driver: Any, tab: str = "txt2img") -> None:
        super().__init__(driver)
        self.tab = tab

    def at(self, tab: str) -> Page:
        return Page(self.driver, tab)

    def panel(self, name: str, inner: str = "") -> str:
        return f"#{PANEL.format(tab=self.tab)}{name} {inner}"

    @property
    def on(self) -> bool:
        return bool(self.find(self.panel("enable-checkbox", "input")).is_selected())

    def switch(self, *, on: bool) -> None:
        if self.on != on:
            self.click(self.panel("enable-checkbox", "input"))

    def usable(self, box: str) -> bool:
        return self.find(f"#{box} textarea").get_attribute("disabled") is None

    def generate(self) -> str:
        """The text below the picture that is made."""
        task = f"return localStorage.getItem('{self.tab}_task_id')"
        self.click(f"#{self.tab}_generate")
        self.until(lambda: self.driver.execute_script(task), "the page did not begin")
        self.until(lambda: not self.driver.execute_script(task), "no picture")
        time.sleep(1)
        return str(self.find(f"#html_info_{self.tab}").get_attribute("textContent")).strip()

    def texts_of_gallery(self) -> list[str]:
        """What stands below each picture once it is selected."""
        small = f"#{self.tab}_gallery .thumbnail-item.thumbnail-small"
        texts = []
        for number in range(len(self.driver.find_elements("css selector", small))):
            self.driver.find_elements("css selector", small)[number].click()
            time.sleep(1.5)
            text = self.find(f"#html_info_{self.tab}").get_attribute("textContent")
            texts.append(str(text).strip())
        return texts

    def paste(self, infotext: str) -> None:
        self.fill(f"#{self.tab}_prompt textarea", infotext)
        time.sleep(0.5)
        self.click(f"#{self.tab}_tools #paste")
        first = infotext.split("\n")[0]
        self.until(lambda: self.value(f"#{self.tab}_prompt textarea") == first, "the text was not pasted")


@pytest.fixture(scope="module")
def host(start: Callable[..., AbstractContextManager[Forge]]) -> Iterator[Forge]:
    with start(page=True) as forge:
        yield forge


@pytest.fixture
def page(host: Forge) -> Iterator[Page]:
    with browser.browsing(f"{host.url}/?__theme=light") as driver:
        made = Page(driver)
        made.until(
            lambda: driver.find_elements("css selector", made.panel("enable-checkbox", "input")), "no panel"
        )
        time.sleep(3)  # the host's own events of a page that was just loaded
        yield made


@pytest.mark.parametrize(
    ("tab", "cfg", "box"),
    [
        ("txt2img", "txt2img_cfg_scale", "txt2img_neg_prompt"),
        ("txt2img", "txt2img_hr_cfg", "hires_neg_prompt"),
        ("img2img", "img2img_cfg_scale", "img2img_neg_prompt"),
    ],
)
def test_the_hosts_negative_box_is_usable_while_vsf_is_on(page: Page, tab: str, cfg: str, box: str) -> None:
    page = page.at(tab)

    def at(scale: float, *, usable: bool, why: str) -> None:
        page.fill(f"#{cfg} input[type=number]", scale)
        time.sleep(1.5)
        page.until(lambda: page.usable(box) == usable, why)
        time.sleep(1)
        assert page.usable(box) == usable, why

    at(3, usable=True, why="the host's rule")
    at(1, usable=False, why="the host's rule")
    page.switch(on=True)
    page.until(lambda: page.usable(box), "VSF was switched on")
    for scale in (3, 1, 2, 1):
        at(scale, usable=True, why=f"VSF is on, CFG {scale}")
    page.switch(on=False)
    page.until(lambda: not page.usable(box), "VSF was switched off")
    at(3, usable=True, why="the host's rule again")


def test_auto_shows_what_it_means_for_the_checkpoint(page: Page, model: Any) -> None:
    alpha = page.panel("alpha", "input[type=number]")
    schnell, turbo = ("schnell", "Flux schnell"), ("turbo", "SD3.5 large turbo")
    for on, (kind, says) in ((True, schnell), (True, turbo), (False, schnell), (False, turbo)):
        page.switch(on=on)
        title = model(kind).split(" [")[0]
        box = page.find(".model_selection input")
        box.click()
        box.clear()
        box.send_keys(title)
        time.sleep(1)
        box.send_keys("\ue007")
        time.sleep(0 if on else 2)
        page.switch(on=True)
        page.until(lambda s=says: s in page.find(page.panel("advice")).text, says)
        preset = preset_for(f"flux-{kind}" if kind == "schnell" else "sd3.5-large-turbo")
        page.until(lambda p=preset: page.value(alpha) == f"{p.alpha:g}", "the sliders did not follow")
        assert f"alpha {preset.alpha:g}" in page.find(page.panel("advice")).text
        time.sleep(1)
        assert page.value(page.panel("preset", "input")) == "Auto", "the preset's own hand made it Custom"
    page.fill(alpha, 2.5)
    page.until(lambda: page.value(page.panel("preset", "input")) == "Custom", "the preset stayed")
    page.switch(on=False)
    page.switch(on=True)
    time.sleep(2)
    assert page.value(alpha) == "2.5", "Custom leaves the sliders alone"


def test_generate_paste_and_switch_off(page: Page) -> None:
    for name, value in (("steps", 3), ("width", 256), ("height", 256), ("cfg_scale", 1)):
        page.fill(f"#txt2img_{name} input[type=number]", value)
    page.fill("#txt2img_prompt textarea", "a red car")
    page.fill("#txt2img_seed input", 1)
    without = page.generate()
    assert "VSF" not in without
    page.switch(on=True)
    page.fill(page.panel("negative_prompt", "textarea"), "wheels, roof: open")
    page.fill(page.panel("alpha", "input[type=number]"), 2.5)
    page.fill(page.panel("end", "input[type=number]"), 0.75)
    page.until(lambda: page.value(page.panel("preset", "input")) == "Custom", "the preset stayed")
    text = page.generate()
    assert 'VSF negative prompt: "wheels, roof: open", VSF alpha: 2.5, VSF beta: 0.2, VSF end: 0.75' in text

    page.paste(without)
    page.until(lambda: not page.on, "a picture made without VSF switches it off")
    page.fill(page.panel("negative_prompt", "textarea"), "")
    page.fill(page.panel("alpha", "input[type=number]"), 1)
    page.paste(text)
    page.until(lambda: page.on, "VSF is switched on")
    page.until(
        lambda: page.value(page.panel("negative_prompt", "textarea")) == "wheels, roof: open", "no negative"
    )
    for name, value in (("alpha", "2.5"), ("beta", "0.2"), ("end", "0.75"), ("start", "0")):
        page.until(lambda n=name, v=value: page.value(page.panel(n, "input[type=number]")) == v, name)
    again = page.generate()
    assert again == text

    page.click("#txt2img_send_to_img2img")
    other = page.at("img2img")
    page.until(lambda: other.on, "sent to img2img with VSF")
    page.until(lambda: other.value(other.panel("alpha", "input[type=number]")) == "2.5", "alpha was not sent")
    page.switch(on=False)
    assert page.generate() == without


def test_the_gallery_shows_where_it_acted_behind_the_results(page: Page) -> None:
    for name, value in (("steps", 3), ("width", 256), ("height", 256), ("cfg_scale", 1), ("batch_size", 2)):
        page.fill(f"#txt2img_{name} input[type=number]", value)
    page.fill("#txt2img_prompt textarea", "a red car")
    page.fill("#txt2img_seed input", 1)
    page.switch(on=True)
    page.fill(page.panel("negative_prompt", "textarea"), "wheels")
    page.generate()
    results = page.texts_of_gallery()
    page.click(page.panel("heatmap", "input[value='each step']"))
    time.sleep(1)
    page.generate()
    shown = page.texts_of_gallery()
    assert shown[: len(results)] == results
    maps = shown[len(results) :]
    assert len(maps) == 4
    for text, seed in zip(maps, (1, 1, 2, 2), strict=True):
        assert text.startswith("Not a result: a map of where VSF acted")
        assert f"Seed: {seed}, Map:" in text
        assert "VSF alpha" not in text
    assert all("VSF alpha" in text for text in results)

    page.click(page.panel("method", "input[value='nag']"))
    time.sleep(1)
    page.generate()
    assert "does not show where it acted: the method nag" in page.find("#html_log_txt2img").text
    # The picture that was selected is not there any more, so that the gallery shows all side by side.
    left = page.driver.find_elements("css selector", "#txt2img_gallery .thumbnail-item")
    assert len(left) == len(results)


def test_what_cannot_be_done_is_said_in_the_page(page: Page) -> None:
    for name, value in (("steps", 3), ("width", 256), ("height", 256)):
        page.fill(f"#txt2img_{name} input[type=number]", value)
    page.switch(on=True)
    page.fill(page.panel("negative_prompt", "textarea"), "wheels")
    page.fill(page.panel("start", "input[type=number]"), 0.8)
    page.fill(page.panel("end", "input[type=number]"), 0.4)
    page.generate()
    assert "start must be below end" in page.find("#html_log_txt2img").text


def test_a_sweep_its_film_and_back_from_its_parameters(page: Page) -> None:
    line = "Steps: 3, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 1, Size: 256x256"
    sweep = {name: f"#script_txt2img_vsf_sweep_{name}" for name in ("values", "unguided", "loop", "films")}
    page.paste(
        f"a red car\n{line}, VSF negative prompt: wheels, VSF alpha: 1, VSF beta: 0.2, Script: VSF sweep, "
        'VSF sweep: "alpha=1:5:2", VSF sweep unguided: no, VSF fps: 5, VSF loop: there and back'
    )
    page.until(lambda: page.shows(sweep["values"]), "the script is not chosen")
    page.until(lambda: page.value(f"{sweep['values']} input") == "1:5:2", "no values")
    assert not page.find(f"{sweep['unguided']} input").is_selected()
    assert page.find(f"{sweep['loop']} input").is_selected()
    page.click(f"{sweep['unguided']} input")
    text = page.generate()
    assert 'Script: VSF sweep, VSF sweep: "alpha=1:5:2"' in text
    said = page.find("#html_log_txt2img").text
    if "there is no film" not in said:  # no ffmpeg
        film = Path(said.split("film of the sweep: ")[1].split("\n")[0])
        page.until(lambda: page.shows(f"{sweep['films']} video"), "no player")
        page.until(
            lambda: page.find(f"{sweep['films']} video").get_property("readyState") >= 2, "it does not play"
        )
        for suffix in (".mp4", ".txt", ".png"):
            film.with_suffix(suffix).unlink()
    shown = page.driver.find_elements("css selector", "#txt2img_gallery .thumbnails .thumbnail-item")
    assert len(shown) == 5, "the strip, the unguided picture, and three"
    page.paste(f"a red car\n{line}")
    page.until(lambda: not page.shows(sweep["values"]), "another picture chooses no script")
    assert "VSF" not in page.generate()
    page.until(
        lambda: not page.driver.find_elements("css selector", f"{sweep['films']} video"), "still there"
    )


@pytest.fixture
def small_wan() -> Iterator[str]:
    """The name of a small Wan that the host now has among its models."""
    wan_files = pytest.importorskip("wan_files")
    folder = Path(os.environ["VSF_FORGE_ROOT"]) / "models" / "diffusers" / "vsf-trial-wan"
    wan_files.save(folder)
    yield folder.name
    shutil.rmtree(folder)


def open_tab(page: Page) -> VideoPage:
    tabs = page.driver.find_elements("css selector", "#tabs > .tab-nav > button")
    next(tab for tab in tabs if "VSF Video" in tab.text).click()
    time.sleep(2)
    return VideoPage(page.driver)


def test_a_video_in_its_tab(page: Page, small_wan: str) -> None:
    """Installs the packages for videos into the host's data folder, if they are not there."""
    install = "#vsf_video_install"
    video = open_tab(page)
    if video.shows(install):
        video.click(install)
        said = video.until(video.said, "the installation did not end", within=400)
        if "failed" in said:
            pytest.skip(f"the packages cannot be installed here: {said}")
        assert said == "the packages are there"
    video.click("#vsf_video_refresh")
    time.sleep(2)
    video.fill_form(small_wan)
    for field, typed in (("alpha", ""), ("steps", ""), ("steps", 0), ("frames", 9999), ("seed", 1.5)):
        selector = f"#vsf_video_{field} {'input' if field == 'seed' else 'input[type=number]'}"
        before = video.value(selector)
        video.fill(selector, typed)
        video.click("#vsf_video_generate")
        told = f"{field} is {'empty' if typed == '' else typed}"
        video.until(lambda: told in video.said().lower(), f"no word of {field} {typed!r}")  # noqa: B023
        video.fill(selector, before)
    job = video.generate()
    video.until(lambda: "pictures wait" in video.find("#vsf_video_now").text, "it is not seen to run")
    video.until(lambda: video.done(job), "no end")
    video.until(lambda: "VSF frames: 17" in video.value("#vsf_video_infotext textarea"), "no parameters")
    assert "VSF alpha" in video.value("#vsf_video_infotext textarea")
    video.until(lambda: video.shows("#vsf_video_player video"), "no player")
    video.fill("#vsf_video_prompt textarea", "")
    video.click("#vsf_video_reuse")
    video.until(lambda: video.value("#vsf_video_prompt textarea") == "a red car", "not restored")
    video.click("#vsf_video_delete")
    video.until(lambda: "once more" in video.said(), "not asked")
    video.click("#vsf_video_delete")
    video.until(lambda: job not in video.jobs("history"), "the job is still there")
    page.driver.refresh()
    page.until(lambda: page.shows("#txt2img_prompt textarea"), "no page")
    time.sleep(2)
    again = open_tab(page)
    again.until(lambda: again.value("#vsf_video_prompt textarea") == "a red car", "the form is as at first")
    assert again.value("#vsf_video_width input") == "128"


def test_the_checkpoint_is_freed_and_the_next_picture_loads_it(page: Page, host: Forge) -> None:
    """The same picture before and after."""
    model = host.request("/sdapi/v1/options")["sd_model_checkpoint"]
    before = host.txt2img(model).pictures[0]
    video = open_tab(page)
    video.click("#vsf_video_free")
    video.until(lambda: "the next picture loads it" in video.said(), "nothing is said")
    assert np.array_equal(host.txt2img(model).pictures[0], before)
