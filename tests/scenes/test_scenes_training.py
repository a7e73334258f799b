"""Training: captions as the pipeline encodes them, its noise levels, and every stage at a tiny scale."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch.nn.functional import scaled_dot_product_attention
from worker import note_weight

from vsf_lib.errors import ModelError
from vsf_lib.negative import TextEncoder, encode_unpadded, join_clip_and_t5
from vsf_lib.scenes.draw import render
from vsf_lib.scenes.judge import Judge, JudgeNet, Verdict
from vsf_lib.scenes.training import distil, flow, gate
from vsf_lib.scenes.training.command import stages
from vsf_lib.scenes.training.common import (
    Average,
    Checkpoint,
    PlainAttention,
    cosine,
    in_parallel,
    muon_and_adam,
    render_all,
    restore,
    run_steps,
    to_images,
    to_pixels,
    training_scenes,
)
from vsf_lib.scenes.training.judge import SPOILERS, Material, blemish, judge_scenes, loss_of
from vsf_lib.scenes.training.networks import (
    CLIP_LENGTH,
    STUDENT_LAYERS,
    T5_LENGTH,
    TEACHER_LAYERS,
    Networks,
    build_tokenizer,
    build_transformer,
)
from vsf_lib.scenes.training.text import LONG, Captions, encode
from vsf_lib.scenes.world import PARTS, caption

TEXTS = ["a red car on a field", "wheels", "an orange cat with ears and tail in the snow", ""]


# Text


@torch.inference_mode()
@pytest.mark.parametrize("length", [T5_LENGTH, LONG])
def test_captions_are_encoded_as_the_pipeline_does(untrained: Any, length: int) -> None:
    clip, t5 = Captions([[text] for text in TEXTS]).padded(range(len(TEXTS)))
    t5 = torch.nn.functional.pad(t5, (0, length - T5_LENGTH))
    text, pooled = encode(Networks.of(untrained), clip, t5)
    wanted, _, wanted_pooled, _ = untrained.encode_prompt(
        TEXTS, TEXTS, TEXTS, do_classifier_free_guidance=False, max_sequence_length=length
    )
    torch.testing.assert_close(text, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, wanted_pooled, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_unpadded_captions_are_encoded_as_a_negative_is(untrained: Any) -> None:
    networks = Networks.of(untrained)
    captions = Captions([["glasses and hat"]] * 2)
    rng = np.random.default_rng(0)
    clip, t5 = next(
        (clip, t5)
        for _, clip, t5 in (captions.batch(rng, 2, 0.0) for _ in range(200))
        if clip.shape[1] < CLIP_LENGTH
    )
    assert clip.shape == (2, 5)
    assert t5.shape == (2, 4)
    text, _ = encode(networks, clip, t5)

    def clip_features(encoder: Any) -> Any:
        return lambda ids: encoder(ids, output_hidden_states=True).hidden_states[-2]

    words = build_tokenizer(begin=True)
    left, right = (
        encode_unpadded("glasses and hat", TextEncoder(words, clip_features(e), CLIP_LENGTH, True))
        for e in (networks.clip_l, networks.clip_g)
    )
    t5_encoder = TextEncoder(build_tokenizer(begin=False), lambda ids: networks.t5(ids)[0], LONG, False)
    wanted = join_clip_and_t5([left, right], encode_unpadded("glasses and hat", t5_encoder), 128)
    torch.testing.assert_close(text[0], wanted, atol=1e-5, rtol=1e-5)


def test_caption_batches_have_the_three_lengths() -> None:
    rng, words = random.Random(1), build_tokenizer(begin=True)
    texts = [[caption(scene, rng) for _ in range(3)] for scene in training_scenes(40, 2)]
    captions, draws = Captions(texts), np.random.default_rng(3)
    seen = {"padded": 0, "unpadded": 0, "long": 0}
    empty = rows = 0
    for _ in range(400):
        scenes, clip, t5 = captions.batch(draws, 16, dropped=0.25)
        assert len(scenes) == len(clip) == len(t5)
        if t5.shape[1] == LONG:
            mode = "long"
            assert len(scenes) == 4, "long rows are dear"
        elif clip.shape[1] == CLIP_LENGTH:
            mode = "padded"
            assert t5.shape[1] == T5_LENGTH
        else:
            mode = "unpadded"
            assert t5.shape[1] == clip.shape[1] - 1
            assert (clip != 0).all()
            assert (t5 != 0).all()
        seen[mode] += 1
        for scene, clip_row, t5_row in zip(scenes, clip.tolist(), t5.tolist(), strict=True):
            text = words.decode([i for i in clip_row if i > 3])
            assert words.decode([i for i in t5_row if i > 3]) == text
            assert clip_row[0] == 1
            assert clip_row[1 + len(text.split())] == t5_row[len(text.split())] == 3
            if text:
                assert text in texts[scene]
            if mode == "padded":
                rows += 1
                empty += not text
    assert seen["padded"] > 300
    assert 5 < seen["long"] < 40
    assert 20 < seen["unpadded"] < 90
    assert 0.2 < empty / rows < 0.3


# Noise levels


@pytest.mark.parametrize("steps", [4, 6, 8])
def test_noise_levels_are_those_that_the_pipeline_visits(untrained: Any, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(untrained.scheduler.config)
    scheduler.set_timesteps(steps)
    sigmas = distil.shifted_sigmas(steps)
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=1e-7, rtol=0)
    # The model is told the level times 1000, in training as in the pipeline.
    torch.testing.assert_close(sigmas[:-1] * 1000, scheduler.timesteps, atol=1e-3, rtol=0)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0


def test_student_learns_mostly_at_its_own_levels() -> None:
    torch.manual_seed(0)
    sigmas = distil.student_sigmas(2000)
    assert 0 < sigmas.min() <= sigmas.max() <= 1
    grid = torch.cat([distil.shifted_sigmas(n)[:-1] for n in distil.STEP_COUNTS])
    exact = ((sigmas[:, None] - grid).abs() < 1e-6).any(1)
    assert 0.7 < exact.float().mean() < 0.8
    assert {round(float(s), 4) for s in sigmas[exact]} == {round(float(s), 4) for s in grid}


def test_random_levels_cover_all_noise() -> None:
    sigmas = flow.random_sigmas(4000, torch.Generator().manual_seed(0))
    assert ((sigmas >= 0) & (sigmas <= 1)).all()
    assert sigmas.min() < 0.03
    assert sigmas.max() > 0.97
    assert sigmas.median() == pytest.approx(2 / 3, abs=0.03), "shifted as the sampler's"


@torch.inference_mode()
def test_teacher_samples_as_the_pipeline_with_cfg(untrained: Any) -> None:
    networks = Networks.of(untrained)
    captions = Captions([[text] for text in TEXTS[:2]])
    text, pooled = encode(networks, *captions.padded([0, 1]))
    noise = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    empty = encode(networks, *captions.empty())
    taught = distil.teach(networks, text, pooled, empty, noise, steps=2, scale=2.0)
    drawn = untrained(
        TEXTS[:2],
        negative_prompt=["", ""],
        guidance_scale=2.0,
        num_inference_steps=2,
        height=64,
        width=64,
        max_sequence_length=T5_LENGTH,
        latents=noise,
        output_type="latent",
    ).images
    assert (taught - noise).std() > 0.1
    assert (taught - drawn).std() < 0.04 * (drawn - noise).std(), "the teacher computes in bfloat16"


def test_integration_is_of_second_order() -> None:
    """dx / ds = -2 s x from s = 1 to 0 takes x to x e: halving the steps' width quarters the error."""
    errors = []
    for steps in (20, 40, 80):
        sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 1.3
        end = distil.integrate(lambda x, s: -2 * s * x, torch.ones(1, dtype=torch.float64), sigmas)
        errors.append(abs(float(end) - math.e))
    for coarse, fine in pairwise(errors):
        assert 3.3 < coarse / fine < 4.7


@pytest.mark.parametrize(
    ("text", "change", "fits"),
    [
        ("a red car with wheels on a beach", {}, True),
        ("a car", {}, True),
        ("wheels", {}, True),
        ("wheels and windows on a beach", {}, False),
        ("a blue car", {}, False),
        ("a red car in the snow", {}, False),
        ("a red house", {}, False),
        ("a red car", {"clean": False}, False),
        ("a red car with wheels", {"parts": frozenset()}, False),
    ],
)
def test_samples_must_show_what_their_caption_names(text: str, change: dict[str, Any], fits: bool) -> None:
    verdict = Verdict("car", "red", "beach", frozenset({"wheels"}), True, 0.9)
    assert distil.shows(text, dataclasses.replace(verdict, **change)) is fits


# Attention


@pytest.mark.parametrize("case", ["plain", "bool", "float", "causal", "scale"])
def test_plain_attention_is_attention(case: str) -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    mask = torch.rand(2, 1, 9, 9) < 0.7
    mask[..., 0] = True
    options: dict[str, Any] = {
        "plain": {},
        "bool": {"attn_mask": mask},
        "float": {"attn_mask": torch.randn(9, 9)},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.5, "dropout_p": 0.0},
    }[case]
    wanted = scaled_dot_product_attention(q, k, v, **options)
    with PlainAttention():
        got = scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)


# The loop


def test_learning_rate_rises_then_falls() -> None:
    rates = [cosine(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == 0.02
    assert max(rates) == rates[99] == rates[100] == 2.0
    assert rates[99:] == sorted(rates[99:], reverse=True)
    assert rates[-1] == pytest.approx(0.04, abs=1e-3)
    resumed = [cosine(step, 1000, 2.0, start=500) for step in range(500, 1000)]
    assert resumed[0] == pytest.approx(rates[500] / 100)
    assert resumed[99:] == rates[599:]


def test_average_follows_and_swaps() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    average = Average([layer], 0.9)
    for step in range(200):
        torch.nn.init.constant_(layer.weight, 3.0)
        average.update(step)
    layer.weight.data.fill_(7.0)
    average.swap()
    torch.testing.assert_close(layer.weight.data, torch.full((2, 2), 3.0), atol=1e-4, rtol=0)
    average.swap()
    assert (layer.weight == 7).all()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_every_weight_has_one_optimiser_and_embeddings_have_adam(untrained: Any) -> None:
    learners = Networks.of(untrained).learners()
    muon, adam = muon_and_adam(learners, 1e-3)
    matrices, rest = ({id(p) for g in o.param_groups for p in g["params"]} for o in (muon, adam))
    assert not matrices & rest
    assert matrices | rest == {id(p) for module in learners for p in module.parameters()}
    transformer = untrained.transformer
    assert id(transformer.transformer_blocks[0].attn.to_q.weight) in matrices
    for outer in (transformer.proj_out, untrained.text_encoder.text_model.embeddings.token_embedding):
        assert id(outer.weight) in rest


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_may_go_faster_than_adam() -> None:
    net = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(4, 4)])})
    optimisers = muon_and_adam([net], 1e-3, times=10.0)
    run_steps(1, 1e-3, optimisers, lambda _: net["blocks"][0](torch.ones(1, 4)).sum())
    muon, adam = (optimiser.param_groups[0]["lr"] for optimiser in optimisers)
    assert muon == pytest.approx(10 * adam)
    assert adam == pytest.approx(1e-5), "the first step of the warm-up"


def test_pixels_and_images_are_inverse() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 64, 64)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert np.array_equal(to_images(pixels), images)


def test_rendering_in_processes_changes_nothing() -> None:
    scenes = training_scenes(1001, 4)
    images = render_all(scenes)
    assert len(images) == 1001
    for index in (0, 500, 1000):
        assert np.array_equal(images[index], render(scenes[index]))


def test_processes_share_their_gradients(tmp_path: Path) -> None:
    """Gradients 1 and 3 average to 2; the first warm-up step takes a hundredth."""
    in_parallel(2, note_weight, tmp_path)
    assert {p.name: p.read_text("utf-8") for p in tmp_path.iterdir()} == {"0": "2 -0.0200", "1": "2 -0.0200"}


def test_flow_learns_a_handful_of_scenes(untrained: Any) -> None:
    torch.manual_seed(2)
    networks = Networks.of(copy.copy(untrained))
    transformer = copy.deepcopy(networks.transformer)
    flow.initialise(transformer)
    clean = torch.randn(4, 8, 1, 1).expand(4, 8, 16, 16).contiguous()
    with torch.no_grad():
        text, pooled = encode(networks, *Captions([[t] for t in TEXTS]).padded(range(4)))
    sigma = torch.tensor([0.9, 0.8, 0.95, 0.85])
    losses: list[float] = []

    def loss_at(step: int) -> torch.Tensor:
        loss = flow.flow_loss(transformer, clean, torch.randn_like(clean), sigma, text, pooled)
        losses.append(float(loss.detach()))
        return loss

    run_steps(16, 2e-2, [torch.optim.AdamW(transformer.parameters())], loss_at)
    assert losses[0] == pytest.approx(float(clean.square().mean()) + 1, rel=0.1), "the output begins as zero"
    assert np.mean(losses[-3:]) < 0.75 * losses[0], losses


# The judge's material


def test_material_labels_what_holds(untrained: Any) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    material = Material(48, 5, untrained.vae.eval())
    assert len(material.blobs) == 6
    assert len(material.decoded) == len(material.disturbed) == 12
    pixels, y = material.batch(200)
    assert pixels.shape == (200, 3, 64, 64)
    assert pixels.abs().max() <= 1
    assert pixels.isfinite().all()
    assert y.parts.shape == (200, len(PARTS))
    spoilt = y.clean == 0
    assert 0.25 < spoilt.float().mean() < 0.5
    assert (y.colour[spoilt] == -1).all(), "a spoilt picture teaches no colour"
    assert 0.05 < y.clean.isnan().float().mean() < 0.2, "half a part is neither clean nor spoilt"
    assert (y.parts[y.clean == 1].isnan().sum()) == 0
    logits = {
        "kind": torch.zeros(200, 11),
        "colour": torch.zeros(200, 6),
        "place": torch.zeros(200, 4),
        "parts": torch.zeros(200, len(PARTS)),
        "clean": torch.zeros(200),
    }
    # Indifferent logits cost ln(labels) each, whatever the labels are; the parts weigh more than the rest.
    without_parts = np.log(11) + np.log(6) + np.log(4) + np.log(2)
    weight = (float(loss_of(logits, y)) - without_parts) / np.log(2)
    assert weight == pytest.approx(round(weight), abs=1e-3)
    assert weight > 1


def test_blemishes_are_slight_and_spoilers_are_not() -> None:
    torch.manual_seed(4)
    random.seed(4)
    pixels = to_pixels(render_all([s for s in judge_scenes(40, 6) if s.kind]))
    slight = (blemish(pixels) - pixels).abs().mean((1, 2, 3))
    assert slight.max() < 0.15
    for spoil in SPOILERS:
        changed = (spoil(pixels) - pixels).abs().amax((1, 2, 3))
        assert (changed > 0.3).float().mean() > 0.8


# All stages


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which every stage but the gate has run, for a step or a few."""
    folder = tmp_path_factory.mktemp("work")
    for name, result, stage in stages(folder, 0.0003, "cpu"):
        if name == "gate":
            continue
        if name == "pairs":  # nothing that so little training draws shows its caption
            with pytest.raises(ModelError, match="train the flow for more steps"):
                stage()
            assert not (folder / result).exists()
            distil.make_pairs(folder, count=2, steps=2, scale=2.5, keep=anything)
        else:
            stage()
        assert (folder / result).exists(), name
    return folder


def anything(text: str, verdict: Verdict) -> bool:
    return True


def test_stages_leave_scores(work: Path) -> None:
    scores = json.loads((work / "scores.json").read_text("utf-8"))
    assert set(scores["judge"]) == {"plain", "noisy", "blurred"}
    assert set(scores["judge"]["plain"]) == {"kind", "colour", "parts", "clean", "all"}
    config = AutoencoderKL.from_pretrained(work / "vae").config
    assert config.scaling_factor == pytest.approx(1 / scores["autoencoder"]["latent_std"], rel=1e-5)
    assert config.shift_factor == pytest.approx(scores["autoencoder"]["latent_mean"], rel=1e-5)


def test_latents_are_what_the_pipeline_decodes(work: Path) -> None:
    data = torch.load(work / "latents.pt", weights_only=True)
    count = len(data["latents"])
    assert data["latents"].shape == (count, 8, 16, 16)
    assert [len(row) for row in data["captions"]] == [flow.CAPTIONS_EACH] * count
    vae = AutoencoderKL.from_pretrained(work / "vae")
    with torch.inference_mode():
        mean = vae.encode(to_pixels(render_all(training_scenes(count, 3)))).latent_dist.mean
    back = data["latents"].float() / vae.config.scaling_factor + vae.config.shift_factor
    assert (back - mean).std() < 0.02 * mean.std(), "half precision and bfloat16"


def test_pairs_are_straight_lines_to_learn(work: Path) -> None:
    data = torch.load(work / "pairs.pt", weights_only=True)
    assert data["noise"].shape == data["latents"].shape == (len(data["captions"]), 8, 16, 16)
    assert data["latents"].isfinite().all()
    assert not list(work.glob("pairs-*.pt"))


def test_distillation_leaves_the_text_encoders_alone(work: Path) -> None:
    teacher, student = flow.load(work), flow.load(work, "student.pt", layers=STUDENT_LAYERS)
    for name in ("clip_l", "clip_g", "t5"):
        before, after = getattr(teacher, name).state_dict(), getattr(student, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    before, after = teacher.transformer.state_dict(), student.transformer.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_the_student_is_the_teacher_less_one_layer() -> None:
    torch.manual_seed(8)
    teacher = build_transformer(TEACHER_LAYERS)
    idle = teacher.transformer_blocks[4]
    for modulation in (idle.norm1.linear, idle.norm1_context.linear):
        torch.nn.init.zeros_(modulation.weight)
        torch.nn.init.zeros_(modulation.bias)
    arguments = (
        torch.randn(2, 8, 16, 16),
        torch.randn(2, 9, 128),
        torch.randn(2, 128),
        torch.tensor([900.0, 40.0]),
    )
    with torch.inference_mode():
        whole = teacher(*arguments, return_dict=False)[0]
        less = distil.without_layer(teacher, 4)(*arguments, return_dict=False)[0]
        other = distil.without_layer(teacher, 3)(*arguments, return_dict=False)[0]
    assert torch.allclose(less, whole, atol=1e-6), "an idle layer is not missed"
    assert not torch.allclose(other, whole, atol=1e-3)


def test_an_unfinished_stage_leaves_no_finished_file(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    keep = Checkpoint(tmp_path / "x.pt", Average([module], 0.9), [module], rank=0)
    keep(499)
    assert [path.name for path in tmp_path.iterdir()] == ["x.part.pt"]
    keep.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    again = torch.nn.Linear(2, 2)
    assert restore(tmp_path / "x.pt", [again]) == 500
    assert torch.equal(again.weight, module.weight)
    assert restore(tmp_path / "y.pt", [again]) == 0


def test_gate_refuses_an_autoencoder_that_has_not_learnt(work: Path) -> None:
    with pytest.raises(ModelError, match="reconstructions pass the judge"):
        gate.check_autoencoder(work, count=4)


def test_gate_names_what_an_untrained_model_misses(untrained: Any) -> None:
    torch.manual_seed(0)
    scores = gate.measure_model(untrained, Judge(JudgeNet()), steps=(1,), count=2)
    assert set(scores) == {"1"}
    assert set(scores["1"]) == {"positive", "negative", "quality"}
    assert "at 1 steps positive" in gate.missed({"1": {"positive": 0.0, "negative": 0.0, "quality": 0.2}})


@pytest.mark.parametrize(
    ("positive", "quality", "passes"), [(0.9, 0.9, True), (0.895, 0.95, False), (0.95, 0.895, False)]
)
def test_gate_wants_both(positive: float, quality: float, passes: bool) -> None:
    good = {"positive": 1.0, "negative": 0.0, "quality": 1.0}
    found = gate.missed({"4": good, "8": {**good, "positive": positive, "quality": quality}})
    assert (found == "") == passes
    assert passes or ("at 8 steps" in found and "at 4" not in found)


def test_gate_looks_at_held_out_scenes() -> None:
    from vsf_lib.scenes.world import is_held_out

    assert all(is_held_out(s.owner, s.colour, s.place) for s in gate.fresh_scenes(50, 1))
