"""Kernels beside PyTorch's own: flex_attention as it is, packages that are not here by their interface.

The stand-ins for xformers and SageAttention compute in float64 what the real ones are documented to give, in
their layouts: what is tested is our side of the call, and that wrong numbers are refused.
"""

from __future__ import annotations

import math
import random
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from attention_reference import cross_reference, draw, reference, regions
from torch import Tensor

from vsf_lib.attention import OUTSIDE_KERNELS, cross_attention, joint_attention, outside, plan_kernel
from vsf_lib.attention.kernels import attend, side_kernel

BY_NAME = {kernel.name: kernel for kernel in OUTSIDE_KERNELS}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 0.02, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What a check has found, since these tests change what there is to find."""
    outside._first_numbers.cache_clear()
    yield
    outside._first_numbers.cache_clear()


def right(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    logits = q.double() @ k.double().mT / math.sqrt(q.shape[3]) + bias
    return logits.softmax(-1) @ v.double(), logits.logsumexp(-1)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("n_k", [1, 7, 150])
def test_flex_attention_matches_float64_with_and_without_bias(n_k: int, dtype: torch.dtype) -> None:
    seed = random.randrange(10**6)
    q, k, v = draw(seed, 9, dtype=dtype, count=1) + draw(seed + 1, n_k, dtype=dtype, count=2)
    bias = torch.randn(2, 1, 1, n_k).to(dtype)
    for row in (None, bias, bias[:1]):
        out, lse = attend(BY_NAME["flex"], q, k, v, row)
        want, want_lse = right(q, k, v, 0.0 if row is None else row.double())
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), want, atol=TOLERANCE[dtype], rtol=0)
        torch.testing.assert_close(lse.double(), want_lse, atol=max(3e-6, TOLERANCE[dtype] / 100), rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_guidance_by_flex_attention_matches_float64(masked: bool) -> None:
    seed = random.randrange(10**6)
    q, k, v = draw(seed, 60)
    where = regions(random.choice(["IPN", "NPI", "PIN"]), 40, 13, 7)
    mask = torch.arange(7) < torch.tensor([[7], [3]]) if masked else None
    out, w = joint_attention(
        q, k, v, **where, alpha=1.5, beta=0.2, negative_mask=mask, kernel="flex", return_share=True
    )
    want, want_w = reference(q, k, v, **where, alpha=1.5, beta=0.2, negative_mask=mask)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(w.double(), want_w, atol=3e-6, rtol=0)
    pair = (k[:1, :, :7], v[:1, :, :7])
    crossed = cross_attention(q, k, v, negative=pair, alpha=1.5, beta=0.2, negative_mask=mask, kernel="flex")
    want, _ = cross_reference(q, k, v, *pair, alpha=1.5, beta=0.2, negative_mask=mask)
    torch.testing.assert_close(crossed.double(), want, atol=3e-6, rtol=0)


def test_flex_attention_in_a_whole_graph() -> None:
    q, k, v = draw(3, 60)
    where = regions("IPN", 40, 13, 7)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return joint_attention(q, k, v, **where, alpha=1.5, beta=0.2, kernel="flex")

    torch.compiler.reset()
    with torch.inference_mode():
        out = torch.compile(run, fullgraph=True, backend="eager")(q, k, v)
    torch.compiler.reset()
    want, _ = reference(q, k, v, **where, alpha=1.5, beta=0.2)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)


# Packages


def xformers(lse_of: float = 1.0) -> dict[str, types.ModuleType]:
    """In memory [B, L, H, D], the log-sum-exp padded as some versions have it, times `lse_of`."""

    def memory_efficient_attention_partial(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None):  # type: ignore[no-untyped-def]
        assert attn_bias is None and p == 0.0 and scale is None
        out, lse = right(*(x.transpose(1, 2) for x in (query, key, value)))
        padded = torch.nn.functional.pad(lse * lse_of, (0, -lse.shape[2] % 32), value=math.inf)
        return out.transpose(1, 2).to(query.dtype), padded.float()

    names = ("xformers", "xformers.ops", "xformers.ops.fmha")
    found = {name: types.ModuleType(name) for name in names}
    found[names[2]].memory_efficient_attention_partial = memory_efficient_attention_partial  # type: ignore[attr-defined]
    return found


def sage(lse_of: float = 1.0, noise: float = 0.01) -> dict[str, types.ModuleType]:
    """By 8-bit numbers: some noise."""

    def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs):  # type: ignore[no-untyped-def]
        assert tensor_layout == "HND" and not is_causal and sm_scale is None and return_lse
        out, lse = right(q, k, v)
        return (out + noise * torch.randn_like(out)).to(q.dtype), (lse * lse_of).float()

    module = types.ModuleType("sageattention")
    module.sageattn = sageattn  # type: ignore[attr-defined]
    return {"sageattention": module}


def install(monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, types.ModuleType]) -> None:
    for key, module in modules.items():
        monkeypatch.setitem(sys.modules, key, module)
    here = outside.OUTSIDE[name]._replace(devices=("cpu", "cuda"))
    monkeypatch.setitem(outside.OUTSIDE, name, here)


@pytest.mark.parametrize(("name", "made"), [("xformers", xformers), ("sage", sage)])
def test_packages_are_called_as_they_are_documented(
    name: str, made: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, name, made())  # type: ignore[operator]
    q, k, v = draw(4, 9, dtype=torch.bfloat16, count=1) + draw(5, 40, dtype=torch.bfloat16, count=2)
    assert plan_kernel(q, name) == f"exact ({name})"
    out, lse = attend(BY_NAME[name], q, k, v)
    want, want_lse = right(q, k, v)
    assert out.shape == want.shape and lse.shape == want_lse.shape
    torch.testing.assert_close(out.double(), want, atol=0.06, rtol=0)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="takes no bias"):
        attend(BY_NAME[name], q, k, v, torch.zeros(2, 1, 1, 40))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("xformers", xformers(lse_of=math.log2(math.e))),
        ("sage", sage(lse_of=math.log2(math.e))),
        ("sage", sage(noise=math.nan)),
    ],
)
def test_wrong_first_numbers_are_refused(
    name: str, modules: dict[str, types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, name, modules)
    (q,) = draw(6, 9, dtype=torch.bfloat16, count=1)
    with pytest.raises(ValueError, match=f"'{name}' cannot be used here: its first numbers were off by"):
        plan_kernel(q, name)


def test_an_old_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = sage()
    modules["sageattention"].sageattn = lambda q, k, v, is_causal=False: q  # type: ignore[attr-defined]
    install(monkeypatch, "sage", modules)
    (q,) = draw(6, 9, dtype=torch.float16, count=1)
    with pytest.raises(ValueError, match=r"its first call failed .TypeError: .*tensor_layout"):
        plan_kernel(q, "sage")


@pytest.mark.parametrize("name", ["xformers", "sage"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, outside.OUTSIDE[name].module, None)
    monkeypatch.setitem(outside.OUTSIDE, name, outside.OUTSIDE[name]._replace(devices=("cpu",)))
    (q,) = draw(6, 9, dtype=torch.float16, count=1)
    with pytest.raises(ValueError, match=r"cannot be imported .ModuleNotFoundError"):
        plan_kernel(q, name)


@pytest.mark.parametrize(
    ("name", "dtype", "width", "message"),
    [
        ("sage", torch.bfloat16, 16, "runs on cuda and the tensors are on cpu"),
        ("flex", torch.float32, 300, "heads of up to 256 channels, not 300"),
    ],
)
def test_what_a_kernel_cannot_do_is_said(name: str, dtype: torch.dtype, width: int, message: str) -> None:
    (q,) = draw(6, 9, dtype=dtype, width=width, count=1)
    with pytest.raises(ValueError, match=message):
        plan_kernel(q, name)


def test_a_half_precision_package_refuses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "sage", sage())
    (q,) = draw(6, 9, count=1)
    with pytest.raises(ValueError, match=r"does not take torch.float32"):
        plan_kernel(q, "sage")


def test_the_small_calls_beside_them() -> None:
    found = {
        kernel.name: (side_kernel(kernel, biased=False).name, side_kernel(kernel, biased=True).name)
        for kernel in OUTSIDE_KERNELS
    }
    assert found == {
        "flex": ("flex", "flex"),
        "xformers": ("efficient", "efficient"),
        "sage": ("flash", "efficient"),
    }


def test_nothing_of_a_package_is_imported_unasked() -> None:
    q, k, v = draw(7, 9)
    joint_attention(q, k, v, **regions("IPN", 5, 2, 2), alpha=1.0, beta=0.1)
    assert outside._first_numbers.cache_info().currsize == 0
