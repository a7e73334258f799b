"""The page for videos on its own, in a real browser: needs gradio, selenium and Chromium with its driver."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from browser import browsing
from video_page import VideoPage
from wan_files import save_lora

from vsf_lib.scenes import model
from vsf_lib.studio import open_page
from vsf_lib.video.desk import Desk, Places, Rights
from vsf_lib.video.queue import DONE, FAILED, WAITING

LONG = {"steps": 100, "width": 256, "height": 256, "frames": 81}
"""Sampled for many times as long as the page takes for a look, however busy the machine is."""


@pytest.fixture
def desk(tmp_path: Path, wan: Path) -> Iterator[Desk]:
    models = tmp_path / "models"
    models.mkdir()
    (models / "klein").symlink_to(wan, target_is_directory=True)
    (tmp_path / "loras").mkdir()
    save_lora(tmp_path / "loras" / "CausVid schön.safetensors")
    made = Desk(Places(tmp_path / "data", tmp_path / "Videos für alle", models, tmp_path / "loras"))
    yield made
    made.close()


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    with open_page(desk, port=0) as address:
        yield address


@pytest.fixture
def page(url: str) -> Iterator[VideoPage]:
    with browsing(f"{url}?__theme=light") as driver:
        made = VideoPage(driver)
        made.until(lambda: made.shows("#vsf_video_prompt textarea"), "no page")
        time.sleep(2)
        yield made


def test_from_the_first_visit_to_a_restored_form(page: VideoPage, desk: Desk) -> None:
    page.fill_form("klein")
    box = page.find("#vsf_video_lora input")
    box.click()
    box.send_keys("CausVid")
    time.sleep(1)
    box.send_keys("\ue007")
    lines = "#vsf_video_loras textarea"
    page.until(lambda: page.value(lines) == "CausVid schön.safetensors:0.5", "no line for the LoRA")
    job = page.generate()
    page.until(lambda: "Job" in page.find("#vsf_video_now").text, "nothing is shown while it is made")
    page.until(lambda: page.done(job), "no end")
    page.until(lambda: "VSF frames: 17" in page.value("#vsf_video_infotext textarea"), "no parameters")
    page.until(lambda: page.shows("#vsf_video_player video"), "no player for the job that was just made")
    page.fill("#vsf_video_prompt textarea", "")
    page.fill(lines, "")
    page.click("#vsf_video_reuse")
    page.until(lambda: page.value("#vsf_video_prompt textarea") == "a red car", "not restored")
    page.until(
        lambda: page.value(lines).endswith("CausVid schön.safetensors:0.5"), "the LoRA is not restored"
    )
    file = Path(desk.queue.entry(int(job)).path)
    for again in (False, True):
        page.fill("#vsf_video_prompt textarea", "")
        page.until(lambda: page.shows("#vsf_video_dropped button"), "the file before it lies in the zone")
        page.find("#vsf_video_dropped input[type=file]").send_keys(str(file))
        page.until(
            lambda: page.value("#vsf_video_prompt textarea") == "a red car", f"not restored, {again=}"
        )  # fmt: skip
    page.click("#vsf_video_delete")
    page.until(lambda: "once more" in page.said(), "not asked")
    assert file.exists()
    page.click("#vsf_video_delete")
    page.until(lambda: job not in page.jobs("history"), "the job is still there")
    assert not file.exists()


@pytest.mark.usefixtures("built_in")
def test_a_newcomer_makes_a_comparison_at_once(tmp_path: Path) -> None:
    """Nothing but words: no model is on this machine."""
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos", tmp_path / "models", tmp_path / "loras"))
    with open_page(desk, port=0) as address, browsing(f"{address}?__theme=light") as driver:
        page = VideoPage(driver)
        page.until(lambda: page.shows("#vsf_video_prompt textarea"), "no page")
        time.sleep(2)
        assert page.value("#vsf_video_model input") == "wan"
        page.fill("#vsf_video_prompt textarea", "a zebra")
        page.fill("#vsf_video_negative textarea", "wheels")
        page.click("#vsf_video_generate")
        page.until(lambda: "'zebra'" in page.said(), "no word of the word")
        page.fill("#vsf_video_prompt textarea", "a red car driving on a field")
        assert page.find("#vsf_video_compare input").is_selected()
        job = page.generate()
        page.until(lambda: page.done(job), "no end")
        page.until(lambda: page.shows("#vsf_video_player video"), "no player")
        page.until(lambda: page.shows("#vsf_video_picture img"), "no strip under it")
        page.until(
            lambda: "VSF comparison" in page.value("#vsf_video_infotext textarea"), "it does not say so"
        )
        entry = desk.queue.entry(int(job))
        assert (entry.job.width, entry.job.loras[0].file) == (64, "few-steps")
        width = "#vsf_video_width input"
        for model, pixels in (("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "832"), ("wan", "64")):
            page.choose_model(model)
            page.until(lambda pixels=pixels: page.value(width) == pixels, f"the size is not that of {model}")
        page.click("#vsf_video_reuse")
        page.until(lambda: "the parameters are in the form" in page.said(), "not restored")
    desk.close()


def test_wrong_input_is_told_and_nothing_is_queued(page: VideoPage, desk: Desk) -> None:
    page.fill_form("klein", prompt=" ")
    page.click("#vsf_video_generate")
    page.until(lambda: "the prompt is empty" in page.said(), "no word of the empty prompt")
    page.fill("#vsf_video_prompt textarea", "a red car")
    page.fill("#vsf_video_width input", 130)
    page.click("#vsf_video_generate")
    page.until(lambda: "128 or 144, not 130" in page.said(), "no word of the width")
    page.click("#vsf_video_again")
    page.until(lambda: "no job is chosen" in page.said(), "no word of the choice")
    assert desk.queue.entries() == []


TYPED = (
    ("alpha", "", "Alpha is empty"),
    ("alpha", 101, "alpha is 101"),
    ("steps", "", "steps is empty"),
    ("steps", 0, "steps is 0"),
    ("frames", 9999, "frames is 9999"),
    ("fps", "", "fps is empty"),
    ("width", "", "width is empty"),
    ("seed", -7, "seed is -7"),
    ("seed", 1.5, "seed is 1.5"),
)


def test_numbers_are_taken_as_typed_or_refused(page: VideoPage, desk: Desk) -> None:
    """In no case does gradio move one to the nearest that it likes, without a word."""
    page.fill_form("klein")
    for name, typed, says in TYPED:
        field = f"#vsf_video_{name} {'input' if name in ('width', 'seed') else 'input[type=number]'}"
        before = page.value(field)
        page.fill(field, typed)
        page.click("#vsf_video_generate")
        page.until(lambda: says in page.said(), f"no word of {name} {typed!r}")  # noqa: B023
        assert page.value(field) == str(typed), "what was typed is still there"
        page.fill(field, before)
    assert desk.queue.entries() == []


def test_a_page_that_is_loaded_anew_has_the_form_as_it_was_sent(page: VideoPage, desk: Desk) -> None:
    page.click("#vsf_video_pause")
    page.until(lambda: "no job is begun" in page.said(), "not paused")
    page.fill_form("klein", prompt="a blue bird", frames=21)
    page.generate()
    page.driver.refresh()
    page.until(lambda: page.shows("#vsf_video_prompt textarea"), "no page")
    page.until(lambda: page.value("#vsf_video_prompt textarea") == "a blue bird", "the form is as at first")
    assert page.value("#vsf_video_frames input[type=number]") == "21"
    assert page.value("#vsf_video_model input") == "klein"
    assert page.value("#vsf_video_size input") == "own size"
    page.until(lambda: "running" not in page.said() and page.jobs("queue"), "no queue")
    chosen = "return document.querySelector('#vsf_video_queue input:checked')?.value"
    page.until(lambda: page.driver.execute_script(chosen) is not None, "its job is not chosen")
    page.fill("#vsf_video_prompt textarea", "a green bird")
    page.fill("#vsf_video_alpha input[type=number]", 2.25)
    time.sleep(1)
    page.driver.refresh()
    prompt = "#vsf_video_prompt textarea"
    page.until(lambda: page.shows(prompt) and page.value(prompt) == "a green bird", "what was typed is lost")
    assert page.value("#vsf_video_alpha input[type=number]") == "2.25"


def test_the_queue_is_the_same_in_two_pages_and_can_be_changed(page: VideoPage, desk: Desk, url: str) -> None:
    page.click("#vsf_video_pause")
    page.until(lambda: "no job is begun" in page.said(), "not paused")
    page.fill_form("klein")
    first = page.generate()
    page.fill("#vsf_video_prompt textarea", "a blue bird")
    second = page.generate()
    with browsing(url) as driver:
        other = VideoPage(driver)
        other.until(lambda: list(other.jobs("queue")) == [first, second], "the other page shows other jobs")
        other.choose(second)
        other.click("#vsf_video_up")
        page.until(lambda: list(page.jobs("queue")) == [second, first], "the order is not the other page's")
        other.click("#vsf_video_edit")
        prompt = "#vsf_video_prompt textarea"
        other.until(lambda: other.value(prompt) == "a blue bird", "the job is not in the form")
        other.until(lambda: other.shows("#vsf_video_save"), "no button to save it")
        other.fill(prompt, "a green bird")
        time.sleep(1)
        other.click("#vsf_video_save")
        page.until(lambda: page.jobs("queue")[second][2] == "a green bird", "the change is not seen")
        other.choose(first)
        other.click("#vsf_video_remove")
        page.until(lambda: list(page.jobs("queue")) == [second], "not removed")
        other.choose(second)
        other.click("#vsf_video_duplicate")
        other.until(lambda: len(other.jobs("queue")) == 2, "not doubled")
    prompts = [entry.job.prompt for entry in desk.queue.entries(WAITING)]
    assert prompts == ["a green bird"] * 2
    page.click("#vsf_video_pause")
    page.until(lambda: len(page.jobs("history")) == 2, "the queue does not go on")
    assert [entry.state for entry in desk.queue.entries()] == [DONE, DONE]


def test_a_job_is_cancelled_and_a_failed_one_says_why(page: VideoPage, desk: Desk) -> None:
    page.fill_form("klein", **LONG)
    job = page.generate()
    page.until(lambda: "sampling" in page.find("#vsf_video_now").text, "it is not seen to run")
    page.until(lambda: page.shows("#vsf_video_now img"), "no preview")
    page.click("#vsf_video_cancel")
    page.until(lambda: page.jobs("history").get(job, ["", ""])[1] == "cancelled", "not cancelled")
    page.fill_form("klein")
    page.fill("#vsf_video_loras textarea", "nothing.safetensors")
    page.click("#vsf_video_generate")
    page.until(lambda: "there is no LoRA nothing.safetensors" in page.said(), "no word of the LoRA")
    lora = desk.places.loras / "bald.safetensors"
    shutil.copy(desk.places.loras / "CausVid schön.safetensors", lora)
    page.click("#vsf_video_pause")
    page.until(lambda: "no job is begun" in page.said(), "not paused")
    page.fill("#vsf_video_loras textarea", "bald.safetensors")
    broken = page.generate()
    lora.unlink()
    page.click("#vsf_video_pause")
    page.until(lambda: broken in page.jobs("history"), "no end")
    assert desk.queue.entry(int(broken)).state == FAILED
    assert "there is no LoRA" in page.jobs("history")[broken][-1]


def test_presets_move_the_sliders_and_sliders_leave_the_preset(page: VideoPage) -> None:
    def alpha() -> str:
        return page.value("#vsf_video_alpha input[type=number]")

    page.fill_form("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    page.until(lambda: alpha() == "1.5", "the sliders do not follow the model")
    page.click("#vsf_video_preset label:nth-child(2) input")
    page.until(lambda: alpha() == "1.7", "the sliders do not follow the preset")
    page.fill("#vsf_video_alpha input[type=number]", 1.2)
    page.until(
        lambda: page.find("#vsf_video_preset label:nth-child(3) input").is_selected(), "still a preset"
    )


def test_a_public_page_offers_neither_files_nor_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "WAN_FOLDER", tmp_path / "nowhere")  # the small one is for everybody
    rights = Rights(install=False, paths=False, delete=False, open_folder=False)
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos"), rights)
    with open_page(desk, port=0) as address, browsing(address) as driver:
        page = VideoPage(driver)
        page.until(lambda: page.shows("#vsf_video_again"), "no page")
        assert not page.shows("#vsf_video_delete")
        assert not page.shows("#vsf_video_folder")
        page.until(lambda: "open to others" in page.find("body").text, "it does not say that it is public")
        time.sleep(2)  # what is filled in before the page listens is not heard
        page.fill_form("/etc")
        page.click("#vsf_video_generate")
        # What cannot be chosen leaves the first model, one of the hub.
        page.until(lambda: "not on this machine" in page.said(), "no word of the model")
        assert desk.queue.entries() == []
    desk.close()
