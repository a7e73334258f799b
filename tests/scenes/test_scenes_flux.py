"""The small Flux models: as FluxPipeline calls them, what they are taught, and each stage at a tiny scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.embeddings import apply_rotary_emb

from vsf_lib.bench.drawing import Method, draw
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, JudgeNet
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.model import FOLDER, MAX_SEQUENCE_LENGTH, MODELS, NAME, SIZE
from vsf_lib.scenes.training import autoencoder, command, flow, flux, flux_distil, gate
from vsf_lib.scenes.training.common import muon_and_adam, run_steps
from vsf_lib.scenes.training.flux_distil import FEW, Lessons
from vsf_lib.scenes.training.networks import TEACHER_LAYERS, Networks
from vsf_lib.scenes.training.text import Captions
from vsf_lib.settings import Settings

TEXTS = ["a red car on a field", "wheels", "an orange cat with ears and tail in the snow", ""]
OFF = Method("none", Settings(method="off"))


@pytest.fixture(scope="module")
def teacher() -> Networks:
    networks = Networks.build(autoencoder.build(), 4, TEACHER_LAYERS)
    for module in networks.learners():
        module.eval()
    return networks


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, teacher: Networks) -> Path:
    """A work folder as the stages before leave it, but for its model's skill."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(6)
    teacher.vae.save_pretrained(folder / "vae")
    torch.save(
        {"step": 1, "modules": [module.state_dict() for module in teacher.learners()]}, folder / "flow.pt"
    )
    torch.save(
        {"latents": torch.randn(12, 8, 16, 16).half(), "captions": [TEXTS[:3]] * 12}, folder / "latents.pt"
    )
    pairs = {name: torch.randn(5, 8, 16, 16).half() for name in ("noise", "latents")}
    torch.save({**pairs, "captions": [[text] for text in [*TEXTS, "a tree"]]}, folder / "pairs.pt")
    Judge(JudgeNet()).save(folder / "judge.safetensors")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, teacher: Networks) -> Path:
    """The scenes model's folder that goes with `work`."""
    folder = tmp_path_factory.mktemp("out") / FOLDER.name
    teacher.pipeline(flow.SHIFT).to(dtype=torch.float16).save_pretrained(folder)
    for module in (teacher.vae, *teacher.learners()):
        module.float()
    return folder


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
def test_text_and_noise_levels_are_the_pipelines(work: Path, shared: Path, tmp_path: Path) -> None:
    random_transformer(guidance=True).save_pretrained(tmp_path)
    pipe = load_pipeline(tmp_path, shared)
    networks = flow.load(work)
    text, pooled = flux.encode(networks, *Captions([[text] for text in TEXTS]).padded(range(len(TEXTS))))
    wanted, wanted_pooled, _ = pipe.encode_prompt(TEXTS, TEXTS, max_sequence_length=MAX_SEQUENCE_LENGTH)
    # The pipeline's encoders were stored in half precision.
    torch.testing.assert_close(text, wanted, atol=0.03, rtol=0.01)
    torch.testing.assert_close(pooled, wanted_pooled, atol=0.03, rtol=0.01)
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
            apply_rotary_emb(layer.bias.view(1, 3, 1, 32).expand(1, 3, 65, 32), rope)[0]
            for layer in (block.attn.to_q, block.attn.to_k)
        )
        logits = query @ key.mT
        assert logits[0].unique().numel() == 1, "one head is free"
        for head in (1, 2):
            row, column = divmod(int(logits[head, 1 + 4 * 8 + 3, 1:].argmax()), 8)
            assert abs(row - 4) <= 2
            assert abs(column - 3) <= 2
            looks.add((row, column))
            assert logits[head, 1:, 0].std() > 1
    assert len(looks) > 8


def test_weights_fit_in_their_share() -> None:
    """25 MB of weights ship in all."""
    for guidance in (True, False):
        transformer = flux.build(guidance=guidance)
        assert sum(p.numel() for p in transformer.parameters()) * 2 <= 3_400_000
        assert len(transformer.transformer_blocks) > 1
        assert len(transformer.single_transformer_blocks) > 1


# What it is taught


def lessons(teacher: Networks, kept: int = 64) -> Lessons:
    torch.manual_seed(8)
    latents = torch.randn(12, 8, 16, 16).half()
    return Lessons(teacher, latents, Captions([TEXTS[:3]] * 12), np.random.default_rng(2), kept)


@torch.inference_mode()
def test_lessons_are_the_teachers_guided_velocity(teacher: Networks) -> None:
    from vsf_lib.scenes.training.distil import guided
    from vsf_lib.scenes.training.text import encode

    some = lessons(teacher)
    some.add(10)
    now = some.draw(4)
    while now.clip.shape[1] != 16 or now.t5.shape[1] != 16:  # the lengths that the teacher was given
        now = some.draw(4)
    empty = encode(teacher, *Captions([[""]]).empty())
    text, pooled = encode(teacher, now.clip, now.t5)
    assert now.scale.unique().numel() > 1
    for i in range(4):
        velocity = guided(teacher, text[i : i + 1], pooled[i : i + 1], empty, float(now.scale[i]))
        wanted = velocity(now.noisy[i : i + 1], now.sigma[i])
        torch.testing.assert_close(now.velocity[i : i + 1], wanted, atol=0.03, rtol=0.05)


def test_lessons_come_in_every_length(teacher: Networks) -> None:
    some = lessons(teacher)
    some.add(48)
    lengths = {some.draw(4).t5.shape[1] for _ in range(80)}
    assert {2, 16, 256} < lengths, "a word and its end, as the teacher was told, the pipeline's own"


def test_old_lessons_make_room(teacher: Networks) -> None:
    some = lessons(teacher, kept=8)
    some.add(6)
    first = {float(x) for x in some.draw(64).noisy[:, 0, 0, 0]}
    some.add(6)
    both = {float(x) for x in some.draw(200).noisy[:, 0, 0, 0]}
    assert len(both) == 8
    assert len(first & both) == 2


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
def trained(work: Path) -> Path:
    """`work` after every stage of both models, a step each."""
    both = {**dict.fromkeys(MODELS)}
    del both[NAME]
    for model in both:
        for name, result, stage in command.flux_stages(model, work, 0.0003, "cpu"):
            if not (work / result).exists():
                stage()
            assert (work / result).exists(), name
    return work


def test_traces_begin_at_the_noise_and_end_where_the_teacher_does(trained: Path, teacher: Networks) -> None:
    from vsf_lib.scenes.training.distil import guided, integrate
    from vsf_lib.scenes.training.text import encode

    traces = torch.load(trained / "traces.pt", weights_only=True)
    pairs = torch.load(trained / "pairs.pt", weights_only=True)
    assert traces["states"].shape == (5, FEW + 1, 8, 16, 16)
    assert traces["captions"] == pairs["captions"]
    assert torch.equal(traces["states"][:, 0], pairs["noise"])
    captions = Captions(pairs["captions"])
    with torch.inference_mode():
        empty = encode(teacher, *captions.empty())
        text, pooled = encode(teacher, *captions.padded(range(5)))
        velocity = guided(teacher, text, pooled, empty, flux_distil.TAUGHT)
        sigmas = flux.flux_sigmas(FEW * flux_distil.FINER)
        end = integrate(velocity, pairs["noise"].float(), sigmas)
    torch.testing.assert_close(traces["states"][:, -1].float(), end, atol=0.03, rtol=0.05)


def test_schnell_begins_as_dev(trained: Path) -> None:
    """One step of learning does not take it far."""
    dev = flux.load(trained / "flux-dev.pt", guidance=True)
    schnell = flux.load(trained / "flux-schnell.pt", guidance=False)
    assert not schnell.config.guidance_embeds
    before, after = (x.x_embedder.weight.detach() for x in (dev, schnell))
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 1e-3


def test_a_stage_without_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no flux-dev\.pt"):
        flux.load(tmp_path / "flux-dev.pt", guidance=True)


def test_export_refuses_what_has_not_learnt(
    trained: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "COUNT", 2)
    with pytest.raises(ModelError, match="unguided at 8 steps"):
        command.export_flux("flux-dev", trained, shared.parent)
    assert not (shared.parent / "flux-dev").exists()


def test_export_refuses_text_encoders_of_another_training(trained: Path) -> None:
    with pytest.raises(ModelError, match="not of this training"):
        command.export_flux("flux-dev", trained, None)


def test_what_is_exported_draws(trained: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "POSITIVE", 0.0)
    monkeypatch.setattr(gate, "QUALITY", 0.0)
    monkeypatch.setattr(gate, "COUNT", 2)
    for model in ("flux-schnell", "flux-dev"):
        command.export_flux(model, trained, shared.parent)
        folder = shared.parent / model
        assert sum(file.stat().st_size for file in folder.iterdir()) < 3_400_000
        pipe = load_pipeline(folder, shared)
        assert isinstance(pipe, FluxPipeline)
        assert draw(pipe, make_pairs(2), OFF, seeds=(1,), steps=1).shape == (2, SIZE, SIZE, 3)


def test_flux_needs_the_scenes_model(tmp_path: Path) -> None:
    flux.build(guidance=False, double=1, single=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no trained model"):
        load_pipeline(tmp_path, tmp_path / "none")
