"""The page for videos in a browser, in a WebUI's tab or on its own."""

from __future__ import annotations

import time
from typing import Any

from browser import Page

NOTE = "#vsf_video_note"
_LINES = """
return [...document.querySelectorAll(arguments[0] + ' label')].filter(label => label.querySelector('input'))
    .map(label => label.innerText.trim().split(' · '));
"""


class VideoPage(Page):
    """Its form, its tables and what it says."""

    def fill_form(self, model: str, *, prompt: str = "a red car", **numbers: Any) -> None:
        """A small job that says what must not be there."""
        self.fill("#vsf_video_prompt textarea", prompt)
        self.fill("#vsf_video_negative textarea", "wheels")
        small = {"width": 128, "height": 96, "seed": 5, "frames": 17, "steps": 3}
        for name, value in {**small, **numbers}.items():
            kind = "input[type=number]" if name in ("frames", "steps") else "input"
            self.fill(f"#vsf_video_{name} {kind}", value)
        self.choose_model(model)

    def choose_model(self, model: str) -> None:
        """By typing its name."""
        box = self.find("#vsf_video_model input")
        box.click()
        box.clear()
        box.send_keys(model)
        time.sleep(1)
        box.send_keys("\ue007")  # enter
        time.sleep(1)

    def generate(self) -> str:
        """The number of the new job."""
        before = self.said()
        self.click("#vsf_video_generate")
        said = self.until(
            lambda: self.said() if self.said() != before and "is in the queue" in self.said() else "",
            "nothing was queued",
        )
        return str(said).split()[1]

    def said(self) -> str:
        return str(self.find(NOTE).text)

    def jobs(self, table: str) -> dict[str, list[str]]:
        """What the queue or the history says of its jobs, by number, read in one go."""
        lines = self.driver.execute_script(_LINES, f"#vsf_video_{table}")
        return {line[0]: line for line in lines}

    def choose(self, job: str) -> None:
        self.driver.execute_script(
            "document.querySelector(arguments[0]).click()", f".vsf-jobs input[value='{job}']"
        )
        time.sleep(1)

    def done(self, job: str) -> bool:
        """Whether it is in the history, as what is finished."""
        line = self.jobs("history").get(job)
        if line is not None and line[1] != "done":
            raise AssertionError(f"the job has ended so: {line}")
        return line is not None
