"""A transformer's file with a VAE's and a text encoder's: the same video as from the folder, or refused."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("imageio_ffmpeg")
wan_files = pytest.importorskip("wan_files")

from diffusers import AutoencoderKLWan, WanTransformer3DModel  # noqa: E402
from diffusers.loaders import single_file_utils  # noqa: E402
from video_frames import read_frames  # noqa: E402

from vsf_lib.cli import main  # noqa: E402
from vsf_lib.cli.video import add_arguments, resolve  # noqa: E402
from vsf_lib.errors import ModelError, SettingsError  # noqa: E402
from vsf_lib.jobs import messages  # noqa: E402
from vsf_lib.settings import Settings  # noqa: E402
from vsf_lib.video.job import Lora, VideoJob  # noqa: E402
from vsf_lib.video.loading import check, key, load, load_text_encoder  # noqa: E402
from vsf_lib.video.process import Worker  # noqa: E402
from vsf_lib.video.sampling import Watch, make  # noqa: E402
from vsf_lib.video.single_file import transformer as transformer_file  # noqa: E402
from vsf_lib.video.single_file import vae as vae_file  # noqa: E402
from vsf_lib.video.texts import encode  # noqa: E402
from vsf_lib.video.texts import key as texts_key  # noqa: E402

CPU = torch.device("cpu")
GUIDED = Settings(method="vsf", negative_prompt="wheels", alpha=2.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return wan_files.save_files(tmp_path_factory.mktemp("Einzelne Dateien für Wan"))


@pytest.fixture(scope="module")
def state(files):
    """The transformer's weights under Wan's own names."""
    return wan_files.own_transformer(files.pipe.transformer.state_dict())


@pytest.fixture
def job(files):
    def build(**values):
        return VideoJob.create(
            **{
                "prompt": "a red car on the field",
                "model": str(files.transformer),
                "vae": str(files.vae),
                "text_encoder": str(files.text_encoder),
                "width": 80,
                "height": 64,
                "frames": 5,
                "steps": 2,
                "settings": GUIDED,
                **values,
            }
        )

    return build


def alone(job, files):
    """The job with the model from its folder."""
    return job.changed(model=str(files.folder), vae="", text_encoder="")


def frames(job):
    """Frames as the worker makes them, before they are compressed, and the report."""
    texts = encode(job, torch.float32, lambda: False)
    pipe, _ = load(job, CPU, torch.float32)
    made = make(pipe, job, texts, Watch(lambda: False, lambda *_: None, lambda _: None))
    return made.frames, made.report


def same(network, other):
    """Weights equal in type and to the bit."""
    ours, theirs = network.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


def test_the_names_of_the_tests_files_are_those_of_real_ones(files, state):
    pipe = files.pipe
    theirs = single_file_utils.convert_wan_transformer_to_diffusers(dict(state))
    assert theirs.keys() == pipe.transformer.state_dict().keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in pipe.transformer.state_dict().items())
    theirs = single_file_utils.convert_wan_vae_to_diffusers(wan_files.own_vae(pipe.vae.state_dict()))
    assert theirs.keys() == pipe.vae.state_dict().keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in pipe.vae.state_dict().items())


def test_the_worker_makes_the_same_video_from_files_as_from_a_folder(job, files, tmp_path):
    lora = Lora(file=str(wan_files.save_lora(tmp_path / "l.safetensors", layers=2, width=128)), weight=0.7)
    jobs = [job(loras=[lora]), alone(job(loras=[lora]), files), job(settings=Settings(method="off"))]
    with Worker() as worker:
        results = [worker.make(made, tmp_path / f"{i}.mp4") for i, made in enumerate(jobs)]
    assert all(isinstance(result, messages.Result) for result in results), results
    assert [result.report and result.report["layers"] for result in results] == [2, 2, None]
    one, other, plain = (read_frames(Path(result.path)) for result in results)
    assert np.array_equal(one, other)
    assert np.abs(one.astype(int) - plain).mean() > 0.5
    again = VideoJob.from_infotext(results[0].infotext)
    assert (again.vae, again.text_encoder) == (str(files.vae), str(files.text_encoder))
    assert "VSF VAE" not in results[1].infotext


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_same_frames_to_the_bit(job, files, guidance_scale):
    made = job(guidance_scale=guidance_scale, settings=Settings(method="nag", negative_prompt="wheels"))
    one, report = frames(made)
    other, _ = frames(alone(made, files))
    assert np.array_equal(one, other)
    assert len(report.layers) == wan_files.LAYERS


def test_a_folder_with_other_parts(job, files):
    mixed = job(model=str(files.folder), vae=str(files.folder / "vae"), text_encoder=str(files.folder))
    assert np.array_equal(frames(mixed)[0], frames(alone(mixed, files))[0])
    other = {**files.pipe.vae.state_dict()}
    other["decoder.conv_out.bias"] = other["decoder.conv_out.bias"] + 0.5
    file = wan_files.write(wan_files.own_vae(other), files.vae.with_name("other vae.safetensors"))
    assert not np.array_equal(frames(mixed.changed(vae=str(file)))[0], frames(alone(mixed, files))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "diffusers"])
def test_every_form_of_a_transformer_is_what_diffusers_makes_of_its_folder(
    files, state, tmp_path, prefix, stored, dtype
):
    weights = files.pipe.transformer.state_dict() if prefix == "diffusers" else state
    rounded = {name: tensor.to(stored) for name, tensor in weights.items()}
    file = wan_files.write(rounded, tmp_path / "x.safetensors", "" if prefix == "diffusers" else prefix)
    folder = WanTransformer3DModel.from_config(files.pipe.transformer.config).to(stored)
    folder.load_state_dict({k: v.to(stored) for k, v in files.pipe.transformer.state_dict().items()})
    folder.save_pretrained(tmp_path / "folder")
    loaded = transformer_file.load(transformer_file.look(file), dtype)
    same(loaded, WanTransformer3DModel.from_pretrained(tmp_path / "folder", torch_dtype=dtype))
    assert not loaded.training
    for name, value in files.pipe.transformer.config.items():
        if not name.startswith("_"):
            ours = loaded.config[name]
            assert (list(ours) if isinstance(ours, (list, tuple)) else ours) == (
                list(value) if isinstance(value, (list, tuple)) else value
            ), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["own", "diffusers", "model."])
def test_every_form_of_a_vae_is_what_diffusers_makes_of_its_folder(files, tmp_path, form, dtype):
    weights = files.pipe.vae.state_dict()
    names = weights if form == "diffusers" else wan_files.own_vae(weights)
    file = wan_files.write(names, tmp_path / "x.safetensors", form if form == "model." else "")
    loaded = vae_file.load(vae_file.look(str(file)), dtype)
    same(loaded, AutoencoderKLWan.from_pretrained(files.folder / "vae", torch_dtype=dtype))
    assert loaded.config.latents_mean == files.pipe.vae.config.latents_mean
    assert loaded.config.latents_std == files.pipe.vae.config.latents_std


def test_fp8_is_cast_up(files, state, tmp_path):
    small = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items() if tensor.ndim == 2}
    file = wan_files.write({**state, **small}, tmp_path / "x.safetensors")
    loaded = wan_files.own_transformer(
        transformer_file.load(transformer_file.look(file), torch.float32).state_dict()
    )
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in {**state, **small}.items())


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
def test_scales_of_fp8_are_multiplied_in(state, tmp_path, rows, ending):
    made = wan_files.scaled(state, rows=rows)
    wanted = wan_files.unscaled(made)
    named = {name.replace("scale_weight", ending): tensor for name, tensor in made.items()}
    file = wan_files.write(named, tmp_path / "x.safetensors", "model.diffusion_model.")
    loaded = wan_files.own_transformer(
        transformer_file.load(transformer_file.look(file), torch.float32).state_dict()
    )
    assert loaded.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(loaded[name], tensor), name
    name = "blocks.0.ffn.0.weight"
    assert not torch.allclose(loaded[name], made[name].float()), "a scale that is left out is another number"
    assert torch.allclose(loaded[name], state[name], atol=0.1 * float(state[name].abs().max()))


def test_scales_of_another_network_in_the_file_are_its_own(files, state, tmp_path):
    """A checkpoint with a text encoder whose scales belong to no weight of the transformer."""
    other = {"text_encoders.umt5xxl.transformer.shared.scale_weight": torch.tensor(2.0)}
    inside = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
    file = wan_files.write({**inside, **other}, tmp_path / "x.safetensors")
    same(transformer_file.load(transformer_file.look(file), torch.float32), files.pipe.transformer)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blocks.1.ffn.2.weight": None}, "lacks 1 of"),
        ({"blocks.0.ffn.0.weight": None}, "lacks tensors of a Wan transformer, such as"),
        ({"fps_embedding.weight": torch.zeros(2, 2)}, "1 tensors that this network lacks, such as fps_emb"),
        ({"blocks.0.ffn.0.scale_weight": torch.zeros(5, 5)}, "of size 5 x 5, a way of scaling that is not"),
        ({"blocks.0.ffn.9.scale_weight": torch.ones(())}, "such as blocks.0.ffn.9.scale_weight"),
        ({"blocks.0.ffn.0.weight": torch.zeros(160, 128, dtype=torch.int8)}, "stored as I8"),
        ({"blocks.0.ffn.0.bias": torch.zeros(7)}, "blocks.0.ffn.0.bias of size 7, but 160 was expected"),
        ({"blocks.0.cross_attn.k_img.weight": torch.zeros(2, 2)}, "is an image-to-video model of Wan"),
        ({"vace_blocks.0.after_proj.bias": torch.zeros(2)}, "is a VACE model of Wan"),
        ({"patch_embedding.weight": torch.zeros(128, 36, 1, 2, 2)}, "takes 36 channels and gives 16"),
        (
            {
                "patch_embedding.weight": torch.zeros(128, 48, 1, 2, 2),
                "head.head.weight": torch.zeros(192, 128),
            },
            "Wan 2.2's small model",
        ),
    ],
)
def test_what_is_no_plain_wan_2_1_is_refused(files, state, job, tmp_path, change, says):
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    file = wan_files.write(changed, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=says) as raised:
        load_text_encoder(job(model=str(file)), torch.float32)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("x.safetensors ")


def test_wrong_files_are_told_what_they_are(files, job, tmp_path):
    plain = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)}
    sd = str(wan_files.write(plain, tmp_path / "sd.safetensors"))
    odd = str(wan_files.write({"x": torch.zeros(1)}, tmp_path / "odd.safetensors"))
    lora = str(wan_files.save_lora(tmp_path / "lora.safetensors"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(files.transformer.read_bytes()[:-10])
    cut_gguf = tmp_path / "cut.gguf"
    cut_gguf.write_bytes(b"GGUF")
    half = tmp_path / "wan2.2_t2v_high_noise_14B.safetensors"
    half.write_bytes(files.transformer.read_bytes())
    pth = tmp_path / "Wan2.1_VAE.pth"
    pth.write_bytes(b"x")
    wide = dict(
        wan_files.own_vae(files.pipe.vae.state_dict()), **{"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}
    )
    vae_22 = str(wan_files.write(wide, tmp_path / "vae22.safetensors"))
    narrow = wan_files.comfy_text_encoder(files.pipe, files.words)
    narrow["shared.weight"] = torch.zeros(9, 16)
    other_text = str(wan_files.write(narrow, tmp_path / "narrow.safetensors"))
    vae, text = str(files.vae), str(files.text_encoder)
    for values, says in (
        ({"vae": ""}, "is one file, with the transformer alone: give the VAE (such as wan_2.1_vae"),
        ({"vae": "", "text_encoder": ""}, "vae.safetensors) and the text encoder (such as umt5"),
        ({"model": sd}, "sd.safetensors is a Stable Diffusion checkpoint, but the model has to be a Wan 2.1"),
        ({"model": vae}, "is a Wan VAE, but the model"),
        ({"model": text}, "is a UMT5 text encoder, but the model"),
        ({"model": lora}, "is a LoRA, but the model"),
        ({"model": odd}, "of an unknown kind"),
        ({"model": str(cut)}, "cut.safetensors is damaged or cut off: fetch it again"),
        ({"model": str(cut_gguf)}, "cut.gguf is damaged or cut off: fetch it again"),
        ({"model": str(tmp_path / "gone.safetensors")}, "there is no file"),
        ({"model": str(pth)}, "other formats can run code"),
        ({"model": str(half)}, "one half of Wan 2.2"),
        ({"vae": str(pth)}, "other formats can run code, so none is read; get wan_2.1_vae.safetensors"),
        ({"vae": text}, "is a UMT5 text encoder, but the VAE has to be"),
        ({"vae": vae_22}, "latents of 48 channels"),
        ({"vae": str(files.folder / "transformer")}, "but the VAE has to be an AutoencoderKLWan"),
        ({"vae": str(tmp_path)}, "is no VAE in diffusers' format"),
        ({"text_encoder": vae}, "is a Wan VAE, but the text encoder has to be UMT5"),
        ({"text_encoder": str(pth)}, "no .safetensors file, and no other is read here"),
        ({"text_encoder": other_text}, "reads texts of 32 channels, but narrow.safetensors gives 16"),
        ({"text_encoder": str(files.folder / "vae")}, "but the text encoder has to be a umt5"),
    ):
        with pytest.raises(ModelError) as raised:
            check(job(**values))
        assert says in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_vae_that_does_not_fit_is_refused_before_the_text_encoder_is_read(files, job, tmp_path):
    weights = wan_files.own_vae(files.pipe.vae.state_dict())
    del weights["decoder.middle.0.residual.2.bias"]
    file = wan_files.write(weights, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"x.safetensors lacks 1 of \d+ tensors, such as decoder.mid_block"):
        load_text_encoder(job(vae=str(file)), torch.float32)


def test_what_is_shared_between_jobs(job):
    first = job()
    assert key(first) == key(first.changed(text_encoder="other", seed=2))
    assert key(first) != key(first.changed(vae="other"))
    assert texts_key(first) == texts_key(first.changed(vae="other", model="other.safetensors"))
    assert texts_key(first) != texts_key(first.changed(text_encoder="other"))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "vae.safetensors",
        "C:\\Modelle, neu\\VAE: 2.safetensors",
        '/ä/VSF "VAE": x, Steps: 3/東.safetensors',
    ],
)
def test_the_infotext_brings_the_files_back(job, path):
    made = job(vae=path, text_encoder=f" {path} ", model="wan.safetensors")
    again = VideoJob.from_infotext(made.infotext(version="vsf 1"))
    assert (again.vae, again.text_encoder, again.model) == (path, path, "wan.safetensors")
    assert ("VSF VAE" in made.infotext()) == bool(path)
    assert list(VideoJob.model_fields)[-3:] == ["vae", "text_encoder", "compare"], "fields are appended"
    with pytest.raises(SettingsError, match="it has control signs in it"):
        job(vae="a\nb")


def test_the_command_takes_the_files(files, capsys):
    words = ["--model", str(files.transformer), "--prompt", "a red car", "--vae", str(files.vae)]
    assert main(["video", *words]) != 0
    assert "give the text encoder (such as umt5_xxl_fp16.safetensors) too" in capsys.readouterr().err
    parser = ArgumentParser()
    add_arguments(parser)
    job = resolve(parser.parse_args([*words, "--text-encoder", str(files.text_encoder)]))
    assert (job.vae, job.text_encoder) == (str(files.vae), str(files.text_encoder))
    check(job)


class TestGGUF:
    @pytest.fixture(autouse=True)
    def _package(self):
        pytest.importorskip("gguf")

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
    def test_a_video_is_that_of_the_dequantised_weights(self, files, state, job, tmp_path, kind):
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        file = wan_files.write_gguf(state, tmp_path / f"wan-{kind}.gguf", kind)
        network = transformer_file.load(transformer_file.look(file), torch.float32)
        quantised = [name for name, p in network.named_parameters() if hasattr(p, "quant_type")]
        assert len(quantised) == (0 if kind == "F16" else 2 * 10)
        plain = WanTransformer3DModel.from_config(files.pipe.transformer.config)
        plain.load_state_dict(
            {n: dequantize_gguf_tensor(p).float() for n, p in network.state_dict(keep_vars=True).items()}
        )
        folder = tmp_path / "wan"
        replace_transformer(files, plain).save_pretrained(folder)
        lora = Lora(
            file=str(wan_files.save_lora(tmp_path / "l.safetensors", layers=2, width=128)), weight=0.7
        )
        one, report = frames(job(model=str(file), loras=[lora]))
        other, _ = frames(job(model=str(folder), vae="", text_encoder="", loras=[lora]))
        assert np.array_equal(one, other)
        assert len(report.layers) == wan_files.LAYERS
        unlike, _ = frames(job(model=str(file)))
        assert not np.array_equal(one, unlike), "the LoRA acts"

    def test_near_the_weights_it_was_made_of(self, files, state, tmp_path):
        file = wan_files.write_gguf(state, tmp_path / "wan.gguf")
        arguments = {
            "hidden_states": torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
            "timestep": torch.tensor([500.0]),
            "encoder_hidden_states": files.pipe.encode_prompt("a red car", do_classifier_free_guidance=False)[
                0
            ],
            "return_dict": False,
        }
        for dtype, most in ((torch.float32, 0.02), (torch.bfloat16, 0.05)):
            network = transformer_file.load(transformer_file.look(file), dtype)
            given = {
                name: value.to(dtype) if name.endswith("states") else value
                for name, value in arguments.items()
            }
            with torch.no_grad():
                exact, near = files.pipe.transformer(**arguments)[0], network(**given)[0]
            assert near.dtype == dtype
            assert float((near.float() - exact).norm() / exact.norm()) < most

    def test_without_the_package_it_is_named(self, state, job, tmp_path, monkeypatch):
        file = wan_files.write_gguf(state, tmp_path / "wan.gguf")
        monkeypatch.setattr(transformer_file, "find_spec", lambda name: None)
        with pytest.raises(ModelError, match="the package gguf that reads it is missing"):
            check(job(model=str(file)))

    def test_a_cut_file_is_refused(self, state, job, tmp_path):
        file = wan_files.write_gguf(state, tmp_path / "wan.gguf")
        content = file.read_bytes()
        for length in (10, 200, len(content) // 2, len(content) - 64):
            file.write_bytes(content[:length])
            with pytest.raises(ModelError, match=r"wan\.gguf is damaged or cut off"):
                check(job(model=str(file)))


def replace_transformer(files, transformer):
    """The files' pipeline with another transformer."""
    parts = {name: part for name, part in files.pipe.components.items() if name != "transformer_2"}
    return type(files.pipe)(**{**parts, "transformer": transformer})
