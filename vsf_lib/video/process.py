"""The worker process as its owner has it: giving it a job, following it, stopping it.

Knows no queue and no page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from vsf_lib.jobs import messages
from vsf_lib.jobs.child import Child, WorkerError
from vsf_lib.video.job import VideoJob

__all__ = ["Worker", "WorkerError"]


class Worker(Child):
    """A child process that makes videos, for use in a `with`."""

    def __init__(
        self, *, overlay: Path | None = None, environment: dict[str, str] | None = None, grace: float = 10.0
    ) -> None:
        """`overlay` is a folder of packages for the child alone; a cancel may take `grace` seconds."""
        super().__init__(
            "vsf_lib.video.worker",
            "the video process",
            overlay=overlay,
            environment=environment,
            grace=grace,
        )

    def __enter__(self) -> Worker:
        return self

    def make(
        self,
        job: VideoJob,
        path: Path,
        look: Callable[[messages.Event], None] = lambda event: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> messages.Result | messages.Failed | messages.Cancelled:
        """Has the video made as `path`; `look` sees every event. Raises WorkerError if the process dies.

        Once `stopped()` is true the job is told to stop; if it does not, its process tree is ended.
        """
        self._say({"make": job.model_dump(mode="json"), "path": str(path)})
        ends = (messages.Result, messages.Failed, messages.Cancelled)
        end = self._follow(ends, look, stopped, lambda: self._say({"cancel": True}))
        return cast(messages.Result | messages.Failed | messages.Cancelled, end)
