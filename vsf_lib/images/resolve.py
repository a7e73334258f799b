"""The request behind what was asked for, checked as far as no model is needed.

Owns which source wins: an explicit value, then the older picture, then the preset. Knows no torch and no file
but the picture that is repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.images.asked import Asked
from vsf_lib.images.examples import check_reads, example_of
from vsf_lib.images.plans import FILMS, plan_of, read_film
from vsf_lib.images.request import (
    DEVICE,
    DISTILLED,
    DTYPE,
    DTYPES,
    HEATMAP,
    MOST_STEPS,
    PARTS,
    PROGRAM,
    USUAL_DISTILLED,
    USUAL_STEPS,
    Request,
    check_among,
    check_device,
    check_within,
)
from vsf_lib.metadata import COMPARISON, FINGERPRINT, Parameters, parse_parameters, read_png
from vsf_lib.preset_choice import preset_named
from vsf_lib.presets import UNKNOWN, Preset, preset_for
from vsf_lib.recipes import Example
from vsf_lib.scenes.model import MODELS, NAME
from vsf_lib.seeds import LARGEST_SEED, RANDOM, seed_given
from vsf_lib.settings import SHARING, Settings
from vsf_lib.sweep import Plan


def resolve(asked: Asked) -> Request:
    """The request behind the arguments of `generate`; raises SettingsError or PromptError."""
    notes: list[str] = []
    image = _older(asked.from_image) if asked.from_image is not None else None
    extra: Mapping[str, str] = image.extra if image else {}
    if image and not image.version.startswith(PROGRAM):
        notes.append(f"{asked.from_image} was not made by this program: expect a similar picture at best")
    model = _first(asked.model, image.model if image else NAME)
    if not model.strip():
        raise SettingsError("the model has no name: pass --model with scenes, a folder or a Hugging Face id")
    preset = preset_named(asked.preset, asked.method, model)
    example = example_of(asked, model, notes)
    prompt = _prompt(asked, image, example)
    plan = plan_of(asked, extra)
    compare = plan is None and bool(_first(asked.compare, COMPARISON in extra))
    scale = _first(asked.guidance_scale, image.cfg_scale if image else 1.0)
    if not (math.isfinite(scale) and 1 <= scale <= 100):
        raise SettingsError(f"the guidance scale is {scale}, but must be a number from 1 (off) to 100")
    wanted = _settings(asked, image, preset, example, plan)
    heatmap = _heatmap(asked, wanted, plan, inherited=HEATMAP in extra)
    settings = _effective(
        wanted, "--compare" if compare else "--sweep" if plan else "", image is not None, notes
    )
    batch = check_within("batch", _first(asked.batch, 1), 1, LARGEST_SEED + 1)
    last = LARGEST_SEED + 1 - batch
    seed = seed_given(_first(asked.seed, image.seed if image else RANDOM), last)
    steps = check_within(
        "steps", _first(asked.steps, image.steps if image else usual_steps(model)), 1, MOST_STEPS
    )
    if plan is not None:
        plan.sweep.check_steps(plan.sweep.settings(settings), steps)
    elif settings.method != "off":
        if not settings.guided_steps(steps):
            raise SettingsError(
                f"none of {steps} steps lies between start {settings.start:g} and end {settings.end:g}, so "
                "nothing would be guided: lower start, raise end, or take more steps"
            )
        if preset is UNKNOWN and settings.method in SHARING and "alpha" not in asked.given and not image:
            notes.append(f"{UNKNOWN.note} (--alpha {settings.alpha:g}; --preset names known models)")
    return Request(
        prompt=prompt,
        settings=settings,
        steps=steps,
        seed=seed,
        size=_size(asked.size) if asked.size is not None else (image.width, image.height) if image else None,
        batch=batch,
        guidance_scale=scale,
        parts=_first(asked.parts, extra.get(PARTS) if image and model == image.model else None),
        distilled=_distilled(asked, extra, model),
        compare=compare,
        model=model,
        device=check_device(_first(asked.device, extra.get(DEVICE, "auto"))),
        dtype=check_among("dtype", _first(asked.dtype, extra.get(DTYPE, "auto")), DTYPES),
        offload=_first(asked.offload, "none"),
        fingerprint=extra.get(FINGERPRINT, "") if image and model == image.model else "",
        sweep=plan,
        notes=tuple(notes),
        heatmap=heatmap,
    )


def _older(file: str) -> Parameters:
    """What the picture or film to repeat was made from."""
    path = Path(file)
    return parse_parameters(read_film(path) if path.suffix.lower() in FILMS else read_png(path))


def _prompt(asked: Asked, image: Parameters | None, example: Example | None) -> str:
    older = image.prompt if image else example.prompt if example else None
    prompt: str | None = _first(asked.prompt, older)
    if prompt is None:
        raise PromptError(
            'there is no prompt: pass --prompt "what the picture shows", --recipe or --from-image'
        )
    if not prompt.strip():
        raise PromptError('the prompt is empty: pass --prompt "what the picture shows"')
    if any("\ud800" <= sign <= "\udfff" for sign in prompt):
        raise PromptError("the prompt holds half of a character: retype it")
    return prompt.strip()


def _settings(
    asked: Asked, image: Parameters | None, preset: Preset, example: Example | None, plan: Plan | None
) -> Settings:
    old = image.settings if image else None
    # A preset is of both methods that share attention: a picture keeps its own of these.
    method = asked.method or (old.method if old and old.method in SHARING else None)
    base: dict[str, Any] = preset.values_of(method)
    if method in SHARING and base.get("method", "vsf") in SHARING:
        base["method"] = method
    if example:
        base |= {**example.of(method), "negative_prompt": example.negative_prompt}
    if old:
        if asked.preset is None and asked.method in (None, old.method):
            base = old.model_dump()
        else:  # another method or preset: what the picture says of strength means something else there
            base |= {name: getattr(old, name) for name in ("negative_prompt", "start", "end")}
    elif image:
        base["negative_prompt"] = image.negative_prompt
        if not {"negative_prompt", "method"} & asked.given.keys():
            base["method"] = "off"
    if plan is not None:  # as the WebUIs' grids carry the values of their first cell
        base[plan.sweep.name] = plan.sweep.values[0]
    settings = Settings.create(**{**base, **asked.given})
    check_reads(asked, example, settings)
    return settings


def _effective(settings: Settings, flag: str, repeats: bool, notes: list[str]) -> Settings:
    """The same settings, with method off where there is nothing to guide; `flag` is one that needs it."""
    off, empty = settings.method == "off", not settings.negative_prompt
    if flag and off:
        does = flag.removeprefix("--")
        raise SettingsError(f"{flag} has nothing to {does} with method off: choose another --method")
    if flag and empty:
        raise PromptError(
            f"{flag} needs a negative prompt: give --negative-prompt, what the picture must not show"
        )
    if off or not empty:
        return settings
    if not repeats:
        notes.append("no --negative-prompt, so nothing is guided: an ordinary picture")
    return settings.changed(method="off")


def _heatmap(asked: Asked, settings: Settings, plan: Plan | None, *, inherited: bool) -> bool:
    """Whether a heat map is to be drawn; raises if it was asked for and there is nothing that it could show.

    A heat map that is repeated without being asked for goes away with what it showed.
    """
    possible = settings.method in SHARING and bool(settings.negative_prompt)
    if plan is not None:
        if asked.heatmap:
            raise SettingsError("--heatmap is of one picture and --sweep draws many: leave one of them out")
        return False
    if not asked.heatmap:
        return asked.heatmap is None and inherited and possible
    if settings.method not in SHARING:
        raise SettingsError(
            "--heatmap shows the negative prompt's share of the attention, which method "
            f"{settings.method} does not have: leave it out, or choose --method vsf or difference"
        )
    if not possible:
        raise PromptError(
            "--heatmap shows where the negative prompt acts: give --negative-prompt, what the picture must "
            "not show"
        )
    return True


def _distilled(asked: Asked, extra: Mapping[str, str], model: str) -> float:
    """Flux's guidance scale: as asked for (checked with the other meaning of that flag), or the picture's."""
    if asked.guidance_scale is not None:
        return float(asked.guidance_scale)
    usual = MODELS[model].guidance_scale if model in MODELS else USUAL_DISTILLED
    told = extra.get(DISTILLED, usual)
    try:
        value = float(told)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise SettingsError(f"{DISTILLED} is {told!r} in the infotext, but must be a number from 0 to 100")
    return value


def usual_steps(model: str) -> int:
    """How many steps suit the model of that name."""
    if model in MODELS:
        return MODELS[model].steps
    known = preset_for(model).steps
    return known[1] if known else USUAL_STEPS


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[x*\u00d7]\s*(\d{1,6})\s*)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise SettingsError(f"the size is {text!r}, but must be like 1024x768, or one number for a square")
    return int(match[1]), int(match[2] or match[1])


def _first(explicit: Any, otherwise: Any) -> Any:
    return otherwise if explicit is None else explicit
