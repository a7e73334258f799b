"""What the tests of this folder change in the host's own ways with memory. Not a part of the product.

One dictionary says what, and holds for one generation. `{"options": {...}}` chooses what the top of the page
does ("Diffusion in Low Bits", "Swap Method", "Swap Location"). `{"spare": bytes}` has the host load the
transformer as onto a GPU with that much memory beside what the model and the host's reserve take, and
`{"weights": bytes}` as onto one with room for so many bytes of weights: the rest is swapped. What the load
was asked for, and how many layers it swapped, comes back in the infotext, and with `{"peak": true}` the bytes
that the model's calls took at the worst moment.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gradio as gr
import torch
from backend import memory_management, stream
from backend.sampling import sampling_function
from modules import scripts, shared
from modules_forge import main_entry

UNLESS_SAID = {
    "forge_unet_storage_dtype": "Automatic",
    "forge_async_loading": "Queue",
    "forge_pin_shared_memory": "CPU",
}


_ALLOCATED = Path(__file__).resolve().parents[4] / "vsf_lib" / "bench" / "allocated.py"

LITTLE = {"spare", "weights"}


class VSFMemoryTrials(scripts.Script):
    """Titled as such, so that no script of the product is meant."""

    undo = ExitStack()
    """One for all, because txt2img and img2img each have an object of this."""

    def title(self) -> str:
        return "VSF memory trials"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        return [gr.JSON(visible=False)]

    def before_process(self, p: Any, wanted: dict[str, Any] | None = None) -> None:
        """Before the host looks which model it needs."""
        self.undo.close()  # of a generation that ended with an error
        wanted = wanted or {}
        options = {**UNLESS_SAID, **wanted.get("options", {})}
        if any(shared.opts.data.get(name, UNLESS_SAID[name]) != value for name, value in options.items()):
            choose(options)
        if LITTLE & wanted.keys():
            memory_management.unload_all_models()
            self.undo.callback(memory_management.unload_all_models)
        if options["forge_async_loading"] == "Async":
            self.undo.enter_context(streams())
        if options["forge_pin_shared_memory"] == "Shared":
            # Without a GPU there is nothing to pin for; what a module holds is exchanged all the same.
            self.undo.enter_context(patch.object(torch.Tensor, "pin_memory", lambda x, **_: x.clone()))

    def process_before_every_sampling(self, p: Any, wanted: dict[str, Any] | None = None, **_: Any) -> None:
        if wanted is not None:
            self.undo.enter_context(recorded(p, wanted))
            if wanted.get("peak"):
                self.undo.enter_context(measured(p))

    def postprocess(self, p: Any, processed: Any, wanted: dict[str, Any] | None = None) -> None:
        self.undo.close()


def choose(options: dict[str, str]) -> None:
    """What the page's widgets do when they change."""
    shared.opts.set("forge_unet_storage_dtype", options["forge_unet_storage_dtype"])
    main_entry.refresh_memory_management_settings(
        async_loading=options["forge_async_loading"], pin_shared_memory=options["forge_pin_shared_memory"]
    )
    main_entry.refresh_model_loading_parameters()


@contextmanager
def recorded(p: Any, wanted: dict[str, Any]) -> Iterator[None]:
    """The transformer's load goes as wanted; what it was asked for and did stands in the infotext."""
    load, transformer = memory_management.load_models_gpu, p.sd_model.forge_objects.unet.model

    def load_models_gpu(models: Any, memory_required: int = 0, hard_memory_preservation: int = 0) -> None:
        if models[0].model is not transformer:
            return load(models, memory_required, hard_memory_preservation)
        with little(transformer, **wanted) if LITTLE & wanted.keys() else nullcontext():
            load(models, memory_required, hard_memory_preservation)
        modules = [m for m in transformer.modules() if hasattr(m, "prev_parameters_manual_cast")]
        p.extra_generation_params["Trial preserved"] = int(hard_memory_preservation)
        p.extra_generation_params["Trial swapped"] = len(modules)
        return None

    with patch.object(memory_management, "load_models_gpu", load_models_gpu):
        yield


@contextmanager
def measured(p: Any) -> Iterator[None]:
    """The largest peak of all calls of the model stands in the infotext."""
    spec = importlib.util.spec_from_file_location("allocated", _ALLOCATED)
    allocated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(allocated)
    calculate, peaks = sampling_function.calc_cond_uncond_batch, []

    def calc_cond_uncond_batch(*args: Any) -> Any:
        result, taken = allocated.watched(lambda: calculate(*args))
        peaks.append(taken)
        p.extra_generation_params["Trial peak"] = max(peaks[1:], default=0)  # the first makes what is kept
        return result

    with patch.object(sampling_function, "calc_cond_uncond_batch", calc_cond_uncond_batch):
        yield


@contextmanager
def little(model: Any, spare: int = -1, weights: int | None = None, **_: Any) -> Iterator[None]:
    """The host's decisions are those for a GPU to which nothing has been loaded and that has so much room."""
    host = memory_management
    free = host.module_size(model) + host.minimum_inference_memory() + spare
    is_cpu, load = host.is_device_cpu, host.LoadedModel.model_load

    def sizes(loaded: Any) -> None:
        loaded.inclusive_memory, loaded.exclusive_memory = 0, host.module_size(loaded.model.model)

    def model_load(loaded: Any, swapping: int = -1) -> Any:
        with patch.object(host, "is_device_cpu", is_cpu):
            return load(loaded, swapping if weights is None else weights)

    def free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        return (free, free) if torch_free_too else free

    with (
        patch.object(host, "is_device_cpu", lambda device: False),
        patch.object(host, "vram_state", host.VRAMState.NORMAL_VRAM),
        patch.object(host, "get_free_memory", free_memory),
        patch.object(host.LoadedModel, "compute_inclusive_exclusive_memory", sizes),
        patch.object(host.LoadedModel, "model_load", model_load),
    ):
        yield


class Stream:
    """A stream of a device on which all is done at once."""

    def record_event(self) -> Stream:
        return Stream()

    def query(self) -> bool:
        return True

    def wait_event(self, event: Stream) -> None:
        return None

    def synchronize(self) -> None:
        return None


@contextmanager
def streams() -> Iterator[None]:
    """The asynchronous swap's bookkeeping, on a host without streams."""
    with (
        patch.object(stream, "current_stream", Stream()),
        patch.object(stream, "mover_stream", Stream()),
        patch.object(stream, "stream_context", lambda: nullcontext),
    ):
        yield
