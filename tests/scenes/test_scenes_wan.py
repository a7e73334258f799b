"""The small Wan: as WanPipeline calls it, what it takes over, and each stage at a tiny scale."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import save_file
from torch import Tensor

from vsf_lib.bench.drawing import Method
from vsf_lib.bench.filming import Take, film, moving_pairs
from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, JudgeNet, Verdict
from vsf_lib.scenes.loading import load_video_pipeline
from vsf_lib.scenes.model import WAN_LORA
from vsf_lib.scenes.motion import FRAMES, STRIDE, VERBS, render_video
from vsf_lib.scenes.training import (
    wan,
    wan_adopt,
    wan_distil,
    wan_flow,
    wan_stages,
    wan_vae,
)
from vsf_lib.scenes.training.common import to_pixels
from vsf_lib.scenes.training.distil import STEP_COUNTS
from vsf_lib.scenes.training.networks import Networks, build_tokenizer
from vsf_lib.scenes.training.traces import Traces, trace
from vsf_lib.scenes.world import WORDS
from vsf_lib.settings import Settings

TEXTS = ["a red car driving on a field", "wheels", "an orange cat with ears and tail jumping in the snow", ""]
SCHEDULER = UniPCMultistepScheduler(
    prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=wan.SHIFT
)


def anything(text: str, verdict: Verdict) -> bool:
    return True


@pytest.fixture
def pipe(teacher: Networks) -> Any:
    """The small Wan, its weights disturbed so that everything acts."""
    torch.manual_seed(7)
    transformer = wan.build()
    for parameter in transformer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return WanPipeline(
        transformer=transformer,
        text_encoder=wan.build_text_encoder(teacher.t5),
        tokenizer=wan.build_tokenizer(),
        vae=wan_vae.build(),
        scheduler=SCHEDULER,
    )


# Text


def test_known_words_keep_their_ids() -> None:
    before, after = build_tokenizer(begin=False), wan.build_tokenizer()
    text = " ".join(WORDS)
    assert after(text).input_ids == before(text).input_ids
    assert after(" ".join(VERBS)).input_ids[:-1] == [len(before) + i for i in range(len(VERBS))]


def test_umt5_begins_as_the_scenes_models_t5(teacher: Networks) -> None:
    ids = torch.tensor(wan.build_tokenizer()(["a red car on a field"]).input_ids)
    with torch.inference_mode():
        mine, theirs = wan.build_text_encoder(teacher.t5)(ids)[0], teacher.t5(ids)[0]
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_captions_are_encoded_as_the_pipeline_does(pipe: Any) -> None:
    captions = wan.Captions([[text] for text in TEXTS])
    mine = wan.encode(pipe.text_encoder, captions.first(range(len(TEXTS))))
    whole = pipe.encode_prompt(TEXTS, do_classifier_free_guidance=False, max_sequence_length=wan.LENGTH)[0]
    torch.testing.assert_close(mine, whole[:, : wan.PLACES], atol=1e-5, rtol=0)
    assert not whole[:, wan.PLACES - 1 :].any()
    assert torch.equal(captions.empty(), captions.first([3]))


def test_a_batch_has_its_share_of_empty_captions() -> None:
    captions = wan.Captions([["a red car", "wheels"], ["a cat", "ears"]])
    which, ids, empty = captions.batch(np.random.default_rng(1), 400, 0.25)
    assert 0.18 < float(empty.float().mean()) < 0.32
    assert (ids[empty] == captions.empty()).all()
    assert not (ids[~empty] == captions.empty()).all(1).any()
    assert set(which.tolist()) == {0, 1}


# The transformer


@torch.inference_mode()
def test_training_computes_what_the_pipeline_does(pipe: Any) -> None:
    """Sixteen places of text for 512, and attention by matrix products."""
    torch.manual_seed(8)
    latents, sigma = torch.randn(3, wan.CHANNELS, 2, 8, 8), torch.tensor([0.99, 0.5, 0.03])
    text = wan.encode(pipe.text_encoder, wan.Captions([[t] for t in TEXTS[:3]]).first(range(3)))
    whole = torch.nn.functional.pad(text, (0, 0, 0, wan.LENGTH - wan.PLACES))
    expected = pipe.transformer(latents, wan.timesteps(sigma), whole, return_dict=False)[0]
    transformer = wan.plain(copy.deepcopy(pipe.transformer))
    exact = transformer(latents, wan.timesteps(sigma), text, return_dict=False)[0]
    torch.testing.assert_close(exact, expected, atol=2e-5, rtol=0)
    rough = wan.velocity(transformer, latents, sigma, text)
    assert (rough - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.parametrize("steps", [4, 6, 8, 30])
def test_noise_levels_are_the_schedulers(steps: int) -> None:
    SCHEDULER.set_timesteps(steps)
    sigmas = wan.wan_sigmas(steps)
    torch.testing.assert_close(sigmas, SCHEDULER.sigmas, atol=1e-5, rtol=0)
    assert torch.equal(wan.timesteps(sigmas[:-1]).long(), SCHEDULER.timesteps)


def test_it_begins_with_silence_and_hears_words_through_the_padding() -> None:
    torch.manual_seed(9)
    transformer = wan.build()
    text = torch.nn.functional.pad(torch.randn(1, 6, 128), (0, 0, 0, wan.LENGTH - 6))
    shares = []

    def note(module: Any, args: tuple[Tensor, ...], kwargs: Any, out: Tensor) -> None:
        embedded, attn = args[1], module
        query = attn.norm_q(attn.to_q(args[0])).unflatten(2, (4, -1)).transpose(1, 2)
        key = attn.norm_k(attn.to_k(embedded)).unflatten(2, (4, -1)).transpose(1, 2)
        weights = (query @ key.transpose(-1, -2) * 32**-0.5).softmax(-1)
        shares.append(float(weights[..., :6].sum(-1).mean()))

    for block in transformer.blocks:
        block.attn2.register_forward_hook(note, with_kwargs=True)
    with torch.inference_mode():
        out = transformer(torch.randn(1, 32, 1, 8, 8), torch.tensor([500]), text, return_dict=False)[0]
    assert not out.any()
    assert min(shares) > 0.15, "uniform attention gives six words of 512 a hundredth"


def test_a_frame_is_the_scenes_models_latents() -> None:
    latents = torch.randn(2, 8, 16, 16)
    folded = wan.fold(latents)
    assert folded.shape == (2, 32, 8, 8)
    assert torch.equal(wan.unfold(folded), latents)
    assert folded[1, 4 * 5 + 2 * 1 + 0, 3, 6] == latents[1, 5, 2 * 3 + 1, 2 * 6]


@torch.no_grad()
def test_what_is_taken_over_reads_and_writes_the_same_places(teacher: Networks, work: Path) -> None:
    transformer = wan.build()
    wan_adopt.adopt(transformer, teacher, Traces.load(work / "traces.pt"))
    own, latents = teacher.transformer, torch.randn(2, 8, 16, 16)
    mine = transformer.patch_embedding(wan.fold(latents)[:, :, None]).flatten(2).transpose(1, 2)
    places = own.pos_embed.cropped_pos_embed(16, 16)
    theirs = own.pos_embed(latents) - places + places.mean((0, 1))
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    tokens = torch.randn(1, 64, 128)
    written = wan.unfold(transformer.proj_out(tokens).transpose(1, 2).unflatten(2, (8, 8)))
    patches = own.proj_out(tokens).unflatten(1, (8, 8)).unflatten(3, (2, 2, 8))
    torch.testing.assert_close(written, patches.permute(0, 5, 1, 3, 2, 4).reshape(1, 8, 16, 16))
    source, block = own.transformer_blocks[4], transformer.blocks[4]
    assert torch.equal(block.ffn.net[0].proj.weight, source.ff.net[0].proj.weight)
    assert torch.equal(block.attn1.to_v.weight, source.attn.to_v.weight)
    assert torch.equal(transformer.blocks[1].attn1.to_v.weight, own.transformer_blocks[1].attn2.to_v.weight)


# The autoencoder


@torch.inference_mode()
def test_decoding_in_training_is_the_autoencoders_own() -> None:
    torch.manual_seed(3)
    vae = wan_vae.build()
    latents = torch.randn(1, wan.CHANNELS, 3, 8, 8)
    mine = wan_vae.decode(vae, latents)
    assert mine.shape == (1, 3, 9, 64, 64)
    torch.testing.assert_close(mine.clamp(-1, 1), vae.decode(latents).sample)
    assert vae.encode(mine).latent_dist.mean.shape == latents.shape
    assert vae.encode(mine).latent_dist.std.max() < 0.1


@torch.inference_mode()
def test_clips_have_the_latents_of_their_keyframes(work: Path, teacher: Networks) -> None:
    data = torch.load(work / "wan-clips.pt", weights_only=True)
    assert data["frames"].shape == (1, FRAMES, 64, 64, 3)
    scene = wan_vae.moving_scenes(1, 81)[0]
    assert np.array_equal(data["frames"][0].numpy(), render_video(scene))
    frame = to_pixels(data["frames"][0, 2 * STRIDE].numpy()[None])
    config = teacher.vae.config
    mean = (teacher.vae.encode(frame).latent_dist.mean - config.shift_factor) * config.scaling_factor
    found = data["latents"][0, 2].float()
    assert (wan.fold(mean)[0] - found).std() < 0.03 * found.std(), "half precision and bfloat16"


# All stages

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A work folder in which every stage has run, for a step or two."""
    folder = tmp_path_factory.mktemp("work")
    Judge(JudgeNet()).save(folder / "critic.safetensors")
    for _, result, stage in wan_stages.stages(folder, 0.0004, "cpu", shared=shared):
        if (folder / result).exists():
            continue
        if result == "traces.pt":
            trace(folder, shared, count=4, keep=anything)
        elif result == "wan-pairs.pt":
            with pytest.raises(ModelError, match="train the flow for more steps"):
                stage()
            wan_distil.make_pairs(folder, shared, count=2, steps=2, scale=2.0, keep=anything)
        else:
            stage()
        assert (folder / result).exists(), result
    return folder


@needs_muon
def test_stages_leave_finished_files(work: Path) -> None:
    left = {path.name for path in work.glob("wan-*")}
    assert left == {
        f"wan-{name}.pt"
        for name in ("begun", "clips", "few", "few-begun", "flow", "latents", "pairs", "vae", "vae-begun")
    }


@needs_muon
def test_samples_are_the_pipelines(work: Path, shared: Path) -> None:
    """Many steps of it and of the pipeline's solver end at the same video."""
    torch.manual_seed(5)
    learners = wan_flow.Learners.load(work, "wan-flow.pt", shared)
    for parameter in learners.transformer.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    noise = torch.randn(1, wan.CHANNELS, 2, 8, 8)
    pipe = WanPipeline(
        transformer=copy.deepcopy(learners.transformer),
        text_encoder=learners.encoder,
        tokenizer=wan.build_tokenizer(),
        vae=wan_vae.build(),
        scheduler=SCHEDULER,
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        TEXTS[0],
        negative_prompt="",
        height=64,
        width=64,
        num_frames=5,
        num_inference_steps=30,
        guidance_scale=2.0,
        latents=noise,
        output_type="latent",
    ).frames
    wan.plain(learners.transformer)
    captions = wan.Captions([[TEXTS[0]]])
    mine = wan_flow.sample(learners, captions, torch.tensor([0]), noise, steps=30, scale=2.0)
    gone = (theirs - noise).abs().mean()
    assert (mine - theirs).abs().mean() < 0.1 * gone, "mixed precision"


@needs_muon
def test_pairs_are_videos_with_their_noise(work: Path, teacher: Networks) -> None:
    data = torch.load(work / "wan-pairs.pt", weights_only=True)
    assert data["noise"].shape == data["latents"].shape == (2, wan.CHANNELS, 5, 8, 8)
    assert wan_distil.keyframes(teacher.vae, data["latents"].float()).shape == (2, 5, 64, 64, 3)


@needs_muon
def test_distillation_changes_the_lora_alone(work: Path, shared: Path) -> None:
    before = wan_flow.Learners.load(work, "wan-flow.pt", shared).transformer.state_dict()
    after = wan_distil.load_few(work, shared).transformer.state_dict()
    kept = {name.replace(".base_layer", ""): value for name, value in after.items() if "lora" not in name}
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    assert any(value.any() for name, value in after.items() if "lora_B" in name)


@torch.inference_mode()
def test_its_own_way_is_what_few_steps_do(pipe: Any) -> None:
    """From the same noise the pipeline's solver, kept to first order, comes through the same places."""
    torch.manual_seed(2)
    noise = torch.randn(1, wan.CHANNELS, 2, 8, 8)
    places = []
    pipe.scheduler = UniPCMultistepScheduler.from_config(
        pipe.scheduler.config, solver_order=1, disable_corrector=list(range(100))
    )
    pipe.set_progress_bar_config(disable=True)
    text = wan.encode(pipe.text_encoder, wan.Captions([[TEXTS[0]]]).first([0]))
    for steps in STEP_COUNTS:
        pipe(
            TEXTS[0],
            height=64,
            width=64,
            num_frames=5,
            num_inference_steps=steps,
            guidance_scale=1.0,
            latents=noise,
            output_type="latent",
            callback_on_step_end=lambda pipe, step, time, kept: places.append(kept["latents"]) or kept,
        )
    wan.plain(pipe.transformer)
    for _ in range(5):
        sigma, state = wan_distil.own_way(pipe.transformer, noise, text)
        assert 0 < sigma.item() < 1
        gone = (state - noise).abs().mean()
        assert min((state - place).abs().mean() for place in places) < 0.02 * gone, "mixed precision"


def test_the_aim_is_the_line_to_the_video(pipe: Any) -> None:
    """Off the line, too; and near the end little is asked."""
    torch.manual_seed(3)
    transformer = wan.plain(pipe.transformer)
    clean, noise, text = torch.randn(4, 32, 2, 8, 8), torch.randn(4, 32, 2, 8, 8), torch.randn(4, 16, 128)
    sigma = torch.tensor([1.0, 0.6, 0.3, 0.1])
    s = sigma.view(-1, 1, 1, 1, 1)
    state = (1 - s) * clean + s * noise + 0.1 * torch.randn_like(clean)
    with torch.no_grad():
        loss = wan_distil.aim(transformer, state, sigma, text, clean)
        v = wan.velocity(transformer, state, sigma, text).double()
    missed = state.double() - s * v - clean.double()  # of the video that a step to the end would give
    weight = torch.tensor([1.0, 0.6, 0.3, 0.3], dtype=torch.double).view(-1, 1, 1, 1, 1)
    assert loss.item() == pytest.approx((missed / weight).square().mean().item(), rel=1e-4)


@needs_muon
@torch.inference_mode()
def test_the_loras_file_is_read_as_kijais(work: Path, shared: Path, pipe: Any, tmp_path: Path) -> None:
    torch.manual_seed(4)
    few = wan_distil.load_few(work, shared).transformer
    for name, parameter in few.named_parameters():
        noise = 0.1 * torch.randn_like(parameter)
        parameter.copy_(noise.half() if "lora" in name else parameter + noise)  # half is what the file holds
    base = {name.replace(".base_layer", ""): value for name, value in few.state_dict().items()}
    pipe.transformer.load_state_dict({name: v for name, v in base.items() if "lora" not in name})
    state = wan_distil.lora_file(few)
    assert {name.rsplit(".", 1)[1] for name in state} == {"weight", "diff_b"}
    assert "diffusion_model.blocks.5.cross_attn.o.lora_down.weight" in state
    save_file(state, tmp_path / "few.safetensors")
    arguments = torch.randn(1, 32, 2, 8, 8), torch.tensor([500]), torch.randn(1, 512, 128)
    bare = pipe.transformer(*arguments, return_dict=False)[0]
    pipe.load_lora_weights(str(tmp_path / "few.safetensors"))
    read = pipe.transformer(*arguments, return_dict=False)[0]
    expected = few(*arguments, return_dict=False)[0]
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=0)
    assert (read - bare).abs().max() > 0.1


@needs_muon
def test_what_is_exported_is_a_pipeline_of_little_size(work: Path, shared: Path, tmp_path: Path) -> None:
    folder = wan_stages.export(work, tmp_path, shared)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert 5.3e6 < size < 5.7e6
    pipe = load_video_pipeline(folder)
    asked: dict[str, Any] = {"height": 64, "width": 64, "num_frames": FRAMES, "num_inference_steps": 2}
    video = pipe(TEXTS[0], guidance_scale=1.0, output_type="np", **asked).frames[0]
    assert video.shape == (FRAMES, 64, 64, 3)
    expected = wan_distil.load_few(work, shared).transformer.state_dict()["proj_out.weight"].half()
    assert torch.equal(pipe.transformer.proj_out.weight.half(), expected)
    torch.manual_seed(1)
    for parameter in pipe.transformer.parameters():  # it has learnt to look at words for two steps only
        parameter.data += 0.1 * torch.randn_like(parameter)
    pairs = moving_pairs(2)
    vsf = Method("vsf", Settings(alpha=4.0, negative_tokens="words"))
    off = Method("none", Settings(method="off"))
    plain, guided = (film(pipe, pairs, Take(way, 2), seed=1) for way in (off, vsf))
    assert plain.shape == guided.shape == (2, FRAMES, 64, 64, 3)
    assert np.abs(plain.astype(int) - guided).max() > 5
    for name, parameter in pipe.transformer.named_parameters():
        if "lora" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with_lora, without, again = (film(pipe, pairs, Take(off, 2, lora), seed=1) for lora in (1.0, 0.0, 1.0))
    assert np.array_equal(with_lora, again)
    assert not np.array_equal(with_lora, without)
    pipe.transformer.disable_lora()
    seeds = [torch.Generator().manual_seed(1_000_003 + i) for i in range(2)]
    prompts = [pair.prompt for pair in pairs]
    bare = pipe(prompts, guidance_scale=1.0, output_type="np", generator=seeds, **asked).frames
    assert np.array_equal(without, (bare * 255).round().astype(np.uint8))
    (folder / WAN_LORA).unlink()
    with pytest.raises(ModelError, match="check it out again"):
        load_video_pipeline(folder)
    with pytest.raises(ModelError, match="--model wan"):
        load_video_pipeline(tmp_path)


def test_few_steps_are_what_is_practised() -> None:
    torch.manual_seed(2)
    drawn = wan_distil.few_sigmas(4000)
    exact = torch.cat([wan.wan_sigmas(steps)[:-1] for steps in (4, 6, 8)])
    share = float((drawn[:, None] == exact).any(1).float().mean())
    assert 0.7 < share < 0.8
    assert drawn.min() >= 0
    assert drawn.max() <= 1
