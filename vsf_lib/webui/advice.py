"""The line in the panel about the selected checkpoint: what "Auto" means for it, or what else to do."""

from __future__ import annotations

from vsf_lib.webui.request import STRENGTHS, Checkpoint


def advice(checkpoint: Checkpoint | None, *, strong: bool = False) -> str:
    """One line for the selected checkpoint; empty for one that cannot be told before it is loaded."""
    if checkpoint is None:
        return ""
    if checkpoint.network is None:
        return f"VSF guides SD3.5 and Flux, and {checkpoint.name} is neither: switch VSF off for it."
    preset = checkpoint.preset(strong=strong)
    settings = preset.settings()
    given = {name: getattr(settings, name) for name in STRENGTHS}
    if not given["negative_scale"]:
        del given["negative_scale"]
    values = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in given.items())
    line = f"“Auto” means {preset.name} here: {values}."
    if checkpoint.network == "SD3.5" and not checkpoint.turbo:
        line += (
            " This SD3.5 does not look distilled (no “turbo” in its name): with CFG above 1 the WebUI's own "
            "negative prompt is the better tool."
        )
    return line
