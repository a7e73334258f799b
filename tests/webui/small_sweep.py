"""The few modules of a WebUI that the script "VSF sweep" asks, and jobs of `small_host` for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from small_host import Host, Model, Processing, process_images

from vsf_lib import strip
from vsf_lib.infotext import read_pairs, write_pairs
from vsf_lib.settings import fields
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.request import ARGUMENTS as PANEL
from vsf_lib.webui.request import AUTO
from vsf_lib.webui.sweep_host import ForgeSweeps
from vsf_lib.webui.sweep_script import run

BASE = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0}
HEAD = {"Steps": 3, "Sampler": "Euler", "CFG scale": 1.0}


class WebUI:
    """The few modules of a host that a sweep asks: jobs of `small_host`, results as the host has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opts = SimpleNamespace(
            enable_pnginfo=True, grid_save=True, grid_format="png", grid_extended_filename=False,
            return_mask=False, return_mask_composite=False, sd_model_checkpoint="chosen",
        )  # fmt: skip
        self.state = SimpleNamespace(
            interrupted=False, skipped=False, stopping_generation=False, job_count=-1, job="", textinfo=None
        )
        self.totals: list[int] = []
        self.jobs: list[Any] = []
        self.notes: list[str] = []
        self.before = lambda number, job: None
        """Called with each job before it is drawn."""
        shared = SimpleNamespace(
            opts=self.opts, state=self.state, total_tqdm=SimpleNamespace(updateTotal=self.totals.append)
        )
        processing = SimpleNamespace(fix_seed=self.fix_seed, process_images=self.draw)
        images = SimpleNamespace(save_image=self.save, get_font=strip._font)
        self.checkpoints: dict[str, Any] = {}
        self.modules = SimpleNamespace(
            shared=shared,
            processing=processing,
            images=images,
            sd_models=SimpleNamespace(checkpoint_aliases=self.checkpoints),
        )

    def fix_seed(self, p: Any) -> None:
        p.seed = 7 if p.seed == -1 else p.seed

    def draw(self, job: Any) -> Any:
        self.before(len(self.jobs), job)
        self.jobs.append(job)
        self.notes.append(self.state.textinfo)
        self.state.skipped = False
        count = job.n_iter * job.batch_size
        job.all_seeds = [job.seed + i for i in range(count)]
        job.all_prompts, job.all_subseeds = ["a car"] * count, [0] * count
        made = process_images(job, job.seed)
        texts = [
            "a car\n" + write_pairs({**HEAD, "Seed": str(seed), **pairs})
            for (_, pairs), seed in zip(made, job.all_seeds, strict=False)
        ]
        return SimpleNamespace(
            images=[picture(x) for x, _ in made],
            infotexts=texts or ["nothing was drawn"],
            index_of_first_image=0,
            info="",
            comments="",
            extra_generation_params=job.extra_generation_params,
            **{name: getattr(job, name) for name in ("all_prompts", "all_seeds", "all_subseeds")},
            all_negative_prompts=job.all_negative_prompts,
        )

    def save(self, image: Any, folder: str, basename: str, seed: int, prompt: str, ending: str, **more: Any):
        assert (more["info"], more["grid"]) == (image.info["parameters"], True)
        path = self.folder / f"{basename}-{seed}.{ending}"
        image.save(path)
        return str(path), None


def picture(x: torch.Tensor) -> Image.Image:
    """A latent `[4, h, w]` as pixels that tell every one of its bits."""
    return Image.fromarray(np.ascontiguousarray(x.numpy()).view(np.uint8).reshape(24, 8 * 4), "L").convert(
        "RGB"
    )


def panel(**values: Any) -> list[Any]:
    """What VSF's panel sends: every value."""
    ours = {"enabled": True, "preset": AUTO, "heatmap": "off"}
    defaults = {**ours, **{field.name: field.default for field in fields()}}
    return [{**defaults, **values}[name] for name in PANEL]


def job(arguments: Any = (BASE,), model: Any = None, **values: Any) -> Processing:
    script = SimpleNamespace(title=lambda: "VSF", args_from=1, args_to=1 + len(arguments))
    host = Host(strict=values.pop("strict", True))
    common = {"batch_size": 1, "seed": 3, "do_not_save_grid": False, "outpath_grids": "grids"}
    common["override_settings"] = {}
    return Processing(
        model,
        Callbacks(host),
        host,
        arguments=list(arguments),
        script_args=(0, *arguments),
        scripts=SimpleNamespace(alwayson_scripts=[script]),
        **{**common, **values},
    )


def sweep(p: Any, values: str, **more: Any) -> Any:
    return run(p, [{"values": values, "film": False, **more}], ForgeSweeps())


def alone(model: Model, settings: Any, seed: int = 3) -> np.ndarray:
    """The picture that one job of its own gives; unguided for False."""
    return np.asarray(picture(process_images(job([settings], model), seed)[0][0]))


def last_line(text: str) -> dict[str, str]:
    return read_pairs(text.split("\n")[-1])
