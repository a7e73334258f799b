"""The small Flux models: as FluxPipeline calls them, what they are taught, and each stage at a tiny scale."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.embeddings import apply_rotary_emb

from vsf_lib.bench.drawing import Method, draw
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, JudgeNet, Verdict
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH, SIZE
from vsf_lib.scenes.training import flux, flux_stages, gate
from vsf_lib.scenes.training.common import muon_and_adam, run_steps
from vsf_lib.scenes.training.distil import guided
from vsf_lib.scenes.training.networks import Networks
from vsf_lib.scenes.training.text import Captions
from vsf_lib.scenes.training.text import encode as encode_sd3
from vsf_lib.scenes.training.traces import FEW, FINER, TAUGHT, Traces, begun, trace
from vsf_lib.settings import Settings

TEXTS = ["a red car on a field", "wheels", "an orange cat with ears and tail in the snow", ""]
OFF = Method("none", Settings(method="off"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, teacher: Networks) -> Path:
    """A work folder as the stages before the traces leave it."""
    folder = tmp_path_factory.mktemp("work")
    teacher.vae.save_pretrained(folder / "vae")
    Judge(JudgeNet()).save(folder / "critic.safetensors")
    return folder


def anything(text: str, verdict: Verdict) -> bool:
    return True


def random_transformer(*, guidance: bool) -> Any:
    """One whose blocks do something."""
    torch.manual_seed(7)
    transformer = flux.build(guidance=guidance, double=1, single=1)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return transformer


# As the pipeline


def test_tokens_are_the_pipelines() -> None:
    latents = torch.randn(2, 8, 16, 16)
    tokens = FluxPipeline._pack_latents(latents, 2, 8, 16, 16)
    assert torch.equal(flux.pack(latents), tokens)
    assert torch.equal(flux.unpack(tokens), latents)
    wanted = FluxPipeline._prepare_latent_image_ids(2, 8, 8, torch.device("cpu"), torch.float32)
    assert torch.equal(flux.image_ids(), wanted)


@torch.inference_mode()
def test_text_and_noise_levels_are_the_pipelines(teacher: Networks, shared: Path, tmp_path: Path) -> None:
    random_transformer(guidance=True).save_pretrained(tmp_path)
    pipe = load_pipeline(tmp_path, shared)
    text, pooled = flux.encode(teacher, *Captions([[text] for text in TEXTS]).padded(range(len(TEXTS))))
    wanted, wanted_pooled, _ = pipe.encode_prompt(TEXTS, TEXTS, max_sequence_length=MAX_SEQUENCE_LENGTH)
    torch.testing.assert_close(text, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled, wanted_pooled, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(wanted[0], wanted[1], atol=0.1)
    pipe(
        TEXTS[0],
        num_inference_steps=5,
        height=SIZE,
        width=SIZE,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        output_type="latent",
    )
    torch.testing.assert_close(pipe.scheduler.sigmas, flux.flux_sigmas(5))


@torch.inference_mode()
def test_velocity_knows_the_exact_noise_level() -> None:
    """Rounded to the eight bits of bfloat16, as autocast would, these two are one."""
    transformer = random_transformer(guidance=True)
    seen: list[torch.Tensor] = []
    transformer.time_text_embed.register_forward_hook(lambda _, args, __: seen.extend(args[:2]))
    sigma, guidance = torch.tensor([0.8571, 0.8573]), torch.tensor([2.5, 4.0])
    text = torch.randn(2, 5, 128), torch.randn(2, 64)
    got = flux.velocity(transformer, torch.randn(2, 8, 16, 16), sigma, guidance, text)
    assert got.shape == (2, 8, 16, 16)
    assert got.dtype == torch.float32
    assert torch.equal(seen[0], sigma * 1000)
    assert torch.equal(seen[1], guidance * 1000)
    assert not transformer.time_text_embed._forward_pre_hooks


@torch.inference_mode()
def test_one_guidance_scale_folded_in() -> None:
    transformer = random_transformer(guidance=True)
    folded = flux.without_guidance(transformer, 2.5)
    arguments = {
        "hidden_states": torch.randn(2, 64, 32),
        "timestep": torch.tensor([0.9, 0.3]),
        "pooled_projections": torch.randn(2, 64),
        "encoder_hidden_states": torch.randn(2, 5, 128),
        "txt_ids": torch.zeros(5, 3),
        "img_ids": flux.image_ids(),
    }
    got = folded(**arguments).sample
    same, other = (transformer(**arguments, guidance=torch.full((2,), scale)).sample for scale in (2.5, 1.5))
    torch.testing.assert_close(got, same, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, other, atol=1e-2)


@torch.inference_mode()
def test_heads_begin_by_looking_at_neighbours() -> None:
    """All but one of each block, by their biases alone; the text, at 0, 0, is seen from where one stands."""
    transformer = flux.build(guidance=False)
    rope = transformer.pos_embed(torch.cat([torch.zeros(1, 3), flux.image_ids()]))
    looks = set()
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        query, key = (
            apply_rotary_emb(layer.bias.view(1, 4, 1, 32).expand(1, 4, 65, 32), rope)[0]
            for layer in (block.attn.to_q, block.attn.to_k)
        )
        logits = query @ key.mT
        assert logits[0].unique().numel() == 1, "one head is free"
        for head in (1, 2, 3):
            row, column = divmod(int(logits[head, 1 + 4 * 8 + 3, 1:].argmax()), 8)
            assert abs(row - 4) <= 2
            assert abs(column - 3) <= 2
            looks.add((row, column))
            assert logits[head, 1:, 0].std() > 1
    assert len(looks) > 7


def test_weights_fit_in_their_share() -> None:
    """25 MB of weights ship in all."""
    for guidance in (True, False):
        transformer = flux.build(guidance=guidance)
        assert sum(p.numel() for p in transformer.parameters()) * 2 <= 4_300_000
        assert len(transformer.transformer_blocks) > 1
        assert len(transformer.single_transformer_blocks) > 1


@torch.inference_mode()
def test_it_takes_over_what_fits(teacher: Networks) -> None:
    """Patches, pooled text and output are the scenes model's own, up to the order of a patch's numbers."""
    torch.manual_seed(11)
    own, transformer = teacher.transformer, flux.build(guidance=True)
    flux.adopt(transformer, teacher)
    latents, clip, t5 = torch.randn(2, 8, 16, 16), *Captions([[text] for text in TEXTS[:2]]).padded(range(2))
    patches = own.pos_embed.proj(latents).flatten(2).mT
    torch.testing.assert_close(transformer.x_embedder(flux.pack(latents)), patches, atol=1e-5, rtol=1e-4)
    wanted, got = (
        embed.text_embedder(encode(teacher, clip, t5)[1])
        for embed, encode in ((own.time_text_embed, encode_sd3), (transformer.time_text_embed, flux.encode))
    )
    assert not torch.allclose(got, wanted), "CLIP-G's half is not there"
    hidden = torch.randn(2, 64, 128)
    pixels = own.proj_out(hidden).view(2, 8, 8, 2, 2, 8)
    wanted = torch.einsum("nhwpqc->nchpwq", pixels).reshape(2, 8, 16, 16)
    torch.testing.assert_close(flux.unpack(transformer.proj_out(hidden)), wanted, atol=1e-5, rtol=1e-4)
    first, single = own.transformer_blocks[0], transformer.single_transformer_blocks[-1]
    assert torch.equal(transformer.transformer_blocks[0].ff.net[2].weight, first.ff.net[2].weight)
    assert torch.equal(single.attn.to_k.weight, own.transformer_blocks[5].attn.to_k.weight)


@torch.inference_mode()
def test_pooled_text_is_taken_over_through_its_projection(teacher: Networks) -> None:
    """What CLIP-L adds to the first layer is the same whether its vector comes projected or not."""
    transformer = flux.build(guidance=False)
    flux.adopt(transformer, teacher)
    bare = torch.randn(3, 64)
    projected = torch.cat([teacher.clip_l.text_projection(bare), torch.zeros(3, 64)], dim=1)
    wanted = teacher.transformer.time_text_embed.text_embedder(projected)
    torch.testing.assert_close(transformer.time_text_embed.text_embedder(bare), wanted, atol=1e-5, rtol=1e-4)


# What it is taught


@pytest.fixture(scope="module")
def traces(work: Path, shared: Path) -> Traces:
    trace(work, shared, count=6, keep=anything)
    return Traces.load(work / "traces.pt")


@torch.inference_mode()
def test_traces_are_the_teachers_own_ways(traces: Traces, teacher: Networks) -> None:
    assert traces.states.shape == (6, FEW * FINER + 1, 8, 16, 16)
    captions = Captions([[text] for text in traces.captions])
    text, pooled = encode_sd3(teacher, *captions.padded(range(6)))
    empty = encode_sd3(teacher, *captions.empty())
    states = traces.states.float()
    for i in range(6):
        velocity = guided(teacher, text[i : i + 1], pooled[i : i + 1], empty, float(traces.scale[i]))
        for step in range(FEW * FINER):
            now, then = traces.sigmas[i, step], traces.sigmas[i, step + 1]
            wanted = velocity(states[i : i + 1, step], now)[0]
            got = traces.velocity(torch.tensor([i]), torch.tensor([step]), traces.scale[i : i + 1])[0]
            torch.testing.assert_close(got, wanted, atol=0.03, rtol=0.05)
            torch.testing.assert_close(
                states[i, step + 1], states[i, step] + (then - now) * wanted, atol=0.02, rtol=0.02
            )
    assert (traces.sigmas[:, 0] == 1).all()
    assert (traces.sigmas[:, -1] == 0).all()


def test_half_of_the_traces_are_for_schnell(traces: Traces) -> None:
    own = flux.flux_sigmas(FEW * FINER)
    torch.testing.assert_close(traces.sigmas[::2], own.expand(3, -1))
    assert (traces.scale[::2] == TAUGHT).all()
    assert not torch.isclose(traces.sigmas[1::2, 1:-1], own[1:-1]).all()
    assert traces.scale[1::2].unique().numel() == 3
    torch.testing.assert_close(own[::FINER], flux.flux_sigmas(FEW))


def test_scales_reach_from_blank_to_beyond_told(traces: Traces) -> None:
    which, step = torch.tensor([1, 2]), torch.tensor([3, 0])
    at = [traces.velocity(which, step, torch.full((2,), scale)) for scale in (0.0, 1.0, 2.0)]
    assert torch.equal(at[0], traces.blank[which, step].float())
    torch.testing.assert_close(at[1], traces.told[which, step].float())
    torch.testing.assert_close(at[2] - at[1], at[1] - at[0], atol=1e-4, rtol=1e-4)


def test_only_what_the_critic_approves_stays(work: Path, shared: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "work")
    (tmp_path / "work" / "traces.pt").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"in 0 of 4 cases only"):
        trace(tmp_path / "work", shared, count=4, keep=lambda *_: False)
    assert not (tmp_path / "work" / "traces.pt").exists()
    asked: list[str] = []
    trace(tmp_path / "work", shared, count=4, keep=lambda text, _: asked.append(text) or len(asked) != 2)
    assert Traces.load(tmp_path / "work" / "traces.pt").captions == [asked[0], *asked[2:]]


def test_the_empty_caption_is_known_in_every_length() -> None:
    captions = Captions([[text] for text in TEXTS])
    ids, _ = captions.padded(range(len(TEXTS)))
    assert captions.is_empty(ids).tolist() == [False, False, False, True]
    assert captions.is_empty(ids[1:2, :3]).tolist() == [False]


def test_it_learns_a_handful() -> None:
    torch.manual_seed(9)
    transformer = flux.build(guidance=True, double=1, single=1)
    noisy, target = torch.randn(4, 8, 16, 16), torch.randn(4, 8, 1, 1).expand(4, 8, 16, 16)
    sigma, guidance = torch.rand(4), torch.linspace(1, 4, 4)
    text = torch.randn(4, 5, 128), torch.randn(4, 64)
    losses: list[float] = []

    def loss_at(step: int) -> torch.Tensor:
        loss = (flux.velocity(transformer, noisy, sigma, guidance, text) - target).square().mean()
        losses.append(float(loss.detach()))
        return loss

    run_steps(24, 2e-2, muon_and_adam([transformer], 2e-2), loss_at)
    assert losses[0] == pytest.approx(float(target.square().mean()), rel=0.01), "the output begins as zero"
    assert losses[-1] < 0.5 * losses[0], losses


# All stages


@pytest.fixture(scope="module")
def trained(work: Path, shared: Path, traces: Traces) -> Path:
    """`work` after every stage of both models, a step each."""
    for name, result, stage in flux_stages.stages("flux-schnell", work, 0.0001, "cpu", 1, shared):
        if not (work / result).exists():
            stage()
        assert (work / result).exists(), name
    return work


def test_each_stage_begins_as_the_one_before(trained: Path) -> None:
    """One step of learning does not take it far."""
    names = ("flux-dev-begun", "flux-dev", "flux-schnell-begun", "flux-schnell")
    models = [flux.load(trained / f"{name}.pt", guidance="dev" in name) for name in names]
    assert [model.config.guidance_embeds for model in models] == [True, True, False, False]
    for before, after in pairwise(model.x_embedder.weight.detach() for model in models):
        assert not torch.equal(before, after)
        assert (before - after).abs().max() < 1e-3


def test_own_ways_are_led_by_the_student(trained: Path, teacher: Networks) -> None:
    """Its few steps, and at each the mean velocity of the teacher's finer ones."""
    ways = Traces.load(trained / "traces-of-flux-schnell.pt")
    torch.testing.assert_close(ways.sigmas, flux.flux_sigmas(FEW).expand(len(ways.scale), -1))
    student = begun(trained, "flux-schnell")
    captions = Captions([[text] for text in ways.captions])
    ids, states, fine = captions.padded([0]), ways.states.float(), flux.flux_sigmas(FEW * FINER)
    with torch.inference_mode():
        velocity = guided(teacher, *encode_sd3(teacher, *ids), encode_sd3(teacher, *captions.empty()), TAUGHT)
        for step in range(FEW):
            x, now, span = states[:1, step], fine[FINER * step], fine[FINER * (step + 1)] - fine[FINER * step]
            led = flux.velocity(student, x, now[None], None, flux.encode(teacher, *ids))
            torch.testing.assert_close(states[:1, step + 1], x + span * led, atol=0.03, rtol=0.05)
            y = x
            for k in range(FINER * step, FINER * (step + 1)):
                y = y + (fine[k + 1] - fine[k]) * velocity(y, fine[k])
            torch.testing.assert_close(ways.told[:1, step].float(), (y - x) / span, atol=0.05, rtol=0.1)
            assert not torch.allclose(y, states[:1, step + 1], atol=0.05)
    assert torch.equal(ways.told, ways.blank)


def test_few_steps_take_the_same_ways(traces: Traces) -> None:
    coarse = traces.coarse()
    assert coarse.captions == traces.captions[::2]
    assert torch.equal(coarse.states, traces.states[::2, ::FINER])
    which, scale = torch.arange(3), torch.full((3,), TAUGHT)
    for step in range(FEW):
        now, then = coarse.sigmas[:, step], coarse.sigmas[:, step + 1]
        moved = coarse.states[:, step].float() + (then - now).view(-1, 1, 1, 1) * coarse.velocity(
            which, torch.full((3,), step), scale
        )
        torch.testing.assert_close(moved, coarse.states[:, step + 1].float(), atol=0.01, rtol=0.01)


def test_a_stage_without_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no flux-dev\.pt"):
        flux.load(tmp_path / "flux-dev.pt", guidance=True)


def test_export_refuses_what_has_not_learnt(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "COUNT", 2)
    with pytest.raises(ModelError, match=r"at 8 steps positive .*--below-gate"):
        flux_stages.export("flux-dev", trained, tmp_path)
    assert not (tmp_path / "flux-dev").exists()


def test_what_is_exported_draws_and_says_what_it_misses(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "COUNT", 2)
    for model in ("flux-schnell", "flux-dev"):
        flux_stages.export(model, trained, tmp_path, below_gate=True)
        folder = tmp_path / model
        assert sum(file.stat().st_size for file in folder.iterdir()) < 4_300_000
        pipe = load_pipeline(folder)
        assert isinstance(pipe, FluxPipeline)
        assert draw(pipe, make_pairs(2), OFF, seeds=(1,), steps=1).shape == (2, SIZE, SIZE, 3)
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert scores["flux-dev"]["below_gate"].startswith("at 8 steps positive")
    assert set(scores["flux-schnell"]["unguided"]) == {"4"}


def test_flux_needs_the_scenes_model(tmp_path: Path) -> None:
    flux.build(guidance=False, double=1, single=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no trained model"):
        load_pipeline(tmp_path, tmp_path / "none")
