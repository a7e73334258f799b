"""A page in a real browser, by the ids of its elements: for whoever has selenium and Chromium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WITHIN = 240
_SET = """
const [selector, value] = arguments;
const field = document.querySelector(selector);
field.value = value;
for (const kind of ['input', 'change', 'blur']) field.dispatchEvent(new Event(kind, {bubbles: true}));
"""


class Page:
    """What a person could do with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.find(selector))

    def fill(self, selector: str, value: Any) -> None:
        self.driver.execute_script(_SET, selector, str(value))

    def value(self, selector: str) -> str:
        return str(self.find(selector).get_property("value"))

    def shows(self, selector: str) -> bool:
        return any(found.is_displayed() for found in self.driver.find_elements("css selector", selector))

    def until(self, done: Callable[[], Any], why: str, within: float = WITHIN) -> Any:
        """The page answers when it answers."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            found = done()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(why)


@contextmanager
def browsing(url: str) -> Iterator[Any]:
    """A browser at `url`; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, control = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not control:
        pytest.skip("there is no chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1400,1500"):
        options.add_argument(argument)
    driver = webdriver.Chrome(service=webdriver.ChromeService(control), options=options)
    try:
        driver.get(url)
        yield driver
    finally:
        driver.quit()
