"""Known ways of using VSF, as data: what to write into prompt and negative prompt, and what comes of it.

A recipe's values stand on top of the model's preset. What was seen was seen on the small built-in model only;
everything for the real models is unmeasured. Knows a model by its name only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.presets import SMALL_WAN_VALUES, preset_for
from vsf_lib.presets import WAN as REAL_WAN
from vsf_lib.scenes.model import MODELS, NAME, WAN

SCENES, SD3, FLUX = "scenes", "sd3.5", "flux"
MOVING, WAN21 = "wan", "wan2.1"
FAMILIES = (SCENES, SD3, FLUX, MOVING, WAN21)
"""The kinds of model that have examples: the small built-in world, those that read whole sentences, and the
same of videos."""
UNMEASURED = "unmeasured"


@dataclass(frozen=True)
class Example:
    """A recipe carried out for one family of models."""

    prompt: str
    negative_prompt: str
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of Settings on top of the model's preset."""
    seen: str = UNMEASURED
    """What came of it, as `bench scenes --recipes` shows."""

    def of(self, method: str | None) -> dict[str, Any]:
        """The values for that method: an alpha is VSF's, and the difference keeps its preset's."""
        return {
            name: value for name, value in self.values.items() if method != "difference" or name != "alpha"
        }


@dataclass(frozen=True)
class Recipe:
    """One way of using a negative prompt."""

    name: str
    summary: str
    prompt: str
    """What to write into the prompt; words in capitals are to be replaced."""
    negative_prompt: str
    """The same for the negative prompt."""
    source: str
    examples: Mapping[str, Example]
    """By family; one that is not there cannot show it."""

    def example(self, model: str, *, usual: str = SD3) -> Example:
        """The example for the model of that name; raises SettingsError where there is none.

        `usual` as in `family`.
        """
        kind = family(model, usual=usual)
        if kind not in self.examples:
            raise SettingsError(
                f"the recipe {self.name} has no example for {kind}, which cannot show it: pass another "
                f"model, or write your own (prompt: {self.prompt}; negative prompt: {self.negative_prompt})"
            )
        return self.examples[kind]


def _values(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


def _gentler(preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Much less attention for the negative prompt, and not quite as much more alpha."""
    return _values(alpha=round(preset["alpha"] * 5 / 3, 2), beta=preset["beta"] + 1)


_PAPER = "VSF paper (Guo & Du, Value Sign Flip)"
_CODE = "the released code (github.com/weathon/VSF)"
_HERE = "this project"

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="remove",
        summary="the ordinary use: a thing, or a part of it, is left out",
        prompt="a THING in a PLACE",
        negative_prompt="PART, what belongs to the thing and must not be there",
        source=f"{_PAPER}, figure 1; examples of {_CODE}",
        examples={
            SCENES: Example(
                "a red car on a field",
                "wheels",
                seen="scenes, 20 seeds: wheels in all pictures without, in none with; 3 are no cars any more",
            ),
            SD3: Example(
                "A poker table is set in the casino room, green felt stretched tight over the oval surface.",
                "cards",
            ),
            FLUX: Example("a canadian winter landscape in the style of a 19th century painting", "snow"),
            MOVING: Example("a red car driving on a field", "wheels"),
            WAN21: Example("a red car driving on a field", "wheels"),
        },
    ),
    Recipe(
        name="gentle",
        summary="leaves less out, and keeps more of the rest: more beta, with more alpha to make up for it",
        prompt="a THING in a PLACE",
        negative_prompt="PART",
        source=f"{_HERE}: bench scenes, the row vsf-kept",
        examples={
            SCENES: Example(
                "a red car on a field",
                "wheels",
                _values(alpha=5.0, beta=2.0),
                seen="scenes, 20 seeds: wheels in all pictures without, in 7 with; all are clean cars",
            ),
            SD3: Example(
                "a cat making a cake in the kitchen, the kitchen is modern and well-lit",
                "stove",
                _values(beta=1.0),
            ),
            FLUX: Example(
                "a cat making a cake in the kitchen, the kitchen is modern and well-lit",
                "icing",
                _values(alpha=3.0, beta=2.0),
            ),
            MOVING: Example("a red car driving on a field", "wheels", _gentler(SMALL_WAN_VALUES)),
            WAN21: Example(
                "a man walks through the streets of a snowy city", "snow", _values(alpha=2.5, beta=1.0)
            ),
        },
    ),
    Recipe(
        name="semi-abstract",
        summary="the thing is suggested, not drawn: its name stands in the prompt and in the negative prompt",
        prompt="a THING in a PLACE",
        negative_prompt="THING",
        source=f"{_HERE}, on the built-in model",
        examples={
            SCENES: Example(
                "a blue bird in the snow",
                "bird",
                seen="scenes, 20 seeds: a blue shape is left, with hardly a part; 4 still pass for a bird",
            ),
            SD3: Example("a bicycle leaning against a brick wall", "bicycle"),
            FLUX: Example("a bicycle leaning against a brick wall", "bicycle"),
            MOVING: Example("a blue bird flying in the snow", "bird"),
            WAN21: Example("a bicycle rolls along a brick wall", "bicycle"),
        },
    ),
    Recipe(
        name="style-avoidance",
        summary="the prompt leaves a style, a material, a place or a colour open, and the negative prompt "
        "says which it must not be",
        prompt="a THING",
        negative_prompt="STYLE, MATERIAL, PLACE or COLOUR",
        source=f"{_HERE}, on the built-in model",
        examples={
            SCENES: Example(
                "a yellow house",
                "snow",
                seen="scenes, 20 seeds: snow in 6 pictures without, in none with; another place instead",
            ),
            SD3: Example("a portrait of a young knight with a sword", "anime"),
            FLUX: Example("a portrait of an old fisherman", "photorealistic"),
            MOVING: Example("a yellow house growing", "snow"),
            WAN21: Example("a young knight with a sword rides through a forest", "anime"),
        },
    ),
    Recipe(
        name="baseline",
        summary="alpha 0: what attention to the negative prompt does without the flipped values; not "
        "the same as no guidance",
        prompt="a THING in a PLACE",
        negative_prompt="PART",
        source=f"{_PAPER}, appendix C",
        examples={
            SCENES: Example(
                "a red car on a field",
                "wheels",
                _values(alpha=0.0, beta=0.0, negative_tokens="all"),
                seen="scenes, 20 seeds: the wheels stay in all pictures, but their outlines change",
            ),
            SD3: Example(
                "A poker table is set in the casino room, green felt stretched tight over the oval surface.",
                "cards",
                _values(alpha=0.0, beta=0.0),
            ),
            FLUX: Example(
                "a canadian winter landscape in the style of a 19th century painting",
                "snow",
                _values(alpha=0.0, beta=0.0, negative_tokens="all"),
            ),
            MOVING: Example(
                "a red car driving on a field",
                "wheels",
                _values(alpha=0.0, beta=0.0, negative_tokens="all"),
            ),
            WAN21: Example("a red car driving on a field", "wheels", _values(alpha=0.0, beta=0.0)),
        },
    ),
    Recipe(
        name="camouflage",
        summary="the thing is there but hard to see: the negative prompt says that it stands out",
        prompt="a THING that looks like its BACKGROUND",
        negative_prompt="clearly visible, standing out, easy to spot",
        source=f"{_CODE}, camo/main.py, for videos with Wan 2.1",
        examples={
            SD3: Example(
                "a crab that looks like a rock, among real rocks at the bottom of the ocean",
                "clearly visible, standing out, easy to spot, different color",
            ),
            FLUX: Example(
                "a crab that looks like a rock, among real rocks at the bottom of the ocean",
                "clearly visible, standing out, easy to spot, different color",
            ),
            WAN21: Example(
                "a crab that looks like a rock walks among real rocks at the bottom of the ocean",
                "clearly visible, standing out, easy to spot, different color",
            ),
        },
    ),
)


def names() -> tuple[str, ...]:
    """The names of all recipes."""
    return tuple(recipe.name for recipe in RECIPES)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; raises SettingsError."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise SettingsError(f"there is no recipe {name!r}: choose one of {', '.join(names())}")


def offered(model: str, *, usual: str = SD3) -> list[tuple[str, str]]:
    """The recipes that a model can show: what they do, and their names."""
    kind = family(model, usual=usual)
    shown = [recipe for recipe in RECIPES if kind in recipe.examples]
    return [(f"{recipe.name}: {recipe.summary}", recipe.name) for recipe in shown]


def family(model: str, *, usual: str = SD3) -> str:
    """Which of `FAMILIES` a model, by its name, hub id, file or folder, reads its prompts as.

    One that cannot be told is of the family `usual`.
    """
    kind = preset_for(model).kind
    if model in MODELS or kind == NAME:
        return SCENES
    if kind in (WAN, REAL_WAN):
        return MOVING if kind == WAN else WAN21
    return FLUX if kind.startswith("flux") or "flux" in model.lower() else usual
