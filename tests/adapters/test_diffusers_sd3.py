"""The SD3 adapter on diffusers' real classes: whole denoiser outputs against a masked float64 run."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline
from recorder import Recorder, difference, state
from recorder import assert_rows_match as match_rows
from reference_sd3 import Reference, negative_embedding
from tiny_sd3 import LAYERS, T5_LENGTH, generate, generate_from, make_pipeline, with_a_picture
from torch import Tensor

from vsf_lib.adapters import encode_negatives, guided
from vsf_lib.errors import GuidanceError, ModelError, PromptError, SettingsError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)


@pytest.fixture(scope="module")
def shared() -> Any:
    """For tests that leave it as it was, which is what most of them are about."""
    return make_pipeline()


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
    encoded = pipe.encode_prompt(
        text, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH
    )
    return encoded[0][0]


# The numbers


@pytest.mark.parametrize("t5", [True, False])
def test_whole_outputs_match_the_masked_float64_run(t5: bool) -> None:
    pipe = make_pipeline(t5=t5)
    with Recorder(pipe) as seen, guided(pipe, VSF):
        generate(pipe)
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])


@pytest.mark.parametrize("t5", [True, False])
def test_words_alone_match_the_masked_float64_run(t5: bool) -> None:
    pipe = make_pipeline(t5=t5)
    settings = VSF.changed(negative_tokens="words")
    with Recorder(pipe) as seen, guided(pipe, settings):
        generate(pipe)
    assert_rows_match(pipe, seen, settings, [negative_embedding(pipe, "wheels", words_only=True)])


@pytest.mark.parametrize("tokens", ["all", "words"])
def test_the_difference_matches_the_masked_float64_run(shared: Any, tokens: str) -> None:
    settings = VSF.changed(method="difference", negative_tokens=tokens)
    with Recorder(shared) as seen, guided(shared, settings) as guidance:
        generate(shared)
    negative = negative_embedding(shared, "wheels", words_only=tokens == "words")
    assert_rows_match(shared, seen, settings, [negative])
    assert guidance.report is not None
    assert guidance.report.method == "difference"
    assert guidance.report.kernel.startswith("exact")


def test_the_difference_has_the_share_of_vsf(shared: Any) -> None:
    shares = []
    for method in ("vsf", "difference"):
        settings = VSF.changed(method=method, end=0.3)
        with guided(shared, settings, record_share=True) as guidance:
            generate(shared)
        assert guidance.report is not None
        assert guidance.report.share is not None
        shares.append(guidance.report.share[0])
    # The first layer of the first step sees the same; the layers behind it what that made of it.
    assert shares[0].shape == shares[1].shape
    assert not torch.equal(*shares)
    assert difference(*shares) < 0.5


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_baselines_match_the_masked_float64_run(shared: Any, method: str) -> None:
    settings = Settings(method=method, negative_prompt="wheels", nag_alpha=0.5)
    with Recorder(shared) as seen, guided(shared, settings):
        generate(shared)
    assert_rows_match(shared, seen, settings, [padded_embedding(shared, "wheels")])


def test_padding_matters_to_the_baselines(shared: Any) -> None:
    assert len(padded_embedding(shared, "wheels")) > len(negative_embedding(shared, "wheels"))


def test_batch_with_a_negative_per_prompt_and_two_images_each_and_cfg(shared: Any) -> None:
    texts = ["wheels", "small blue roof and sail"]
    with Recorder(shared) as seen, guided(shared, VSF, texts) as guidance:
        generate(
            shared,
            ["a red car", "a boat"],
            num_images_per_prompt=2,
            guidance_scale=3.0,
            negative_prompt=["", "big"],
            num_inference_steps=2,
        )
    first, second = (negative_embedding(shared, text) for text in texts)
    assert_rows_match(shared, seen, VSF, [None] * 4 + [first, first, second, second])
    assert guidance.report is not None
    assert guidance.report.images == 4
    assert guidance.report.negative_tokens == (5, 5, 13, 13)


def test_every_row_of_a_batch_is_what_it_is_alone(shared: Any) -> None:
    prompts, texts = ["a red car", "a boat"], ["wheels", "small blue roof and sail"]
    with guided(shared, VSF, texts):
        both = generate(shared, prompts, num_inference_steps=1)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    for row in range(2):
        with guided(shared, VSF, texts[row]):
            alone = shared(
                prompts[row],
                latents=noise[row : row + 1],
                num_inference_steps=1,
                guidance_scale=1.0,
                max_sequence_length=T5_LENGTH,
                height=8,
                width=8,
                output_type="latent",
            ).images
        assert difference(alone[0], both[row]) < 1e-4 * float(both[row].std())


def test_strength_changes_the_picture_and_the_kernels_agree(shared: Any) -> None:
    pictures = {}
    for kernel in ("auto", "three-call", "masked"):
        with guided(shared, VSF, kernel=kernel) as guidance:
            pictures[kernel] = generate(shared, num_inference_steps=1)
        assert guidance.report is not None
        assert kernel == "auto" or guidance.report.kernel == kernel
    with guided(shared, VSF.changed(alpha=3.0)):
        stronger = generate(shared, num_inference_steps=1)
    scale = float(stronger.std())
    assert difference(pictures["auto"], pictures["masked"]) < 1e-4 * scale
    assert difference(pictures["auto"], pictures["three-call"]) < 1e-4 * scale
    assert difference(pictures["auto"], stronger) > 0.02 * scale


def test_a_negative_longer_than_clip_keeps_every_word(shared: Any) -> None:
    text = " ".join(["small", "blue", "roof", "sail"] * 5)
    with guided(shared, VSF, text) as guidance:
        generate(shared, num_inference_steps=1)
    assert guidance.report is not None
    # 20 words: in two pieces of CLIP's 16, each with a begin and an end, then in T5 with one end
    assert guidance.report.negative_tokens == ((20 + 2 * 2) + (20 + 1),)


def test_bfloat16(pipe: Any) -> None:
    with guided(pipe, VSF):
        expected = generate(pipe, num_inference_steps=1)
    plain = generate(pipe, num_inference_steps=1)
    pipe.to(dtype=torch.bfloat16)
    with guided(pipe, VSF):
        half = generate(pipe, num_inference_steps=1)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - expected).std()) < 0.25 * float((plain - expected).std())


def test_recorded_share_is_the_attention_to_the_flipped_tokens(shared: Any) -> None:
    settings = VSF.changed(start=0.25)
    with Recorder(shared) as seen, guided(shared, settings, record_share=True) as guidance:
        generate(shared, ["a red car", "a boat"], guidance_scale=2.0)
    assert guidance.report is not None
    share = guidance.report.share
    assert share is not None
    assert share.shape == (3, 2, 16)  # guided steps, images, image tokens
    negative = negative_embedding(shared, "wheels")
    for step in (0, 2):
        for image in range(2):
            reference = Reference(shared.transformer, settings)
            reference(seen.inputs[step + 1], 2 + image, negative)
            expected = torch.stack(reference.shares).mean(0)
            assert difference(share[step, image], expected) < 1e-5


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


def picture_pipeline(kind: str) -> Any:
    if kind == "picture":
        return with_a_picture(make_pipeline(), StableDiffusion3Img2ImgPipeline)
    # Inpainting takes models of 16 channels, or of 33 that see mask and picture too.
    whole = make_pipeline(channels=16, more=17 if kind == "mask seen" else 0)
    return with_a_picture(whole, StableDiffusion3InpaintPipeline)


@pytest.mark.parametrize("kind", ["picture", "mask", "mask seen"])
def test_from_a_picture_whole_outputs_match_the_masked_float64_run(kind: str) -> None:
    pipe = picture_pipeline(kind)
    plain, before = generate_from(pipe), state(pipe)
    texts = ["wheels", "big roof"]
    with Recorder(pipe) as seen, guided(pipe, VSF, texts) as guidance:
        generate_from(pipe, ["a red car", "a boat"], guidance_scale=2.0, negative_prompt=["", "big"])
    assert_rows_match(pipe, seen, VSF, [None, None, *(negative_embedding(pipe, text) for text in texts)])
    report = guidance.report
    assert report is not None
    assert (report.steps, report.steps_run, report.guided_steps, report.images) == (2, 2, (0, 1), 2)
    with guided(pipe, VSF):
        assert difference(generate_from(pipe), plain) > 0.01 * float(plain.std())
    assert state(pipe) == before
    assert torch.equal(generate_from(pipe), plain)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, (0, 1)), (0.75, (0, 1)), (0.5, (0,))])
@pytest.mark.parametrize("kind", ["picture", "mask"])
def test_from_a_picture_start_and_end_count_the_steps_that_run(
    kind: str, strength: float, steps: tuple[int, ...]
) -> None:
    pipe = picture_pipeline(kind)
    with Recorder(pipe) as seen, guided(pipe, VSF.changed(end=0.5)) as guidance:
        generate_from(pipe, strength=strength)
    unguided = []
    for call, (inputs, output) in enumerate(zip(seen.inputs, seen.outputs, strict=True)):
        with torch.no_grad():
            if torch.equal(pipe.transformer(**inputs)[0], output):
                unguided.append(call)
    assert unguided == list(range(len(steps), round(4 * strength)))
    assert guidance.report is not None
    assert guidance.report.guided_steps == steps


def test_repeated_calls_with_other_steps_and_own_sigmas(shared: Any) -> None:
    with guided(shared, VSF.changed(end=0.5)) as guidance:
        first = generate(shared)
        generate(shared, num_inference_steps=7)
        generate(shared, num_inference_steps=None, sigmas=[1.0, 0.6, 0.3])
        again = generate(shared)
    assert [report.guided_steps for report in guidance.reports] == [(0, 1), (0, 1, 2, 3), (0, 1), (0, 1)]
    assert torch.equal(first, again)


def test_skip_layer_and_unconditional_rows_stay_unguided(shared: Any) -> None:
    with Recorder(shared) as seen, guided(shared, VSF) as guidance:
        generate(
            shared,
            guidance_scale=4.0,
            skip_guidance_layers=[1],
            skip_layer_guidance_start=0.0,
            skip_layer_guidance_stop=1.0,
        )
    skips = [i for i, inputs in enumerate(seen.inputs) if inputs.get("skip_layers")]
    assert len(skips) == 3
    for i in skips:
        with torch.no_grad():
            assert torch.equal(shared.transformer(**seen.inputs[i])[0], seen.outputs[i])
    seen.inputs = [x for i, x in enumerate(seen.inputs) if i not in skips]
    seen.outputs = [x for i, x in enumerate(seen.outputs) if i not in skips]
    assert_rows_match(shared, seen, VSF, [None, negative_embedding(shared, "wheels")])
    assert guidance.report is not None
    assert guidance.report.guided_steps == (0, 1, 2, 3)


def test_cfg_that_a_callback_ends_midway(shared: Any) -> None:
    if "pooled_prompt_embeds" not in shared._callback_tensor_inputs:
        pytest.skip("diffusers 0.34 hands no callback the pooled embedding")

    def end_cfg(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe._guidance_scale = 1.0
            kwargs = {name: value.chunk(2)[1] for name, value in kwargs.items()}
        return kwargs

    with Recorder(shared) as seen, guided(shared, VSF) as guidance:
        generate(
            shared,
            guidance_scale=3.0,
            callback_on_step_end=end_cfg,
            callback_on_step_end_tensor_inputs=["prompt_embeds", "pooled_prompt_embeds"],
        )
    assert [len(output) for output in seen.outputs] == [2, 2, 1, 1]
    seen.inputs, seen.outputs = seen.inputs[2:], seen.outputs[2:]
    assert_rows_match(shared, seen, VSF, [negative_embedding(shared, "wheels")])
    assert guidance.report is not None
    assert guidance.report.guided_steps == (0, 1, 2, 3)


def test_text_that_nobody_encoded_is_refused(shared: Any) -> None:
    def change_text(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": kwargs["prompt_embeds"] * 0.5}

    with pytest.raises(GuidanceError, match="neither the encoded prompt"), guided(shared, VSF):
        generate(
            shared, callback_on_step_end=change_text, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )


def test_prompts_given_as_embeddings(shared: Any) -> None:
    embeds, _, pooled, _ = shared.encode_prompt(
        ["a red car", "a boat"], None, None, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH
    )
    noise = torch.zeros(2, 4, 8, 8)
    with Recorder(shared) as seen, guided(shared, VSF):
        shared(
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            latents=noise,
            num_inference_steps=2,
            guidance_scale=1.0,
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


def test_a_window_between_two_steps_is_an_error(shared: Any) -> None:
    with pytest.raises(SettingsError, match="none of 4 steps"), guided(shared, VSF.changed(start=0.9)):
        generate(shared)


def test_report_and_one_line_of_log(shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vsf"), guided(shared, VSF) as guidance:
        assert guidance.report is None
        generate(shared)
    report = guidance.report
    assert report is not None
    assert report.layers == tuple(f"transformer_blocks.{i}.attn" for i in range(LAYERS))
    assert (report.steps, report.steps_run, report.guided_steps) == (4, 4, (0, 1, 2, 3))
    assert report.share is None
    assert not report.interrupted
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


def test_an_interruption_excuses_only_steps_that_were_not_taken(pipe: Any) -> None:
    def bypass(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer._forward_pre_hooks.clear()
        pipe._interrupt = step == 1
        return kwargs

    with pytest.raises(GuidanceError, match=r"steps \[1\] of 4 ran without guidance"), guided(pipe, VSF):
        generate(pipe, callback_on_step_end=bypass)


# Nothing is left behind


def test_off_touches_nothing() -> None:
    with guided(object(), Settings(method="off")) as guidance:
        pass
    assert guidance.report is None


def test_the_pipeline_is_as_before_after_the_end(pipe: Any) -> None:
    plain, before = generate(pipe), state(pipe)
    with guided(pipe, VSF):
        assert difference(generate(pipe), plain) > 0.02 * float(plain.std())
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["block", "callback", "body"])
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

    block = pipe.transformer.transformer_blocks[1]
    handle = block.register_forward_pre_hook(fail) if place == "block" else None
    with pytest.raises(error):
        run()
    if handle is not None:
        handle.remove()
    assert state(pipe) == before
    assert torch.equal(generate(pipe), plain)


def test_guidance_goes_on_after_a_caught_interrupt(shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    with guided(shared, VSF):
        expected = generate(shared)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with guided(shared, VSF) as guidance:
        handle = shared.transformer.transformer_blocks[1].register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            generate(shared)
        handle.remove()
        assert guidance.report is None
        assert torch.equal(generate(shared), expected)
    assert len(guidance.reports) == 1


# What it works together with


def lora(pipe: Any) -> dict[str, Tensor]:
    """LoRA weights on the attention of all blocks, image and text side, in diffusers' key format."""
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for i in range(LAYERS):
        for name in ("to_q", "to_v", "add_k_proj", "add_v_proj", "to_out.0"):
            key = f"transformer.transformer_blocks.{i}.attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(2, 24, generator=generator) * 0.3
            weights[f"{key}.lora_B.weight"] = torch.randn(24, 2, generator=generator) * 0.3
    return weights


@pytest.mark.parametrize("inside", [False, True])
def test_lora_loaded_before_or_inside(pipe: Any, inside: bool) -> None:
    pytest.importorskip("peft")
    bare = copy.deepcopy(pipe.transformer)
    if not inside:
        pipe.load_lora_weights(lora(pipe))
    with Recorder(pipe) as seen, guided(pipe, VSF):
        if inside:
            pipe.load_lora_weights(lora(pipe))
        generate(pipe, num_inference_steps=2)
    assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")])
    with pytest.raises(AssertionError):  # the LoRA is felt
        assert_rows_match(pipe, seen, VSF, [negative_embedding(pipe, "wheels")], reference=bare)


def test_model_offload(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)  # diffusers 0.34 calls it
    with guided(pipe, VSF):
        expected = generate(pipe)
    plain = generate(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    processors = dict(pipe.transformer.attn_processors)
    with guided(pipe, VSF) as guidance:
        for _ in range(2):  # the pipeline takes its hooks off and renews them after every call
            assert torch.equal(generate(pipe), expected)
    assert len(guidance.reports) == 2
    assert pipe.transformer.attn_processors == processors
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
    assert pipe.transformer.transformer_blocks[0].attn.to_q.weight.device.type == "meta"
    with guided(pipe, VSF):
        assert torch.equal(generate(pipe), expected)
    assert pipe.transformer.transformer_blocks[0].attn.to_q.weight.device.type == "meta"


# Refusals


def test_guidances_do_not_nest(shared: Any) -> None:
    with guided(shared, VSF), pytest.raises(GuidanceError, match="do not nest"), guided(shared, VSF):
        pass
    before = generate(shared)
    with guided(shared, VSF):
        assert not torch.equal(generate(shared), before)


def test_another_pipeline_is_refused_by_name() -> None:
    class SomePipeline:
        pass

    with pytest.raises(ModelError, match=r"SomePipeline cannot be guided.*StableDiffusion3Pipeline"):
        guided(SomePipeline(), VSF).__enter__()


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer_2"])
def test_a_missing_encoder_is_refused(pipe: Any, part: str) -> None:
    setattr(pipe, part, None)
    with pytest.raises(ModelError, match=rf"no {part},.*load it with"):
        guided(pipe, VSF).__enter__()


def test_fused_transformers_are_refused(pipe: Any) -> None:
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(ModelError, match=r"FusedJointAttnProcessor2_0.*unfuse_qkv_projections"):
        guided(pipe, VSF).__enter__()


@pytest.mark.parametrize("text", ["", "  ", [], ["wheels", ""]])
def test_an_empty_negative_prompt_is_refused(shared: Any, text: str | list[str]) -> None:
    with pytest.raises(PromptError, match='choose method "off"'):
        guided(shared, Settings(), text).__enter__()
    with pytest.raises(PromptError):
        guided(shared, Settings()).__enter__()


def test_bad_options_are_refused(shared: Any) -> None:
    with pytest.raises(SettingsError, match="kernel"):
        guided(shared, VSF, kernel="fastest").__enter__()
    with pytest.raises(SettingsError, match="share"):
        guided(shared, VSF.changed(method="nag"), record_share=True).__enter__()
    with pytest.raises(SettingsError, match="negative_scale is 8"):
        guided(shared, VSF.changed(negative_scale=8), kernel="auto").__enter__()
    with pytest.raises(SettingsError, match='blocks is "double"'):
        guided(shared, VSF.changed(blocks="double")).__enter__()


def test_a_wrong_number_of_negatives_is_refused(shared: Any) -> None:
    with (
        pytest.raises(PromptError, match="2 negative prompts for 3 prompts"),
        guided(shared, VSF, ["a", "car"]),
    ):
        generate(shared, ["a", "car", "boat"])


def test_a_processor_set_by_someone_else_is_refused(pipe: Any) -> None:
    from diffusers.models.attention_processor import FusedJointAttnProcessor2_0

    theirs = FusedJointAttnProcessor2_0()

    def interfere(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer.transformer_blocks[1].attn.set_processor(theirs)
        return kwargs

    with pytest.raises(ModelError, match=r"transformer_blocks\.1\.attn"), guided(pipe, VSF):
        generate(pipe, callback_on_step_end=interfere)
    assert pipe.transformer.transformer_blocks[1].attn.processor is theirs


def test_a_layer_that_was_not_guided_is_an_error(pipe: Any) -> None:
    block = pipe.transformer.transformer_blocks[1]

    def cached(hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return encoder_hidden_states, hidden_states

    with guided(pipe, VSF):
        block.forward = cached  # what a cache of blocks does in a step that it skips
        with pytest.raises(GuidanceError, match=r"1 of 3 layers, the first is transformer_blocks\.1\.attn"):
            generate(pipe)


def test_text_that_changes_on_its_way_is_an_error(pipe: Any) -> None:
    def lengthen(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        text = kwargs["encoder_hidden_states"]
        return args, kwargs | {"encoder_hidden_states": torch.cat([text, text[:, :1]], dim=1)}

    pipe.transformer.transformer_blocks[1].register_forward_pre_hook(lengthen, with_kwargs=True)
    with guided(pipe, VSF), pytest.raises(GuidanceError, match=r"transformer_blocks\.1\.attn has 34 text"):
        generate(pipe)


def test_a_denoiser_that_was_replaced_is_an_error(pipe: Any) -> None:
    original = pipe.transformer
    with guided(pipe, VSF):
        pipe.transformer = copy.deepcopy(original)
        with pytest.raises(GuidanceError, match="replaced"):
            generate(pipe)

    def swap(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer = unseen
        return kwargs

    unseen = pipe.transformer
    unseen._forward_pre_hooks.clear()
    unseen._forward_hooks.clear()
    pipe.transformer = original
    with guided(pipe, VSF), pytest.raises(GuidanceError):
        generate(pipe, callback_on_step_end=swap)


def test_the_denoiser_alone_is_not_a_generation(shared: Any) -> None:
    with guided(shared, VSF), pytest.raises(GuidanceError, match="outside of a generation"):
        shared.transformer(hidden_states=torch.zeros(1, 4, 8, 8))


def test_values_that_are_not_finite_are_an_error(pipe: Any) -> None:
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] = torch.inf
    with guided(pipe, VSF) as guidance, pytest.raises(GuidanceError, match="not finite"):
        generate(pipe)
    assert guidance.report is None
