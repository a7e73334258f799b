"""The studio's tab for pictures in a browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from browser import Page

_SIZE = "Emulation.setDeviceMetricsOverride"
_DRAG = "Input.dispatchDragEvent"
_BOX = """
const box = document.querySelector(arguments[0]).getBoundingClientRect();
return [box.top, box.bottom, box.height];
"""


class StudioPage(Page):
    """Its form, what it says and what it shows."""

    def __init__(self, driver: Any, *, width: int = 1280, height: int = 800, phone: bool = False) -> None:
        super().__init__(driver)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        driver.execute_cdp_cmd(_SIZE, size)
        self.until(lambda: self.shows("#vsf_image_slider img, #vsf_image_picture img"), "no picture")
        time.sleep(1)

    def fill_form(self, prompt: str, negative: str, **numbers: Any) -> None:
        self.fill("#vsf_image_prompt textarea", prompt)
        self.fill("#vsf_image_negative textarea", negative)
        for name, value in numbers.items():
            self.fill(f"#vsf_image_{name} input[type=number]", value)
        time.sleep(0.5)

    def generate(self) -> None:
        """Presses the button, and sees that it runs."""
        self.click("#vsf_image_generate")
        self.until(self.busy, "it does not run")

    def busy(self) -> bool:
        return bool(self.find("#vsf_image_cancel").is_enabled())

    def finished(self) -> None:
        self.until(lambda: not self.busy(), "no end")

    def said(self) -> str:
        return str(self.find("#vsf_image_note").text)

    def caption(self) -> str:
        return str(self.find("#vsf_image_caption").text)

    def images(self, selector: str) -> list[str]:
        """Where the pictures in an element come from."""
        found = self.driver.find_elements("css selector", f"{selector} img")
        return [str(image.get_attribute("src")) for image in found]

    def box(self, selector: str) -> tuple[float, float, float]:
        """Top, bottom and height in the window."""
        top, bottom, height = self.driver.execute_script(_BOX, selector)
        return top, bottom, height

    def drop(self, selector: str, file: Path) -> None:
        """Drops a file onto an element, with the mouse."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        top, bottom, _ = self.box(selector)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.driver.execute_cdp_cmd(
                _DRAG, {"type": kind, "x": 800, "y": (top + bottom) / 2, "data": data}
            )

    def open_more(self) -> None:
        self.click("#vsf_image_more button")
        self.until(lambda: self.shows("#vsf_image_sweep textarea"), "it does not open")
