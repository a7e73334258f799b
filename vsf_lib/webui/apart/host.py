"""What a video means for an old WebUI: its row of pictures, its progress, and the memory of its checkpoint.

One of the modules that import `modules.*`; every import stands in the function that needs it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vsf_lib.jobs import messages
from vsf_lib.jobs.locks import turn
from vsf_lib.webui import folders


class Host:
    """AUTOMATIC1111's WebUI or reForge."""

    def turn(self, stopped: Callable[[], bool]) -> AbstractContextManager[None]:
        """Entered for the length of a job, in the row of the pictures."""
        from modules.call_queue import queue_lock

        return turn(queue_lock, stopped)

    @contextmanager
    def job(self, asked: messages.Turn) -> Iterator[str]:
        """Around a job whose turn it is; yields the folder that its file goes to."""
        from modules import shared

        shared.state.begin(job=f"VSF video {asked.id}")
        try:
            with _memory():
                yield str(folders.job_folder(asked.seed, asked.prompt, asked.width, asked.height))
        finally:
            shared.state.end()

    def stopped(self) -> bool:
        """Whether the WebUI's own button says that the running job is to stop."""
        from modules import shared

        return bool(shared.state.interrupted or shared.state.skipped)

    def progress(self, event: messages.Progress) -> None:
        """The running job has got further."""
        from modules import shared

        shared.state.sampling_step, shared.state.sampling_steps = event.step, event.steps
        shared.state.textinfo = f"VSF video: {event.stage}"


@contextmanager
def _memory() -> Iterator[None]:
    """The GPU is the video's meanwhile. What was moved out is moved back; reForge does that by itself."""
    if importlib.util.find_spec("ldm_patched") is not None:
        from modules_forge import main_thread

        main_thread.run_and_wait_result(_unload)  # the thread that owns the models
        yield
        return
    from modules import sd_models

    model = sd_models.model_data.sd_model  # `shared.sd_model` would load one
    if model is None:
        yield
        return
    sd_models.send_model_to_cpu(model)
    try:
        yield
    finally:
        sd_models.send_model_to_device(model)


def _unload() -> None:
    from ldm_patched.modules import model_management

    model_management.unload_all_models()
    model_management.soft_empty_cache()
