"""The flag `--recipe`: the example that it stands for, and the list of all.

Owns which part of an example counts beside other flags. Knows no torch and no picture.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vsf_lib.cli.console import result
from vsf_lib.errors import SettingsError
from vsf_lib.recipes import RECIPES, Example, names, recipe_named
from vsf_lib.scenes.model import NAME
from vsf_lib.settings import Settings, field

LIST = "list"


def add_recipe(group: Any) -> None:
    """The flag, without a default, so that an explicit one can be told from none."""
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"a known way of using a negative prompt: {', '.join(names())}. It gives prompt, negative "
        f"prompt and settings where these flags are absent; --recipe {LIST} tells them",
    )


def example_of(args: Namespace, model: str, notes: list[str]) -> Example | None:
    """The example that was asked for, with a note where half of it is taken; raises SettingsError."""
    if args.recipe is None:
        return None
    recipe = recipe_named(args.recipe)
    if args.from_image is not None:
        raise SettingsError(
            "--recipe and --from-image both say what to draw: drop one (a recipe's picture says all of it)"
        )
    example = recipe.example(model)
    if args.preset not in (None, "auto") and "alpha" in example.values:
        raise SettingsError(
            f"the recipe {args.recipe} brings its own alpha and --preset {args.preset} another: drop one of "
            "them"
        )
    if args.prompt is not None and args.negative_prompt is None:
        notes.append(
            f"the negative prompt is the example's, {example.negative_prompt!r}: --negative-prompt gives "
            f"your own ({recipe.negative_prompt})"
        )
    return example


def check_reads(args: Namespace, example: Example | None, settings: Settings) -> None:
    """Raises SettingsError where the method does not read what the recipe is about."""
    unread = [
        name for name in (example.values if example else ()) if settings.method not in field(name).methods
    ]
    if example and example.values.get("alpha") == 0 and settings.method == "difference":
        raise SettingsError(
            f"the recipe {args.recipe} is about alpha 0, with which the difference guides nothing: leave "
            "--method out"
        )
    if unread and settings.method != "off":
        raise SettingsError(
            f"the recipe {args.recipe} sets {unread[0]}, which method {settings.method} does not read: drop "
            "one of them"
        )


def tell_recipes(args: Namespace) -> int:
    """Prints all recipes with their examples for the model."""
    model = NAME if args.model is None else args.model
    for recipe in RECIPES:
        result(f"{recipe.name}: {recipe.summary}")
        result(f"    {recipe.prompt}; without {recipe.negative_prompt}")
        try:
            example = recipe.example(model)
        except SettingsError as error:
            result(f"    no example: {error}")
        else:
            values = "".join(f" {field(name).flag} {_told(value)}" for name, value in example.values.items())
            result(f'    --prompt "{example.prompt}" --negative-prompt "{example.negative_prompt}"{values}')
            result(f"    seen: {example.seen}")
        result(f"    source: {recipe.source}")
    return 0


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
