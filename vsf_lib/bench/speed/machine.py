"""The device that is measured: its name, its clock's fences, and the memory that a call takes at its peak.

Owns what differs between CPU and GPU. Knows no attention.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vsf_lib.bench.allocated import watched


def machine_name(device: torch.device) -> str:
    """The GPU's or the processor's, as their makers call them."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return _processor() if device.type == "cpu" else f"{_processor()} ({device.type})"


def file_name(machine: str) -> str:
    """`machine` as a name of a file: plain letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-") or "machine"


def describe(device: torch.device) -> dict[str, Any]:
    """What stands as `machine` in the results."""
    told: dict[str, Any] = {"name": machine_name(device), "device": device.type}
    if device.type == "cpu":
        told["threads"] = torch.get_num_threads()
    return told


def wait_for(device: torch.device) -> Callable[[], None]:
    """What returns once the device has done all that it was asked."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def peak_bytes(device: torch.device, run: Callable[[], object]) -> int | None:
    """What `run` allocates at its worst moment, its result included; None where nothing tells."""
    if device.type == "cpu":
        return watched(run)[1]
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    highest = torch.cuda.max_memory_allocated(device) - before
    del result
    return highest


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
