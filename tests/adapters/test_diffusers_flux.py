"""The Flux adapter on diffusers' real classes: whole denoiser outputs against a masked float64 run."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from diffusers.models.transformers import transformer_flux
from recorder import Recorder, difference, state
from recorder import assert_rows_match as match_rows
from reference_flux import Reference, negative_embedding
from tiny_flux import DOUBLES, SINGLES, generate, latents, make_pipeline, with_a_picture
from tiny_sd3 import T5_LENGTH
from torch import Tensor

from vsf_lib.adapters import encode_negatives, guided
from vsf_lib.errors import GuidanceError, ModelError, PromptError, SettingsError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)
DOUBLE_LAYERS = tuple(f"transformer_blocks.{i}.attn" for i in range(DOUBLES))
SINGLE_LAYERS = tuple(f"single_transformer_blocks.{i}.attn" for i in range(SINGLES))


@pytest.fixture(scope="module")
def shared() -> Any:
    """For tests that leave it as it was, which is what most of them are about."""
    return make_pipeline()


@pytest.fixture(scope="module")
def dev() -> Any:
    """The same with guidance embedding."""
    return make_pipeline(dev=True)


@pytest.fixture
def pipe() -> Any:
    return make_pipeline()


def assert_rows_match(
    pipe: Any, seen: Recorder, settings: Settings, negatives: list[Tensor | None], reference: Any = None
) -> None:
    model = reference or pipe.transformer
    match_rows(
        seen,
        negatives,
        lambda inputs, row: Reference(model, None)(inputs, row),
        lambda inputs, row, negative: Reference(model, settings)(inputs, row, negative),
    )


def padded_embedding(pipe: Any, text: str) -> Tensor:
    return pipe.encode_prompt(text, None, max_sequence_length=T5_LENGTH)[0][0]


# The numbers


@pytest.mark.parametrize("blocks", ["both", "double"])
@pytest.mark.parametrize("kind", ["schnell", "dev"])
def test_whole_outputs_match_the_masked_float64_run(shared: Any, dev: Any, kind: str, blocks: str) -> None:
    pipe = dev if kind == "dev" else shared
    settings = VSF.changed(blocks=blocks)
    with Recorder(pipe) as seen, guided(pipe, settings) as guidance:
        generate(pipe, num_inference_steps=2)
    assert_rows_match(pipe, seen, settings, [negative_embedding(pipe, "wheels")])
    assert guidance.report is not None
    assert guidance.report.layers == DOUBLE_LAYERS + (SINGLE_LAYERS if blocks == "both" else ())
    assert (seen.inputs[0]["guidance"] is not None) == (kind == "dev")


def test_single_blocks_make_a_difference(shared: Any) -> None:
    pictures = []
    for blocks in ("both", "double"):
        with guided(shared, VSF.changed(blocks=blocks)):
            pictures.append(generate(shared, num_inference_steps=1))
    assert difference(*pictures) > 0.02 * float(pictures[0].std())


def test_words_alone_match_the_masked_float64_run(shared: Any) -> None:
    settings = VSF.changed(negative_tokens="words")
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared, num_inference_steps=1)
    assert_rows_match(shared, seen, settings, [negative_embedding(shared, "wheels", words_only=True)])


@pytest.mark.parametrize("blocks", ["both", "double"])
def test_the_difference_matches_the_masked_float64_run(shared: Any, blocks: str) -> None:
    settings = VSF.changed(method="difference", blocks=blocks)
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared, num_inference_steps=2)
    assert_rows_match(shared, seen, settings, [negative_embedding(shared, "wheels")])


@pytest.mark.parametrize("blocks", ["both", "double"])
@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_baselines_match_the_masked_float64_run(shared: Any, method: str, blocks: str) -> None:
    settings = Settings(method=method, negative_prompt="wheels", nag_alpha=0.5, blocks=blocks)
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared, num_inference_steps=2)
    negative = padded_embedding(shared, "wheels")
    assert len(negative) == T5_LENGTH
    assert_rows_match(shared, seen, settings, [negative])


@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_the_negative_is_extrapolated_from_padding(shared: Any, scale: float) -> None:
    settings = VSF.changed(negative_scale=scale)
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared, num_inference_steps=1)
    moved = negative_embedding(shared, "wheels", scale=scale)
    assert_rows_match(shared, seen, settings, [moved])
    assert difference(moved, negative_embedding(shared, "wheels")) > 0.5
    (beforehand,) = encode_negatives(shared, settings)
    assert difference(beforehand, moved) < 1e-5 * scale


@pytest.mark.parametrize("method", ["vsf", "difference"])
def test_the_pooled_embedding_stays_or_is_moved_as_the_released_code_does(shared: Any, method: str) -> None:
    settings = VSF.changed(method=method)
    pooled = {text: shared.encode_prompt(text, None)[1].detach() for text in ("a boat", "wheels", "big roof")}

    def run(shift: float, **options: Any) -> Recorder:
        asked = settings.changed(pooled_shift=shift, end=0.5)
        with Recorder(shared) as seen, guided(shared, asked, **options):
            generate(shared, "a boat", num_inference_steps=2)
        return seen

    assert torch.equal(run(0.0).inputs[0]["pooled_projections"], pooled["a boat"])
    inside: list[Tensor] = []
    handle = shared.transformer.time_text_embed.register_forward_pre_hook(
        lambda _, args: inside.append(args[-1])
    )
    try:
        seen = run(0.1)
    finally:
        handle.remove()
    moved = pooled["wheels"] + 1.1 * (pooled["a boat"] - pooled["wheels"])
    assert difference(inside[0], moved) < 1e-6
    assert torch.equal(inside[1], pooled["a boat"]), "outside of start and end nothing is moved"
    seen.inputs, seen.outputs = seen.inputs[:1], seen.outputs[:1]
    seen.inputs[0]["pooled_projections"] = moved
    assert_rows_match(shared, seen, settings, [negative_embedding(shared, "wheels")])


def test_each_prompt_is_moved_away_from_its_own_negative(shared: Any) -> None:
    texts = ["wheels", "big roof"]
    inside: list[Tensor] = []
    handle = shared.transformer.time_text_embed.register_forward_pre_hook(
        lambda _, args: inside.append(args[-1])
    )
    try:
        with guided(shared, VSF.changed(pooled_shift=0.5), texts):
            generate(shared, ["a boat", "a car"], num_images_per_prompt=2, num_inference_steps=1)
    finally:
        handle.remove()
    own = shared.encode_prompt(["a boat", "a car"], None, num_images_per_prompt=2)[1].detach()
    theirs = shared.encode_prompt(texts, None, num_images_per_prompt=2)[1].detach()
    assert difference(inside[0], own + 0.5 * (own - theirs)) < 1e-6


def test_batch_with_a_negative_per_prompt_two_images_each_and_true_cfg(dev: Any) -> None:
    texts = ["wheels", "small blue roof and sail"]
    with Recorder(dev) as seen, guided(dev, VSF, texts) as guidance:
        generate(
            dev,
            ["a red car", "a boat"],
            num_images_per_prompt=2,
            true_cfg_scale=3.0,
            negative_prompt=["", "big"],
            num_inference_steps=2,
        )
    first, second = (negative_embedding(dev, text) for text in texts)
    calls = list(zip(seen.inputs, seen.outputs, strict=True))
    for unconditional, negatives in ((False, [first, first, second, second]), (True, [None] * 4)):
        seen.inputs, seen.outputs = map(list, zip(*calls[unconditional::2], strict=True))
        assert_rows_match(dev, seen, VSF, negatives)
    report = guidance.report
    assert report is not None
    assert report.images == 4
    assert report.negative_tokens == (2, 2, 6, 6)
    assert report.guided_steps == (0, 1)


def test_unconditional_calls_are_bitwise_unguided(shared: Any) -> None:
    with Recorder(shared) as seen, guided(shared, VSF) as guidance:
        generate(shared, true_cfg_scale=2.0, negative_prompt="big")
    assert len(seen.outputs) == 8
    unguided = []
    for call, (inputs, output) in enumerate(zip(seen.inputs, seen.outputs, strict=True)):
        with torch.no_grad():
            if torch.equal(shared.transformer(**inputs)[0], output):
                unguided.append(call)
    assert unguided == [1, 3, 5, 7]
    assert guidance.report is not None
    assert guidance.report.images == 1


def test_the_prompt_after_an_unfinished_generation_is_not_taken_for_an_unconditional_one(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guided(shared, VSF) as guidance:
        expected = generate(shared)
        with monkeypatch.context() as broken:
            broken.setattr(shared, "prepare_latents", None)
            with pytest.raises(TypeError):
                generate(shared, "a boat")
        assert torch.equal(generate(shared), expected)
        shared.encode_prompt("a boat", None)  # by hand
        assert torch.equal(generate(shared), expected)
    assert len(guidance.reports) == 3


def test_a_prompt_that_is_its_own_unconditional_is_refused(shared: Any) -> None:
    with pytest.raises(GuidanceError, match=r"the same text.*true_cfg_scale 1"), guided(shared, VSF):
        generate(shared, "a boat", true_cfg_scale=2.0, negative_prompt="a boat")


def test_every_row_of_a_batch_is_what_it_is_alone(shared: Any) -> None:
    prompts, texts = ["a red car", "a boat"], ["wheels", "small blue roof and sail"]
    with guided(shared, VSF, texts):
        both = generate(shared, prompts, num_inference_steps=1)
    noise = latents(2)
    for row in range(2):
        with guided(shared, VSF, texts[row]):
            alone = shared(
                prompts[row],
                latents=noise[row : row + 1],
                num_inference_steps=1,
                max_sequence_length=T5_LENGTH,
                height=8,
                width=8,
                output_type="latent",
            ).images
        assert difference(alone[0], both[row]) < 1e-4 * float(both[row].std())


def test_the_kernels_agree(shared: Any) -> None:
    pictures = {}
    for kernel in ("auto", "three-call", "masked"):
        with guided(shared, VSF, kernel=kernel) as guidance:
            pictures[kernel] = generate(shared, num_inference_steps=1)
        assert guidance.report is not None
        assert kernel == "auto" or guidance.report.kernel == kernel
    scale = float(pictures["auto"].std())
    assert difference(pictures["auto"], pictures["masked"]) < 1e-4 * scale
    assert difference(pictures["auto"], pictures["three-call"]) < 1e-4 * scale


def test_bfloat16(pipe: Any) -> None:
    with guided(pipe, VSF.changed(negative_scale=2.0)):
        expected = generate(pipe, num_inference_steps=1)
    plain = generate(pipe, num_inference_steps=1)
    pipe.to(dtype=torch.bfloat16)
    with guided(pipe, VSF.changed(negative_scale=2.0)):
        half = generate(pipe, num_inference_steps=1)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - expected).std()) < 0.25 * float((plain - expected).std())


@pytest.mark.parametrize("blocks", ["both", "double"])
def test_recorded_share_is_the_attention_to_the_flipped_tokens(shared: Any, blocks: str) -> None:
    settings = VSF.changed(start=0.5, blocks=blocks)
    with Recorder(shared) as seen, guided(shared, settings, record_share=True) as guidance:
        generate(shared, ["a red car", "a boat"], num_inference_steps=2)
    assert guidance.report is not None
    share = guidance.report.share
    assert share is not None
    assert share.shape == (1, 2, 16)  # guided steps, images, image tokens
    for image in range(2):
        reference = Reference(shared.transformer, settings)
        reference(seen.inputs[1], image, negative_embedding(shared, "wheels"))
        expected = torch.stack(reference.shares).mean(0)
        assert difference(share[0, image], expected) < 1e-5


# Which calls and steps


def test_steps_outside_of_the_window_are_bitwise_unguided(shared: Any) -> None:
    with Recorder(shared) as seen, guided(shared, VSF.changed(start=0.25, end=0.75)) as guidance:
        generate(shared)
    guided_steps = []
    for step, (inputs, output) in enumerate(zip(seen.inputs, seen.outputs, strict=True)):
        with torch.no_grad():
            plain = shared.transformer(**inputs)[0]
        if not torch.equal(plain, output):
            guided_steps.append(step)
    assert guided_steps == [1, 2]
    assert guidance.report is not None
    assert guidance.report.guided_steps == (1, 2)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, (0, 1)), (0.5, (0,)), (0.75, (0, 1))])
def test_a_picture_to_begin_from(dev: Any, strength: float, steps: tuple[int, ...]) -> None:
    """Where the first steps are left out, start and end count those that are left."""
    pipe = with_a_picture(dev)
    with Recorder(pipe) as seen, guided(pipe, VSF.changed(end=0.5)) as guidance:
        generate(pipe, strength=strength)
    total = round(4 * strength)
    report = guidance.report
    assert report is not None
    assert (report.steps, report.steps_run, report.guided_steps) == (total, total, steps)
    last = len(steps)
    seen.inputs, seen.outputs = seen.inputs[:last], seen.outputs[:last]
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])


def test_a_picture_to_begin_from_with_true_cfg_and_a_batch(shared: Any) -> None:
    pipe = with_a_picture(shared)
    with Recorder(pipe) as seen, guided(pipe, VSF, ["wheels", "big roof"]) as guidance:
        generate(pipe, ["a red car", "a boat"], true_cfg_scale=2.0, negative_prompt=["big", "small"])
    assert len(seen.outputs) == 4
    seen.inputs, seen.outputs = seen.inputs[::2], seen.outputs[::2]
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, text) for text in ("wheels", "big roof")])
    assert guidance.report is not None
    assert guidance.report.guided_steps == (0, 1)


def test_repeated_calls_with_other_steps_and_own_sigmas(shared: Any) -> None:
    with guided(shared, VSF.changed(end=0.5)) as guidance:
        first = generate(shared)
        generate(shared, num_inference_steps=7)
        generate(shared, sigmas=[1.0, 0.6, 0.3], num_inference_steps=3)
        again = generate(shared)
    assert [report.guided_steps for report in guidance.reports] == [(0, 1), (0, 1, 2, 3), (0, 1), (0, 1)]
    assert torch.equal(first, again)


def test_text_that_nobody_encoded_is_refused(shared: Any) -> None:
    def change_text(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": kwargs["prompt_embeds"] * 0.5}

    with pytest.raises(GuidanceError, match="neither the encoded prompt"), guided(shared, VSF):
        generate(
            shared, callback_on_step_end=change_text, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )


def test_prompts_given_as_embeddings(shared: Any) -> None:
    embeds, pooled, _ = shared.encode_prompt(["a red car", "a boat"], None, max_sequence_length=T5_LENGTH)
    with Recorder(shared) as seen, guided(shared, VSF):
        shared(
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            latents=latents(2),
            num_inference_steps=2,
            height=8,
            width=8,
            output_type="latent",
        )
    assert_rows_match(shared, seen, VSF, [negative_embedding(shared, "wheels")] * 2)


@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_negatives_encoded_beforehand(shared: Any, method: str) -> None:
    settings = VSF.changed(method=method)
    with guided(shared, settings, ["wheels", "big roof"]):
        expected = generate(shared, ["a red car", "a boat"], num_inference_steps=1)
    negatives = encode_negatives(shared, settings, ["wheels", "big roof"], max_sequence_length=T5_LENGTH)
    with guided(shared, settings, negative_embeddings=negatives):
        assert torch.equal(generate(shared, ["a red car", "a boat"], num_inference_steps=1), expected)


def test_one_line_of_log(shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vsf"), guided(shared, VSF) as guidance:
        generate(shared)
    report = guidance.report
    assert report is not None
    (record,) = [record for record in caplog.records if record.name == "vsf"]
    assert "vsf (alpha 1.5, beta 0.3) on 5 layers in 4 of 4 steps" in record.getMessage()


def test_an_interrupted_generation_is_reported_as_such(shared: Any) -> None:
    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return kwargs

    for pipe, total, run in ((shared, 4, 2), (with_a_picture(shared), 3, 2)):
        with guided(pipe, VSF) as guidance:
            options = {} if pipe is shared else {"strength": 0.75}
            generate(pipe, callback_on_step_end=stop, **options)
        report = guidance.report
        assert report is not None
        assert report.interrupted
        assert (report.steps, report.steps_run, report.guided_steps) == (total, run, tuple(range(run)))


# Nothing is left behind


@pytest.mark.parametrize("picture", [False, True])
def test_the_pipeline_is_as_before_after_the_end(pipe: Any, picture: bool) -> None:
    if picture:
        pipe = with_a_picture(pipe)
    plain, before = generate(pipe), state(pipe)
    with guided(pipe, VSF):
        assert difference(generate(pipe), plain) > 0.02 * float(plain.std())
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["double", "single", "callback", "body"])
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

    blocks = {
        "double": pipe.transformer.transformer_blocks,
        "single": pipe.transformer.single_transformer_blocks,
    }
    handle = blocks[place][1].register_forward_pre_hook(fail) if place in blocks else None
    with pytest.raises(error):
        run()
    if handle is not None:
        handle.remove()
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


# What it works together with


def lora(pipe: Any) -> dict[str, Tensor]:
    """LoRA weights on attention in all blocks, image and text side, and on T5, in diffusers' key format."""
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for i in range(DOUBLES):
        for name in ("to_q", "to_v", "add_k_proj", "add_v_proj", "to_out.0"):
            weights[f"transformer.transformer_blocks.{i}.attn.{name}"] = 24
    for i in range(SINGLES):
        for name in ("to_q", "to_k", "to_v"):
            weights[f"transformer.single_transformer_blocks.{i}.attn.{name}"] = 24
    return {
        f"{key}.lora_{side}.weight": torch.randn(*shape, generator=generator) * 0.3
        for key, width in weights.items()
        for side, shape in (("A", (2, width)), ("B", (width, 2)))
    }


@pytest.mark.parametrize("inside", [False, True])
def test_lora_loaded_before_or_inside(pipe: Any, inside: bool) -> None:
    pytest.importorskip("peft")
    bare = copy.deepcopy(pipe.transformer)
    if not inside:
        pipe.load_lora_weights(lora(pipe))
    with Recorder(pipe) as seen, guided(pipe, VSF):
        if inside:
            pipe.load_lora_weights(lora(pipe))
        generate(pipe, num_inference_steps=1)
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])
    with pytest.raises(AssertionError):  # the LoRA is felt
        assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")], reference=bare)


def test_model_offload(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)  # diffusers 0.34 calls it
    with guided(pipe, VSF):
        expected = generate(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    processors = dict(pipe.transformer.attn_processors)
    with guided(pipe, VSF) as guidance:
        for _ in range(2):  # the pipeline takes its hooks off and renews them after every call
            assert torch.equal(generate(pipe), expected)
    assert len(guidance.reports) == 2
    assert pipe.transformer.attn_processors == processors


def test_weights_that_are_there_only_while_their_layer_runs(pipe: Any) -> None:
    """Sequential offload by its hooks, since `enable_sequential_cpu_offload` cannot serve a CPU."""
    hooks = pytest.importorskip("accelerate.hooks")
    with guided(pipe, VSF):
        expected = generate(pipe)
    weights = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    hooks.attach_align_device_hook(
        pipe.transformer, execution_device="cpu", offload=True, weights_map=weights
    )
    assert pipe.transformer.transformer_blocks[0].attn.to_q.weight.device.type == "meta"
    with guided(pipe, VSF):
        assert torch.equal(generate(pipe), expected)


# Refusals


def test_guidances_do_not_nest(shared: Any) -> None:
    with guided(shared, VSF), pytest.raises(GuidanceError, match="do not nest"), guided(shared, VSF):
        pass


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_without_t5_nothing_is_encoded(pipe: Any, part: str) -> None:
    setattr(pipe, part, None)
    with pytest.raises(ModelError, match=rf"no {part},.*load it with"):
        guided(pipe, VSF).__enter__()


def test_clip_is_needed_only_for_what_it_encodes(pipe: Any) -> None:
    embeds, pooled, _ = pipe.encode_prompt("a red car", None, max_sequence_length=T5_LENGTH)
    given = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "latents": latents()}
    given |= {"num_inference_steps": 1, "height": 8, "width": 8, "output_type": "latent"}
    pipe.text_encoder = None
    with guided(pipe, VSF) as guidance:
        pipe(**given)
    assert guidance.report is not None
    for settings in (VSF.changed(method="nag"), VSF.changed(pooled_shift=0.1)):
        with pytest.raises(ModelError, match="no text_encoder"), guided(pipe, settings):
            pipe(**given)


def test_another_transformer_is_refused_by_name(pipe: Any) -> None:
    pipe.transformer = torch.nn.Linear(1, 1)
    with pytest.raises(ModelError, match=r"the transformer is a Linear.*FluxTransformer2DModel"):
        guided(pipe, VSF).__enter__()
    pipe.transformer = None
    with pytest.raises(ModelError, match="NoneType"):
        guided(pipe, VSF).__enter__()


def test_fused_projections_are_refused_until_they_are_undone(pipe: Any) -> None:
    plain = generate(pipe)
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(ModelError, match=r"transformer_blocks\.0\.attn.*[Ff]used.*unfuse_qkv_projections"):
        guided(pipe, VSF).__enter__()
    pipe.transformer.unfuse_qkv_projections()
    with guided(pipe, VSF):
        assert difference(generate(pipe), plain) > 0.02 * float(plain.std())


def image_adapter() -> Any:
    """The processor of an image prompt (IP-adapter) in a double-stream block."""
    kind = getattr(transformer_flux, "FluxIPAdapterAttnProcessor", None)
    if kind is None:
        from diffusers.models.attention_processor import FluxIPAdapterJointAttnProcessor2_0 as kind
    return kind(24, 24)


def test_an_ip_adapter_is_refused(pipe: Any) -> None:
    pipe.transformer.transformer_blocks[1].attn.set_processor(image_adapter())
    with pytest.raises(
        ModelError, match=r"transformer_blocks\.1\.attn uses FluxIPAdapter.*unload_ip_adapter"
    ):
        guided(pipe, VSF).__enter__()


def test_several_devices_at_once_are_refused(pipe: Any) -> None:
    pipe.transformer.single_transformer_blocks[2].attn.processor._parallel_config = object()
    with pytest.raises(ModelError, match=r"single_transformer_blocks\.2\.attn runs on several devices"):
        guided(pipe, VSF).__enter__()


def test_a_processor_set_by_someone_else_is_refused(pipe: Any) -> None:
    theirs = image_adapter()

    def interfere(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer.single_transformer_blocks[1].attn.set_processor(theirs)
        return kwargs

    with pytest.raises(ModelError, match=r"single_transformer_blocks\.1\.attn"), guided(pipe, VSF):
        generate(pipe, callback_on_step_end=interfere)
    assert pipe.transformer.single_transformer_blocks[1].attn.processor is theirs


@pytest.mark.parametrize("blocks", ["both", "double"])
@pytest.mark.parametrize("kind", ["double", "single"])
def test_a_layer_that_was_not_reached_is_an_error(pipe: Any, kind: str, blocks: str) -> None:
    """Also one that only had to carry the negative along: there it would act as a prompt."""
    name = {"double": "transformer_blocks", "single": "single_transformer_blocks"}[kind]
    attn = getattr(pipe.transformer, name)[1].attn
    plain, before = attn.processor, attn.forward

    def bypass(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        ours, attn.processor = attn.processor, plain
        try:
            return before(hidden_states, *args, **kwargs)
        finally:
            attn.processor = ours

    with guided(pipe, VSF.changed(blocks=blocks)):
        attn.forward = bypass
        with pytest.raises(GuidanceError, match=rf"1 of 5 layers, the first is {name}\.1\.attn"):
            generate(pipe)


def test_text_that_changes_on_its_way_is_an_error(pipe: Any) -> None:
    attn = pipe.transformer.transformer_blocks[1].attn
    before = attn.forward

    def longer(*, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        return before(encoder_hidden_states=encoder_hidden_states.repeat(1, 2, 1), **kwargs)

    attn.forward = longer
    with guided(pipe, VSF), pytest.raises(GuidanceError, match=r"28 text tokens where 14 were expected"):
        generate(pipe)


def test_a_mask_is_refused(shared: Any) -> None:
    with guided(shared, VSF), pytest.raises(GuidanceError, match="called with a mask"):
        generate(shared, joint_attention_kwargs={"attention_mask": torch.ones(1)})


def test_bad_options_are_refused(shared: Any) -> None:
    with pytest.raises(PromptError, match='choose method "off"'):
        guided(shared, Settings()).__enter__()
    with pytest.raises(SettingsError, match=r"pooled_shift is 0\.1, which needs the negative prompt's text"):
        guided(
            shared, VSF.changed(pooled_shift=0.1), negative_embeddings=encode_negatives(shared, VSF)
        ).__enter__()


def test_values_that_are_not_finite_are_an_error(pipe: Any) -> None:
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] = torch.inf
    with guided(pipe, VSF) as guidance, pytest.raises(GuidanceError, match="not finite"):
        generate(pipe)
    assert guidance.report is None
