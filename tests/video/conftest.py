"""A small Wan in a folder with a difficult name, and a package of the tests' own that breaks the worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SABOTAGE = """
import os, time
import torch
from diffusers import WanTransformer3DModel

calls = []

def hook(module, args):
    if isinstance(module, WanTransformer3DModel):
        calls.append(1)
        if len(calls) == 2:
            {act}

torch.nn.modules.module.register_module_forward_pre_hook(hook)

def fix_text(text):
    return text
"""


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random Wan in diffusers' format."""
    wan_files = pytest.importorskip("wan_files")
    return wan_files.save(tmp_path_factory.mktemp("Modelle für Videos") / "wan klein")


@pytest.fixture
def sabotage(tmp_path):
    """`sabotage("raise ...")` is an overlay in which the second call of the model does that.

    Diffusers' Wan imports a package named ftfy wherever there is one.
    """

    def make(act: str) -> Path:
        folder = tmp_path / "overlay"
        (folder / "ftfy-6.0.dist-info").mkdir(parents=True)
        (folder / "ftfy-6.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: ftfy\nVersion: 6.0\n"
        )
        (folder / "ftfy.py").write_text(SABOTAGE.replace("{act}", act))
        return folder

    return make


@pytest.fixture(scope="session")
def built_in_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the built-in model's, with random weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from diffusers import UniPCMultistepScheduler, WanPipeline
    from safetensors.torch import save_file
    from transformers import T5EncoderModel

    from vsf_lib.scenes.model import FOLDER, WAN_LORA
    from vsf_lib.scenes.training import wan, wan_distil, wan_vae

    torch.manual_seed(1)
    transformer, vae = wan.build(layers=2), wan_vae.build()
    for parameter in (*transformer.parameters(), *vae.decoder.parameters()):
        parameter.data += 0.05 * torch.randn_like(parameter)
    encoder = wan.build_text_encoder(T5EncoderModel.from_pretrained(FOLDER / "text_encoder_3"))
    folder = tmp_path_factory.mktemp("the package's") / "wan"
    WanPipeline(
        transformer=transformer.half(),
        text_encoder=encoder.half(),
        tokenizer=wan.build_tokenizer(),
        vae=vae.half(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=wan.SHIFT
        ),
    ).save_pretrained(folder)
    wan_distil.add_lora(transformer)
    for name, parameter in transformer.named_parameters():
        if "lora" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    save_file(wan_distil.lora_file(transformer), folder / WAN_LORA)
    return folder


@pytest.fixture
def built_in(built_in_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder in the place of the package's, in this process and in those that it starts."""
    from vsf_lib.scenes import model

    monkeypatch.setattr(model, "WAN_FOLDER", built_in_files)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from vsf_lib.scenes import model\n"
        f"model.WAN_FOLDER = Path({str(built_in_files)!r})\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    return built_in_files
