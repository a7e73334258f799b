"""Videos through the real worker process: what it makes, how it stops, and how it dies."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
wan_files = pytest.importorskip("wan_files")

from video_frames import read_frames  # noqa: E402

from vsf_lib.jobs import messages  # noqa: E402
from vsf_lib.jobs.orders import Orders  # noqa: E402
from vsf_lib.settings import Settings  # noqa: E402
from vsf_lib.video import memory  # noqa: E402
from vsf_lib.video.files import read_infotext  # noqa: E402
from vsf_lib.video.job import Lora, VideoJob  # noqa: E402
from vsf_lib.video.process import Worker, WorkerError  # noqa: E402
from vsf_lib.video.worker import Maker  # noqa: E402

ROOT = Path(__file__).parents[2]
OFF = Settings(method="off")


@pytest.fixture(scope="module")
def worker():
    with Worker() as running:
        yield running


@pytest.fixture
def job(wan):
    def make(**values):
        return VideoJob.create(
            **{
                "prompt": "a red car on the field",
                "model": str(wan),
                "width": 80,
                "height": 64,
                "frames": 5,
                "steps": 2,
                "settings": OFF,
                **values,
            }
        )

    return make


def test_a_video_with_its_parameters(worker, job, tmp_path):
    events = []
    made = job(frames=9, seed=3)
    path = tmp_path / "späte Videos" / "ein rotes Auto.mp4"
    result = worker.make(made, path, events.append)
    assert result.path == str(path)
    assert read_frames(path).shape == (9, 64, 80, 3)
    assert read_infotext(path) == result.infotext
    assert VideoJob.from_infotext(result.infotext).changed(flow_shift=None, drop_frames=None) == made
    assert "VSF alpha" not in result.infotext
    stages = [event.stage for event in events if isinstance(event, messages.Progress)]
    assert stages == ["encoding", "loading", "sampling", "sampling", "decoding", "writing"]
    steps = [(event.step, event.steps) for event in events if isinstance(event, messages.Progress)]
    assert (2, 2) in steps
    assert sum(isinstance(event, messages.Preview) for event in events) == 2


@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_guidance_acts_and_the_file_says_so(worker, job, tmp_path, method):
    guided = job(settings=Settings(method=method, negative_prompt="wheels", alpha=2.0), steps=3)
    plain = worker.make(job(steps=3), tmp_path / "plain.mp4")
    result = worker.make(guided, tmp_path / "guided.mp4")
    assert isinstance(result, messages.Result), result
    assert (result.report["method"], result.report["steps"]) == (method, [0, 1, 2])
    assert result.report["layers"] == 3, "every block's attention to text"
    frames = [read_frames(Path(made.path)).astype(int) for made in (plain, result)]
    assert np.abs(frames[1] - frames[0]).mean() > 0.5
    assert VideoJob.from_infotext(result.infotext).settings == guided.settings.canonical()
    again = worker.make(job(steps=3), tmp_path / "again.mp4")
    assert np.array_equal(read_frames(Path(again.path)), frames[0])
    assert "VSF alpha" not in again.infotext
    half = guided.changed(settings={**guided.settings.model_dump(), "end": 0.4})
    assert worker.make(half, tmp_path / "half.mp4").report["steps"] == [0, 1]


def test_the_same_job_gives_the_same_frames(worker, job, tmp_path):
    first = worker.make(job(seed=5), tmp_path / "a.mp4")
    again = worker.make(job(seed=5), tmp_path / "b.mp4")
    other = worker.make(job(seed=6), tmp_path / "c.mp4")
    with Worker() as fresh:
        anew = fresh.make(job(seed=5), tmp_path / "d.mp4")
    frames = [read_frames(Path(result.path)) for result in (first, again, other, anew)]
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[3])
    assert not np.array_equal(frames[0], frames[2])


def test_loras_act_by_their_weight(worker, job, tmp_path):
    file = wan_files.save_lora(tmp_path / "ein LoRA.safetensors")
    frames = []
    for weight in (None, 0.0, 0.5, 1.0):
        loras = [] if weight is None else [Lora(file=str(file), weight=weight)]
        frames.append(read_frames(Path(worker.make(job(loras=loras), tmp_path / "x.mp4").path)).astype(int))
    assert np.array_equal(frames[0], frames[1])
    assert np.abs(frames[2] - frames[0]).mean() > 0.5
    assert not np.array_equal(frames[2], frames[3])


def test_dropped_frames_are_not_in_the_file(worker, job, tmp_path):
    events = []
    result = worker.make(job(drop_frames=4), tmp_path / "x.mp4", events.append)
    assert len(read_frames(Path(result.path))) == 5
    assert "VSF dropped frames: 4" in result.infotext
    whole = worker.make(job(frames=9, drop_frames=0, quality=10), tmp_path / "y.mp4")
    cut = worker.make(job(drop_frames=4, quality=10), tmp_path / "z.mp4")
    apart = np.abs(read_frames(Path(whole.path))[4:].astype(int) - read_frames(Path(cut.path))).mean()
    assert apart < 2, "they are the last ones of the longer video"
    assert any(isinstance(event, messages.Note) and "dropped" in event.text for event in events)


def test_what_cannot_be_made_is_said_and_the_next_is_made(worker, job, tmp_path, wan):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(wan_files.save_lora(tmp_path / "whole.safetensors").read_bytes()[:-100])
    larger = wan_files.save_lora(tmp_path / "larger.safetensors", layers=5)
    blocked = tmp_path / "file"
    blocked.write_text("")
    (tmp_path / "x.ckpt").write_text("")
    no_model = tmp_path / "empty"
    no_model.mkdir()
    for values, path, says in (
        ({"loras": [Lora(file=str(damaged))]}, "x.mp4", "damaged or cut off"),
        ({"loras": [Lora(file=str(larger))]}, "x.mp4", "keys that this model lacks, such as"),
        ({"loras": [Lora(file=str(tmp_path / "x.ckpt"))]}, "x.mp4", "no .safetensors file"),
        ({"loras": [Lora(file=str(tmp_path / "gone.safetensors"))]}, "x.mp4", "there is no LoRA"),
        ({"model": str(no_model)}, "x.mp4", "no model in diffusers' format"),
        ({"model": str(tmp_path / "gone")}, "x.mp4", "there is no folder"),
        ({"model": "nobody/no-such-model"}, "x.mp4", "not on this machine yet: fetch it with --download"),
        ({}, "file/x.mp4", "cannot write"),
        ({}, "x.avi", "is no video"),
    ):
        result = worker.make(job(**values), tmp_path / path)
        assert isinstance(result, messages.Failed), values
        assert says in result.message, result
        assert "\n" not in result.message
        assert not result.defect
        assert not (tmp_path / path).exists()
    assert isinstance(worker.make(job(), tmp_path / "x.mp4"), messages.Result)


def test_cancel_stops_within_a_step(worker, job, tmp_path):
    seen = []
    long = job(steps=100, width=256, height=256, frames=33)
    began = time.monotonic()
    result = worker.make(
        long, tmp_path / "x.mp4", seen.append, lambda: any("sampling" in str(e) for e in seen)
    )
    assert isinstance(result, messages.Cancelled)
    assert len([e for e in seen if isinstance(e, messages.Preview)]) < 20
    assert time.monotonic() - began < 60
    assert not (tmp_path / "x.mp4").exists()
    assert worker.alive, "the process need not die for it"
    assert isinstance(worker.make(job(), tmp_path / "x.mp4"), messages.Result)


def test_a_job_that_does_not_stop_is_ended_with_its_process(job, tmp_path, sabotage):
    seen = []
    with Worker(overlay=sabotage("time.sleep(600)"), grace=1) as stuck:
        result = stuck.make(
            job(), tmp_path / "x.mp4", seen.append, lambda: any("sampling" in str(e) for e in seen)
        )
        assert isinstance(result, messages.Cancelled)
        assert not stuck.alive


def test_a_crash_inside_a_step_is_an_error_with_the_last_words(job, tmp_path, sabotage):
    with Worker(overlay=sabotage("print('last words', flush=True); os._exit(7)")) as doomed:
        with pytest.raises(WorkerError, match=r"ended with code 7(.|\n)*last words"):
            doomed.make(job(), tmp_path / "x.mp4")
        with pytest.raises(WorkerError):
            doomed.make(job(), tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_process_is_an_error(job, tmp_path):
    with Worker() as doomed:

        def kill(event):
            if isinstance(event, messages.Preview):
                os.kill(doomed.pid, 9)

        with pytest.raises(WorkerError, match="by signal 9"):
            doomed.make(job(steps=50), tmp_path / "x.mp4", kill)


def test_out_of_memory_is_told_with_advice_and_the_next_is_made(job, tmp_path, sabotage):
    with Worker(overlay=sabotage("raise torch.cuda.OutOfMemoryError('CUDA out of memory')")) as small:
        result = small.make(job(frames=33, offload="none"), tmp_path / "x.mp4")
        assert isinstance(result, messages.Failed)
        assert "out of memory" in result.message
        assert result.advice == "make 17 frames", "on a CPU nothing can be offloaded"
        assert isinstance(small.make(job(), tmp_path / "x.mp4"), messages.Result)


@pytest.mark.parametrize(
    ("way", "frames", "advice"),
    [
        (None, 81, "close other programs, or choose a smaller model"),
        ("none", 81, "choose offload “model”"),
        ("model", 81, "choose offload “group”"),
        ("group", 81, "make 41 frames"),
        ("group", 17, "choose a smaller size"),
        ("", 81, "make 41 frames"),
    ],
)
@pytest.mark.parametrize("offload", ["auto", "none"])
def test_the_advice_goes_on_from_what_was_chosen(job, tmp_path, monkeypatch, way, frames, advice, offload):
    """Wherever memory runs out, while the parts move or later."""
    torch = pytest.importorskip("torch")
    from vsf_lib.video import loading

    def load(job, device, dtype, chosen):
        if way is not None:
            chosen(way)
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(Maker, "_encoded", lambda *_: None)
    maker = Maker(lambda event: None, lambda: False)
    end = maker.run(job(frames=frames, offload=offload), tmp_path / "x.mp4")
    assert (end.message, end.advice) == ("out of memory", advice)
    assert maker._way is None, "it is forgotten with the model"


@pytest.mark.parametrize("offload", ["auto", "none", "group"])
def test_the_way_is_told_before_the_parts_move(monkeypatch, offload):
    import torch

    from vsf_lib.video import loading

    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(loading, "arrange", full)
    monkeypatch.setattr(loading, "_sizes", lambda pipe: [1])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    told = []
    with pytest.raises(torch.cuda.OutOfMemoryError):
        loading.place(None, torch.device("cuda"), offload, told.append)
    assert told == ["none" if offload == "auto" else offload]


def test_too_little_memory_is_said_once_before_anything_is_loaded(job, tmp_path, monkeypatch):
    events = []
    maker = Maker(events.append, lambda: False)
    bad = job(loras=[Lora(file=str(tmp_path / "gone.safetensors"))])
    monkeypatch.setattr(memory, "free", lambda: 1000)
    assert "there is no LoRA" in maker.run(bad, tmp_path / "x.mp4").message
    assert events == [], "nothing is said of a job that cannot be made"
    for _ in range(2):
        assert isinstance(maker.run(job(), tmp_path / "x.mp4"), messages.Result)
    notes = [event.text for event in events if isinstance(event, messages.Note)]
    (scarce,) = (text for text in notes if "of memory" in text)
    assert scarce == (
        "this video needs about 2.1 GB of memory, and 0.0 GB are free: close other programs, or what a WebUI "
        "has loaded"
    )
    assert events[0] == messages.Note(scarce)
    monkeypatch.setattr(memory, "free", lambda: 2**40)
    events.clear()
    maker._forget()
    maker.run(job(), tmp_path / "x.mp4")
    assert not any("of memory" in event.text for event in events if isinstance(event, messages.Note))


def test_a_job_that_is_wrong_leaves_the_loaded_model(job, tmp_path):
    maker = Maker(lambda event: None, lambda: False)
    maker.run(job(), tmp_path / "x.mp4")
    pipe = maker._pipe
    maker.run(job(model=str(tmp_path / "gone")), tmp_path / "x.mp4")
    assert maker._pipe is pipe is not None


def test_a_defect_is_told_as_one(job, tmp_path, sabotage):
    with Worker(overlay=sabotage("raise ZeroDivisionError('a defect')")) as worker:
        result = worker.make(job(), tmp_path / "x.mp4")
        assert result.defect
        assert result.message == "ZeroDivisionError: a defect"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets a limit from outside")
def test_a_full_disk_is_told(job, tmp_path):
    import resource

    with Worker() as full:
        ready = full.make(job(), tmp_path / "a.mp4")
        assert isinstance(ready, messages.Result)
        resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        result = full.make(job(seed=2), tmp_path / "b.mp4")
    assert isinstance(result, messages.Failed)
    assert "ffmpeg failed" in result.message or "cannot write" in result.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.txt"]


def test_without_ffmpeg_it_says_what_to_install(job, tmp_path):
    with Worker(environment={"IMAGEIO_FFMPEG_EXE": str(tmp_path / "gone")}) as worker:
        result = worker.make(job(), tmp_path / "x.mp4")
    assert "pip install imageio-ffmpeg" in result.message


OWNER = """
import sys, time
from pathlib import Path
from vsf_lib.video.job import VideoJob
from vsf_lib.video.process import Worker
worker = Worker(overlay=Path(sys.argv[3]) if len(sys.argv) > 3 else None)
print(worker.pid, flush=True)
job = VideoJob.create(prompt="a red car", model=sys.argv[1], width=256, height=256, frames=81, steps=100,
                      settings={"method": "off"})
worker.make(job, Path(sys.argv[2]), lambda event: print(event, flush=True))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("hangs", [False, True])
def test_the_worker_ends_when_its_owner_is_killed(wan, tmp_path, sabotage, hangs):
    overlay = [str(sabotage("time.sleep(600)"))] if hangs else []
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(wan), str(tmp_path / "x.mp4"), *overlay],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    pid = int(owner.stdout.readline())
    while "sampling" not in owner.stdout.readline():
        assert owner.poll() is None
    owner.kill()
    owner.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end and _alive(pid):
        time.sleep(0.1)
    assert not _alive(pid)


def test_a_cancel_is_not_lost_before_its_job_is_taken_and_is_not_the_next_ones():
    """As when the process has not yet loaded what it begins with."""
    said = queue.Queue()
    orders = Orders(map(json.dumps, iter(said.get, None)))  # which never ends: its end ends the process
    said.put({"make": 1})
    said.put({"cancel": True})
    end = time.monotonic() + 30
    while not orders.stopped() and time.monotonic() < end:
        time.sleep(0.01)
    assert orders.next() == {"make": 1}
    assert orders.stopped()
    said.put({"make": 2})
    assert orders.next() == {"make": 2}
    assert not orders.stopped()


def _alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
