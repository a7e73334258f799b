"""From one file of weights to a network: names compared, scales multiplied in, types cast, tensors assigned.

Owns what may be left over and what must not: a tensor that nobody would read, or a scale left out, would make
garbage. Knows no network; holds one copy of the weights, and none while the file has the wanted type already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file.headers import Entry, Header

if TYPE_CHECKING:
    import torch
    from torch import nn

_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_SCALES = (".scale_weight", ".weight_scale")
"""ComfyUI's and Kijai's names for what an fp8 weight has to be multiplied by."""
_MARKS = ("scaled_fp8", "spiece_model", ".scale_input", ".input_scale", ".comfy_quant")
"""Ends of names that change no weight: marks, a tokenizer, and scales for activations in fp8, which are not
computed here."""


@dataclass(frozen=True)
class Part:
    """A network's file: what it is built with, and which of the file's tensors is which of its own."""

    header: Header
    prefix: str
    """Before all of the network's names; a checkpoint has other networks under other ones."""
    config: Mapping[str, Any]
    names: Mapping[str, str]
    """The network's name to the file's."""

    def entry(self, name: str) -> Entry:
        return self.header.tensors[self.names[name]]


def match(header: Header, prefix: str, rename: Callable[[str], str]) -> dict[str, str]:
    """`Part.names` of the tensors that begin with `prefix`; scales and marks are no weights of a network."""
    return {
        rename(name.removeprefix(prefix)): name
        for name in header.tensors
        if name.startswith(prefix) and not name.endswith((*_SCALES, *_MARKS))
    }


def empty(part: Part, make: Callable[[], nn.Module]) -> nn.Module:
    """The network without weights; raises ModelError unless the file has just what it needs."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = make()
    _compare(part, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    return network


def fill(network: nn.Module, part: Part, dtype: torch.dtype, exact: Iterable[str] = ()) -> nn.Module:
    """An empty network with the file's weights in `dtype`; below modules named in `exact` in float32."""
    import torch
    from safetensors import safe_open

    kept = set(exact)
    read: dict[str, torch.Tensor] = {}
    with safe_open(part.header.path, "pt") as file:
        for name, source in part.names.items():
            if source not in read:  # two names of one tensor
                tensor = file.get_tensor(source)
                scale = _scale(part, name)
                if scale is not None:
                    factor = file.get_tensor(scale).to(torch.float32)
                    tensor = tensor.to(torch.float32) * factor.reshape(-1, *[1] * (tensor.ndim - 1))
                read[source] = tensor.to(torch.float32 if kept.intersection(name.split(".")) else dtype)
    network.load_state_dict({name: read[source] for name, source in part.names.items()}, assign=True)
    return network.eval()


def _compare(part: Part, shapes: Mapping[str, tuple[int, ...]]) -> None:
    file = part.header.path.name
    missing = sorted(set(shapes) - set(part.names))
    if missing:
        raise ModelError(
            f"{file} lacks {len(missing)} of {len(shapes)} tensors, such as {', '.join(missing[:3])}: it is "
            "one piece of several, or for another program; get the model as one whole file"
        )
    known = {*part.names.values(), *filter(None, (_scale(part, name) for name in part.names))}
    beyond = sorted(part.names[name] for name in set(part.names) - set(shapes))
    beyond += sorted(
        name
        for name in part.header.tensors
        if name.startswith(part.prefix) and name.endswith(_SCALES) and name not in known
    )
    if beyond:
        raise ModelError(
            f"{file} has {len(beyond)} tensors that this network lacks, such as {', '.join(beyond[:3])}: it "
            "is another kind of Wan, or stored in a way that is not known here"
        )
    for name, shape in shapes.items():
        entry, source = part.entry(name), part.names[name]
        if entry.shape != shape:
            raise ModelError(
                f"{file} has {source} of size {_size(entry.shape)}, but {_size(shape)} was expected: it is "
                "for another network"
            )
        if not part.header.gguf and entry.kind not in _FLOATS:
            raise ModelError(
                f"{file} has {source} stored as {entry.kind}, which is not known here: use an fp16, bf16 or "
                "fp8 file"
            )
        scale = _scale(part, name)
        if scale is not None and part.header.tensors[scale].shape not in ((), (1,), shape[:1], (shape[0], 1)):
            raise ModelError(
                f"{file} has {scale} of size {_size(part.header.tensors[scale].shape)}, a way of scaling "
                "that is not known here: use an fp16, bf16 or ordinary fp8 file"
            )


def _scale(part: Part, name: str) -> str | None:
    """The name of what the weight `name` of the network is to be multiplied by."""
    source = part.names[name]
    stem = source.removesuffix(".weight")
    if stem == source:
        return None
    return next((stem + end for end in _SCALES if stem + end in part.header.tensors), None)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
