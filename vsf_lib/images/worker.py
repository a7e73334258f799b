"""The process in which the studio's pictures are drawn: `python -m vsf_lib.images.worker`.

Owns the line to its owner (see `messages`), and that one job's end, however bad, is not the next one's.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from vsf_lib.errors import VSFError, is_out_of_memory
from vsf_lib.images.asked import Asked
from vsf_lib.images.easel import Easel
from vsf_lib.jobs import messages
from vsf_lib.jobs.line import own_line
from vsf_lib.jobs.orders import Orders
from vsf_lib.jobs.stopping import Stopped
from vsf_lib.scenes.model import NAME

_SMALLER = "choose a smaller size, the dtype bfloat16 or offload, or close other programs"


def main() -> int:
    """Draws what is ordered, one after the other, until the input closes."""
    emit = own_line()
    orders = Orders(sys.stdin)
    easel = Easel(emit, orders.stopped)
    with contextlib.suppress(VSFError):  # the first picture will say it
        easel.warm(NAME)  # most begin with it, and its first picture should not wait for it
    while (order := orders.next()) is not None:
        emit(run(easel, emit, Asked(**order["make"]), Path(order["path"])))
    return 0


def run(easel: Easel, emit: Callable[[messages.Event], None], asked: Asked, folder: Path) -> messages.Event:
    """The event that ends the job, whatever happens."""
    try:
        return easel.draw(asked, folder)
    except Stopped:
        return messages.Cancelled()
    except Exception as error:
        if is_out_of_memory(error):
            easel.forget()
            return messages.Failed("out of memory", advice=_SMALLER)
        if isinstance(error, VSFError):
            return messages.Failed(str(error))
        traceback.print_exc()
        easel.forget()  # whatever it left of the model
        return messages.Failed(f"{type(error).__name__}: {error}"[:500], defect=True)


if __name__ == "__main__":
    sys.exit(main())
