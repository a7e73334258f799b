"""The panel in txt2img and img2img: one widget per argument, made from the fields of `Settings`.

Owns the arrangement and what widgets do to one another. Gradio comes from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from vsf_lib.controls import BASELINES, control, shown_for
from vsf_lib.settings import SettingField, field, fields
from vsf_lib.webui.options import chosen
from vsf_lib.webui.request import (
    ARGUMENTS,
    AUTO,
    CUSTOM,
    HEATMAP,
    HEATMAP_OFF,
    HEATMAPS,
    STRENGTHS,
    preset_names,
)

_MORE = (("negative_scale", "blocks"), ("start", "end"), ("negative_tokens", "hires_pass"), ("method",))


def build(elem_id: Callable[[str], str]) -> tuple[dict[str, Any], Any, Any]:
    """The widgets by argument, in the order of ARGUMENTS, the line for advice, and what remembers which
    negative tokens a preset has set."""
    from modules.ui_components import InputAccordion

    made: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    with InputAccordion(False, label="VSF", elem_id=elem_id("enable")) as made["enabled"]:
        advice = gr.HTML(elem_id=elem_id("advice"), elem_classes=["vsf-advice"], visible=False)
        made["negative_prompt"] = gr.Textbox(
            label=field("negative_prompt").label,
            lines=2,
            value="",  # what a request that leaves it out gets; without, that would be None
            placeholder="What the picture must not show. Empty: the WebUI's own negative prompt is used.",
            elem_id=elem_id("negative_prompt"),
            elem_classes=["prompt"],
        )
        made["preset"] = gr.Dropdown(
            label="VSF preset", choices=list(preset_names()), value=AUTO, elem_id=elem_id("preset")
        )
        with gr.Row():
            for name in ("alpha", "beta"):
                made[name] = _widget(field(name), elem_id)
        with gr.Accordion("More", open=False, elem_id=elem_id("more")):
            for names in _MORE:
                with gr.Row():
                    for name in names:
                        made[name] = _widget(field(name), elem_id)
            for method in BASELINES:
                with gr.Row(visible=False) as rows[method]:
                    for item in fields():
                        if item.methods == {method}:
                            made[item.name] = _widget(item, elem_id)
            made[HEATMAP] = gr.Radio(
                label="VSF show where it acted",
                choices=list(HEATMAPS),
                value=HEATMAP_OFF,
                elem_id=elem_id(HEATMAP),
                info="One more picture: the share of attention that went to the negative prompt, as colours "
                "over the result. The result stays the same.",
            )
    made["hires_pass"].value = chosen().hires_pass
    made["hires_pass"].do_not_save_to_config = True  # its default is an option in the settings
    told = gr.State(None)
    _connect(made, rows, told)
    return {name: made[name] for name in ARGUMENTS}, advice, told


def _widget(item: SettingField, elem_id: Callable[[str], str]) -> Any:
    return control(item, elem_id(item.name), without=("off",))  # the accordion switches off


def _connect(made: dict[str, Any], rows: dict[str, Any], told: Any) -> None:
    quiet: dict[str, Any] = {"show_progress": False, "queue": False}
    made["method"].change(shown_for, inputs=[made["method"]], outputs=list(rows.values()), **quiet)
    for name in STRENGTHS:
        if name != "negative_tokens":
            made[name].input(lambda: CUSTOM, inputs=[], outputs=[made["preset"]], **quiet)
    # Gradio's radio buttons report a preset's hand as a user's.
    tokens = made["negative_tokens"]
    tokens.input(_unless_told, inputs=[tokens, told], outputs=[made["preset"]], **quiet)


def _unless_told(tokens: str, told: str | None) -> Any:
    return gr.update() if tokens == told else CUSTOM
