"""What only Forge Neo's networks do: blocks behind patches, reference pictures, a video as a batch."""

from __future__ import annotations

from typing import Any

import pytest
import reference_forge
import small_neo_flux
import torch
from small_wan import SmallWan
from test_forge_pass import apply_to, begin, build, call_of
from torch import Tensor, nn

from vsf_lib.adapters import forge_flux
from vsf_lib.adapters.registry import find_network
from vsf_lib.errors import GuidanceError


def negative(tokens: int = 3) -> Tensor:
    return torch.randn(tokens, 16)


def test_a_patched_block_is_guided_and_the_patch_acts():
    """Such a patch gets the block itself, and may change what goes in and comes out."""
    model, args, n = build("neo flux"), call_of(1, [0], "neo flux"), negative()
    given: list[dict[str, Any]] = []

    def patched(block_args: dict[str, Any], extra: dict[str, Any]) -> Any:
        given.append(block_args)
        img, txt = extra["original_block"](block_args)
        return 2 * img, txt

    args["c"]["transformer_options"]["patches_replace"] = {"dit": {("double_block", 1): patched}}
    sampling = begin("neo flux", model, [n], total=1)
    with torch.inference_mode():
        out = sampling.wrapper()(apply_to(model), args)
    assert given[0]["transformer_options"]["theirs"] is args["c"]["transformer_options"]["theirs"]
    assert set(sampling.finish().layers) == set(forge_flux.NETWORK.blocks(model))

    def doubled(_: nn.Module, __: Any, output: tuple[Tensor, Tensor]) -> Any:
        return 2 * output[0], output[1]

    model.double_blocks[1].register_forward_hook(doubled)
    del args["c"]["transformer_options"]["patches_replace"]
    with torch.inference_mode():
        by_hand = begin("neo flux", model, [n]).wrapper()(apply_to(model), args)
    torch.testing.assert_close(out, by_hand)


def test_a_patch_that_leaves_a_block_out_is_an_error():
    model, args = build("neo flux"), call_of(1, [0], "neo flux")
    kept = {"dit": {("double_block", 0): lambda given, _: (given["img"], given["txt"])}}
    args["c"]["transformer_options"]["patches_replace"] = kept
    with pytest.raises(GuidanceError, match="answered by a cache"):
        begin("neo flux", model, [negative()], total=1).wrapper()(apply_to(model), args)


def test_reference_pictures_are_guided_like_the_picture():
    """Kontext: to the blocks they are more of the picture."""
    model, args, n = build("neo flux"), call_of(1, [0], "neo flux"), negative()
    sampling = begin("neo flux", model, [n])
    with torch.inference_mode():
        without = sampling.wrapper()(apply_to(model), args)
        model.references = [torch.randn(4, 6, 4, dtype=torch.float64), torch.randn(4, 2, 4).double()]
        out = sampling.wrapper()(apply_to(model), args)
    wanted = reference_forge.guided_row(model, args, 0, n, sampling.settings)
    torch.testing.assert_close(out[0], wanted, atol=1e-5, rtol=1e-5)
    assert (out - without).abs().max() > 1e-2


def test_a_masked_attention_is_refused(monkeypatch):
    model, args = build("neo flux"), call_of(1, [0], "neo flux")
    block = small_neo_flux.SingleBlock.forward

    def masked(self: nn.Module, x: Tensor, **rest: Any) -> Tensor:
        return block(self, x, attn_mask=torch.zeros(x.shape[1], x.shape[1]), **rest)

    monkeypatch.setattr(small_neo_flux.SingleBlock, "forward", masked)
    with pytest.raises(GuidanceError, match="masks its attention"):
        begin("neo flux", model, [negative()]).wrapper()(apply_to(model), args)


def test_a_video_encodes_its_negative_once():
    """The text embedder and each layer's maps see N in the first guided call, and P in all of them."""
    model, calls = build("wan"), {"embedder": [], "k": []}
    model.text_embedding.register_forward_hook(lambda _, x, __: calls["embedder"].append(x[0].shape[1]))
    model.blocks[1].cross_attn.k.register_forward_hook(lambda _, x, __: calls["k"].append(x[0].shape[1]))
    texts = {0: [negative(3)], 1: [negative(3)], 2: [negative(5)]}
    texts[1] = texts[0]
    sampling = begin("wan", model, [], total=3)
    sampling.negatives = texts.__getitem__
    for step in texts:
        sampling.note(step, 3)
        sampling.wrapper()(apply_to(model), call_of(1, [0], "wan"))
    assert calls == {"embedder": [7, 3, 7, 7, 5], "k": [7, 3, 7, 7, 5]}
    report = sampling.finish()
    assert report.layers == tuple(f"blocks.{i}.cross_attn" for i in range(3))
    assert report.guided_steps == (0, 1, 2)


def test_prompt_and_unconditional_may_come_apart():
    """Short memory: the host calls the model once for each."""
    model, n = build("wan"), negative()
    both = call_of(1, [1, 0], "wan")
    sampling = begin("wan", model, [n])
    with torch.inference_mode():
        whole = sampling.wrapper()(apply_to(model), both)
        for row, entry in enumerate([1, 0]):
            part = {name: both[name][row : row + 1] for name in ("input", "timestep")}
            part["c"] = {
                name: value[row : row + 1] if isinstance(value, Tensor) else value
                for name, value in both["c"].items()
            }
            out = sampling.wrapper()(apply_to(model), {**part, "cond_or_uncond": [entry]})
            # Where rows differ in it, beta is a tensor in float32, alone a number.
            torch.testing.assert_close(out[0], whole[row], atol=2e-6, rtol=1e-6)


def test_half_precision_stays_what_it_was():
    model, args = build("wan").to(torch.bfloat16), call_of(1, [0], "wan")
    args["input"] = args["input"].bfloat16()
    args["c"]["c_crossattn"] = args["c"]["c_crossattn"].bfloat16()
    out = begin("wan", model, [negative()]).wrapper()(apply_to(model), args)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_wan_is_told_from_others_with_such_blocks():
    assert find_network(SmallWan()).title == "Wan"
    cosmos = SmallWan()
    for block in cosmos.blocks:  # its layers have other names
        block.cross_attn = nn.ModuleDict({"k_proj": nn.Linear(2, 2), "q_proj": nn.Linear(2, 2)})
    assert find_network(cosmos) is None
    flux_2 = small_neo_flux.SmallNeoFlux()
    for block in (*flux_2.double_blocks, *flux_2.single_blocks):  # modulated for all blocks at once
        for name in ("img_mod", "txt_mod", "modulation"):
            if hasattr(block, name):
                delattr(block, name)
    assert find_network(flux_2) is None
