"""Waiting for what another thread or process does."""

from __future__ import annotations

import time


def until(done, seconds=240):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")
