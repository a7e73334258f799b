"""What `scenes train --model wan` runs, in order, and how the small Wan is written. On the CPU alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import save_file

from vsf_lib.scenes.model import FOLDER, WAN, WAN_LORA
from vsf_lib.scenes.training import wan, wan_distil, wan_flow, wan_vae
from vsf_lib.scenes.training.command import Stage, log, traced
from vsf_lib.scenes.training.common import restore


def stages(work: Path, scale: float, device: str, workers: int = 1, shared: Path = FOLDER) -> list[Stage]:
    """In the form of `command.stages`: it learns from the scenes model in `shared`."""

    def n(number: int) -> int:
        return max(1, round(number * scale))

    many: dict[str, Any] = {"workers": workers}
    return [
        *traced(work, scale, device, workers, shared),
        (
            "Wan, begun",
            "wan-begun.pt",
            lambda: wan_flow.begin(work, shared, steps=n(4000), batch=64, **many),
        ),
        (
            "Wan's autoencoder, begun",
            "wan-vae-begun.pt",
            lambda: wan_vae.train(
                work, shared, stills=n(1000), steps=n(2400), batch=4, count=n(1500), **many
            ),
        ),
        ("Wan's autoencoder", "wan-vae.pt", lambda: wan_vae.lengthen(work, steps=n(3300), batch=4, **many)),
        ("Wan's latents", "wan-latents.pt", lambda: wan_flow.prepare(work, shared, n(9000))),
        ("Wan", "wan-flow.pt", lambda: wan_flow.go_on(work, shared, steps=n(14000), batch=16, **many)),
        (
            "Wan's pairs",
            "wan-pairs.pt",
            lambda: wan_distil.make_pairs(work, shared, count=n(2800), steps=14, scale=2.2, **many),
        ),
        (
            "Wan's few steps, begun",
            "wan-few-begun.pt",
            lambda: wan_distil.distil(work, shared, steps=n(1800), batch=32, **many),
        ),
        (
            "Wan's few steps",
            "wan-few.pt",
            lambda: wan_distil.refine(work, shared, steps=n(900), batch=32, **many),
        ),
    ]


def export(work: Path, out: Path | None, shared: Path = FOLDER) -> Path:
    """Writes the pipeline and its LoRA in half precision; returns their folder."""
    few = wan_distil.load_few(work, shared)
    plain = wan_flow.Learners.load(work, "wan-flow.pt", shared)
    vae = wan_vae.build()
    restore(work / "wan-vae.pt", [vae])
    pipe = WanPipeline(
        transformer=plain.transformer.half(),
        text_encoder=plain.encoder.half(),
        tokenizer=wan.build_tokenizer(),
        vae=vae.half(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=wan.SHIFT
        ),
    )
    built = work / WAN
    shutil.rmtree(built, ignore_errors=True)
    pipe.save_pretrained(built)
    save_file(wan_distil.lora_file(few.transformer), built / WAN_LORA)
    target = (FOLDER.parent if out is None else out) / WAN
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(built, target)
    log.info("exported to %s", target)
    return target
