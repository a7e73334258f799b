"""The form of a video job: its elements, what they do to one another, and the way from a job back to them.

Owns labels and bounds as gradio shows them; what the values mean is `Desk.job`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from vsf_lib.controls import BASELINES, QUIET, control, shown_for
from vsf_lib.pages import world
from vsf_lib.pages.kept import read_form, updates
from vsf_lib.pages.slider import Slider
from vsf_lib.pages.suggestions import Suggestions
from vsf_lib.scenes.model import WAN
from vsf_lib.seeds import RANDOM
from vsf_lib.settings import field, fields
from vsf_lib.video.desk import AUTOMATIC, Desk
from vsf_lib.video.job import MOST_FRAMES, SIZES, STRIDE, Lora, VideoJob
from vsf_lib.video.shelf import PARTS
from vsf_lib.video.ui import fitting

_MODELS = "a folder in diffusers' format, one file, or a model to download"
_MODELS_AND_OWN = "wan (small, built in), a folder in diffusers' format, one file, or a model to download"
_PROMPT, _NEGATIVE = "a red car driving on a field", "wheels"


class Form:
    """One page's form; `elements` are its fields by the names that `Desk.job` takes."""

    def __init__(self, desk: Desk, buttons: Callable[[], None] = lambda: None) -> None:
        """`buttons` places what stands between the prompts and the settings."""
        self._desk = desk
        self.elements: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._suggestions = Suggestions(desk, "vsf_video", "video")
        models = desk.shelf.model_names()
        with gr.Column():
            self._build_prompts(models[0])
            buttons()
            self.said = gr.HTML(elem_id="vsf_video_note")
        with gr.Column(elem_classes=["vsf-settings"]):
            self._build(models)
        self._connect()

    @property
    def outputs(self) -> list[Any]:
        """All elements that `filled` has an update for."""
        made, suggestions = self.elements.values(), self._suggestions
        return [*made, suggestions.preset, self._size, suggestions.recipe, *self._rows.values()]

    def values(self, *given: Any) -> dict[str, Any]:
        """The elements' values by name."""
        return dict(zip(self.elements, given, strict=True))

    def filled(self, job: VideoJob) -> list[Any]:
        """Updates of `outputs` that show a job."""
        values = {**job.settings.model_dump(), **job.model_dump(exclude={"settings", "loras"})}
        name = self._desk.shelf.name
        for one in ("model", *PARTS):
            values[one] = name(values[one])
        values["loras"] = fitting.lines(
            [Lora(file=name(lora.file), weight=lora.weight) for lora in job.loras]
        )
        for one, automatic in AUTOMATIC.items():
            values[one] = automatic if values[one] is None else values[one]
        return self._shown(values)

    def kept(self, text: str) -> list[Any]:
        """Updates of `outputs` that show what a browser has kept; see `read_form`."""
        values = read_form(text, self.elements)
        if not values:
            return [gr.skip()] * len(self.outputs)
        return self._shown({name: element.value for name, element in self.elements.items()} | values)

    def _shown(self, values: Mapping[str, Any]) -> list[Any]:
        model, method = str(values["model"]), str(values["method"])
        shown = updates(self.elements, values)
        for name, hint in zip(world.HINTED, world.told(model), strict=True):
            shown[name] |= hint
        return [
            *shown.values(),
            gr.update(value=self._suggestions.preset_of(values, model, method)),
            gr.update(value=fitting.size_name(values["width"], values["height"])),
            self._suggestions.offered(model),
            *shown_for(method),
        ]

    def _build_prompts(self, model: str) -> None:
        """With an example where it is drawn at once."""
        made, own = self.elements, model == WAN
        made["prompt"] = gr.Textbox(
            _PROMPT if own else "", label="Video prompt", lines=2, elem_id="vsf_video_prompt",
            placeholder=_PROMPT, info=world.world(model),
        )  # fmt: skip
        made["negative_prompt"] = gr.Textbox(
            _NEGATIVE if own else "", label="Video negative prompt", lines=1, elem_id="vsf_video_negative",
            placeholder=f"What the video must not show, such as {_NEGATIVE}", info=world.parts(model),
        )  # fmt: skip

    def _build(self, models: list[str]) -> None:
        made, desk = self.elements, self._desk
        usual, strengths = fitting.usual(models[0]), desk.strengths(models[0])
        with gr.Group():
            for name in ("alpha", "beta"):
                made[name] = _control(name, strengths[name])
        self._suggestions.place_preset()
        made["method"] = _control("method")
        made["compare"] = gr.Checkbox(
            label="Compare: one file, left without, right with the negative prompt", value=usual["compare"],
            elem_id="vsf_video_compare",
        )  # fmt: skip
        self._suggestions.place_recipe(models[0])
        with gr.Row():
            made["model"] = gr.Dropdown(
                label="Video model", choices=models, value=models[0], elem_id="vsf_video_model", scale=4,
                allow_custom_value=desk.rights.paths, info=_MODELS_AND_OWN if WAN in models else _MODELS,
            )  # fmt: skip
            self._refresh = gr.Button("Refresh", elem_id="vsf_video_refresh", size="sm", min_width=60)
        with gr.Row():
            made["loras"] = gr.Textbox(
                usual["loras"], label="LoRAs", lines=2, placeholder="one FILE:WEIGHT per line",
                elem_id="vsf_video_loras",
            )  # fmt: skip
            self._lora = gr.Dropdown(
                label="Add a LoRA",
                choices=self._desk.shelf.lora_names(),
                value=None,
                elem_id="vsf_video_lora",
            )
        self._size = gr.Dropdown(
            label="Video size", choices=[*(fitting.ALL_SIZES if WAN in models else SIZES), fitting.OWN_SIZE],
            elem_id="vsf_video_size",
            value=fitting.size_name(usual["width"], usual["height"]),
        )  # fmt: skip
        with gr.Row():
            for name in ("width", "height"):
                made[name] = gr.Number(label=f"Video {name}", value=usual[name], elem_id=f"vsf_video_{name}")
        with gr.Row():
            made["frames"] = Slider(
                1, MOST_FRAMES, usual["frames"], step=STRIDE, label="Frames", elem_id="vsf_video_frames"
            )
            made["fps"] = Slider(
                1, 120, usual["fps"], step=1, label="Frames per second", elem_id="vsf_video_fps"
            )
        with gr.Row():
            made["steps"] = Slider(
                1, 100, usual["steps"], step=1, label="Video steps", elem_id="vsf_video_steps"
            )
            made["seed"] = gr.Number(
                label="Video seed", value=RANDOM, elem_id="vsf_video_seed", info=f"{RANDOM}: random."
            )
        with gr.Accordion("More", open=False, elem_id="vsf_video_more"):
            self._build_more(strengths, usual)

    def _build_more(self, strengths: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
        made = self.elements
        with gr.Row():
            for name in ("start", "end"):
                made[name] = _control(name)
        made["guidance_scale"] = Slider(1, 30, 1, step=0.1, label="Video CFG scale")
        made["negative_tokens"] = _control("negative_tokens", strengths["negative_tokens"])
        for method in BASELINES:
            with gr.Row(visible=False) as self._rows[method]:
                for item in fields():
                    if item.methods == {method}:
                        made[item.name] = _control(item.name)
        with gr.Row():
            for name, label, info in (
                ("flow_shift", "Flow shift", "0: by the size"),
                ("drop_frames", "Frames dropped at the start", "-1: by the LoRAs"),
            ):
                made[name] = gr.Number(
                    label=label,
                    info=info,
                    value=usual.get(name, AUTOMATIC[name]),
                    elem_id=f"vsf_video_{name}",
                )
        with gr.Row():
            for part, label in zip(PARTS, ("VAE", "text encoder"), strict=True):
                made[part] = gr.Dropdown(
                    label=f"Video {label}", choices=["", *self._desk.shelf.part_names(part)], value="",
                    allow_custom_value=self._desk.rights.paths, elem_id=f"vsf_video_{part}",
                    info="for a model in one file; empty: the only one there is",
                )  # fmt: skip
        with gr.Row():
            made["quality"] = Slider(
                1, 10, VideoJob.model_fields["quality"].default, step=1, label="Quality of the file"
            )
            made["format"] = gr.Dropdown(label="Format", choices=["mp4", "webm", "gif", "png"], value="mp4")
            made["offload"] = gr.Dropdown(
                label="Offload", choices=["auto", "none", "model", "group"], value=usual["offload"],
                info="auto goes by the free memory of the GPU",
            )  # fmt: skip

    def _connect(self) -> None:
        made = self.elements
        self._suggestions.connect(made, self.said)
        made["model"].input(
            world.told, inputs=[made["model"]], outputs=[made[name] for name in world.HINTED], **QUIET
        )
        made["model"].input(
            fitting.fitted,
            inputs=[made["model"], made["width"], made["height"]],
            outputs=[*(made[name] for name in fitting.FITTED), self._size],
            **QUIET,
        )
        pixels = [made["width"], made["height"]]
        for number in pixels:
            number.input(lambda: fitting.OWN_SIZE, outputs=[self._size], **QUIET)
        self._size.input(fitting.sized, inputs=[self._size], outputs=pixels, **QUIET)
        self._lora.input(
            _with_lora, inputs=[self._lora, made["loras"]], outputs=[self._lora, made["loras"]], **QUIET
        )
        lists = [made["model"], self._lora, *(made[part] for part in PARTS)]
        made["method"].change(
            shown_for,
            inputs=[made["method"]],
            outputs=[*self._rows.values()],
            **QUIET,
        )
        self._refresh.click(self._lists, outputs=lists, **QUIET)

    def _lists(self) -> list[Any]:
        """What lies in the folders now."""
        shelf = self._desk.shelf
        lists = [shelf.model_names(), shelf.lora_names(), *(["", *shelf.part_names(part)] for part in PARTS)]
        return [gr.update(choices=names) for names in lists]


def _with_lora(chosen: str | None, lines: str) -> list[Any]:
    """One line more; CausVid's authors and users take half of it."""
    if not chosen:
        return [gr.update(), gr.update()]
    weight = 0.5 if "causvid" in chosen.lower() else 1.0
    return [gr.update(value=None), "\n".join([*lines.split("\n"), f"{chosen}:{weight:g}"]).strip()]


def _control(name: str, value: float | str | None = None) -> Any:
    item = field(name)
    return control(
        item, f"vsf_video_{name}", label=item.label.replace("VSF", "Video"), value=value, slider_class=Slider
    )
