"""`python -m vsf_lib video`: its flags, and one job through the worker process.

Owns which source wins: an explicit flag, then the video that is repeated, then the preset. Everything that
can be wrong without a model is found before the worker is started.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from vsf_lib.cli.console import note, result
from vsf_lib.cli.download import LORAS, MODELS, placed
from vsf_lib.cli.guidance import add_guidance, explicit, unread
from vsf_lib.cli.output import open_output
from vsf_lib.cli.seed import add_seed, is_random
from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.jobs import messages
from vsf_lib.metadata import FINGERPRINT, parse_parameters
from vsf_lib.preset_choice import preset_named
from vsf_lib.presets import WAN as REAL_WAN
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import SIZE, WAN, WAN_MANY_STEPS
from vsf_lib.seeds import seed_given
from vsf_lib.settings import Settings
from vsf_lib.video import builtin
from vsf_lib.video.job import SIZES, UNIPC, USUAL_FRAMES, Format, Lora, Offload, VideoJob

FOLDER = "outputs/videos"
NONE = "none"
"""Instead of a LoRA."""
_FORMATS: tuple[str, ...] = get_args(Format)


def add_arguments(parser: ArgumentParser) -> None:
    """No flag has a default here, so that an explicit one can be told from none."""
    usual = VideoJob.model_fields
    parser.add_argument("--prompt", metavar="TEXT", help="what the video shows")
    add_guidance(parser, "the video").add_argument(
        "--compare",
        action=BooleanOptionalAction,
        help="two videos of the same seed in one file, left without, right with the negative prompt, and "
        "beside it NAME-strip.png with some frames of both",
    )
    video = parser.add_argument_group("the video")
    small = builtin.USUAL
    video.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help=f"4 k + 1 (default: {USUAL_FRAMES}, with {WAN} {small['frames']})",
    )
    video.add_argument(
        "--fps",
        type=int,
        metavar="N",
        help=f"frames per second (default: {usual['fps'].default}, with {WAN} {small['fps']})",
    )
    video.add_argument(
        "--size",
        metavar="WxH",
        help="in pixels, multiples of 16 (default: 832x480; others that a real Wan knows: "
        f"{', '.join(f'{w}x{h}' for w, h in list(SIZES.values())[1:])}); {WAN} makes {SIZE}x{SIZE} only",
    )
    video.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"of {UNIPC} (default: {usual['steps'].default}, with {WAN} {small['steps']}, and "
        f"{WAN_MANY_STEPS} without its LoRA)",
    )
    add_seed(video)
    video.add_argument(
        "--guidance-scale", type=float, metavar="X", help="classifier-free guidance, 1 is off (default: 1)"
    )
    video.add_argument("--flow-shift", type=float, metavar="X", help="default: 3, above 480p 5")
    video.add_argument(
        "--drop-frames",
        type=int,
        metavar="N",
        help="extra frames, made at the start and dropped (default: 8 with a CausVid LoRA, else 0)",
    )
    video.add_argument(
        "--from-file",
        metavar="FILE",
        help="repeat the video of a file that this program made; other flags win",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="PATH",
        help=f"{WAN} (a small built-in one; default), the folder of a Wan in diffusers' format, its hub id "
        "if it is fetched already, or the file of a transformer, .safetensors or .gguf, with --vae and "
        "--text-encoder",
    )
    model.add_argument("--vae", metavar="PATH", help="a .safetensors file, or a folder in diffusers' format")
    model.add_argument("--text-encoder", metavar="PATH", help="the same for UMT5")
    model.add_argument(
        "--download",
        action="store_true",
        help=f"fetch a --model that is a hub id into {MODELS}, and a --lora OWNER/NAME/FILE into {LORAS}; "
        "goes on where an earlier attempt ended",
    )
    model.add_argument(
        "--lora",
        action="append",
        metavar="FILE[:WEIGHT]",
        help=f"a .safetensors file; may be given several times. {WAN} has one of its own for few steps, "
        f"which is {builtin.FEW_STEPS}:1 unless given; {NONE} is without any",
    )
    model.add_argument(
        "--offload", choices=get_args(Offload), help="keep parts in main memory (default: auto)"
    )
    group = parser.add_argument_group("result")
    group.add_argument(
        "--out",
        metavar="PATH",
        help=f"a file ending in .{', .'.join(_FORMATS)} (png: a folder of pictures), or a folder "
        f"(default: {FOLDER})",
    )
    group.add_argument("--quality", type=int, metavar="N", help="1 to 10 (default: 8)")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object with path, infotext and seconds"
    )
    group.add_argument("--debug", action="store_true", help="show what the video process says")


def run(args: Namespace) -> int:
    """Has the video made and tells where it is."""
    from vsf_lib.video.loading import check
    from vsf_lib.video.process import Worker

    job = resolve(args)
    with open_output(args.out, 1, tuple(f".{name}" for name in _FORMATS), FOLDER) as output:
        job = placed(job, download=args.download)
        check(job)
        for ignored in unread(args, job.settings):
            note(ignored)
        if is_random(args.seed, repeats=args.from_file is not None):
            note(f"seed {job.seed}")
        if args.from_file is not None and not _same_weights(args.from_file, job):
            note(f"{args.from_file} was made with other weights of this model, so the video differs")
        path = output.path(job.prompt, job.seed, kind="compare" if job.compare else "")
        shown = _Shown()
        with Worker() as worker:
            end = worker.make(job, path, shown.event)
            if args.debug or (isinstance(end, messages.Failed) and end.defect):
                note("the video process said:")
                for line in worker.log():
                    note(line, prefix="  ")
        if isinstance(end, messages.Failed):
            raise ModelError(f"{end.message}; {end.advice}" if end.advice else end.message)
        if isinstance(end, messages.Cancelled):
            raise KeyboardInterrupt
    if args.json:
        told = {"path": end.path, "infotext": end.infotext, "seconds": end.seconds}
        result(json.dumps({**told, "strip": end.still} if end.still else told))
        return 0
    for file in filter(None, (end.path, end.still)):
        result(file)
    return 0


def resolve(args: Namespace) -> VideoJob:
    """The job behind the arguments; raises SettingsError or PromptError."""
    from vsf_lib.video.files import read_infotext

    older = VideoJob.from_infotext(read_infotext(Path(args.from_file))) if args.from_file else None
    model = args.model if args.model is not None else older.model if older else WAN
    values: dict[str, Any] = dict(builtin.USUAL) if model == WAN else {}
    like = older
    if older is not None and model != older.model and WAN in (model, older.model):
        like = None  # sizes, steps and strengths of the one mean nothing to the other
        values |= {"prompt": older.prompt, "seed": older.seed, "compare": older.compare}
    elif older is not None:
        values |= older.model_dump()
    values["model"] = model
    if args.lora is not None:
        values["loras"] = _loras(args.lora)
        if model == WAN and not values["loras"]:
            values["steps"] = WAN_MANY_STEPS
    for name in ("prompt", "frames", "fps", "steps", "seed", "guidance_scale", "flow_shift", "drop_frames",
                 "quality", "offload", "vae", "text_encoder", "compare"):  # fmt: skip
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.size is not None:
        values["width"], values["height"] = _size(args.size)
    values["seed"] = seed_given(values.get("seed"))
    negative = older.settings.negative_prompt if older else ""
    values["settings"] = _settings(args, like, model, negative)
    job = VideoJob.create(**values)
    settings = job.settings
    if settings.method != "off" and settings.negative_prompt and not settings.guided_steps(job.steps):
        raise SettingsError(
            f"none of {job.steps} steps lies between start {settings.start:g} and end {settings.end:g}, so "
            "nothing would be guided: lower start, raise end, or take more steps"
        )
    return job


class _Shown:
    """Events as lines: each stage once, and each step, of a comparison with which video it is of."""

    def __init__(self) -> None:
        self._stage = ""

    def event(self, event: messages.Event) -> None:
        if isinstance(event, messages.Note):
            note(event.text)
        elif isinstance(event, messages.Progress):
            if event.steps:
                left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
                part = f" ({event.part})" if event.part else ""
                note(f"step {event.step} of {event.steps}{left}{part}", prefix="")
            elif event.stage != self._stage:
                note(event.stage, prefix="")
            self._stage = event.stage


def _settings(args: Namespace, like: VideoJob | None, model: str, negative: str) -> Settings:
    """Those of the video that is repeated, or the preset's with its `negative` prompt; flags win."""
    given = explicit(args)
    if like is not None and args.preset is None and args.method in (None, like.settings.method):
        base = like.settings.model_dump()
    else:
        preset = preset_named(args.preset, args.method, preset_for(model, usual=REAL_WAN).kind)
        base = {**preset.values_of(args.method), "negative_prompt": negative}
    return Settings.create(**{**base, **given})


def _loras(given: Sequence[str]) -> list[Lora]:
    if NONE in given and len(given) > 1:
        raise SettingsError(f"--lora {NONE} is without any, but another is given: drop one of them")
    return [] if NONE in given else [Lora.parse(text) for text in given]


def _same_weights(file: str, job: VideoJob) -> bool:
    """Whether the built-in model is as it was when that file was made, as far as that tells."""
    from vsf_lib.video.files import read_infotext

    told = parse_parameters(read_infotext(Path(file)))
    then = told.extra.get(FINGERPRINT, "") if told.model == job.model else ""
    return then in ("", builtin.fingerprint(job.model))


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise SettingsError(f"the size is {text!r}, but must be like 832x480") from None
