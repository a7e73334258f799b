"""`scenes train`: all stages in order, each skipped when its result is already in the work folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError, OutputError, SettingsError
from vsf_lib.scenes.model import FOLDER, MODELS, NAME, WAN

log = logging.getLogger("vsf.scenes")


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--model",
        choices=(*MODELS, WAN),
        default=NAME,
        help=f"which of the small models (default: {NAME}); all others learn from the {NAME} model",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/scenes-training"), help="where stages keep results"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="where the finished weights go (the package's own)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies all numbers of steps and pictures"
    )
    parser.add_argument(
        "--below-gate",
        action="store_true",
        help="export also a model that misses the gate; the scores say so",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes on a CPU (one per core, 4 at most)"
    )


def run(args: Namespace) -> int:
    """Trains what is missing in the work folder and exports it."""
    if not 0 < args.scale <= 100:
        raise SettingsError(f"--scale is {args.scale}, but must be above 0 and up to 100: try 1")
    if args.workers is not None and not 1 <= args.workers <= 64:
        raise SettingsError(f"--workers is {args.workers}, but must be 1 to 64: leave it out")
    import torch

    if not hasattr(torch.optim, "Muon"):
        raise SettingsError(f"training needs torch 2.9 or newer and this is {torch.__version__}")
    logging.getLogger("vsf.scenes").setLevel(logging.INFO)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    workers = args.workers or (min(4, os.cpu_count() or 1) if device == "cpu" else 1)
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:
        raise SettingsError(f"--device is {args.device}, which cannot be used here: try cpu") from error
    # The other models' autoencoder and critic have the names of the scenes model's and are others.
    work = args.work if args.model == NAME else args.work / "flux"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--work: the folder {work} cannot be made ({error})") from error
    for name, result, stage in _stages_of(args.model)(work, args.scale, device, workers):
        if (work / result).exists():
            log.info("%s: found in %s", name, work)
            continue
        log.info("%s: begins", name)
        stage()
    if args.model == NAME:
        export(work, args.out, below_gate=args.below_gate)
    elif args.model == WAN:
        from vsf_lib.scenes.training import wan_stages

        wan_stages.export(work, args.out)
    else:
        from vsf_lib.scenes.training import flux_stages

        flux_stages.export(args.model, work, args.out, below_gate=args.below_gate)
    return 0


Stage = tuple[str, str, Callable[[], Any]]


def _stages_of(model: str) -> Callable[[Path, float, str, int], list[Stage]]:
    if model == NAME:
        return stages
    if model == WAN:
        from vsf_lib.scenes.training import wan_stages

        return wan_stages.stages
    from vsf_lib.scenes.training import flux_stages

    return partial(flux_stages.stages, model)


def stages(work: Path, scale: float, device: str, workers: int = 1) -> list[Stage]:
    """Each stage: name, the file whose presence says that it is done, and call.

    The gate leaves none and runs each time. The numbers are the shipped weights' but for the flow, which had
    two runs: 5,100 steps on a world whose parts were seldom missing, then 8,000 on this one.
    """
    from vsf_lib.scenes.training import autoencoder, distil, finder, flow, gate, judge
    from vsf_lib.scenes.training.common import Scores

    def n(number: int) -> int:
        return max(1, round(number * scale))

    def gate_autoencoder() -> None:
        Scores(work / "scores.json").add("reconstructions", **gate.check_autoencoder(work))

    return [
        (
            "autoencoder",
            "vae",
            lambda: autoencoder.train(work, steps=n(2000), batch=16, count=n(16000), device=device),
        ),
        (
            "judge",
            "judge.safetensors",
            lambda: judge.train(
                work, steps=n(3500), batch=64, count=n(10000), checked=n(4000), device=device
            ),
        ),
        (
            "critic",
            "critic.safetensors",
            lambda: judge.train(work, **_critic(n), device=device),
        ),
        (
            "finder",
            "finder.safetensors",
            lambda: finder.train(
                work, steps=n(2500), batch=32, count=n(10000), checked=n(1000), device=device
            ),
        ),
        ("gate", "gate", gate_autoencoder),
        ("latents", "latents.pt", lambda: flow.prepare(work, n(30000), 3, device=device)),
        (
            "flow",
            "flow.pt",
            lambda: flow.train(work, steps=n(10000), batch=64, device=device, workers=workers),
        ),
        (
            "pairs",
            "pairs.pt",
            lambda: distil.make_pairs(
                work, count=n(8000), steps=8, scale=2.5, device=device, workers=workers
            ),
        ),
        (
            "distillation",
            "student.pt",
            lambda: distil.distil(work, steps=n(2200), batch=64, device=device, workers=workers),
        ),
    ]


def _copied(source: Path, target: Path) -> None:
    """Copies a folder whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    part.replace(target)


def _critic(n: Callable[[int], int]) -> dict[str, Any]:
    """How the second judge is trained, of other renders and another seed."""
    return {
        "name": "critic",
        "steps": n(1500),
        "batch": 64,
        "count": n(5000),
        "checked": n(1000),
        "seed": 1011,
    }


def traced(work: Path, scale: float, device: str, workers: int, shared: Path) -> list[Stage]:
    """The stages after which there are ways of the scenes model in `shared` to learn from.

    The critic is not the judge that measures: that one is not asked here.
    """
    from vsf_lib.scenes.training import judge, traces

    def n(number: int) -> int:
        return max(1, round(number * scale))

    return [
        ("autoencoder", "vae", lambda: _copied(shared / "vae", work / "vae")),
        ("critic", "critic.safetensors", lambda: judge.train(work, **_critic(n), device=device)),
        (
            "traces",
            "traces.pt",
            lambda: traces.trace(work, shared, count=n(10000), device=device, workers=workers),
        ),
    ]


def passed(pipe: Any, judge: Any, steps: Sequence[int], *, below_gate: bool) -> dict[str, Any]:
    """The scores of a model as written, which is the last gate; raises ModelError unless `below_gate`."""
    from vsf_lib.scenes.training.gate import measure_model, missed

    scores = measure_model(pipe, judge, steps)
    low = missed(scores)
    if low and not below_gate:
        raise ModelError(
            f"unguided the model scores {low}: train it for longer, or export it with --below-gate"
        )
    return {"unguided": scores, **({"below_gate": low} if low else {})}


def export(work: Path, out: Path | None, *, below_gate: bool = False) -> None:
    """Writes the pipeline in half precision and the judge, measured as written.

    Raises ModelError if it misses the gate, unless `below_gate`.
    """
    import torch

    from vsf_lib.scenes.judge import WEIGHTS, Judge
    from vsf_lib.scenes.loading import load_pipeline
    from vsf_lib.scenes.training.common import Scores
    from vsf_lib.scenes.training.flow import SHIFT, load
    from vsf_lib.scenes.training.networks import STUDENT_LAYERS

    judge = work / "judge.safetensors"
    built = work / "model"
    pipe = load(work, "student.pt", layers=STUDENT_LAYERS).pipeline(SHIFT)
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(built, safe_serialization=True)
    for config in built.rglob("config.json"):  # diffusers writes where a part was loaded from
        values = json.loads(config.read_text(encoding="utf-8"))
        if values.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    scores = passed(load_pipeline(built), Judge.load(judge), (4, 8), below_gate=below_gate)
    Scores(work / "scores.json").add("model", **scores)
    # Only what passed replaces what was there.
    weights = WEIGHTS if out is None else out / WEIGHTS.name
    folder = FOLDER if out is None else out / FOLDER.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, folder)
    shutil.copyfile(judge, weights)
    shutil.copyfile(work / "finder.safetensors", weights.with_name("finder.safetensors"))
    shutil.copyfile(work / "scores.json", weights.with_name("scores.json"))
    for model in MODELS:
        if folder.with_name(model).is_dir():
            log.warning("%s was taught by another scenes model: train it again, too", model)
    log.info("exported to %s", weights.parent)
