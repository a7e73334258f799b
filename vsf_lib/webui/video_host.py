"""The "VSF Video" tab in Forge: what the host needs around a job.

One of the modules that import `modules.*` and `backend.*`; every import stands in the function that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vsf_lib.errors import SettingsError
from vsf_lib.jobs.locks import turn
from vsf_lib.video.desk import Desk
from vsf_lib.video.queue import Entry
from vsf_lib.video.runner import State, Surroundings
from vsf_lib.webui import folders


def make_desk() -> Desk:
    """The desk of this WebUI."""
    return Desk(folders.places(), folders.rights(), around=ForgeSurroundings())


class ForgeSurroundings(Surroundings):
    """Pictures wait for a video, and the memory of the WebUI's models is its own meanwhile."""

    frees = "Free the WebUI's checkpoint"

    def folder(self, entry: Entry) -> Path:
        job = entry.job
        return folders.job_folder(job.seed, job.prompt, job.width, job.height)

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
