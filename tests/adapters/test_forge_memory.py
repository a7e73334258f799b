"""The memory that a guided pass declares against what whole models of Forge's kinds were seen to take."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import small_flux
import small_mmdit
import torch
from torch import nn

from vsf_lib.adapters import forge_flux, forge_sd35
from vsf_lib.adapters.forge import SamplingPass
from vsf_lib.adapters.forge_memory import Call, extra_bytes
from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.bench.allocated import peak
from vsf_lib.settings import Settings

KINDS: dict[str, tuple[type[nn.Module], ForgeNetwork]] = {
    "sd35": (small_mmdit.SmallMMDiT, forge_sd35.NETWORK),
    "flux": (small_flux.SmallFlux, forge_flux.NETWORK),
}


@pytest.mark.parametrize("entries", [[0], [1, 0]], ids=["cfg 1", "cfg above 1"])
@pytest.mark.parametrize("method", ["vsf", "difference", "nag", "nasa"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_bounds_what_a_whole_model_takes_more(kind: str, method: str, entries: list[int]) -> None:
    build, network = KINDS[kind]
    model, pictures = build().eval(), random.randint(1, 2)
    height, width = 2 * random.randrange(24, 40), 2 * random.randrange(24, 40)
    n_p, n_n = random.randrange(60, 300), random.randint(2, 40)
    rows = pictures * len(entries)
    x, t = torch.randn(rows, 4, height, width), torch.rand(rows)
    text, y = torch.randn(rows, n_p, 16), torch.randn(rows, 8)
    negatives = [torch.randn(n_n - i, 16) for i in range(pictures)]

    def apply_model(x: Any, t: Any, c_crossattn: Any, **rest: Any) -> Any:
        return model(x, t, context=c_crossattn, **rest)

    def guided() -> Any:
        sampling = SamplingPass(network, model, Settings(method=method), lambda _: negatives)
        sampling.note(0, 1)
        args = {"input": x, "timestep": t, "cond_or_uncond": entries, "c": {"c_crossattn": text, "y": y}}
        return sampling.wrapper()(apply_model, args)

    more = peak(guided) - peak(lambda: apply_model(x, t, text, y=y))
    call = Call(rows, (height, width), n_p, n_n, 16, torch.float32)
    estimate = extra_bytes(network, model, method, call)
    assert 0 < more <= estimate, (call, more, estimate)


def test_figures_of_the_readme() -> None:
    attention = SimpleNamespace(num_heads=38, head_dim=64)
    sd35: Any = SimpleNamespace(
        joint_blocks=[SimpleNamespace(x_block=SimpleNamespace(attn=attention))], patch_size=2
    )
    flux: Any = SimpleNamespace(num_heads=24, hidden_size=3072)
    for network, model, text, megabytes in (
        (forge_sd35.NETWORK, sd35, 333, 85),
        (forge_flux.NETWORK, flux, 256, 94),
    ):
        call = Call(1, (128, 128), text, 20, 4096, torch.bfloat16)
        assert extra_bytes(network, model, "vsf", call) / 1e6 == pytest.approx(megabytes, abs=1)


def test_half_a_patch_is_a_token() -> None:
    call = Call(1, (32, 32), 20, 5, 16, torch.float16)
    odd = Call(1, (31, 31), 20, 5, 16, torch.float16)
    model = small_flux.SmallFlux()
    assert extra_bytes(forge_flux.NETWORK, model, "vsf", call) == extra_bytes(
        forge_flux.NETWORK, model, "vsf", odd
    )


def test_a_model_that_does_not_say_its_size_declares_nothing() -> None:
    silent: Any = SimpleNamespace(joint_blocks=[SimpleNamespace(x_block=object())])
    assert extra_bytes(forge_sd35.NETWORK, silent, "vsf", Call(1, (8, 8), 7, 3, 16, torch.float32)) == 0
