"""What is to be drawn, from flags and perhaps from an older picture, checked as far as no model is needed.

Owns which source wins: an explicit flag, then the older picture, then the preset. Knows no torch and no file
but the picture that is repeated.
"""

from __future__ import annotations

import math
import re
import secrets
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsf_lib.cli.recipe import check_reads, example_of
from vsf_lib.cli.sweep import FILMS, plan_of, read_film
from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.metadata import COMPARISON, FINGERPRINT, Parameters, parse_parameters, read_png
from vsf_lib.presets import BASELINES, UNKNOWN, Preset, baseline, kinds, preset_for
from vsf_lib.recipes import Example
from vsf_lib.scenes.model import MODELS, NAME
from vsf_lib.settings import SHARING, Settings, field, fields
from vsf_lib.sweep import Plan

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
LARGEST_SEED = 2**32 - 1
"""PyTorch's generator on the CPU reads no more bits: a larger seed would repeat a smaller one's picture."""
MOST_STEPS = 1000
USUAL_STEPS = 28
"""For a model that no preset knows: the middle of what undistilled models are used with."""
PROGRAM = "vsf "

# Names of our own values in the infotext, beside the settings'.
HEATMAP = "VSF heatmap"
DEVICE = "VSF device"
DTYPE = "VSF dtype"
PARTS = "VSF model parts"
DISTILLED = "Distilled CFG Scale"
"""Forge's name for Flux's guidance scale, so that a picture can be repeated there."""

_USUAL_DISTILLED = 3.5
_FLUX_ONLY = ("negative_scale", "blocks", "pooled_shift")


@dataclass(frozen=True)
class Request:
    """A picture, or several that differ in their seed only. `settings.method` is off where nothing is to be
    guided."""

    prompt: str
    settings: Settings
    steps: int
    seed: int
    size: tuple[int, int] | None
    """Width and height; None is the model's own."""
    batch: int
    guidance_scale: float
    compare: bool
    model: str
    device: str
    dtype: str
    offload: str
    parts: str | None = None
    """The folder with what a model in a single file lacks."""
    distilled: float = _USUAL_DISTILLED
    """The guidance scale of a Flux model, which is not classifier-free guidance."""
    flux: bool = False
    """Whether the model is known to be one; see `fitted`."""
    fingerprint: str = ""
    """The weights that the picture to repeat was made with, if it says."""
    sweep: Plan | None = None
    """What runs over a range, from picture to picture of the same seed; `settings` has its first value."""
    notes: tuple[str, ...] = ()
    """What the user should be told before it starts."""
    heatmap: bool = False
    """Whether a second picture shows where the negative prompt acts."""

    @property
    def cfg_negative(self) -> str:
        """The negative prompt that classifier-free guidance reads, if it is on."""
        alone = self.settings.method == "off" and self.guidance_scale > 1 and not self.flux
        return self.settings.negative_prompt if alone else ""

    @property
    def kind(self) -> str:
        """What a result's name ends in, to tell it from an ordinary picture."""
        return f"sweep-{self.sweep.sweep.name}" if self.sweep else "compare" if self.compare else ""

    def fitted(self, *, flux: bool) -> Request:
        """The same for the kind of model that was found, with notes on what does not act on it."""
        if self.sweep is not None and not flux and (name := self.sweep.sweep.name) in _FLUX_ONLY:
            raise SettingsError(f"--sweep {name}: it acts on Flux models only; sweep another setting")
        settings, notes = self.settings, list(self.notes)
        if settings.method == "off":
            if settings.negative_prompt and flux:
                notes.append("method off reads no negative prompt with Flux: ignored")
            elif settings.negative_prompt and self.guidance_scale <= 1:
                notes.append(
                    "method off reads the negative prompt only with a --guidance-scale above 1: ignored"
                )
        elif not flux:
            for name in _FLUX_ONLY:
                if getattr(settings, name) != field(name).default:
                    notes.append(f"{name} acts on Flux models only: ignored")
                    settings = settings.changed(**{name: field(name).default})
        return replace(self, settings=settings, flux=flux, notes=tuple(notes))


def resolve(args: Namespace) -> Request:
    """The request behind the arguments of `generate`; raises SettingsError or PromptError."""
    notes: list[str] = []
    image = _older(args.from_image) if args.from_image is not None else None
    extra: Mapping[str, str] = image.extra if image else {}
    if image and not image.version.startswith(PROGRAM):
        notes.append(f"{args.from_image} was not made by this program: expect a similar picture at best")
    model = _first(args.model, image.model if image else NAME)
    if not model.strip():
        raise SettingsError("the model has no name: pass --model with scenes, a folder or a Hugging Face id")
    preset = preset_named(args.preset, args.method, model)
    example = example_of(args, model, notes)
    prompt = _prompt(args, image, example)
    plan = plan_of(args, extra, explicit(args))
    compare = plan is None and bool(_first(args.compare, COMPARISON in extra))
    scale = _first(args.guidance_scale, image.cfg_scale if image else 1.0)
    if not (math.isfinite(scale) and 1 <= scale <= 100):
        raise SettingsError(f"the guidance scale is {scale}, but must be a number from 1 (off) to 100")
    wanted = _settings(args, image, preset, example, plan)
    heatmap = _heatmap(args, wanted, plan, inherited=HEATMAP in extra)
    settings = _effective(
        wanted, "--compare" if compare else "--sweep" if plan else "", image is not None, notes
    )
    batch = _within("batch", _first(args.batch, 1), 1, LARGEST_SEED + 1)
    last = LARGEST_SEED + 1 - batch
    seed = _first(args.seed, image.seed if image else secrets.randbelow(last + 1))
    steps = _within("steps", _first(args.steps, image.steps if image else _steps(model)), 1, MOST_STEPS)
    if plan is not None:
        plan.sweep.check_steps(plan.sweep.settings(settings), steps)
    elif settings.method != "off":
        if not settings.guided_steps(steps):
            raise SettingsError(
                f"none of {steps} steps lies between start {settings.start:g} and end {settings.end:g}, so "
                "nothing would be guided: lower start, raise end, or take more steps"
            )
        if preset is UNKNOWN and settings.method in SHARING and args.alpha is None and not image:
            notes.append(f"{UNKNOWN.note} (--alpha {settings.alpha:g}; --preset names known models)")
    return Request(
        prompt=prompt,
        settings=settings,
        steps=steps,
        seed=_within("seed", seed, 0, last),
        size=_size(args.size) if args.size is not None else (image.width, image.height) if image else None,
        batch=batch,
        guidance_scale=scale,
        parts=_first(args.parts, extra.get(PARTS) if image and model == image.model else None),
        distilled=_distilled(args, extra, model),
        compare=compare,
        model=model,
        device=check_device(_first(args.device, extra.get(DEVICE, "auto"))),
        dtype=_among("dtype", _first(args.dtype, extra.get(DTYPE, "auto")), DTYPES),
        offload=_first(args.offload, "none"),
        fingerprint=extra.get(FINGERPRINT, "") if image and model == image.model else "",
        sweep=plan,
        notes=tuple(notes),
        heatmap=heatmap,
    )


def preset_names() -> tuple[str, ...]:
    """What `--preset` offers beside the kinds of model."""
    return ("auto", "strong", *BASELINES)


def preset_named(name: str | None, method: str | None, model: str) -> Preset:
    """The preset that `name` asks for; without a name the one for the method, or for the model."""
    if name is None or name == "auto":
        return baseline(method) if method is not None and method in BASELINES else preset_for(model)
    if name == "strong":
        found = preset_for(model, strong=True)
    elif name in BASELINES:
        found = baseline(name)
    else:
        kind = name.removesuffix("-strong")
        if kind not in kinds():
            raise SettingsError(
                f"there is no preset {name!r}: choose one of {', '.join((*preset_names(), *kinds()))}"
            )
        found = preset_for(kind, strong=kind != name)
    own = found.settings().method
    if method not in (None, "off", own) and not {method, own} <= SHARING:
        raise SettingsError(f"the preset {name} is for method {own}, but --method says {method}: drop one")
    return found


def explicit(args: Namespace) -> dict[str, Any]:
    """The settings that were given."""
    flags = {item.name: getattr(args, item.name) for item in fields() if not item.webui}
    return {name: value for name, value in flags.items() if value is not None}


def _older(file: str) -> Parameters:
    """What the picture or film to repeat was made from."""
    path = Path(file)
    return parse_parameters(read_film(path) if path.suffix.lower() in FILMS else read_png(path))


def _prompt(args: Namespace, image: Parameters | None, example: Example | None) -> str:
    older = image.prompt if image else example.prompt if example else None
    prompt: str | None = _first(args.prompt, older)
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
    args: Namespace, image: Parameters | None, preset: Preset, example: Example | None, plan: Plan | None
) -> Settings:
    old = image.settings if image else None
    # A preset is of both methods that share attention: a picture keeps its own of these.
    method = args.method or (old.method if old and old.method in SHARING else None)
    base: dict[str, Any] = preset.values_of(method)
    if method in SHARING and base.get("method", "vsf") in SHARING:
        base["method"] = method
    if example:
        base |= {**example.of(method), "negative_prompt": example.negative_prompt}
    if old:
        if args.preset is None and args.method in (None, old.method):
            base = old.model_dump()
        else:  # another method or preset: what the picture says of strength means something else there
            base |= {name: getattr(old, name) for name in ("negative_prompt", "start", "end")}
    elif image:
        base["negative_prompt"] = image.negative_prompt
        if args.negative_prompt is None and args.method is None:
            base["method"] = "off"
    if plan is not None:  # as the WebUIs' grids carry the values of their first cell
        base[plan.sweep.name] = plan.sweep.values[0]
    settings = Settings.create(**{**base, **explicit(args)})
    check_reads(args, example, settings)
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


def _heatmap(args: Namespace, settings: Settings, plan: Plan | None, *, inherited: bool) -> bool:
    """Whether a heat map is to be drawn; raises if it was asked for and there is nothing that it could show.

    A heat map that is repeated without being asked for goes away with what it showed.
    """
    possible = settings.method in SHARING and bool(settings.negative_prompt)
    if plan is not None:
        if args.heatmap:
            raise SettingsError("--heatmap is of one picture and --sweep draws many: leave one of them out")
        return False
    if not args.heatmap:
        return args.heatmap is None and inherited and possible
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


def _distilled(args: Namespace, extra: Mapping[str, str], model: str) -> float:
    """Flux's guidance scale: as asked for (checked with the other meaning of that flag), or the picture's."""
    if args.guidance_scale is not None:
        return float(args.guidance_scale)
    usual = MODELS[model].guidance_scale if model in MODELS else _USUAL_DISTILLED
    told = extra.get(DISTILLED, usual)
    try:
        value = float(told)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise SettingsError(f"{DISTILLED} is {told!r} in the infotext, but must be a number from 0 to 100")
    return value


def _steps(model: str) -> int:
    if model in MODELS:
        return MODELS[model].steps
    known = preset_for(model).steps
    return known[1] if known else USUAL_STEPS


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[x*\u00d7]\s*(\d{1,6})\s*)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise SettingsError(f"the size is {text!r}, but must be like 1024x768, or one number for a square")
    return int(match[1]), int(match[2] or match[1])


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}, but must be a whole number from {low} to {high}")
    return value


def _among(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    return value


def check_device(name: str) -> str:
    if not re.fullmatch(r"auto|(cuda|mps|cpu)(:\d{1,3})?", name, re.ASCII):
        raise SettingsError(f"device is {name!r}, but must be one of {', '.join(DEVICES)} or cuda:1")
    return name


def _first(explicit: Any, otherwise: Any) -> Any:
    return otherwise if explicit is None else explicit
