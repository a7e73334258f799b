"""What is found in model folders, and that files are read once."""

from __future__ import annotations

import os
import struct

import pytest
import torch

wan_files = pytest.importorskip("wan_files")

from vsf_lib.errors import ModelError  # noqa: E402
from vsf_lib.video.single_file import found  # noqa: E402
from vsf_lib.video.single_file.found import Found, search  # noqa: E402
from vsf_lib.video.single_file.headers import read_header  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return wan_files.save_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def models(files, tmp_path):
    """A WebUI's folders with these files and others."""
    for folder in ("Stable-diffusion", "unet/Wan", "VAE", "text_encoders"):
        (tmp_path / folder).mkdir(parents=True)
    for file, folder in (
        (files.transformer, "unet/Wan"),
        (files.vae, "VAE"),
        (files.text_encoder, "text_encoders"),
    ):
        (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    sd = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)}
    wan_files.write(sd, tmp_path / "Stable-diffusion" / "sd.safetensors")
    (tmp_path / "VAE" / "cut.safetensors").write_bytes(files.vae.read_bytes()[:-1])
    (tmp_path / "VAE" / "Wan2.1_VAE.pth").write_bytes(files.vae.read_bytes())
    return tmp_path


def test_each_kind_is_found_in_any_folder(files, models):
    expected = Found(
        (models / "unet" / "Wan" / files.transformer.name,),
        (models / "VAE" / files.vae.name,),
        (models / "text_encoders" / files.text_encoder.name,),
    )
    assert search([models]) == expected
    folders = [models / name for name in ("unet", "unet", "VAE", "text_encoders", "gone")]
    assert search(folders) == expected, "no file is named twice"
    assert search([]) == search([models / "gone"]) == Found()


def test_a_checkpoint_with_everything_in_it_is_all_three(files, tmp_path):
    everything = {
        **{f"model.diffusion_model.{k}": v for k, v in own(files).items()},
        **{f"vae.{k}": v for k, v in wan_files.own_vae(files.pipe.vae.state_dict()).items()},
        **{
            f"text_encoders.umt5xxl.transformer.{k}": v
            for k, v in wan_files.comfy_text_encoder(files.pipe, files.words).items()
        },
    }
    file = wan_files.write(everything, tmp_path / "wan-aio.safetensors")
    assert search([tmp_path]) == Found((file,), (file,), (file,))
    from vsf_lib.video.single_file import text_encoder as text_file
    from vsf_lib.video.single_file import transformer as transformer_file
    from vsf_lib.video.single_file import vae as vae_file

    network = transformer_file.load(transformer_file.look(file), torch.float32)
    assert all(
        torch.equal(network.state_dict()[k], v) for k, v in files.pipe.transformer.state_dict().items()
    )
    vae_file.check(vae_file.look(file))
    text_file.check(text_file.look(str(file)))


def test_what_cannot_be_used_is_left_out(files, tmp_path):
    weights = own(files)
    wan_files.write({**weights, "img_emb.proj.0.weight": torch.zeros(2)}, tmp_path / "i2v.safetensors")
    wan_files.write(weights, tmp_path / "wan2.2_t2v_low_noise.safetensors")
    wan_files.save_lora(tmp_path / "lora.safetensors")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(30))
    (tmp_path / "folder.safetensors").mkdir()
    assert search([tmp_path]) == Found()


def test_gguf_files_are_found_without_the_package(files, tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    file = wan_files.write_gguf(own(files), tmp_path / "wan.GGUF")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    assert search([tmp_path]) == Found((file,))


def test_a_file_is_read_again_only_when_it_changes(files, models, monkeypatch):
    read = []
    header = found.read_header
    monkeypatch.setattr(found, "read_header", lambda path: read.append(path.name) or header(path))
    found._usable.cache_clear()
    first = search([models])
    assert len(read) == 5
    assert search([models]) == first
    assert len(read) == 5
    vae = models / "VAE" / files.vae.name
    vae.write_bytes((models / "Stable-diffusion" / "sd.safetensors").read_bytes())
    assert search([models]).vaes == ()
    assert read[5:] == [vae.name]
    os.utime(vae, (1, 1))
    search([models])
    assert len(read) == 7


@pytest.mark.skipif(os.name == "nt", reason="symlinks")
def test_links_are_followed_and_may_lead_in_a_circle(files, models, tmp_path):
    (tmp_path / "linked").symlink_to(files.transformer.parent, target_is_directory=True)
    assert tmp_path / "linked" / files.transformer.name in search([tmp_path]).transformers
    (tmp_path / "linked").unlink()
    before = search([models])
    (models / "VAE" / "back").symlink_to(models, target_is_directory=True)
    assert search([models]) == before


def gguf_header(*pairs, tensors=0):
    """The beginning of a file with key-value pairs given as bytes."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + b"".join(pairs)


def pair(key, kind, value):
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


ALIGNMENT = "general.alignment"
LISTS = struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQI", 4, 1, 7)
BAD = {
    "no alignment": gguf_header(pair(ALIGNMENT, 4, struct.pack("<I", 0))),
    "an alignment below": gguf_header(pair(ALIGNMENT, 5, struct.pack("<i", -32))),
    "an alignment in a list": gguf_header(pair(ALIGNMENT, 9, struct.pack("<IQI", 4, 1, 32))),
    "an alignment that is no number": gguf_header(pair(ALIGNMENT, 12, struct.pack("<d", float("nan")))),
    "lists in lists": gguf_header(pair("x", 9, LISTS)),
    "a million axes": gguf_header(tensors=1) + struct.pack("<QBI", 1, 120, 1 << 20) + bytes((8 << 20) + 64),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_damaged_gguf_file_is_told_as_one(tmp_path, content):
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.gguf is damaged or cut off: fetch it again \(\w"):
        read_header(file)
    assert search([tmp_path]) == Found()


def test_one_file_that_nobody_thought_of_does_not_hide_the_others(files, models, monkeypatch, caplog):
    bad = models / "VAE" / "bad.safetensors"
    bad.write_bytes(files.vae.read_bytes())
    header = found.read_header

    def read(path):
        if path == bad:
            raise ZeroDivisionError
        return header(path)

    monkeypatch.setattr(found, "read_header", read)
    assert search([models]).vaes == (models / "VAE" / files.vae.name,)
    assert search([models]).transformers
    assert caplog.text.count(f"{bad} is left out") == 1, "said once"


@pytest.mark.skipif(os.name == "nt", reason="symlinks")
def test_what_is_hidden_or_leads_nowhere_is_passed_over(files, tmp_path):
    (tmp_path / ".downloads").mkdir()
    for name in (".downloads/x.safetensors", "x.safetensors"):
        (tmp_path / name).write_bytes(files.vae.read_bytes())
    (tmp_path / ".y.safetensors").write_bytes(files.vae.read_bytes())
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    assert search([tmp_path]).vaes == (tmp_path / "x.safetensors",)


def own(files):
    return wan_files.own_transformer(files.pipe.transformer.state_dict())
