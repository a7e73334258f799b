"""Forge's way of making a picture, small: callbacks that swallow errors, patched models, a step count.

Our own writing after the facts of that host; `tests/forge` drives the same code in the real one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vsf_lib.webui.callbacks import Callbacks, note_step
from vsf_lib.webui.encoding import Encoder
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import Checkpoint


class Unet:
    """The host's patcher: a model shared by all clones, options that a clone copies deeply."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {}
        self.extra_preserved_memory_during_sampling = 0

    def clone(self) -> Unet:
        other = Unet(self.model)
        other.model_options = copy.deepcopy(self.model_options)
        other.extra_preserved_memory_during_sampling = self.extra_preserved_memory_during_sampling
        return other

    def add_extra_preserved_memory_during_sampling(self, memory_in_bytes: int) -> None:
        self.extra_preserved_memory_during_sampling += memory_in_bytes

    def set_model_unet_function_wrapper(self, wrapper: Callable[..., Any]) -> None:
        self.model_options["model_function_wrapper"] = wrapper


class Objects:
    def __init__(self, unet: Unet) -> None:
        self.unet = unet


class Model:
    """A loaded checkpoint. Text is encoded as one row per letter, so that a test can tell texts apart."""

    def __init__(self, network: nn.Module) -> None:
        self.original = Unet(SimpleNamespace(diffusion_model=network))
        self.forge_objects = Objects(self.original)
        self.encoded: list[str] = []
        self.text_processing_engine_t5 = self
        self.paddings = 0

    def reset(self) -> None:
        self.forge_objects = Objects(self.original)

    id_pad = ord("~")

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        self.paddings += 1
        return torch.stack([letters("".join(map(chr, row))) for row in tokens.tolist()])

    def get_learned_conditioning(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"crossattn": torch.stack([letters(text, 7) for text in texts])}


def weighted(network: nn.Module) -> nn.Module:
    """With weights large enough that every part of a block matters; float64, so that an error is ours."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.2 / parameter.shape[-1] ** 0.5))
    return network.double().eval()


def letters(text: str, length: int | None = None) -> Tensor:
    """`[n, 16]`: one vector per letter, filled up with a padding letter."""
    padded = text if length is None else text[:length].ljust(length, "~")
    rows = [torch.randn(16, generator=torch.Generator().manual_seed(ord(c))) for c in padded]
    return torch.stack(rows).double()


class Host:
    """See `guide.Host`."""

    def __init__(self, *, strict: bool = True) -> None:
        self.options = Options(strict=strict)
        self.stopped = False
        self.second: Checkpoint | None = None
        self.pastes = self.t5 = True
        self.published: list[tuple[Any, ...]] = []

    def t5_enabled(self) -> bool:
        return self.t5

    def load_text_encoders(self, model: Any) -> None:
        return None

    def conditions(
        self, p: Any, texts: Sequence[str], encoder: Encoder, cache: list[Any], *, hires: bool
    ) -> Sequence[Sequence[Any]]:
        if cache[0] != texts:
            p.sd_model.encoded += texts
            cache[:] = [
                list(texts),
                [[SimpleNamespace(end_at_step=99, cond=letters(text))] for text in texts],
            ]
        return cache[1]

    def pastes_back(self) -> bool:
        return self.pastes

    def publish(self, p: Any, picture: Any, text: str, index: int, suffix: str) -> None:
        self.published.append((picture, text, index, suffix))

    def interrupted(self) -> bool:
        return self.stopped

    def hires_checkpoint(self, p: Any) -> Checkpoint | None:
        return self.second


class Processing:
    """A txt2img job."""

    def __init__(self, model: Model, callbacks: Callbacks | None, host: Host, **values: Any) -> None:
        self.sd_model, self.callbacks, self.host = model, callbacks, host
        self.sd_model_name = "sd3.5_large_turbo"
        self.n_iter, self.batch_size, self.steps, self.cfg_scale = 1, 2, 3, 1.0
        self.negative_prompt = ""
        self.hr_negative_prompt: str | None = None
        self.enable_hr = self.is_hr_pass = False
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.arguments: Sequence[Any] = ()
        self.preserved: list[int] = []
        """What each sampling was asked to keep free."""
        self.first_pass_made = self.ignores_first_wrapper = self.video = False
        self.width, self.height = 32, 48
        self.hr_upscale_to_x, self.hr_upscale_to_y = 64, 96
        self.script_args: tuple[Any, ...] = (0,)
        self.processed: Any = None
        self.on_step: Callable[[int], None] = lambda step: None
        self.refiner_switch_at: float | None = None
        self.refiner: Any = None
        self.refiner_fast = False
        vars(self).update(values)

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def call(self, name: str, *arguments: Any) -> None:
        """The host logs an exception of a callback and goes on."""
        if self.callbacks is None:
            return
        try:
            getattr(self.callbacks, name)(self, *arguments)
        except Exception:
            self.comments.append("swallowed")

    def sample(self, start: int) -> Tensor:
        # What is a batch elsewhere is one video, and its size the number of frames.
        shape = (1, 4, self.batch_size, 6, 4) if self.video else (self.batch_size, 4, 6, 4)
        x = torch.randn(shape, dtype=torch.float64)
        if not self.first_pass_made:
            x = self.denoise(x, start)
        if self.enable_hr and not self.host.stopped:
            self.is_hr_pass = True
            x = torch.nn.functional.interpolate(x, scale_factor=2.0)
            self.call("process_before_every_sampling", x, *self.conditioning(start))
            x = self.denoise(x, start)
            self.is_hr_pass = False
        return x

    def conditioning(self, start: int) -> tuple[Any, Any]:
        """As the callback gets it: the prompts of each picture, and the unconditional ones above CFG 1."""
        texts = [f"prompt{start + i}" for i in range(self.batch_size)]
        rows = [[SimpleNamespace(end_at_step=99, cond={"crossattn": letters(text, 7)})] for text in texts]
        batch = [[SimpleNamespace(schedules=row, weight=1.0)] for row in rows]
        return SimpleNamespace(batch=batch), None if self.cfg_scale == 1 else rows

    def decoded(self, x: Tensor) -> Image.Image:
        """Eight pixels along a latent's side, as the real ones have."""
        grey = x[0].sigmoid().mul(255).repeat_interleave(8, 0).repeat_interleave(8, 1)
        image = Image.fromarray(grey.byte().numpy()).convert("RGB")
        image.info["parameters"] = f"a picture\nSteps: {self.steps}, Seed: 1, CFG scale: 1"
        return image

    def denoise(self, x: Tensor, start: int) -> Tensor:
        self.sd_model.reset()
        conditioning, unconditional = self.conditioning(start)
        self.call("process_before_every_sampling", x, conditioning, unconditional)
        unet = self.sd_model.forge_objects.unet
        if self.ignores_first_wrapper and not self.is_hr_pass:
            unet = self.sd_model.original
        self.preserved.append(unet.extra_preserved_memory_during_sampling)
        texts = [row[0].schedules[0].cond["crossattn"] for row in conditioning.batch]
        cond = torch.stack(texts[: len(x)])
        entries = [0] if self.cfg_scale == 1 else [1, 0]
        if len(entries) == 2:
            cond = torch.cat([torch.zeros_like(cond), cond])
        for step in range(self.steps):
            self.on_step(step)
            if self.refiner_switch_at is not None and step == self.refiner_switch_at * self.steps:
                self.refine()
                unet = self.sd_model.forge_objects.unet
            if self.host.stopped:
                return x
            note_step(SimpleNamespace(denoiser=SimpleNamespace(p=self, step=step, total_steps=self.steps)))
            if self.refiner_switch_at is not None:
                unet = self.sd_model.forge_objects.unet
            rows = torch.cat([x] * len(entries))
            sigma = torch.full((len(rows),), 1 - step / self.steps, dtype=torch.float64)
            c = {
                "c_crossattn": cond,
                "y": torch.zeros(len(rows), 8, dtype=torch.float64),
                "transformer_options": {"cond_or_uncond": entries},
            }
            wrapper = unet.model_options.get("model_function_wrapper")
            args = {"input": rows, "timestep": sigma, "c": c, "cond_or_uncond": entries}
            v = wrapper(self.apply, args) if wrapper else self.apply(rows, sigma, **c)
            parts = v.chunk(len(entries))
            v = parts[-1] if len(parts) == 1 else parts[0] + self.cfg_scale * (parts[1] - parts[0])
            x = x - v / self.steps
        return x

    def refine(self) -> None:
        """Exchanges the model, or its weights alone."""
        if self.refiner_fast:
            self.sd_model.original.model.diffusion_model.load_state_dict(self.refiner.state_dict())
        else:
            self.sd_model.original = Unet(SimpleNamespace(diffusion_model=self.refiner))
            self.sd_model.reset()

    def apply(self, x: Tensor, t: Tensor, c_crossattn: Tensor, transformer_options: Any, y: Tensor) -> Tensor:
        network: Any = self.sd_model.original.model.diffusion_model
        return network(x, t, context=c_crossattn, transformer_options=transformer_options, y=y)


def process_images(p: Processing, seed: int = 0) -> list[tuple[Tensor, dict[str, Any]]]:
    """One picture and its infotext pairs each."""
    torch.manual_seed(seed)
    count = p.n_iter * p.batch_size

    def every(text: Any) -> list[str]:
        return list(text) if isinstance(text, list) else [text] * count

    p.all_negative_prompts = every(p.negative_prompt)
    p.all_hr_negative_prompts = every(p.hr_negative_prompt or p.negative_prompt)
    p.call("process", p.arguments)
    vars(p).setdefault("all_seeds", [100 + i for i in range(count)])
    pictures, results = [], []
    with torch.inference_mode():
        for n in range(p.n_iter):
            if p.host.stopped:
                break
            p.iteration = n
            p.sd_model.reset()
            p.negative_prompts = p.all_negative_prompts[n * p.batch_size : (n + 1) * p.batch_size]
            p.call("process_batch")
            samples = p.sample(n * p.batch_size)
            frames = samples[0].unbind(1) if p.video else samples
            pictures += [(x, dict(p.extra_generation_params)) for x in frames]
            for i, x in enumerate(frames):
                results.append(p.decoded(x))
                index = n * p.batch_size + i
                p.call("postprocess_image_after_composite", SimpleNamespace(index=index, image=results[-1]))
    p.processed = SimpleNamespace(
        images=results,
        infotexts=[str(image.info["parameters"]) for image in results],
        comments="",
        extra_generation_params=p.extra_generation_params,
    )
    p.call("postprocess", p.processed)
    return pictures
