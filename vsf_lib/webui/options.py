"""The section "VSF" in the WebUI's settings, and what is chosen there."""

from __future__ import annotations

from dataclasses import dataclass

from vsf_lib.settings import field

STRICTNESS, AUTO_PRESET, HIRES_PASS = "vsf_strictness", "vsf_auto_preset", "vsf_hires_pass"
SAVE_HEATMAPS = "vsf_save_heatmaps"
STOP, SKIP = "stop", "skip"
NORMAL, STRONG = "normal", "strong"


@dataclass(frozen=True)
class Options:
    """The options as they are now."""

    strict: bool = True
    """Whether what cannot be guided stops the generation; else it goes on unguided, with a notice."""
    strong_presets: bool = False
    """Whether "Auto" takes a model's strong preset, where it has one."""
    hires_pass: str = field("hires_pass").default
    """What the panel begins with, and what a request that does not say gets."""
    save_heatmaps: bool = False
    """Whether the pictures of where VSF acted are saved, where results are."""


DEFAULTS = Options()


def chosen() -> Options:
    """Read from the host each time: options change while it runs, and per request of its API."""
    from modules import shared

    return Options(
        strict=getattr(shared.opts, STRICTNESS, STOP) != SKIP,
        strong_presets=getattr(shared.opts, AUTO_PRESET, NORMAL) == STRONG,
        hires_pass=str(getattr(shared.opts, HIRES_PASS, field("hires_pass").default)),
        save_heatmaps=bool(getattr(shared.opts, SAVE_HEATMAPS, False)),
    )


def add() -> None:
    """Adds the options; called by the host when it builds its settings."""
    import gradio as gr
    from modules import shared

    hires = field("hires_pass")
    for name, default, label, choices, info in (
        (
            STRICTNESS,
            STOP,
            "When a picture cannot be guided as asked",
            (STOP, SKIP),
            f"{STOP}: end the generation with a message; {SKIP}: go on unguided, with a notice",
        ),
        (
            AUTO_PRESET,
            NORMAL,
            "What the preset “Auto” takes",
            (NORMAL, STRONG),
            f"{STRONG}: the model's strong preset, where it has one; removes more, costs more of the rest",
        ),
        (
            HIRES_PASS,
            hires.default,
            "Hires fix: passes to guide, unless said otherwise",
            hires.choices,
            "the panel begins with this after a reload of the UI; the other fields' defaults are in "
            "Settings > Defaults",
        ),
    ):
        option = shared.OptionInfo(
            default, label, gr.Radio, {"choices": list(choices)}, section=("vsf", "VSF")
        )
        shared.opts.add_option(name, option.info(info))
    option = shared.OptionInfo(
        False, "Save the pictures that show where VSF acted", gr.Checkbox, section=("vsf", "VSF")
    )
    shared.opts.add_option(
        SAVE_HEATMAPS,
        option.info("in the folder “vsf-maps” beside the results; otherwise they are in the gallery only"),
    )
