"""The Wan adapter on diffusers' real classes: whole denoiser outputs against a masked float64 run."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers import transformer_wan
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_i2v
from recorder import Recorder, difference, state
from recorder import assert_rows_match as match_rows
from reference_wan import Reference, negative_embedding, padded_embedding
from tiny_wan import (
    CHANNELS,
    HEIGHT,
    LAYERS,
    TEXT_LENGTH,
    TOKENS,
    WIDTH,
    generate,
    latents,
    make_image_pipeline,
    make_pipeline,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vsf_lib.adapters import diffusers_wan, encode_negatives, guided
from vsf_lib.errors import GuidanceError, ModelError, PromptError, SettingsError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)
TEXTS = ["wheels", "small blue roof and sail"]


@pytest.fixture(scope="module")
def shared() -> Any:
    """For tests that leave it as it was, which is what most of them are about."""
    return make_pipeline()


@pytest.fixture
def pipe() -> Any:
    return make_pipeline()


def assert_rows_match(pipe: Any, seen: Recorder, settings: Settings, negatives: list[Tensor | None]) -> None:
    plain, with_negative = Reference(pipe.transformer, None), Reference(pipe.transformer, settings)
    match_rows(seen, negatives, plain, with_negative)


def part(seen: Recorder, which: slice) -> Recorder:
    seen.inputs, seen.outputs = seen.inputs[which], seen.outputs[which]
    return seen


def unguided(pipe: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return pipe.transformer(**inputs)[0]


# The numbers


@pytest.mark.parametrize("seed", [1, 2])
def test_whole_outputs_match_the_masked_float64_run(seed: int) -> None:
    pipe = make_pipeline(seed)
    with Recorder(pipe) as seen, guided(pipe, VSF):
        generate(pipe)
    assert len(seen.outputs) == 4
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])


def test_words_alone_match_the_masked_float64_run(shared: Any) -> None:
    settings = VSF.changed(negative_tokens="words", alpha=3.0)
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared, num_inference_steps=2)
    assert_rows_match(shared, seen, settings, [negative_embedding(shared, "wheels", words_only=True)])


def test_the_difference_matches_the_float64_run(shared: Any) -> None:
    settings = VSF.changed(method="difference")
    with Recorder(shared) as seen, guided(shared, settings) as guidance:
        generate(shared)
    assert_rows_match(shared, seen, settings, [negative_embedding(shared, "wheels")])
    assert guidance.report is not None
    assert guidance.report.method == "difference"


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_baselines_match_the_masked_float64_run(shared: Any, method: str) -> None:
    settings = Settings(method=method, negative_prompt="wheels", nag_alpha=0.5)
    with Recorder(shared) as seen, guided(shared, settings) as guidance:
        generate(shared)
    assert_rows_match(shared, seen, settings, [padded_embedding(shared, "wheels", TEXT_LENGTH)])
    assert guidance.report is not None
    assert guidance.report.negative_tokens == (TEXT_LENGTH,)
    assert guidance.report.kernel == "scaled_dot_product_attention"


def test_padding_takes_no_part_in_the_encoding(shared: Any) -> None:
    alone = negative_embedding(shared, "wheels")
    assert len(alone) == 2
    (made,) = encode_negatives(shared, VSF)
    assert torch.equal(made, alone)
    (padded,) = encode_negatives(shared, VSF.changed(method="nag"), max_sequence_length=TEXT_LENGTH)
    assert difference(padded, padded_embedding(shared, "wheels", TEXT_LENGTH)) < 1e-6
    # The pipeline's own default, not that of its encode_prompt:
    assert len(encode_negatives(shared, VSF.changed(method="nag"))[0]) == 512


def test_the_text_is_cleaned_as_a_prompt_is(shared: Any) -> None:
    (made,) = encode_negatives(shared, VSF, "big &amp;amp;\n\n  wheels&nbsp;")
    assert torch.equal(made, negative_embedding(shared, "big & wheels"))


@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_batch_with_a_negative_per_prompt_and_two_videos_each_and_cfg(shared: Any, method: str) -> None:
    settings = VSF.changed(method=method, nag_alpha=0.5)
    with Recorder(shared) as seen, guided(shared, settings, TEXTS) as guidance:
        generate(
            shared,
            ["a red car", "a boat"],
            num_videos_per_prompt=2,
            guidance_scale=3.0,
            negative_prompt=["", "big"],
            num_inference_steps=2,
        )
    if method == "vsf":
        first, second = (negative_embedding(shared, text) for text in TEXTS)
    else:
        first, second = (padded_embedding(shared, text, TEXT_LENGTH) for text in TEXTS)
    assert len(seen.outputs) == 4
    for inputs, output in zip(seen.inputs[1::2], seen.outputs[1::2], strict=True):
        assert torch.equal(unguided(shared, inputs), output)
    assert_rows_match(shared, part(seen, slice(0, None, 2)), settings, [first, first, second, second])
    assert guidance.report is not None
    assert guidance.report.images == 4
    assert guidance.report.negative_tokens == tuple(len(x) for x in (first, first, second, second))
    assert guidance.report.guided_steps == (0, 1)


def test_every_row_of_a_batch_is_what_it_is_alone(shared: Any) -> None:
    prompts, noise = ["a red car", "a boat"], latents(2)
    with guided(shared, VSF, TEXTS):
        both = generate(shared, prompts, num_inference_steps=1)
    for row in range(2):
        with guided(shared, VSF, TEXTS[row]):
            alone = generate(shared, prompts[row], num_inference_steps=1, latents=noise[row : row + 1])
        assert difference(alone[0], both[row]) < 1e-4 * float(both[row].std())


def test_strength_changes_the_video_and_the_kernels_agree(shared: Any) -> None:
    videos = {}
    for kernel in ("auto", "three-call", "masked"):
        with guided(shared, VSF, kernel=kernel) as guidance:
            videos[kernel] = generate(shared, num_inference_steps=1)
        assert guidance.report is not None
        assert kernel == "auto" or guidance.report.kernel == kernel
    with guided(shared, VSF.changed(alpha=3.0)):
        stronger = generate(shared, num_inference_steps=1)
    scale = float(stronger.std())
    assert difference(videos["auto"], videos["masked"]) < 1e-4 * scale
    assert difference(videos["auto"], videos["three-call"]) < 1e-4 * scale
    assert difference(videos["auto"], stronger) > 0.02 * scale


def test_recorded_share_is_the_attention_to_the_flipped_tokens(shared: Any) -> None:
    settings = VSF.changed(start=0.25)
    with Recorder(shared) as seen, guided(shared, settings, record_share=True) as guidance:
        generate(shared, ["a red car", "a boat"], guidance_scale=2.0)
    assert guidance.report is not None
    share = guidance.report.share
    assert share is not None
    assert share.shape == (3, 2, TOKENS)  # guided steps, videos, video tokens
    reference = Reference(shared.transformer, settings)
    negative = negative_embedding(shared, "wheels")
    for step in (0, 2):
        for video in range(2):
            reference(seen.inputs[2 * (step + 1)], video, negative)
            assert difference(share[step, video], torch.stack(reference.shares).mean(0)) < 1e-5


def test_a_transformer_of_another_dtype_than_the_encoder(pipe: Any) -> None:
    with guided(pipe, VSF):
        expected = generate(pipe, num_inference_steps=1)
    plain = generate(pipe, num_inference_steps=1)
    pipe.transformer.to(dtype=torch.bfloat16)
    with guided(pipe, VSF) as guidance:
        half = generate(pipe, num_inference_steps=1, guidance_scale=1.0)
    assert guidance.report is not None
    assert float((half.float() - expected).std()) < 0.25 * float((plain - expected).std())


def test_image_keys_of_image_to_video_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_wan_i2v, "prompt_clean", str.strip)  # its own needs ftfy
    pipe = make_image_pipeline()
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))
    features = torch.randn(1, 5, 10, generator=torch.Generator().manual_seed(5))
    pipe.encode_image = lambda image, device: features  # what its CLIP would give
    with Recorder(pipe) as seen, guided(pipe, VSF) as guidance:
        generate(pipe, image=image, max_sequence_length=512, num_inference_steps=1)
    assert seen.inputs[0]["hidden_states"].shape[1] == 2 * CHANNELS + 4
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])
    assert guidance.report is not None
    assert len(guidance.report.layers) == LAYERS


def test_a_missing_package_of_the_text_cleaning_is_named(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_wan, "prompt_clean", lambda text: ftfy.fix_text(text))  # noqa: F821
    with pytest.raises(ModelError, match=r"'ftfy'.*install it"):
        guided(shared, VSF).__enter__()


# What is computed, and how often


def test_the_negative_goes_through_each_map_once_and_the_prompt_as_ever(shared: Any) -> None:
    seen: dict[str, list[int]] = {}

    def note(name: str) -> Any:
        return lambda module, args: seen.setdefault(name, []).append(args[0].shape[1])

    transformer = shared.transformer
    maps = {"embedder": transformer.condition_embedder.text_embedder}
    for i, block in enumerate(transformer.blocks):
        maps |= {f"{part} {i}": getattr(block.attn2, part) for part in ("to_k", "to_v", "norm_k")}
    handles = [module.register_forward_pre_hook(note(name)) for name, module in maps.items()]
    with guided(shared, VSF.changed(end=0.5)):
        for _ in range(2):
            seen.clear()
            generate(shared, guidance_scale=2.0)
            for lengths in seen.values():
                assert sorted(lengths) == [2] + [TEXT_LENGTH] * 8  # 4 steps, each with and without a prompt
    assert len(seen) == 1 + 3 * LAYERS
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_negatives_keys_are_gone_after_the_generation(
    pipe: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Tensor]] = []

    def watched(attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        pair = keys_and_values(attn, text)
        if text.shape[1] == 2:  # "wheels" and its end token
            made.extend(weakref.ref(x) for x in pair)
        return pair

    keys_and_values = diffusers_wan._keys_and_values
    monkeypatch.setattr(diffusers_wan, "_keys_and_values", watched)
    if compiled:
        pipe.transformer.compile(backend="eager")
    with guided(pipe, VSF):
        gc.disable()
        try:
            generate(pipe)
        finally:
            gc.enable()
        assert len(made) == 2 * LAYERS
        assert not any(ref() is not None for ref in made)


def test_nothing_of_the_size_of_video_times_text_is_made(shared: Any) -> None:
    made = set()

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, Tensor):
                    made.add(tuple(x.shape[-2:]))
            return out

    length = 29  # like the negative's 17, of no other size in the model
    for method in ("vsf", "nag"):
        with guided(shared, VSF.changed(method=method), "blue " * 16) as guidance, Sizes():
            generate(shared, num_inference_steps=1, max_sequence_length=length)
        assert guidance.report is not None
        (n_n,) = guidance.report.negative_tokens
        assert {(TOKENS, 12), (length, 12), (n_n, 12)} <= made  # queries and keys were seen
        assert not made & {(TOKENS, n) for n in (length, n_n, length + n_n)}


# Which calls and steps


def test_steps_outside_of_the_window_are_bitwise_unguided(shared: Any) -> None:
    with Recorder(shared) as seen, guided(shared, VSF.changed(start=0.25, end=0.75)) as guidance:
        generate(shared)
    guided_steps = [
        step
        for step, (inputs, output) in enumerate(zip(seen.inputs, seen.outputs, strict=True))
        if not torch.equal(unguided(shared, inputs), output)
    ]
    assert guided_steps == [1, 2]
    assert guidance.report is not None
    assert guidance.report.guided_steps == (1, 2)


def test_repeated_calls_with_other_steps(shared: Any) -> None:
    with guided(shared, VSF.changed(end=0.5)) as guidance:
        first = generate(shared)
        generate(shared, num_inference_steps=7)
        again = generate(shared)
    assert [report.guided_steps for report in guidance.reports] == [(0, 1), (0, 1, 2, 3), (0, 1)]
    assert torch.equal(first, again)


def test_cfg_that_a_callback_ends_midway(shared: Any) -> None:
    def end_cfg(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe._guidance_scale = 1.0
        return kwargs

    with Recorder(shared) as seen, guided(shared, VSF) as guidance:
        generate(shared, guidance_scale=3.0, callback_on_step_end=end_cfg)
    assert len(seen.outputs) == 6
    negative = negative_embedding(shared, "wheels")
    seen.inputs, seen.outputs = ([x[i] for i in (0, 2, 4, 5)] for x in (seen.inputs, seen.outputs))
    assert_rows_match(shared, seen, VSF, [negative])
    assert guidance.report is not None
    assert guidance.report.guided_steps == (0, 1, 2, 3)


def test_a_prompt_that_is_also_the_unconditional_one_is_refused(shared: Any) -> None:
    with pytest.raises(GuidanceError, match="same text"), guided(shared, VSF):
        generate(shared, "a boat", guidance_scale=3.0, negative_prompt="a boat")


def test_text_that_nobody_encoded_is_refused(shared: Any) -> None:
    def change_text(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": kwargs["prompt_embeds"] * 0.5}

    with pytest.raises(GuidanceError, match="neither the encoded prompt"), guided(shared, VSF):
        generate(
            shared, callback_on_step_end=change_text, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )


def test_encoded_beforehand_and_the_encoder_gone(pipe: Any) -> None:
    prompts = ["a red car", "a boat"]
    with guided(pipe, VSF, TEXTS):
        expected = generate(pipe, prompts, guidance_scale=2.0)
    embeds = dict(
        zip(
            ("prompt_embeds", "negative_prompt_embeds"),
            pipe.encode_prompt(prompts, max_sequence_length=TEXT_LENGTH),
            strict=True,
        )
    )
    negatives = encode_negatives(pipe, VSF, TEXTS)
    pipe.text_encoder = pipe.tokenizer = None
    with guided(pipe, VSF, negative_embeddings=negatives) as guidance:
        got = generate(pipe, None, latents=latents(2), guidance_scale=2.0, **embeds)
    assert torch.equal(got, expected)
    assert len(guidance.reports) == 1
    with pytest.raises(ModelError, match=r"no text_encoder.*encode_negatives"):
        guided(pipe, VSF).__enter__()
    with pytest.raises(PromptError, match="leave one of them out"):
        guided(pipe, VSF, TEXTS, negative_embeddings=negatives).__enter__()
    for wrong, message in (([torch.zeros(3, 7)], "width 7"), ([torch.zeros(3)], "shapes"), ([], "shapes")):
        with pytest.raises(PromptError, match=message), guided(pipe, VSF, negative_embeddings=wrong):
            generate(pipe, None, latents=latents(2), **embeds)


def test_report_and_one_line_of_log(shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vsf"), guided(shared, VSF) as guidance:
        assert guidance.report is None
        generate(shared)
    report = guidance.report
    assert report is not None
    assert report.layers == tuple(f"blocks.{i}.attn2" for i in range(LAYERS))
    assert (report.steps, report.steps_run, report.guided_steps) == (4, 4, (0, 1, 2, 3))
    assert report.share is None
    (record,) = [record for record in caplog.records if record.name == "vsf"]
    line = record.getMessage()
    assert "vsf (alpha 1.5, beta 0.3) on 3 layers in 4 of 4 steps" in line
    assert report.kernel in line


def test_an_interrupted_generation_is_reported_as_such(shared: Any) -> None:
    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return kwargs

    with guided(shared, VSF) as guidance:
        generate(shared, callback_on_step_end=stop)
    report = guidance.report
    assert report is not None
    assert report.interrupted
    assert (report.steps, report.steps_run, report.guided_steps) == (4, 2, (0, 1))


def test_a_video_comes_out(shared: Any) -> None:
    plain = generate(shared, output_type="pt", num_inference_steps=2)
    with guided(shared, VSF) as guidance:
        video = generate(shared, output_type="pt", num_inference_steps=2)
    assert video.shape == (1, 5, 3, HEIGHT, WIDTH)
    assert not torch.equal(video, plain)
    assert guidance.report is not None


# Nothing is left behind


def test_off_and_after_the_end_it_is_bitwise_as_before(pipe: Any) -> None:
    plain, before = generate(pipe), state(pipe)
    with guided(pipe, Settings(method="off", negative_prompt="wheels")) as guidance:
        assert state(pipe) == before
        assert torch.equal(generate(pipe), plain)
    assert guidance.report is None
    with guided(pipe, VSF):
        assert difference(generate(pipe), plain) > 0.02 * float(plain.std())
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["map", "block", "callback", "body"])
def test_the_pipeline_is_as_before_after_an_exception(
    pipe: Any, error: type[BaseException], place: str
) -> None:
    plain, before = generate(pipe), state(pipe)

    def fail(*_: Any) -> None:
        raise error

    def run() -> None:
        with guided(pipe, VSF):
            if place == "body":
                fail()
            generate(pipe, **({"callback_on_step_end": fail} if place == "callback" else {}))

    block = pipe.transformer.blocks[1]
    handle = None
    if place in ("map", "block"):
        handle = (block if place == "block" else block.attn2.to_v).register_forward_pre_hook(fail)
    with pytest.raises(error):
        run()
    if handle is not None:
        handle.remove()
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


def test_layers_are_their_own_again_at_once_after_an_exception(shared: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    own = [block.attn2.processor for block in shared.transformer.blocks]
    handle = shared.transformer.blocks[1].register_forward_pre_hook(fail)
    with guided(shared, VSF):
        with pytest.raises(RuntimeError):
            generate(shared)
        assert all(x.attn2.processor is y for x, y in zip(shared.transformer.blocks, own, strict=True))
    handle.remove()


def test_guidance_goes_on_after_a_caught_interrupt(shared: Any) -> None:
    with guided(shared, VSF):
        expected = generate(shared)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with guided(shared, VSF) as guidance:
        handle = shared.transformer.blocks[1].attn2.to_k.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            generate(shared)
        handle.remove()
        assert guidance.report is None
        assert torch.equal(generate(shared), expected)
    assert len(guidance.reports) == 1


# What it works together with


def lora(pipe: Any) -> dict[str, Tensor]:
    """LoRA weights on the attention of all blocks and on the text embedder, in diffusers' key format."""
    generator = torch.Generator().manual_seed(3)
    weights = {}

    def add(name: str, inner: int, outer: int) -> None:
        weights[f"transformer.{name}.lora_A.weight"] = torch.randn(2, inner, generator=generator) * 0.3
        weights[f"transformer.{name}.lora_B.weight"] = torch.randn(outer, 2, generator=generator) * 0.3

    add("condition_embedder.text_embedder.linear_1", 16, 24)
    for i in range(LAYERS):
        for name in ("attn1.to_q", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"):
            add(f"blocks.{i}.{name}", 24, 24)
    return weights


@pytest.mark.parametrize("inside", [False, True])
def test_lora_loaded_before_or_inside(pipe: Any, inside: bool) -> None:
    pytest.importorskip("peft")
    bare = Reference(pipe.transformer, VSF)
    if not inside:
        pipe.load_lora_weights(lora(pipe))
    with Recorder(pipe) as seen, guided(pipe, VSF):
        if inside:
            pipe.load_lora_weights(lora(pipe))
        generate(pipe, num_inference_steps=2)
    negative = negative_embedding(pipe, "wheels")
    assert_rows_match(pipe, seen, VSF, [negative])
    assert difference(bare(seen.inputs[0], 0, negative), seen.outputs[0][0]) > 0.1  # the LoRA is felt


def test_lora_of_half_weight(pipe: Any) -> None:
    pytest.importorskip("peft")
    pipe.load_lora_weights(lora(pipe))
    with guided(pipe, VSF):
        asked = generate(pipe, num_inference_steps=2, attention_kwargs={"scale": 0.5})
    pipe.set_adapters(pipe.get_active_adapters(), 0.5)
    with Recorder(pipe) as seen, guided(pipe, VSF):
        assert difference(generate(pipe, num_inference_steps=2), asked) < 1e-5
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])


def test_model_offload(pipe: Any) -> None:
    pytest.importorskip("accelerate")
    with guided(pipe, VSF):
        expected = generate(pipe)
    plain = generate(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    before = {name: x.processor for name, x in pipe.transformer.named_modules() if hasattr(x, "processor")}
    with guided(pipe, VSF) as guidance:
        for _ in range(2):  # the pipeline takes its hooks off and renews them after every call
            assert torch.equal(generate(pipe), expected)
    assert len(guidance.reports) == 2
    assert all(pipe.transformer.get_submodule(name).processor is own for name, own in before.items())
    assert torch.equal(generate(pipe), plain)


def test_weights_that_are_there_only_while_their_layer_runs(pipe: Any) -> None:
    """Sequential offload by its hooks, since `enable_sequential_cpu_offload` cannot serve a CPU."""
    hooks = pytest.importorskip("accelerate.hooks")
    with guided(pipe, VSF):
        expected = generate(pipe)
    weights = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    hooks.attach_align_device_hook(
        pipe.transformer, execution_device="cpu", offload=True, weights_map=weights
    )
    to_k = pipe.transformer.blocks[0].attn2.to_k
    assert to_k.weight.device.type == "meta"
    with guided(pipe, VSF):
        assert torch.equal(generate(pipe), expected)
    assert to_k.weight.device.type == "meta"


@contextmanager
def groups_offloaded(transformer: Any) -> Iterator[None]:
    """Group offload as it looks to a layer: a block's weights are gone unless the block runs, all others'
    unless the transformer runs. (diffusers' own needs an accelerator.)"""
    held: dict[int, list[tuple[Any, Tensor]]] = {}
    blocks = set(transformer.blocks)

    def away(module: Any, *_: Any) -> None:
        inner = {p for block in blocks for p in block.parameters()} if module is transformer else set()
        held[id(module)] = [(p, p.data) for p in module.parameters() if p not in inner]
        for parameter, data in held[id(module)]:
            parameter.data = torch.full_like(data, torch.nan)

    def back(module: Any, *_: Any) -> None:
        for parameter, data in held[id(module)]:
            parameter.data = data

    handles = []
    for module in (transformer, *blocks):
        away(module)
        handles.append(module.register_forward_pre_hook(back))
        handles.append(module.register_forward_hook(away))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in (transformer, *blocks):
            back(module)


def test_weights_that_are_there_only_while_their_group_runs(pipe: Any) -> None:
    with guided(pipe, VSF, TEXTS):
        expected = generate(pipe, ["a red car", "a boat"], guidance_scale=2.0)
    with groups_offloaded(pipe.transformer):
        assert pipe.transformer.blocks[0].attn2.to_k.weight.isnan().all()
        with guided(pipe, VSF, TEXTS):
            assert torch.equal(generate(pipe, ["a red car", "a boat"], guidance_scale=2.0), expected)


def test_weights_stored_in_eight_bits(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    plain = generate(pipe)
    with guided(pipe, VSF) as guidance:
        assert difference(generate(pipe), plain) > 0.02 * float(plain.std())
    assert guidance.report is not None
    assert pipe.transformer.blocks[0].attn2.to_k.weight.dtype == torch.float8_e4m3fn


# Refusals


def test_guidances_do_not_nest(shared: Any) -> None:
    with guided(shared, VSF), pytest.raises(GuidanceError, match="do not nest"), guided(shared, VSF):
        pass


def test_another_transformer_is_refused_by_name(pipe: Any) -> None:
    whole = pipe.transformer
    pipe.transformer = torch.nn.Linear(1, 1)
    with pytest.raises(ModelError, match=r"a Linear,.*WanTransformer3DModel only"):
        guided(pipe, VSF).__enter__()
    pipe.transformer = whole


def test_two_transformers_are_refused(pipe: Any) -> None:
    pipe.transformer_2 = pipe.transformer
    with pytest.raises(ModelError, match=r"two transformers \(Wan 2\.2"):
        guided(pipe, VSF).__enter__()


def test_attention_of_someone_else_is_refused_by_name(pipe: Any) -> None:
    class TheirProcessor:
        pass

    attn = pipe.transformer.blocks[1].attn2
    own = attn.processor
    attn.processor = TheirProcessor()
    with pytest.raises(ModelError, match=r"blocks\.1\.attn2 uses TheirProcessor, but .* WanAttnProcessor"):
        guided(pipe, VSF).__enter__()
    attn.processor = own
    own._parallel_config = SimpleNamespace()
    with pytest.raises(ModelError, match="context parallelism"):
        guided(pipe, VSF).__enter__()


@pytest.mark.skipif(not hasattr(transformer_wan, "WanAttention"), reason="this diffusers cannot fuse them")
def test_fused_projections_are_refused(pipe: Any) -> None:
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(ModelError, match=r"fused projections.*unfuse_qkv_projections"):
        guided(pipe, VSF).__enter__()
    pipe.transformer.unfuse_qkv_projections()
    with guided(pipe, VSF):
        generate(pipe)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_a_missing_encoder_is_refused(pipe: Any, part: str) -> None:
    setattr(pipe, part, None)
    with pytest.raises(ModelError, match=rf"no {part},.*load it with"):
        guided(pipe, VSF).__enter__()


def test_bad_options_are_refused(shared: Any) -> None:
    with pytest.raises(PromptError, match='choose method "off"'):
        guided(shared, Settings()).__enter__()
    with pytest.raises(PromptError, match="no token"), guided(shared, VSF, "&nbsp;"):
        generate(shared)
    with pytest.raises(SettingsError, match="negative_scale is 8"):
        guided(shared, VSF.changed(negative_scale=8)).__enter__()
    with pytest.raises(PromptError, match="2 negative prompts for 3 prompts"), guided(shared, VSF, TEXTS):
        generate(shared, ["a", "car", "boat"])


def test_a_layer_that_was_not_guided_is_an_error(pipe: Any) -> None:
    attn = pipe.transformer.blocks[1].attn2
    with guided(pipe, VSF):
        attn.forward = lambda hidden_states, *_, **__: hidden_states  # as a cache does in a step it skips
        with pytest.raises(GuidanceError, match=r"1 of 3 layers, the first is blocks\.1\.attn2"):
            generate(pipe)


def test_steps_that_guidance_did_not_see_are_an_error(pipe: Any) -> None:
    def bypass(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer._forward_pre_hooks.clear()
        return kwargs

    with (
        pytest.raises(GuidanceError, match=r"steps \[1, 2, 3\] of 4 ran without guidance"),
        guided(pipe, VSF),
    ):
        generate(pipe, callback_on_step_end=bypass)


def test_values_that_are_not_finite_are_an_error(pipe: Any) -> None:
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] = torch.nan
    with guided(pipe, VSF) as guidance, pytest.raises(GuidanceError, match="not finite"):
        generate(pipe)
    assert guidance.report is None
