"""The line in the panel about the selected checkpoint: what "Auto" means for it, or what else to do."""

from __future__ import annotations

from vsf_lib.settings import SHARING, field
from vsf_lib.webui.networks import listed, titles
from vsf_lib.webui.request import STRENGTHS, Checkpoint


def advice(checkpoint: Checkpoint | None, *, strong: bool = False, method: str = "vsf") -> str:
    """One line for the selected checkpoint; empty for one that cannot be told before it is loaded."""
    if checkpoint is None:
        return ""
    if checkpoint.network is None:
        return f"VSF guides {listed(titles())} here, which {checkpoint.name} is not: switch VSF off for it."
    preset = checkpoint.preset(strong=strong)
    settings = preset.settings(method=method if method in SHARING else "vsf")
    told = [
        name for name in STRENGTHS if field(name).always or getattr(settings, name) != field(name).default
    ]
    values = ", ".join(f"{name.replace('_', ' ')} {_plain(getattr(settings, name))}" for name in told)
    line = f"“Auto” means {preset.name} here: {values}."
    if checkpoint.network == "SD3.5" and not checkpoint.turbo:
        line += (
            " This SD3.5 does not look distilled (no “turbo” in its name): with CFG above 1 the WebUI's own "
            "negative prompt is the better tool."
        )
    return line


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
