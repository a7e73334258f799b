"""A checkpoint's transformer written anew in another storage, as files that Forge's users have.

Our own writing of the formats, but for those that the gguf package can quantise to. Plain rounding: the
weights are random anyway, and what is compared runs on the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."


def write(checkpoint: Path, folder: Path, name: str, storage: str) -> Path:
    """The file with the transformer of `checkpoint`; `storage` is a name of WRITERS."""
    return WRITERS[storage](list(transformer(checkpoint)), folder / name, storage)


def transformer(checkpoint: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Its tensors by their names within the network."""
    with safe_open(checkpoint, "pt") as file:
        for key in file.keys():  # noqa: SIM118, it is no dictionary
            if key.startswith(PREFIX):
                yield key[len(PREFIX) :], file.get_tensor(key)


Tensors = list[tuple[str, torch.Tensor]]


def _fp8(tensors: Tensors, path: Path, storage: str) -> Path:
    dtype = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}[storage]
    path = path.with_name(f"{path.name}-{storage}.safetensors")
    save_file({PREFIX + name: x.to(dtype) for name, x in tensors}, path)
    return path


def _nf4(tensors: Tensors, path: Path, storage: str) -> Path:
    """bitsandbytes' keys: two numbers a byte, the first one above; a scale for each 64."""
    path = path.with_name(f"{path.name}-{storage}.safetensors")
    out: dict[str, torch.Tensor] = {}
    for name, x in tensors:
        key = PREFIX + name
        if x.ndim != 2:  # norms, biases, the convolution and the positions
            out[key] = x
            continue
        blocks = x.float().reshape(-1, 64)
        scale = blocks.abs().amax(1)
        codes = (blocks / scale.clamp(min=1e-12)[:, None])[..., None].sub(NF4).abs().argmin(-1)
        pairs = codes.reshape(-1, 2).to(torch.uint8)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(x.shape)}
        out |= {
            key: (pairs[:, :1] << 4) | pairs[:, 1:],
            f"{key}.absmax": scale,
            f"{key}.quant_map": NF4.clone(),  # a file keeps no shared memory
            f"{key}.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode())).byte(),
        }
    save_file(out, path)
    return path


_BELOW = [1.0, 0.6961928, 0.52507305, 0.3949175, 0.28444138, 0.18477343, 0.091050036, 0.0]
_ABOVE = [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
NF4 = torch.tensor([*(-x for x in _BELOW), *_ABOVE])
"""The 16 numbers of NF4 (Dettmers et al., "QLoRA")."""


def _gguf(tensors: Tensors, path: Path, storage: str) -> Path:
    quantised = gguf.GGMLQuantizationType[storage]
    path = path.with_name(f"{path.name}-{storage}.gguf")
    sd3 = any(name.startswith("joint_blocks") for name, _ in tensors)
    writer = gguf.GGUFWriter(str(path), "sd3" if sd3 else "flux")
    for name, x in tensors:
        if x.ndim == 2 and x.shape[1] % 256 == 0 and "embed" not in name:
            values = x.float().numpy()
            data = q4_k(values) if storage == "Q4_K" else gguf.quants.quantize(values, quantised)
            writer.add_tensor(name, data, raw_dtype=quantised)
        else:
            writer.add_tensor(name, x.half().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def q4_k(values: np.ndarray) -> np.ndarray:
    """Blocks of 256 in 8 parts: two halves, 8 scales and 8 minima of six bits, and four bits a number.

    The gguf package reads this type and does not write it.
    """
    parts = values.astype(np.float32).reshape(-1, 8, 32)
    lowest = np.maximum(-parts.min(-1), 0)
    step = np.maximum((parts.max(-1) + lowest) / 15, 1e-8)
    d, d_min = ((x.max(-1, keepdims=True) / 63).astype(np.float16) for x in (step, lowest))
    scale, minimum = (
        np.clip(np.round(x / np.maximum(y.astype(np.float32), 1e-8)), 0, 63).astype(np.uint8)
        for x, y in ((step, d), (lowest, d_min))
    )
    used = np.maximum(d.astype(np.float32) * scale, 1e-8)[..., None]
    codes = np.round((parts + (d_min.astype(np.float32) * minimum)[..., None]) / used)
    codes = np.clip(codes, 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = codes[:, :, 0] | codes[:, :, 1] << 4
    scales = np.concatenate(
        [
            scale[:, :4] | (scale[:, 4:] >> 4) << 6,
            minimum[:, :4] | (minimum[:, 4:] >> 4) << 6,
            scale[:, 4:] & 15 | (minimum[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    blocks = [d.view(np.uint8), d_min.view(np.uint8), scales, packed.reshape(-1, 128)]
    return np.concatenate(blocks, axis=1).reshape(*values.shape[:-1], -1)


WRITERS: dict[str, Callable[[Tensors, Path, str], Path]] = {
    "fp8-e4m3": _fp8,
    "fp8-e5m2": _fp8,
    "nf4": _nf4,
    **dict.fromkeys(("Q8_0", "Q5_1", "Q5_0", "Q4_0", "Q4_K"), _gguf),
}
