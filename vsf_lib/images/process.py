"""The worker process as its owner has it: having a picture drawn, following it, stopping it.

Knows no row of jobs and no page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, cast

from vsf_lib.images.asked import Asked
from vsf_lib.jobs import messages
from vsf_lib.jobs.child import Child

End: TypeAlias = "messages.Drawn | messages.Failed | messages.Cancelled"


class Worker(Child):
    """A child process that draws pictures and keeps the model between them, for use in a `with`."""

    def __init__(self, *, environment: dict[str, str] | None = None, grace: float = 5.0) -> None:
        """A cancel may take `grace` seconds; then the process is ended."""
        super().__init__("vsf_lib.images.worker", "the picture process", environment=environment, grace=grace)

    def __enter__(self) -> Worker:
        return self

    def draw(
        self,
        asked: Asked,
        folder: Path,
        look: Callable[[messages.Event], None] = lambda event: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> End:
        """Has it drawn into `folder`; `look` sees every event. Raises WorkerError if the process dies."""
        self._say({"make": asked.told(), "path": str(folder)})
        ends = (messages.Drawn, messages.Failed, messages.Cancelled)
        return cast(End, self._follow(ends, look, stopped, lambda: self._say({"cancel": True})))
