"""The process in which videos are made: `python -m vsf_lib.video.worker [--overlay FOLDER]`.

Owns the line to its owner (see `messages`): what libraries print goes to the other one. It ends when its
input closes, in the middle of a job after a grace time, so that nothing is left when the WebUI dies.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib import __version__
from vsf_lib.errors import GuidanceError, OutputError, VSFError, is_out_of_memory
from vsf_lib.jobs import messages
from vsf_lib.jobs.line import own_line
from vsf_lib.jobs.orders import Orders
from vsf_lib.jobs.stopping import Stopped
from vsf_lib.scenes.model import WAN
from vsf_lib.video import builtin, memory
from vsf_lib.video.job import VideoJob

if TYPE_CHECKING:
    import numpy as np

    from vsf_lib.video.sampling import Made


def main(argv: list[str] | None = None) -> int:
    """Takes one job after the other until the input closes."""
    parser = ArgumentParser()
    parser.add_argument("--overlay", help="a folder of packages that come before all others")
    args = parser.parse_args(argv)
    if args.overlay:
        sys.path.insert(0, args.overlay)
    emit = own_line()
    orders = Orders(sys.stdin)
    emit(messages.Ready(_versions()))
    maker = Maker(emit, orders.stopped)
    while (order := orders.next()) is not None:
        emit(maker.run(VideoJob.create(**order["make"]), Path(order["path"])))
    return 0


class Maker:
    """Makes videos, and keeps the model for the next job that needs the same."""

    def __init__(self, emit: Callable[[messages.Event], None], stopped: Callable[[], bool]) -> None:
        self._emit = emit
        self._stopped = stopped
        self._key: Any = None
        self._pipe: Any = None
        self._way: str | None = None
        """Of offloading the pipeline, nothing on a CPU; None before its parts have a place."""
        self._texts_key: Any = None
        self._texts: Any = None

    def run(self, job: VideoJob, path: Path) -> messages.Event:
        """The event that ends the job, whatever happens."""
        try:
            return self._make(job, path)
        except Stopped:
            return messages.Cancelled()
        except VSFError as error:
            return messages.Failed(str(error))
        except Exception as error:
            traceback.print_exc()
            if is_out_of_memory(error):
                advice = _smaller(job, self._way)
                self._forget()
                return messages.Failed("out of memory", advice=advice)
            return messages.Failed(f"{type(error).__name__}: {error}"[:500], defect=True)

    def _make(self, job: VideoJob, path: Path) -> messages.Event:
        from vsf_lib.video.comparison import still, write_still
        from vsf_lib.video.files import write_video
        from vsf_lib.video.loading import check, key, load

        began = time.monotonic()
        device, dtype = _machine(job)
        if self._key != key(job):
            check(job)
            self._forget()  # before the text encoder needs room
            scarce = memory.shortage(job, bytes_each=dtype.itemsize, free=memory.free())
            if scarce:
                self._emit(messages.Note(f"{scarce}: close other programs, or what a WebUI has loaded"))
        texts = self._encoded(job, dtype)
        if self._pipe is None:
            self._stage("loading")
            self._pipe, placed = load(job, device, dtype, self._chosen)
            self._key = key(job)
            if placed:
                self._emit(messages.Note(placed))
        if self._stopped():
            raise Stopped
        for note in job.notes:
            self._emit(messages.Note(note))

        plain, made, frames = self._frames(job, texts)
        self._stage("writing")
        infotext = job.infotext(
            version=f"vsf {__version__}",
            guided=made.report is not None,
            fingerprint=builtin.fingerprint(job.model),
        )
        written = write_video(path, frames, infotext, fps=job.fps, quality=job.quality)
        beside = ""
        if plain is not None:
            try:
                beside = str(write_still(written, still(plain.frames, made.frames), infotext))
            except OutputError as error:  # it must not cost the video
                self._emit(messages.Note(str(error)))
        report = None
        if made.report is not None:
            report = {
                "method": made.report.method,
                "layers": len(made.report.layers),
                "steps": list(made.report.guided_steps),
                "kernel": made.report.kernel,
            }
        return messages.Result(str(written), infotext, round(time.monotonic() - began, 3), report, beside)

    def _frames(self, job: VideoJob, texts: Any) -> tuple[Made | None, Made, np.ndarray]:
        """The unguided video if it is to be compared, the video, and the frames to write."""
        from vsf_lib.video.comparison import WITH, WITHOUT, side_by_side
        from vsf_lib.video.preview import picture
        from vsf_lib.video.sampling import Watch, make

        runs = 2 if job.compare else 1

        def watch(run: int, part: str) -> Watch:
            """Steps are counted through all runs, and the last one's stages are the job's."""
            before, last = run * job.steps, run == runs - 1

            def step(done: int, steps: int, left: float | None, latents: Any) -> None:
                self._emit(messages.Progress("sampling", before + done, runs * steps, left, part))
                self._emit(messages.Preview(picture(latents)))

            def stage(name: str) -> None:
                if last:
                    self._stage(name)

            return Watch(self._stopped, step, stage, 0 if last else job.steps)

        if not job.compare:
            made = make(self._pipe, job, texts, watch(0, ""))
            return None, made, made.frames
        plain = make(self._pipe, job, replace(texts, negatives=None), watch(0, WITHOUT))
        made = make(self._pipe, job, texts, watch(1, WITH))
        if plain.report is not None or made.report is None:
            raise GuidanceError("the halves are not without and with guidance, so they are not called so")
        return plain, made, side_by_side(plain.frames, made.frames)

    def _encoded(self, job: VideoJob, dtype: Any) -> Any:
        """The embeddings of the job's prompts, which the next job may share."""
        from vsf_lib.video.texts import encode, key

        if self._texts_key != key(job):
            self._stage("encoding")
            self._texts = encode(job, dtype, self._stopped)
            self._texts_key = key(job)
        return self._texts

    def _chosen(self, way: str) -> None:
        self._way = way

    def _stage(self, stage: str) -> None:
        self._emit(messages.Progress(stage))

    def _forget(self) -> None:
        self._pipe = self._key = self._way = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _machine(job: VideoJob) -> tuple[Any, Any]:
    """Where and in which precision; the built-in model is small enough to be the same everywhere."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float32 if job.model == WAN else torch.bfloat16
    return torch.device("cpu"), torch.float32


def _smaller(job: VideoJob, way: str | None) -> str:
    """What needs less memory than it had, with the pipeline's parts kept in a `way`."""
    if way is None:
        return "close other programs, or choose a smaller model"
    following = {"none": "model", "model": "group"}.get(way)
    if following:
        return f"choose offload “{following}”"
    if job.frames > 17:
        return f"make {max(17, (job.frames - 1) // 8 * 4 + 1)} frames"
    return "choose a smaller size"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"vsf": __version__}
    for name in ("torch", "diffusers", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
