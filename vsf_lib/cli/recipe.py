"""The flag `--recipe`, and the list of all recipes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vsf_lib.cli.console import result
from vsf_lib.errors import SettingsError
from vsf_lib.recipes import RECIPES, names
from vsf_lib.scenes.model import NAME
from vsf_lib.settings import field

LIST = "list"


def add_recipe(group: Any) -> None:
    """The flag, without a default, so that an explicit one can be told from none."""
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"a known way of using a negative prompt: {', '.join(names())}. It gives prompt, negative "
        f"prompt and settings where these flags are absent; --recipe {LIST} tells them",
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
