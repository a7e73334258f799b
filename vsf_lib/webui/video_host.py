"""The "VSF Video" tab in Forge: where the host keeps things, and what it needs around a job.

One of the modules that import `modules.*` and `backend.*`; every import stands in the function that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsf_lib.video.desk import Desk, Places, Rights
from vsf_lib.video.queue import Entry
from vsf_lib.video.runner import State, Surroundings


def make_desk() -> Desk:
    """The desk of this WebUI."""
    from modules import paths_internal, shared

    data, models = Path(paths_internal.data_path), Path(paths_internal.models_path)
    public = bool(getattr(shared.cmd_opts, "disable_extension_access", False))
    return Desk(
        Places(
            data=data / "vsf-video",
            outputs=Path(paths_internal.default_output_dir) / "videos",
            models=models / "diffusers",
            loras=Path(getattr(shared.cmd_opts, "lora_dir", None) or models / "Lora"),
        ),
        Rights(install=not public, paths=not public, delete=not public),
        around=ForgeSurroundings(),
    )


class ForgeSurroundings(Surroundings):
    """Pictures wait for a video, and the memory of the WebUI's models is its own meanwhile."""

    @contextmanager
    def job(self, entry: Entry) -> Iterator[None]:
        from modules import shared
        from modules.call_queue import queue_lock

        with queue_lock:  # for this job only: a picture may come before the next
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


def _free_memory() -> None:
    """Models are moved by the host's main thread, which owns them."""
    from backend import memory_management
    from modules_forge import main_thread

    def unload() -> None:
        memory_management.unload_all_models()
        memory_management.soft_empty_cache()

    main_thread.run_and_wait_result(unload)
