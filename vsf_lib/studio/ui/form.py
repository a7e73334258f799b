"""The form of a picture: its elements, what they do to one another, and the way from a file back to them.

Owns the arrangement; what the values mean is `ImageDesk`'s, and labels and bounds of settings are its own.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.controls import BASELINES, QUIET, control, shown_for
from vsf_lib.images.request import DEVICES, DTYPES, OFFLOADS
from vsf_lib.images.resolve import usual_steps
from vsf_lib.pages import world
from vsf_lib.pages.kept import read_form, updates
from vsf_lib.pages.slider import Slider
from vsf_lib.pages.suggestions import Suggestions
from vsf_lib.pages.words import label
from vsf_lib.scenes.model import NAME
from vsf_lib.seeds import RANDOM, new_seed
from vsf_lib.settings import Settings, field, fields
from vsf_lib.studio.desk import ImageDesk, Restored
from vsf_lib.sweep import MOST_FPS, USUAL_FPS, swept_name

_PROMPT, _NEGATIVE, _SEED = "a red car on a field", "wheels", 2
_MOST_STEPS = 50
_SWEEPS = {
    "vsf": "alpha=0:6:0.5",
    "difference": "alpha=0.5:8:0.5",
    "nag": "nag_phi=1:11:1",
    "nasa": "nasa_alpha=0.05:0.5:0.05",
}


class Form:
    """One page's form; `elements` are its fields by the names that `ImageDesk.asked` takes."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self.elements: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._usual = desk.strengths(NAME)
        self._suggestions = Suggestions(desk, "vsf_image")
        made = self.elements
        with gr.Column():
            made["prompt"] = gr.Textbox(
                label="Prompt", lines=2, max_lines=6, value=_PROMPT, elem_id="vsf_image_prompt",
                info=world.world(NAME),
            )  # fmt: skip
            made["negative_prompt"] = gr.Textbox(
                label="Negative prompt", lines=1, max_lines=4, value=_NEGATIVE, elem_id="vsf_image_negative",
                placeholder="What the picture must not show", info=world.parts(NAME),
            )  # fmt: skip
            with gr.Row(elem_classes=["vsf-buttons"]):
                self.generate = gr.Button(
                    "Generate", variant="primary", elem_id="vsf_image_generate", scale=3, min_width=110
                )
                self.sweep = gr.Button("Sweep", elem_id="vsf_image_sweep_go", scale=1, min_width=80)
                self.cancel = gr.Button(
                    "Cancel", elem_id="vsf_image_cancel", scale=1, min_width=80, interactive=False
                )
            self.said = gr.HTML(elem_id="vsf_image_note", elem_classes=["vsf-note"], padding=False)
        with gr.Column(elem_classes=["vsf-settings"]):
            self._build()

    @property
    def outputs(self) -> list[Any]:
        """All elements that `filled` has an update for."""
        suggestions = self._suggestions
        return [*self.elements.values(), suggestions.preset, suggestions.recipe, *self._rows.values()]

    def values(self, *given: Any) -> dict[str, Any]:
        """The elements' values by name."""
        return dict(zip(self.elements, given, strict=True))

    def filled(self, restored: Restored) -> list[Any]:
        """Updates of `outputs` that show what a file was made from."""
        request = restored.request
        settings = request.settings
        values: dict[str, Any] = {
            **settings.model_dump(),
            "prompt": request.prompt,
            "seed": request.seed,
            "steps": request.steps,
            "size": "" if request.size is None else f"{request.size[0]}x{request.size[1]}",
            "guidance_scale": f"{restored.guidance_scale:g}",
            "model": self._desk.shelf.name(request.model),
            "parts": self._desk.shelf.name(request.parts or ""),
            "device": request.device,
            "dtype": request.dtype,
        }
        if not restored.here:
            values = {name: value for name, value in values.items() if name not in ("model", "parts")}
        unguided = settings.method == "off" and not settings.negative_prompt
        if unguided:  # what would guide it stays as it is, and the next negative prompt acts
            values = {name: value for name, value in values.items() if name not in Settings.model_fields}
            values["negative_prompt"] = ""
        if request.sweep is not None:
            plan = request.sweep
            values |= {"sweep": plan.sweep.text, "fps": plan.fps, "loop": plan.loop}
        shown = self._shown(values, str(values.get("model", "")))
        offered = self._suggestions.offered(str(values["model"])) if restored.here else gr.update()
        preset = rows = None
        if not unguided:
            named = str(values.get("model", request.model))
            preset = self._suggestions.preset_of(values, named, settings.method)
            rows = shown_for(settings.method)
        return [
            *shown,
            gr.update() if preset is None else gr.update(value=preset),
            offered,
            *(rows or [gr.update()] * len(self._rows)),
        ]

    def kept(self, text: str) -> list[Any]:
        """Updates of `outputs` that show what a browser has kept; see `read_form`."""
        values = read_form(text, self.elements)
        if not values:
            return [gr.skip()] * len(self.outputs)
        model, method = (values.get(name, self.elements[name].value) for name in ("model", "method"))
        return [
            *self._shown(values, model),
            self._suggestions.preset_of(values, model, method),
            self._suggestions.offered(model),
            *shown_for(method),
        ]

    def _shown(self, values: dict[str, Any], model: str) -> list[Any]:
        """Updates of the elements to these values, with the hints for a model if there is one."""
        shown = updates(self.elements, values)
        if model:
            for name, hint in zip(world.HINTED, world.told(model), strict=True):
                shown[name] |= hint
        return [*shown.values()]

    def _build(self) -> None:
        made, desk = self.elements, self._desk
        with gr.Group():
            for name in ("alpha", "beta"):
                made[name] = self._control(name)
        self._suggestions.place_preset()
        made["method"] = self._control("method")
        with gr.Row():
            self._suggestions.place_recipe(NAME, scale=3)
            made["model"] = gr.Dropdown(
                label="Model", choices=desk.shelf.names(), value=NAME, elem_id="vsf_image_model",
                allow_custom_value=desk.shelf.paths, scale=3,
                info="Small built-in ones, a folder, a .safetensors file or a hub id."
                if desk.shelf.paths else "Those of this server.",
            )  # fmt: skip
        with gr.Row():
            made["seed"] = gr.Number(  # without bounds, of which gradio would speak in place of the desk
                label="Seed", value=_SEED, scale=2, elem_id="vsf_image_seed", min_width=100,
                info=f"{RANDOM}: random.",
            )  # fmt: skip
            self._dice = gr.Button("New seed", elem_id="vsf_image_dice", size="sm", scale=1, min_width=80)
            made["steps"] = Slider(
                1, _MOST_STEPS, usual_steps(NAME), step=1, label="Steps", scale=3, elem_id="vsf_image_steps"
            )
        with gr.Accordion("More", open=False, elem_id="vsf_image_more"):
            self._build_more()

    def _build_more(self) -> None:
        made = self.elements
        with gr.Row():
            made["compare"] = gr.Checkbox(
                label="Before and after", value=True, elem_id="vsf_image_compare",
                info="Draws the picture without the negative prompt, too.",
            )  # fmt: skip
            made["heatmap"] = gr.Checkbox(
                label="Show where it acts", value=True, elem_id="vsf_image_heatmap",
                info="The negative prompt's share of the attention, over the picture and step by step.",
            )  # fmt: skip
        with gr.Group():
            made["sweep"] = gr.Textbox(
                label="Sweep", value=_SWEEPS["vsf"], elem_id="vsf_image_sweep",
                info="What the button Sweep draws, a strip and a film: one setting over a range, "
                "FIELD=LOW:HIGH:STEP, or a list, FIELD=0,1,4.",
            )  # fmt: skip
            made["fps"] = Slider(
                1, MOST_FPS, USUAL_FPS, step=1, label="Values per second of the film", elem_id="vsf_image_fps"
            )
            made["loop"] = gr.Checkbox(label="The film runs there and back", elem_id="vsf_image_loop")
        with gr.Group():
            for name in ("start", "end", "negative_tokens"):
                made[name] = self._control(name)
        for method in BASELINES:
            with gr.Group(visible=False) as self._rows[method]:
                for item in fields():
                    if item.methods == {method}:
                        made[item.name] = self._control(item.name)
        with gr.Group():
            for name in ("negative_scale", "pooled_shift", "blocks"):
                made[name] = self._control(name)
        with gr.Row():
            made["size"] = gr.Textbox(
                label="Size",
                placeholder="the model's own",
                elem_id="vsf_image_size",
                info="In pixels, such as 1024x768.",
            )
            made["guidance_scale"] = gr.Textbox(  # gradio's numbers cannot be empty
                label="Guidance scale", placeholder="the model's own", elem_id="vsf_image_guidance_scale",
                info="1 is off. Of Flux dev it is the distilled guidance.",
            )  # fmt: skip
        made["parts"] = gr.Textbox(
            label="Other parts", elem_id="vsf_image_parts",
            info="For a model in one file: the folder with its text encoders and VAE.",
        )  # fmt: skip
        with gr.Row():
            for name, text, choices in (
                ("device", "Device", DEVICES),
                ("dtype", "Precision", DTYPES),
                ("offload", "Offload", OFFLOADS),
            ):
                made[name] = gr.Dropdown(
                    label=text, choices=list(choices), value=choices[0], elem_id=f"vsf_image_{name}",
                    min_width=110, allow_custom_value=name == "device",
                )  # fmt: skip

    def connect(self) -> None:
        """What the elements do to one another."""
        made = self.elements
        self._suggestions.connect(made, self.said)
        made["model"].input(
            lambda model: [usual_steps(model or ""), *world.told(model)],
            inputs=[made["model"]],
            outputs=[made["steps"], *(made[name] for name in world.HINTED)],
            **QUIET,
        )
        made["method"].change(
            lambda method, text: [*shown_for(method), _sweep_for(method, text)],
            inputs=[made["method"], made["sweep"]],
            outputs=[*self._rows.values(), made["sweep"]],
            **QUIET,
        )
        self._dice.click(lambda: new_seed(), outputs=[made["seed"]], **QUIET)

    def _control(self, name: str) -> Any:
        item = field(name)
        value = self._usual.get(name)
        return control(
            item, f"vsf_image_{name}", label=label(item.label), value=value, slider_class=Slider
        )  # fmt: skip


def _sweep_for(method: str, text: str) -> Any:
    """The usual sweep of a method in place of another's; one's own stays, or what a file has brought."""
    reads = any(item.name == swept_name(text) and method in item.methods for item in fields())
    return gr.skip() if reads and text not in _SWEEPS.values() else _SWEEPS.get(method, gr.skip())
