"""The example that a recipe stands for, and which part of it counts beside what else was asked for.

Knows no flag, no torch and no picture.
"""

from __future__ import annotations

from vsf_lib.errors import SettingsError
from vsf_lib.images.asked import Asked
from vsf_lib.recipes import Example, recipe_named
from vsf_lib.settings import Settings, field


def example_of(asked: Asked, model: str, notes: list[str]) -> Example | None:
    """The example that was asked for, with a note where half of it is taken; raises SettingsError."""
    if asked.recipe is None:
        return None
    recipe = recipe_named(asked.recipe)
    if asked.from_image is not None:
        raise SettingsError(
            "--recipe and --from-image both say what to draw: drop one (a recipe's picture says all of it)"
        )
    example = recipe.example(model)
    if asked.preset not in (None, "auto") and "alpha" in example.values:
        raise SettingsError(
            f"the recipe {asked.recipe} brings its own alpha and --preset {asked.preset} another: drop one "
            "of them"
        )
    if asked.prompt is not None and "negative_prompt" not in asked.given:
        notes.append(
            f"the negative prompt is the example's, {example.negative_prompt!r}: --negative-prompt gives "
            f"your own ({recipe.negative_prompt})"
        )
    return example


def check_reads(asked: Asked, example: Example | None, settings: Settings) -> None:
    """Raises SettingsError where the method does not read what the recipe is about."""
    unread = [
        name for name in (example.values if example else ()) if settings.method not in field(name).methods
    ]
    if example and example.values.get("alpha") == 0 and settings.method == "difference":
        raise SettingsError(
            f"the recipe {asked.recipe} is about alpha 0, with which the difference guides nothing: leave "
            "--method out"
        )
    if unread and settings.method != "off":
        raise SettingsError(
            f"the recipe {asked.recipe} sets {unread[0]}, which method {settings.method} does not read: drop "
            "one of them"
        )
