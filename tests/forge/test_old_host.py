"""A real AUTOMATIC1111 WebUI 1.10 or reForge with this repository as its extension.

VSF_OLD_HOST_ROOT names its folder, with a Stable Diffusion checkpoint and a Wan model in models/diffusers
(small random ones do); VSF_OLD_HOST_PYTHON its Python; VSF_OLD_HOST_ARGUMENTS what it needs beside the usual.
The repository's own .venv must be there: `python install.py --install-only studio`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forge_client import Forge, ForgeError

ROOT = os.environ.get("VSF_OLD_HOST_ROOT")
REPOSITORY = Path(__file__).parents[2]
ARGUMENTS = """
    --api --skip-torch-cuda-test --skip-prepare-environment --skip-install --skip-version-check
    --skip-python-version-check --no-half --use-cpu all --do-not-download-clip --no-download-sd-model
"""
STARTS_WITHIN = 600
PICTURE = {
    "prompt": "a red car", "steps": 3, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler",
    "cfg_scale": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    root = Path(str(ROOT))
    link = root / "extensions" / "vsf"
    made = not link.exists()
    if made:
        link.symlink_to(REPOSITORY, target_is_directory=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("host") / "log.txt"
    more = os.environ.get("VSF_OLD_HOST_ARGUMENTS", "")
    python = os.environ.get("VSF_OLD_HOST_PYTHON", sys.executable)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [python, "launch.py", "--port", str(port), *ARGUMENTS.split(), *more.split()],
            cwd=root,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"},
        )
    try:
        found = Forge(port)
        deadline = time.monotonic() + STARTS_WITHIN
        while not _answers(found):
            assert server.poll() is None, log.read_text("utf-8", "replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")[-3000:]
            time.sleep(1)
        yield found
        said = log.read_text("utf-8", "replace").splitlines()
        assert not [line for line in said if line.startswith("*** Error") and "extensions/vsf" in line]
    finally:
        server.terminate()
        server.wait(60)
        if made:
            link.unlink()


def _answers(host: Forge) -> bool:
    """Its API answers a little before it is ready; our routes are the last thing that it adds."""
    try:
        urllib.request.urlopen(f"{host.url}/vsf-video/").close()
    except OSError:
        return False
    return True


def picture(host: Forge, arguments: list[Any] | None = None) -> str:
    scripts = {} if arguments is None else {"VSF": {"args": arguments}}
    return str(host.request("/sdapi/v1/txt2img", {**PICTURE, "alwayson_scripts": scripts})["images"][0])


def test_a_picture_that_asks_for_it_is_refused_and_others_are_as_before(host: Forge) -> None:
    before = picture(host)
    for arguments in ([{"negative_prompt": "wheels"}], [True, "Auto"]):
        with pytest.raises(ForgeError, match="install VSF in one of those"):
            picture(host, arguments)
    assert picture(host) == picture(host, [False]) == before


def test_the_tab_opens_and_makes_a_video_between_pictures(host: Forge) -> None:
    from browser import browsing
    from video_page import VideoPage

    models = sorted(folder.parent for folder in Path(str(ROOT)).glob("models/diffusers/*/model_index.json"))
    before = picture(host)
    with browsing(f"{host.url}/?__theme=light") as driver:
        page = VideoPage(driver)
        tabs = "return [...document.querySelectorAll('#tabs > .tab-nav button')]"
        tab = f"{tabs}.find(tab => tab.textContent.trim() === 'VSF Video')"
        page.until(lambda: driver.execute_script(tab), "no tab")
        time.sleep(3)  # until the page has connected its events
        panel = driver.execute_script("return document.querySelector('#tab_txt2img').textContent")
        assert "VSF guides SD3.5 and Flux in WebUI Forge" in panel
        driver.execute_script(f"{tab}.click()".replace("return ", "", 1))
        driver.switch_to.frame(driver.find_element("id", "vsf_video_frame"))
        page.until(lambda: page.shows("#vsf_video_prompt textarea"), "no page in the tab")

        def answers() -> bool:
            page.click("#vsf_video_up")
            time.sleep(1)
            return "choose one in the queue" in page.said() or "no job is chosen" in page.said()

        page.until(answers, "the page's buttons do nothing")
        page.fill_form(models[0].name, steps=80)
        job = page.generate()
        page.until(lambda: page.shows("#vsf_video_now img"), "no preview")
        assert picture(host) == before, "it waited for the video, and its checkpoint came back whole"
        page.until(lambda: page.done(job), "no end")
        page.until(lambda: page.shows("#vsf_video_player video"), "no player")
        played = "return document.querySelector('#vsf_video_player video').duration"
        page.until(lambda: (driver.execute_script(played) or 0) > 1, "the file is not played")
        assert "VSF negative prompt: wheels" in page.value("#vsf_video_infotext textarea")
