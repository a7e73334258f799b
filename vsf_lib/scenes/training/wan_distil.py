"""Distils the small Wan into a LoRA for few steps without guidance, as CausVid's is for the real one.

The model turns noise into videos in many steps with classifier-free guidance, a critic drops those whose
keyframes do not all show the caption, and the LoRA learns the straight line between noise and video at the
noise levels that few steps visit: first on that line, then from wherever its own few steps lead. The file has
the keys of Kijai's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, WanTransformer3DModel
from torch import Tensor, nn

from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.motion import KEYFRAMES, moving_caption
from vsf_lib.scenes.training import wan
from vsf_lib.scenes.training.common import in_parallel, learn, logger, restore, resume
from vsf_lib.scenes.training.distil import FEWEST, STEP_COUNTS, decode, shows
from vsf_lib.scenes.training.flow import random_sigmas
from vsf_lib.scenes.training.traces import load_teacher
from vsf_lib.scenes.training.wan_flow import MUON, Learners, sample
from vsf_lib.scenes.training.wan_vae import moving_scenes

RANK = 12
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""What the LoRA changes in every block."""
CHUNK = 10
"""Videos that are made at a time."""
_BEGUN, _FEW = "wan-few-begun.pt", "wan-few.pt"
_NEAR = 0.3
_KIJAI = (
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_", "cross_attn."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    (".lora_A.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_up.weight"),
    (".lora_B.bias", ".diff_b"),
)


def keyframes(vae: AutoencoderKL, latents: Tensor) -> np.ndarray:
    """The keyframes uint8 `[n, T, 64, 64, 3]` of latents `[n, 32, T, 8, 8]`, by the scenes model's."""
    frames = wan.unfold(latents.transpose(1, 2))
    pictures = decode(vae, frames.flatten(0, 1))
    return pictures.reshape(*frames.shape[:2], *pictures.shape[1:])


def make_pairs(
    folder: Path,
    teacher: Path,
    *,
    count: int,
    steps: int,
    scale: float,
    workers: int = 1,
    seed: int = 91,
    keep: Callable[[str, Verdict], bool] = shows,
) -> None:
    """Writes `folder/wan-pairs.pt`: noise, the model's latents, captions; those that the critic keeps.

    Needs `wan-flow.pt` and `critic.safetensors`. Raises ModelError if hardly any is kept.
    """
    in_parallel(workers, _make_pairs, folder, teacher, count // workers, steps, scale, seed, keep)
    files = [folder / f"wan-pairs-{rank}.pt" for rank in range(workers)]
    parts = [torch.load(file, weights_only=True) for file in files]
    kept = sum(len(part["captions"]) for part in parts)
    if kept < FEWEST * count:
        raise ModelError(
            f"the videos show their caption in {kept} of {count} cases only: train the flow for more steps"
        )
    merged: dict[str, Any] = {
        name: torch.cat([part[name] for part in parts]) for name in ("noise", "latents")
    }
    merged["captions"] = [row for part in parts for row in part["captions"]]
    torch.save(merged, folder / "wan-pairs.pt")
    for file in files:
        file.unlink()


@torch.inference_mode()
def _make_pairs(
    rank: int,
    workers: int,
    folder: Path,
    teacher: Path,
    count: int,
    steps: int,
    scale: float,
    seed: int,
    keep: Callable[[str, Verdict], bool],
) -> None:
    seed += rank
    torch.manual_seed(seed)
    rng = random.Random(seed)
    learners = Learners.load(folder, "wan-flow.pt", teacher)
    wan.plain(learners.transformer)
    vae, critic = load_teacher(teacher).vae, Judge.load(folder / "critic.safetensors")
    texts = [moving_caption(moving, rng) for moving in moving_scenes(count, seed, alone=0.06)]
    captions = wan.Captions([[text] for text in texts])
    noises, videos, kept = [], [], []
    for i in range(0, count, CHUNK):
        scenes = torch.arange(i, min(i + CHUNK, count))
        noise = torch.randn(len(scenes), wan.CHANNELS, KEYFRAMES, wan.SIDE, wan.SIDE)
        made = sample(learners, captions, scenes, noise, steps=steps, scale=scale)
        told = texts[i : i + len(scenes)]
        pictures = keyframes(vae, made)
        good = torch.tensor(
            [
                all(keep(text, seen) for seen in critic(rows))
                for text, rows in zip(told, pictures, strict=True)
            ]
        )
        noises.append(noise[good].half())
        videos.append(made[good].half())
        kept += [[text] for text, is_good in zip(told, good.tolist(), strict=True) if is_good]
        logger.info("%d of %d videos kept", len(kept), i + len(scenes))
    torch.save(
        {"noise": torch.cat(noises), "latents": torch.cat(videos), "captions": kept},
        folder / f"wan-pairs-{rank}.pt",
    )


def add_lora(transformer: WanTransformer3DModel, rank: int = RANK) -> None:
    """A LoRA that does nothing yet, and whose weights alone are learnt from here on."""
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), lora_bias=True)
    transformer.add_adapter(config, adapter_name="few")


def few_sigmas(count: int) -> Tensor:
    """Mostly the exact levels of few steps, where the LoRA will be asked, the rest anywhere."""
    grids = torch.cat([wan.wan_sigmas(steps)[:-1] for steps in STEP_COUNTS])
    exact = grids[torch.randint(len(grids), (count,))]
    return torch.where(torch.rand(count) < 0.75, exact, random_sigmas(count, shift=wan.SHIFT))


def distil(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    workers: int = 1,
    compiled: bool = False,
    seed: int = 93,
) -> None:
    """Writes `folder/wan-few-begun.pt`: `wan-flow.pt` with a LoRA. Needs `wan-pairs.pt`."""
    in_parallel(workers, _distil, folder, teacher, False, steps, batch, learning_rate, compiled, seed)


def refine(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 5e-4,
    workers: int = 1,
    compiled: bool = False,
    seed: int = 95,
) -> None:
    """Writes `folder/wan-few.pt` from what `distil` left: every other step is on the model's own ways.

    Few steps do not stay on the line that they were taught. Wherever they are, the aim is the same video.
    """
    in_parallel(workers, _distil, folder, teacher, True, steps, batch, learning_rate, compiled, seed)


def _distil(
    rank: int,
    workers: int,
    folder: Path,
    teacher: Path,
    second: bool,
    steps: int,
    batch: int,
    learning_rate: float,
    compiled: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    data = torch.load(folder / "wan-pairs.pt", weights_only=True)
    captions = wan.Captions(data["captions"])
    learners = load_few(folder, teacher, _BEGUN) if second else Learners.load(folder, "wan-flow.pt", teacher)
    transformer = learners.transformer
    if not second:
        add_lora(transformer)
    file = folder / (_FEW if second else _BEGUN)
    start, rng = resume(file, [transformer], seed, rank)
    wan.plain(transformer, compiled=compiled)

    def loss_at(step: int) -> Tensor:
        which, ids, _ = captions.batch(rng, batch // workers, 0.0)
        clean, noise = (data[name][which].float() for name in ("latents", "noise"))
        with torch.no_grad():
            text = wan.encode(learners.encoder, ids)
            if second and step % 2:
                sigma, state = own_way(transformer, noise, text)
            else:
                sigma = few_sigmas(len(which))
                s = sigma.view(-1, 1, 1, 1, 1)
                state = (1 - s) * clean + s * noise
        return aim(transformer, state, sigma, text, clean)

    learn(
        file,
        [transformer],
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        start=start,
        times=MUON,
    )


def own_way(transformer: WanTransformer3DModel, noise: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Where the model is after some of its few steps from `noise`: noise levels `[B]` and latents.

    Its steps are straight (Euler's), as UniPC's are where the model foresees the same video at each.
    """
    sigmas = wan.wan_sigmas(STEP_COUNTS[int(torch.randint(len(STEP_COUNTS), ()))])
    done = int(torch.randint(1, len(sigmas) - 1, ()))
    state = noise
    for now, then in pairwise(sigmas[: done + 1]):
        state = state + (then - now) * wan.velocity(transformer, state, now.expand(len(state)), text)
    return sigmas[done].expand(len(state)), state


def aim(transformer: nn.Module, state: Tensor, sigma: Tensor, text: Tensor, clean: Tensor) -> Tensor:
    """|v - (state - clean) / sigma|^2, the miss of the straight line to `clean`; less where little noise is.

    On that line itself (state - clean) / sigma is noise - clean. Below `_NEAR` a small deviation would
    otherwise ask for any velocity.
    """
    s = sigma.view(-1, 1, 1, 1, 1)
    missed = wan.velocity(transformer, state, sigma, text) - (state - clean) / s
    return (missed * (s / s.clamp(min=_NEAR))).square().mean()


def load_few(folder: Path, teacher: Path, name: str = _FEW) -> Learners:
    """The model with its LoRA in place; raises ModelError if the stage that makes it has not run."""
    learners = Learners.load(folder, "wan-flow.pt", teacher)
    add_lora(learners.transformer)
    if not restore(folder / name, [learners.transformer]):
        raise ModelError(f"there is no {name} in {folder}: run the stage that makes it first")
    return learners


def lora_file(transformer: WanTransformer3DModel) -> dict[str, Tensor]:
    """The LoRA under the keys that Kijai's files have, in half precision."""
    from peft import get_peft_model_state_dict

    state: Mapping[str, Tensor] = get_peft_model_state_dict(transformer, adapter_name="few")
    made = {}
    for name, tensor in state.items():
        for ours, theirs in _KIJAI:
            name = name.replace(ours, theirs)
        made[f"diffusion_model.{name}"] = tensor.detach().half().contiguous()
    return made
