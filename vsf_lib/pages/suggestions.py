"""The preset and the recipe of a form, and how they fill in its fields.

Owns these two elements and their events; what is suggested for a model is the desk's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gradio as gr

from vsf_lib.controls import QUIET
from vsf_lib.errors import VSFError
from vsf_lib.pages.said import say
from vsf_lib.pages.words import on_page
from vsf_lib.preset_choice import STRENGTHS
from vsf_lib.recipes import UNMEASURED, Example
from vsf_lib.settings import SHARING

USUAL, STRONG, OWN = "usual", "strong", "own values"


class Suggests(Protocol):
    """A desk, as far as it is asked here."""

    def strengths(self, model: str, *, strong: bool = False, method: str = "vsf") -> dict[str, Any]:
        """The values of `STRENGTHS` that suit a model and a method."""

    def recipes(self, model: str) -> list[tuple[str, str]]:
        """What the recipes for a model do, and their names."""

    def example(self, recipe: str, model: str) -> Example:
        """A recipe's example for a model; raises SettingsError."""


class Suggestions:
    """The two elements are made where `place_preset` and `place_recipe` are called; then `connect`."""

    def __init__(self, desk: Suggests, elem_id: str, title: str = "") -> None:
        """Ids begin with `elem_id`, labels with `title`."""
        self._desk = desk
        self._elem_id = elem_id
        self._title = f"{title} " if title else ""

    def place_preset(self) -> None:
        """The choice among the presets."""
        self.preset = gr.Radio(
            label=f"{self._title}preset".capitalize(), choices=[USUAL, STRONG, OWN], value=USUAL,
            elem_id=f"{self._elem_id}_preset",
            info="Alpha, beta and tokens that suit the model and the method.",
        )  # fmt: skip

    def place_recipe(self, model: str, **layout: Any) -> None:
        """The list of recipes for a model."""
        self.recipe = gr.Dropdown(
            label=f"{self._title}recipe".capitalize(), choices=self._desk.recipes(model), value=None,
            elem_id=f"{self._elem_id}_recipe",
            info="Known ways of using a negative prompt: fills in an example.", **layout,
        )  # fmt: skip

    def connect(self, elements: Mapping[str, Any], said: Any) -> None:
        """What the two and the form's `elements` do to one another; `said` shows what came of it."""
        strengths = [elements[name] for name in STRENGTHS]
        asked = [self.preset, elements["model"], elements["method"]]
        for chosen in (self.preset.input, elements["model"].input, elements["method"].input):
            chosen(self.suggested, inputs=asked, outputs=strengths, **QUIET)
        for strength in strengths:
            if isinstance(strength, gr.Slider):
                strength.input(lambda: OWN, outputs=[self.preset], **QUIET)
        # Gradio's radio buttons say `input` also when an event has set them, so that the value has to tell.
        tokens = elements["negative_tokens"]
        tokens.input(self.unless_suggested, inputs=[tokens, *asked], outputs=[self.preset], **QUIET)
        elements["model"].input(self.offered, inputs=[elements["model"]], outputs=[self.recipe], **QUIET)
        self.recipe.input(
            self.filled_in,
            inputs=[self.recipe, elements["model"], elements["method"]],
            outputs=[
                elements["prompt"],
                elements["negative_prompt"],
                elements["method"],
                *strengths,
                self.preset,
                said,
            ],
            **QUIET,
        )

    def suggested(self, preset: str, model: str | None, method: str) -> list[Any]:
        """Updates of the strengths."""
        if preset == OWN:
            return [gr.update()] * len(STRENGTHS)
        values = self._desk.strengths(model or "", strong=preset == STRONG, method=method)
        return [gr.update(value=values[name]) for name in STRENGTHS]

    def unless_suggested(self, tokens: str, preset: str, model: str | None, method: str) -> Any:
        """The preset, after the choice of tokens has changed to what only a user can have meant."""
        values = self._desk.strengths(model or "", strong=preset == STRONG, method=method)
        return gr.update() if tokens == values["negative_tokens"] else OWN

    def offered(self, model: str | None) -> Any:
        """An update of the recipes to those for a model."""
        return gr.update(choices=self._desk.recipes(model or ""), value=None)

    def filled_in(self, recipe: str | None, model: str | None, method: str) -> list[Any]:
        """The recipe's example, its values on top of the usual ones, and a method that it is meant for."""
        nothing = [gr.update()] * (len(STRENGTHS) + 4)
        if not recipe:
            return [*nothing, ""]
        try:
            example = self._desk.example(recipe, model or "")
        except VSFError as error:
            return [*nothing, say(on_page(str(error)), bad=True)]
        method = method if method in SHARING else "vsf"
        own = example.of(method)
        values = {**self._desk.strengths(model or "", method=method), **own}
        seen = "nobody has measured it" if example.seen == UNMEASURED else f"seen: {example.seen}"
        return [
            example.prompt,
            example.negative_prompt,
            method,
            *(values[name] for name in STRENGTHS),
            OWN if own else USUAL,
            say(f"{recipe}: press Generate ({seen})"),
        ]

    def preset_of(self, values: Mapping[str, Any], model: str, method: str) -> str:
        """The preset whose values these are."""
        own = {name: values.get(name) for name in STRENGTHS}
        for preset in (USUAL, STRONG):
            if own == self._desk.strengths(model, strong=preset == STRONG, method=method):
                return preset
        return OWN
