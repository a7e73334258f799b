"""The form of a video job: its elements, what they do to one another, and the way from a job back to them.

Owns labels and bounds as gradio shows them; what the values mean is `Desk.job`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from vsf_lib.controls import BASELINES, control, shown_for
from vsf_lib.errors import SettingsError
from vsf_lib.scenes.model import SIZE, WAN
from vsf_lib.settings import Settings, field, fields
from vsf_lib.video import builtin
from vsf_lib.video.desk import AUTOMATIC, Desk
from vsf_lib.video.job import MOST_FRAMES, SIZES, STRIDE, Lora, VideoJob
from vsf_lib.video.shelf import PARTS

_SIZES: Mapping[str, tuple[int, int]] = {**SIZES, f"{SIZE}x{SIZE}": (SIZE, SIZE)}
"""Those of real models, and of the built-in one."""
_OWN_SIZE = "own size"
_USUAL, _STRONG, _OWN = "usual", "strong", "own values"
_STRENGTHS = ("alpha", "beta", "negative_tokens")
"""What a preset decides."""
_FITTED = ("width", "height", "frames", "fps", "steps", "drop_frames", "offload", "loras")
"""What the built-in model and real ones have other values of."""
QUIET: dict[str, Any] = {"show_progress": "hidden"}


class Form:
    """One page's form; `elements` are its fields by the names that `Desk.job` takes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.elements: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._build()
        self._connect()

    @property
    def outputs(self) -> list[Any]:
        """All elements that `filled` has an update for."""
        return [*self.elements.values(), self._preset, self._size]

    def values(self, *given: Any) -> dict[str, Any]:
        """The elements' values by name."""
        return dict(zip(self.elements, given, strict=True))

    def filled(self, job: VideoJob) -> list[Any]:
        """Updates of `outputs` that show a job."""
        values = {**job.settings.model_dump(), **job.model_dump(exclude={"settings", "loras"})}
        name = self._desk.shelf.name
        for one in ("model", *PARTS):
            values[one] = name(values[one])
        values["loras"] = _lines([Lora(file=name(lora.file), weight=lora.weight) for lora in job.loras])
        for one, automatic in AUTOMATIC.items():
            values[one] = automatic if values[one] is None else values[one]
        self._check(values)
        shown = [gr.update(value=values[name]) for name in self.elements]
        return [*shown, gr.update(value=_OWN), gr.update(value=_size_name(job.width, job.height))]

    def _check(self, values: Mapping[str, Any]) -> None:
        """A slider cannot show what lies beyond it, and would send another value."""
        for name, element in self.elements.items():
            if isinstance(element, gr.Slider) and not element.minimum <= values[name] <= element.maximum:
                raise SettingsError(
                    f"{name} is {values[name]:g}, and this page goes from {element.minimum:g} to "
                    f"{element.maximum:g}: make this video with the command, video --from-file"
                )

    def _build(self) -> None:
        made = self.elements
        models = self._desk.shelf.model_names()
        preset, usual = self._desk.preset(models[0]), _usual(models[0])
        made["prompt"] = gr.Textbox(
            label="Video prompt", lines=3, elem_id="vsf_video_prompt",
            placeholder="a red car driving on a field",
        )  # fmt: skip
        made["negative_prompt"] = gr.Textbox(
            label="Video negative prompt", lines=2, elem_id="vsf_video_negative",
            placeholder="What the video must not show",
        )  # fmt: skip
        self._preset = gr.Radio(
            label="Video preset", choices=[_USUAL, _STRONG, _OWN], value=_USUAL, elem_id="vsf_video_preset",
            info="values for the chosen model",
        )  # fmt: skip
        with gr.Row():
            for name in ("alpha", "beta"):
                made[name] = _control(name, getattr(preset, name))
        made["compare"] = gr.Checkbox(
            label="Compare: one file, left without, right with the negative prompt", value=False,
            elem_id="vsf_video_compare",
        )  # fmt: skip
        with gr.Row():
            made["model"] = gr.Dropdown(
                label="Video model", choices=models, value=models[0], elem_id="vsf_video_model", scale=4,
                allow_custom_value=self._desk.rights.paths,
                info="wan (small, built in), a folder in diffusers' format, one file, or a model to download",
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
            label="Video size", choices=[*_SIZES, _OWN_SIZE], elem_id="vsf_video_size",
            value=_size_name(usual["width"], usual["height"]),
        )  # fmt: skip
        with gr.Row():
            for name in ("width", "height"):
                made[name] = gr.Number(
                    label=f"Video {name}", value=usual[name], precision=0, elem_id=f"vsf_video_{name}"
                )
        with gr.Row():
            made["frames"] = gr.Slider(
                1, MOST_FRAMES, usual["frames"], step=STRIDE, label="Frames", elem_id="vsf_video_frames"
            )
            made["fps"] = gr.Slider(
                1, 120, usual["fps"], step=1, label="Frames per second", elem_id="vsf_video_fps"
            )
        with gr.Row():
            made["steps"] = gr.Slider(
                1, 100, usual["steps"], step=1, label="Video steps", elem_id="vsf_video_steps"
            )
            made["seed"] = gr.Number(label="Video seed", value=-1, precision=0, elem_id="vsf_video_seed")
        with gr.Accordion("More", open=False, elem_id="vsf_video_more"):
            self._build_more(preset, usual)

    def _build_more(self, preset: Settings, usual: Mapping[str, Any]) -> None:
        made = self.elements
        with gr.Row():
            for name in ("start", "end"):
                made[name] = _control(name)
        with gr.Row():
            made["method"] = gr.Radio(
                label="Video method", choices=list(field("method").choices), value="vsf"
            )
            made["guidance_scale"] = gr.Slider(1, 30, 1, step=0.1, label="Video CFG scale")
        made["negative_tokens"] = _control("negative_tokens", preset.negative_tokens)
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
            made["quality"] = gr.Slider(
                1, 10, VideoJob.model_fields["quality"].default, step=1, label="Quality of the file"
            )
            made["format"] = gr.Dropdown(label="Format", choices=["mp4", "webm", "gif", "png"], value="mp4")
            made["offload"] = gr.Dropdown(
                label="Offload", choices=["auto", "none", "model", "group"], value=usual["offload"],
                info="auto goes by the free memory of the GPU",
            )  # fmt: skip

    def _connect(self) -> None:
        made = self.elements
        strengths = [made[name] for name in _STRENGTHS]
        asked = [self._preset, made["model"], made["method"]]
        for chosen in (self._preset.input, made["model"].input, made["method"].input):
            chosen(self._strengths, inputs=asked, outputs=strengths, **QUIET)
        for strength in strengths:
            strength.input(lambda: _OWN, outputs=[self._preset], **QUIET)
        made["model"].input(
            _fitted,
            inputs=[made["model"], made["width"], made["height"]],
            outputs=[*(made[name] for name in _FITTED), self._size],
            **QUIET,
        )
        pixels = [made["width"], made["height"]]
        for number in pixels:
            number.input(lambda: _OWN_SIZE, outputs=[self._size], **QUIET)
        self._size.input(_sized, inputs=[self._size], outputs=pixels, **QUIET)
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

    def _strengths(self, preset: str, model: str | None, method: str) -> list[Any]:
        if preset == _OWN:
            return [gr.update()] * len(_STRENGTHS)
        values = self._desk.preset(model or "", strong=preset == _STRONG, method=method)
        return [gr.update(value=getattr(values, name)) for name in _STRENGTHS]

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


def _sized(chosen: str) -> list[Any]:
    return [gr.update(value=pixels) for pixels in _SIZES[chosen]] if chosen in _SIZES else [gr.update()] * 2


def _size_name(width: int, height: int) -> str:
    return next((name for name, size in _SIZES.items() if size == (width, height)), _OWN_SIZE)


def _lines(loras: Sequence[Lora]) -> str:
    return "\n".join(map(str, loras))


def _usual(model: str) -> dict[str, Any]:
    """What the form shows of `_FITTED` for a model."""
    values = {name: VideoJob.model_fields[name].default for name in _FITTED}
    if model == WAN:
        values |= {name: builtin.USUAL[name] for name in _FITTED}
    values["loras"] = _lines([Lora(**one) for one in values["loras"]])
    return values | {name: AUTOMATIC[name] for name in AUTOMATIC if name in values and values[name] is None}


def _fitted(model: str | None, width: float, height: float) -> list[Any]:
    """Other values where the form had those of the other kind of model, told by their size."""
    if (model == WAN) == ((width, height) == (SIZE, SIZE)):
        return [gr.update()] * (len(_FITTED) + 1)
    values = _usual(model or "")
    shown = [gr.update(value=values[name]) for name in _FITTED]
    return [*shown, gr.update(value=_size_name(values["width"], values["height"]))]


def _control(name: str, value: float | str | None = None) -> Any:
    item = field(name)
    return control(item, f"vsf_video_{name}", label=item.label.replace("VSF", "Video"), value=value)
