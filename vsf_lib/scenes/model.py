"""The small models that are shipped: where they lie, how they are called, which words they know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import PromptError
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES, PUNCTUATION, WORDS

_WEIGHTS = Path(__file__).parent / "weights"
FOLDER = _WEIGHTS / "model"
NAME = "scenes"
STEPS = 8
SIZE = 64
WAN = "wan"
"""The small model of videos."""
WAN_FOLDER = _WEIGHTS / WAN
WAN_LORA = "few-steps.safetensors"
"""In its folder."""
WAN_LORA_NAME = "few"
"""What a pipeline calls it."""
WAN_STEPS = 6
"""With that LoRA."""
WAN_MANY_STEPS = 30
"""Without it."""
MAX_SEQUENCE_LENGTH = 16
MAX_WORDS = 14
"""CLIP's 16 places less its begin and end tokens."""

_SILENT = str.maketrans(dict.fromkeys(PUNCTUATION, " "))

FLUX_SHIFT = 2.0
"""The timestep shift of the small Flux models' scheduler."""


@dataclass(frozen=True)
class SmallModel:
    """One of the models that come with this package."""

    name: str
    folder: Path
    steps: int
    guidance_scale: float = 1.0
    """The distilled guidance that it is meant for: an input of flux-dev only."""


MODELS: dict[str, SmallModel] = {
    model.name: model
    for model in (
        SmallModel(NAME, FOLDER, STEPS),
        # Transformers alone: all else is the scenes model's.
        SmallModel("flux-schnell", _WEIGHTS / "flux-schnell", 4),
        SmallModel("flux-dev", _WEIGHTS / "flux-dev", 8, 1.5),
    )
}


def check_words(text: str, what: str, *, model: str = NAME, verbs: Sequence[str] = ()) -> None:
    """Raises PromptError if `text` has words outside the world, or more than fit; `what` names the text.

    A model of videos knows `verbs`, too. The list of what is known is part of the message: there is no other
    way for a user to find out.
    """
    words = re.findall(r"\w+|[^\w\s]+", text.lower().translate(_SILENT))  # as the tokenizers divide it
    if text.strip() and not words:
        raise PromptError(f"the {what} is {text.strip()!r}, which has no word in it: name something to see")
    unknown = list(dict.fromkeys(word for word in words if word not in WORDS and word not in verbs))
    if unknown:
        named = ", ".join(repr(word) for word in unknown[:5])
        moving = f"the verbs {', '.join(verbs)}; " if verbs else ""
        raise PromptError(
            f"the {what} has words that the {model} model does not know: {named}. It knows the things "
            f"{', '.join(KINDS)}; the parts {', '.join(PARTS)}; the colours {', '.join(COLOURS)}; {moving}"
            f"and the places {', '.join(PLACES.values())}"
        )
    if len(words) > MAX_WORDS:
        raise PromptError(
            f"the {what} has {len(words)} words; the {model} model reads {MAX_WORDS}: shorten it"
        )


def meant(name: str, built_in: Iterable[str]) -> str:
    """For a message on a model that is not there: the built-in one of nearly that name, or nothing."""
    near = difflib.get_close_matches(name.strip().lower(), list(built_in), n=1, cutoff=0.75)
    return f"did you mean {near[0]}? Otherwise " if near else ""
