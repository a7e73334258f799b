"""The "VSF Video" tab in Forge: where the host keeps things, and what it needs around a job.

One of the modules that import `modules.*` and `backend.*`; every import stands in the function that needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.video.desk import Desk, Places, Rights
from vsf_lib.video.queue import Entry
from vsf_lib.video.runner import State, Surroundings, Withdrawn
from vsf_lib.video.single_file import kinds

_LOOK = 0.2
"""Seconds between looks at whether a waiting job was stopped."""


def make_desk() -> Desk:
    """The desk of this WebUI."""
    from modules import paths_internal, shared

    models = Path(paths_internal.models_path)
    public = bool(getattr(shared.cmd_opts, "disable_extension_access", False))
    hidden = bool(getattr(shared.cmd_opts, "hide_ui_dir_config", False))
    return Desk(
        Places(
            data=data_folder(),
            outputs=Path(paths_internal.default_output_dir) / "videos",
            models=models / "diffusers",
            loras=Path(getattr(shared.cmd_opts, "lora_dir", None) or models / "Lora"),
            files=_file_folders(models),
            downloads={
                kinds.TRANSFORMER: models / "diffusion_models",
                kinds.VAE: models / "VAE",
                kinds.TEXT_ENCODER: models / "text_encoder",
            },
        ),
        Rights(install=not public, paths=not public, delete=not public, open_folder=not (public or hidden)),
        around=ForgeSurroundings(),
    )


def data_folder() -> Path:
    """Where this WebUI keeps what belongs to videos, the packages among it."""
    from modules import paths_internal

    return Path(paths_internal.data_path) / "vsf-video"


def _file_folders(models: Path) -> tuple[Path, ...]:
    """Where users of this WebUI and of others keep models in parts; arguments may name more."""
    from modules import shared

    named = (getattr(shared.cmd_opts, name, None) for name in ("ckpt_dir", "vae_dir", "text_encoder_dir"))
    usual = ("diffusion_models", "unet", "Stable-diffusion", "VAE", "text_encoder", "text_encoders")
    folders = [*(models / name for name in usual), *(Path(name) for name in named if name)]
    return tuple(dict.fromkeys(folder.absolute() for folder in folders))


class ForgeSurroundings(Surroundings):
    """Pictures wait for a video, and the memory of the WebUI's models is its own meanwhile."""

    frees = "Free the WebUI's checkpoint"

    def folder(self, entry: Entry) -> Path:
        """As the host's options for pictures say."""
        from modules import shared
        from modules.images import FilenameGenerator

        if not shared.opts.save_to_dirs:
            return Path()
        pattern = shared.opts.directories_filename_pattern or "[prompt_words]"
        size = SimpleNamespace(width=entry.job.width, height=entry.job.height)
        named = FilenameGenerator(None, entry.job.seed, entry.job.prompt, size).apply(pattern)
        return Path(named.strip(" /\\"))

    def notes(self, entry: Entry) -> tuple[str, ...]:
        return ("pictures wait until this video is done",)

    def free(self) -> None:
        from modules.call_queue import queue_lock

        if not queue_lock.acquire(blocking=False):
            raise SettingsError("a picture or a video is being made: free the checkpoint after it")
        try:
            _on_main_thread(_drop_checkpoint)
        finally:
            queue_lock.release()

    @contextmanager
    def job(self, entry: Entry, stopped: Callable[[], bool]) -> Iterator[None]:
        from modules import shared
        from modules.call_queue import queue_lock

        with turn(queue_lock, stopped):  # for this job only: a picture may come before the next
            shared.state.begin(job=f"VSF video {entry.id}")
            try:
                _free_memory()
                yield
            finally:
                shared.state.end()

    def stopped(self) -> bool:
        from modules import shared

        return bool(shared.state.interrupted or shared.state.skipped)

    def progress(self, state: State) -> None:
        from modules import shared

        shared.state.sampling_step, shared.state.sampling_steps = state.step, state.steps
        shared.state.textinfo = f"VSF video: {state.stage}"


@contextmanager
def turn(lock: Any, stopped: Callable[[], bool]) -> Iterator[None]:
    """Holds the host's `lock` once it is our turn; raises Withdrawn if we were `stopped()` before.

    A thread waits in the lock's own row, so that pictures that come later do not come first.
    """
    guard, granted, left = threading.Lock(), threading.Event(), threading.Event()

    def wait() -> None:
        lock.acquire()
        with guard:
            if left.is_set():
                lock.release()
            else:
                granted.set()

    threading.Thread(target=wait, name="vsf-turn", daemon=True).start()
    while not granted.wait(_LOOK):
        if stopped():
            with guard:
                if not granted.is_set():
                    left.set()
                    raise Withdrawn
    try:
        yield
    finally:
        lock.release()


def _free_memory() -> None:
    _on_main_thread(_unload)


def _on_main_thread(act: Callable[[], None]) -> None:
    """Models are moved by the host's main thread, which owns them."""
    from modules_forge import main_thread

    main_thread.run_and_wait_result(act)


def _unload() -> None:
    """Out of the GPU; main memory keeps the models."""
    from backend import memory_management

    memory_management.unload_all_models()
    memory_management.soft_empty_cache()


def _drop_checkpoint() -> None:
    """As before the first picture: the next one loads the checkpoint again."""
    import gc

    from modules import sd_models

    sd_models.model_data.sd_model = sd_models.FakeInitialModel()
    sd_models.model_data.forge_hash = ""
    _unload()
    gc.collect()
