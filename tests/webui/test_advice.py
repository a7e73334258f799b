"""What the panel says of a checkpoint that is not loaded yet, from real files."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import gradio as gr
import pytest
import torch
from safetensors.torch import save_file

from vsf_lib.presets import preset_for
from vsf_lib.webui.advice import advice
from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.request import STRENGTHS, Checkpoint, preset_names
from vsf_lib.webui.selection import follow, strengths

PREFIX = "model.diffusion_model."
SD35 = [f"{PREFIX}joint_blocks.0.x_block.attn.qkv.weight", "text_encoders.clip_l.x"]
FLUX = [f"{PREFIX}double_blocks.0.txt_mod.lin.weight", f"{PREFIX}single_blocks.0.modulation.lin.weight"]
CHROMA = [f"{PREFIX}double_blocks.0.img_attn.qkv.weight", f"{PREFIX}distilled_guidance_layer.x"]

WAN = [f"{PREFIX}blocks.0.cross_attn.norm_k.weight", f"{PREFIX}text_embedding.0.weight"]
ANIMA = ["net.blocks.0.cross_attn.k_norm.weight", "net.x_embedder.proj.1.weight"]


def file(folder, name, keys):
    path = folder / name
    save_file({key: torch.zeros(1) for key in keys}, path)
    return path


@pytest.mark.parametrize(
    ("name", "keys", "network", "guidance"),
    [
        ("sd3.5_large_turbo.safetensors", SD35, "SD3.5", False),
        ("schnell.safetensors", FLUX, "Flux", False),
        ("dev.safetensors", [*FLUX, f"{PREFIX}guidance_in.in_layer.weight"], "Flux", True),
        ("wan2.1_t2v_1.3B.safetensors", WAN, "Wan", False),
        ("anima.safetensors", ANIMA, None, False),
        ("chroma.safetensors", CHROMA, None, False),
        ("xl.safetensors", [f"{PREFIX}input_blocks.0.0.weight"], None, False),
    ],
)
def test_a_file_is_told_by_its_header(tmp_path, name, keys, network, guidance):
    assert peek(file(tmp_path, name, keys)) == Checkpoint(name, network, guidance)


def test_a_gguf_begins_with_its_names_too(tmp_path):
    path = tmp_path / "schnell.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 40 + b"double_blocks.0.txt_mod.lin.weight" + b"\0" * 99)
    assert peek(path) == Checkpoint("schnell.gguf", "Flux")


def test_what_cannot_be_told_is_not_guessed(tmp_path):
    assert peek(tmp_path / "gone.safetensors") is None
    torch.save({key: torch.zeros(1) for key in SD35}, tmp_path / "old.ckpt")
    assert peek(tmp_path / "old.ckpt") is None
    whole = file(tmp_path, "whole.safetensors", SD35).read_bytes()
    for end in (40, whole.index(b"}") + 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:end])
        assert peek(tmp_path / "cut.safetensors") is None
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert peek(tmp_path / "lfs.safetensors") is None
    (tmp_path / "bad.gguf").write_bytes(b"nothing" * 9)
    assert peek(tmp_path / "bad.gguf") is None
    assert peek(tmp_path) is None
    assert advice(None) == ""


def test_a_large_header_and_a_name_in_capitals_are_read(tmp_path):
    keys = [*(f"padding.{i}.of_a_long_name" for i in range(3000)), *FLUX]
    assert peek(file(tmp_path, "MERGE.SAFETENSORS", keys)).network == "Flux"


@pytest.mark.parametrize("strong", [False, True])
def test_the_sliders_show_the_preset(strong):
    schnell = Checkpoint("merge.gguf", "Flux")
    wanted = preset_for("flux-schnell", strong=strong).settings()
    shown = strengths("Auto", schnell, strong=strong)
    assert shown == {
        name: getattr(wanted, name) for name in ("alpha", "beta", "negative_scale", "negative_tokens")
    }
    assert strengths("Custom", schnell, strong=strong) == {}
    assert strengths("Auto", None, strong=strong) == {}
    assert strengths("Auto", Checkpoint("sdxl.safetensors", None), strong=strong) == {}
    assert strengths("SD3.5 large turbo, strong", schnell, strong=strong)["alpha"] == 1.9


def test_the_widgets_follow_the_method():
    schnell, preset = Checkpoint("merge.gguf", "Flux"), preset_for("flux-schnell")
    shown = strengths("Auto", schnell, strong=False, method="difference")
    assert shown["alpha"] == preset.difference_alpha
    assert f"alpha {preset.difference_alpha:g}, beta" in advice(schnell, method="difference")
    assert strengths("Auto", schnell, strong=False, method="nag") == {}, "no preset is for it"
    assert f"alpha {preset.alpha:g}, beta" in advice(schnell, method="nag")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The panel and a host's list of checkpoints on one page, and the events of an element of it."""

    @contextmanager
    def accordion(value, *, label, elem_id):
        with gr.Accordion(label):
            yield gr.Checkbox(value, label=label)

    files = {name: file(tmp_path, f"{name}.safetensors", keys) for name, keys in (("xl", ["x"]), ("f", FLUX))}
    hooks = []
    modules = ModuleType("modules")
    for name, part in {
        "shared": SimpleNamespace(opts=SimpleNamespace(sd_model_checkpoint="f")),
        "sd_models": SimpleNamespace(
            checkpoint_aliases={name: SimpleNamespace(filename=str(path)) for name, path in files.items()}
        ),
        "script_callbacks": SimpleNamespace(on_after_component=hooks.append),
        "ui_components": SimpleNamespace(InputAccordion=accordion),
    }.items():
        setattr(modules, name, part)
        monkeypatch.setitem(sys.modules, f"modules.{name}", part)
    monkeypatch.setitem(sys.modules, "modules", modules)
    from vsf_lib.webui import panel

    with gr.Blocks() as blocks:
        widgets, line, told = panel.build(lambda name: name)
        follow(line, widgets, told)
        checkpoint = gr.Dropdown(["xl", "f"], label="Checkpoint", elem_classes=["model_selection"])
        for made in hooks:
            made(checkpoint)

    def events(component, name):
        found = [event for event in blocks.fns.values() if (component._id, name) in event.targets]
        return [event for event in found if line in event.outputs]

    return SimpleNamespace(widgets=widgets, line=line, checkpoint=checkpoint, events=events)


def test_switching_on_renews_the_line_and_no_slider(page):
    """A slider may have been moved by the time the answer comes."""
    (event,) = page.events(page.widgets["enabled"], "change")
    assert event.outputs == [page.line]
    answer = event.fn("vsf")
    assert answer["visible"]
    assert "“Auto” means Flux schnell here" in answer["value"]


def test_a_checkpoint_that_is_chosen_sets_the_sliders_on_or_off(page):
    """So they are right when the panel is switched on."""
    (event,) = page.events(page.checkpoint, "change")
    assert page.widgets["enabled"] not in event.inputs
    shown = {page.widgets[name]: name for name in STRENGTHS}
    answers = event.fn("Auto", "vsf", "f")
    assert len(answers) == len(event.outputs)
    told = {
        shown[widget]: answer.get("value")
        for widget, answer in zip(event.outputs, answers, strict=True)
        if widget in shown
    }
    assert told == strengths("Auto", Checkpoint("f.safetensors", "Flux"), strong=False)
    line, _, *rest = event.fn("Auto", "vsf", "xl")
    assert "switch VSF off" in line["value"]
    assert all("value" not in answer for answer in rest), "another kind of model moves no slider"


@pytest.mark.parametrize("name", ["preset", "method"])
def test_another_preset_or_method_sets_the_sliders(page, name):
    (event,) = page.events(page.widgets[name], "input")
    assert {page.widgets[name] for name in STRENGTHS} < set(event.outputs)
    assert (
        event.fn("Auto", "vsf")[2]["value"]
        == strengths("Auto", Checkpoint("f.safetensors", "Flux"), strong=False)["alpha"]
    )


def test_weights_are_not_names(tmp_path):
    """Bytes behind the header say nothing."""
    path = file(tmp_path, "xl.safetensors", ["input_blocks.0"])
    path.write_bytes(path.read_bytes() + b"joint_blocks.0.")
    assert peek(path) == Checkpoint("xl.safetensors", None)


def test_the_line_says_what_auto_means_or_what_else_to_do():
    assert "switch VSF off" in advice(Checkpoint("sdxl.safetensors", None))
    assert "CFG above 1" in advice(Checkpoint("sd3.5_medium.safetensors", "SD3.5"))
    schnell = Checkpoint("merge.gguf", "Flux")
    for strong in (False, True):
        preset = preset_for("flux-schnell", strong=strong)
        assert f"{preset.name} here: alpha {preset.alpha:g}, beta" in advice(schnell, strong=strong)
    assert advice(schnell).endswith("beta 1, negative tokens words.")
    assert "negative scale" not in advice(Checkpoint("sd3.5_large_turbo.safetensors", "SD3.5"))
    assert "Flux dev" in advice(Checkpoint("merge.gguf", "Flux", guidance_embedding=True))
    wan = preset_for("wan2.1-causvid")
    assert f"{wan.name} here: alpha {wan.alpha:g}, beta {wan.beta:g}." in advice(Checkpoint("x.gguf", "Wan"))


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (("mmditx", "flux"), "VSF guides SD3.5 and Flux here,"),
        (("flux", "wan"), "VSF guides Flux and Wan here,"),
        (("mmditx", "flux", "wan"), "VSF guides SD3.5, Flux and Wan here,"),
        (("flux",), "VSF guides Flux here,"),
        ((), "VSF guides SD3.5, Flux and Wan here,"),
    ],
)
def test_what_a_host_has_is_what_it_is_told_of(tmp_path, monkeypatch, there, says):
    """A host is asked for its modules; none of them is imported."""
    home = tmp_path / "backend" / "nn"
    home.mkdir(parents=True)
    for name in there:
        (home / f"{name}.py").write_text("raise ImportError('nobody may load this')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("backend", "backend.nn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert says in advice(Checkpoint("sdxl.safetensors", None))
    presets = preset_names()
    for network, offered in (("SD3.5", "mmditx"), ("Flux", "flux"), ("Wan", "wan")):
        assert any(network in name for name in presets) == (offered in there or not there)
    for name in ("backend", "backend.nn"):
        sys.modules.pop(name, None)
