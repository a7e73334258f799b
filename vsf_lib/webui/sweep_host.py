"""What a sweep asks of a WebUI, answered by Forge's own modules; see `sweep_script.SweepHost`.

Imports `modules.*`; every import stands in the function that needs it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsf_lib.errors import OutputError
from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.options import Options, chosen
from vsf_lib.webui.request import Checkpoint

_REMEMBERED = 200
"""Films; the page shows those alone."""


class ForgeSweeps:
    """Holds no state but the names of the films that it wrote last."""

    def __init__(self) -> None:
        self.films: deque[str] = deque(maxlen=_REMEMBERED)

    @property
    def options(self) -> Options:
        return chosen()

    def checkpoint(self, p: Any) -> Checkpoint:
        from modules import sd_models, shared

        title = p.override_settings.get("sd_model_checkpoint") or shared.opts.sd_model_checkpoint
        known = sd_models.checkpoint_aliases.get(title)
        found = None if known is None else peek(Path(known.filename))
        return found or Checkpoint(str(title or ""), None)

    def begin(self, p: Any, jobs: int) -> None:
        from modules import processing, shared

        processing.fix_seed(p)
        shared.state.job_count = jobs * p.n_iter
        if not getattr(p, "enable_hr", False):  # which the host counts itself
            shared.total_tqdm.updateTotal(p.steps * shared.state.job_count)

    def draw(self, job: Any, note: str) -> tuple[Any, Collection[int]]:
        from modules import processing, shared

        state, unfinished = shared.state, set()
        original = job.sample

        def sample(*args: Any, **kwargs: Any) -> Any:
            samples = original(*args, **kwargs)
            if state.interrupted or state.skipped:
                unfinished.add(job.iteration)
            return samples

        job.sample = sample
        state.job = state.textinfo = note
        try:
            # In img2img the host encodes with the random numbers that the picture before has left: so all
            # pictures of a sweep begin with the same ones.
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                return processing.process_images(job), unfinished
        finally:
            state.textinfo = None

    def pictures(self, job: Any, drawn: Any) -> list[Image.Image]:
        from modules import shared

        opts = shared.opts
        images: list[Image.Image] = drawn.images[drawn.index_of_first_image :]
        masked = getattr(job, "mask_for_overlay", None) is not None
        each = 1 + masked * (bool(opts.return_mask) + bool(opts.return_mask_composite))
        return images[::each]

    def stopped(self) -> bool:
        from modules import shared

        return bool(shared.state.interrupted or getattr(shared.state, "stopping_generation", False))

    def font(self, size: int) -> Any:
        from modules import images

        return images.get_font(size)

    def save_strip(self, p: Any, job: Any, image: Image.Image, infotext: str, number: int) -> Path | None:
        from modules import images, shared

        opts = shared.opts
        if opts.enable_pnginfo:
            image.info["parameters"] = infotext
        if not opts.grid_save or p.do_not_save_grid:
            return None
        saved, _ = images.save_image(
            image,
            p.outpath_grids,
            "vsf-sweep",
            job.all_seeds[number],
            job.all_prompts[number],
            opts.grid_format,
            info=infotext,
            short_filename=not opts.grid_extended_filename,
            grid=True,
            p=job,
        )
        return Path(saved).absolute()

    def write_film(self, strip: Path, frames: np.ndarray, infotext: str, fps: int) -> Path:
        from vsf_lib.video import overlay
        from vsf_lib.video.files import find_ffmpeg, write_video
        from vsf_lib.webui.folders import data_folder

        program = find_ffmpeg(overlay.folder(data_folder(), overlay.pins()))
        if program is None:
            raise OutputError(
                "this WebUI has no ffmpeg to write it with. The button Install in the tab VSF Video brings "
                "one (the packages for videos), or install ffmpeg on this system"
            )
        names = itertools.chain([strip.stem], (f"{strip.stem}-{again}" for again in itertools.count(2)))
        film = next(path for name in names if not (path := strip.with_name(f"{name}.mp4")).exists())
        self.films.append(str(write_video(film, frames, infotext, fps=fps, program=program)))
        return film
