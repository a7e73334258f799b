"""`bench model`: that each method's step is what the library gives, the networks, the command. No times."""

from __future__ import annotations

import gc
import json
import random
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import NAMES, Shapes, network_of, output, steps
from torch import Tensor, nn

from vsf_lib.adapters import guided
from vsf_lib.attention import joint_attention
from vsf_lib.bench.methods import CFG_SCALE
from vsf_lib.bench.model import command
from vsf_lib.bench.model import steps as steps_module
from vsf_lib.bench.model.networks import TEXT_WIDTH, Blocks, blocks_of, build, encoded, pipeline, twin
from vsf_lib.bench.model.steps import MaskedOnce, Steps
from vsf_lib.bench.speed import methods
from vsf_lib.bench.speed.methods import ALPHA, BETA, METHODS
from vsf_lib.bench.speed.shapes import FAMILIES, shape_named
from vsf_lib.errors import GuidanceError
from vsf_lib.settings import Settings

pytestmark = pytest.mark.usefixtures("small_families")

RAN = {"cpu-flash": "exact (cpu-flash)", "three-call": "three-call"}
OTHERWISE = {True: "scaled_dot_product_attention", False: "masked"}
SIZES = {"sd35-large": (38, 64), "sd35-medium": (24, 64), "flux": (24, 128), "wan-1.3b": (12, 128)}


# --- what is called


@pytest.mark.parametrize("name", NAMES)
def test_where_the_merge_can_be_fused_it_is_timed_so_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiler is asked for runs as it stands here, to spare the minute that compiling takes."""
    monkeypatch.setattr(methods, "_FUSING", ("cpu",))
    asked = []
    monkeypatch.setattr(steps_module, "guided", lambda *a, **b: asked.append(b["fuse"]) or guided(*a, **b))
    with torch.compiler.set_stance("force_eager"), steps(name, 4) as own:
        found = {call.kernel: output(call) for call in own.calls(["vsf"], every_kernel=True)}
        for call in own.calls(["vsf"], every_kernel=False):
            assert call.kernel == "cpu-flash"
    others = ["three-call"] if own.cell.shape.joint else []
    assert list(found) == ["cpu-flash", "cpu-flash+fused", *others]
    assert asked == [False, True, *[False] * len(others), False]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_the_pipelines_own_guided_step(name: str, batch: int) -> None:
    """Against a guidance of its own around another tree of modules, by kernel and method."""
    n = random.randint(3, 6)
    with steps(name, n, batch=batch) as own:
        shape, plain = own.cell.shape, twin(own.network)(**own.arguments)[0]
        settings = {
            "vsf": Settings(alpha=ALPHA, beta=BETA),
            "difference": Settings(method="difference", alpha=ALPHA, beta=BETA),
            "nag": Settings(method="nag", nag_phi=4.0, nag_tau=2.5, nag_alpha=0.125),
            "nasa": Settings(method="nasa", nasa_alpha=0.25),
        }
        seen = []
        for call in own.calls(METHODS, every_kernel=True):
            seen.append((call.method, call.kernel, call.auto))
            found = output(call)
            if call.method == "none":
                assert torch.equal(found, plain)
            elif call.method == "cfg":
                away = own.network(**{**own.arguments, "encoder_hidden_states": call.held[0]})[0]
                torch.testing.assert_close(found, away + CFG_SCALE * (plain - away))
            else:
                kind = call.method.partition("-")[0]
                expected = by_hand(own, settings[kind], call.held[0])
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
                assert not torch.allclose(found, plain, atol=1e-3, rtol=1e-3), call.method
                generation = call.begin.__self__
                generation.end()
                ran = generation.guidance.report.kernel
                assert ran == (RAN.get(call.kernel) or OTHERWISE[shape.joint or kind != "vsf"]), call
                padded = call.method in ("nag", "nasa")
                assert call.held[0].shape == (shape.text if padded else n, TEXT_WIDTH)
    joint = [("vsf", "three-call", False)] if shape.joint else []
    assert seen == [
        ("none", "sdpa", True), ("vsf", "cpu-flash", True), *joint, ("vsf-masked", "masked", True),
        ("difference", "cpu-flash", True), ("nag", "sdpa", True), ("nasa", "sdpa", True),
        ("cfg", "sdpa", True), ("nag-unpadded", "sdpa", True), ("nasa-unpadded", "sdpa", True),
    ]  # fmt: skip


def by_hand(own: Steps, settings: Settings, negative: Tensor) -> Tensor:
    pipe = pipeline(own.cell.shape, twin(own.network))
    with guided(pipe, settings, negative_embeddings=[negative]) as guidance:
        pipe.encode_prompt(**encoded(own.cell.shape, own.arguments))
        found: Tensor = pipe.transformer(**own.arguments)[0]
        pipe.maybe_free_model_hooks()
    assert guidance.report is not None and guidance.report.guided_steps == (0,)
    return found


def test_the_kind_mask_is_made_once_and_gives_vsf() -> None:
    q, k, v = torch.randn(3, 2, 3, 30, 16)
    where = {"image": slice(0, 20), "positive": slice(20, 26), "negative": slice(26, 30)}
    masked = MaskedOnce()
    for _ in range(2):
        expected = joint_attention(q, k, v, **where, alpha=2.0, beta=0.3)
        torch.testing.assert_close(
            masked(q, k, v, **where, alpha=2.0, beta=0.3), expected, atol=2e-6, rtol=2e-6
        )
        bias = masked._bias
        assert bias is not None and bias.shape == (1, 1, 30, 34)
    with Shapes() as shapes:
        masked(q, k, v, **where, alpha=2.0, beta=0.3)
    assert masked._bias is bias and (1, 1, 30, 34) not in shapes.made


def test_a_twin_shares_weights_and_nothing_else() -> None:
    network = network_of(shape_named("flux-64"))
    other = twin(network)
    assert [x.data_ptr() for x in other.parameters()] == [x.data_ptr() for x in network.parameters()]
    assert [x.data_ptr() for x in other.buffers()] == [x.data_ptr() for x in network.buffers()]
    assert not set(map(id, other.modules())) & set(map(id, network.modules()))
    for one, two in zip(network.modules(), other.modules(), strict=True):
        assert one._forward_pre_hooks is not two._forward_pre_hooks
        assert getattr(one, "processor", 1) is not getattr(two, "processor", 2)


def test_guidances_end_and_leave_nothing() -> None:
    gc.collect()
    before = sum(issubclass(type(x), nn.Module) for x in gc.get_objects())
    network = network_of(shape_named("sd35-large-64"))
    with steps("sd35-large-64", 3, network=network) as own:
        for call in own.calls(["vsf", "nag"], every_kernel=True):
            output(call)
    del own, call
    assert not any(module._forward_pre_hooks for module in network.modules())
    del network
    gc.collect()
    assert sum(issubclass(type(x), nn.Module) for x in gc.get_objects()) <= before


def test_a_step_that_misses_a_layer_is_not_measured() -> None:
    """The end of the generation checks it, as a pipeline's does."""
    with pytest.raises(GuidanceError, match="did not guide 1 of 3 layers"), steps("sd35-large-64", 3) as own:
        (call,) = own.calls(["nag"], every_kernel=True)
        call.begin()
        pipe = call.run.__self__._pipe
        pipe.transformer.transformer_blocks[1].forward = lambda **x: (
            x["encoder_hidden_states"],
            x["hidden_states"],
        )
        call.run()


def test_a_generation_without_a_guided_step_is_an_error() -> None:
    with pytest.raises(GuidanceError, match="ran without guidance"), steps("flux-64", 3) as own:
        (call,) = own.calls(["vsf"], every_kernel=False)
        call.begin()


# --- networks


def test_some_blocks_keep_the_proportion_of_kinds_and_none_is_the_last() -> None:
    found = {name: [blocks_of(shape_named(name), n)[0] for n in (1, 2, 3, 12)] for name in NAMES}
    assert found == {
        "sd35-large-64": [Blocks(0, 1), Blocks(0, 2), Blocks(0, 3), Blocks(0, 12)],
        "sd35-medium-64": [Blocks(1, 0), Blocks(1, 1), Blocks(2, 1), Blocks(6, 6)],
        "flux-64": [Blocks(1, 0), Blocks(1, 1), Blocks(1, 2), Blocks(4, 8)],
        "wan-1.3b-64-5f": [Blocks(0, 1), Blocks(0, 2), Blocks(0, 3), Blocks(0, 12)],
    }
    counts = [blocks_of(shape_named(name), None) for name in NAMES]
    assert [every.count for _, every in counts] == [38, 24, 57, 30]
    assert all(own == every for own, every in counts)
    assert blocks_of(shape_named(NAMES[1]), 24)[0] == Blocks(13, 11, ends=True)


@pytest.mark.parametrize("ends", [False, True])
def test_sd3_is_built_as_its_blocks_say(ends: bool) -> None:
    network = network_of(shape_named("sd35-medium-64"), Blocks(1, 1, ends=ends))
    made = [(b.attn2 is not None, b.context_pre_only) for b in network.transformer_blocks]
    assert made == [(True, False), (False, ends)]


def test_the_networks_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters at full width, in billions; the tables of positions are none."""
    for name, (heads, width) in SIZES.items():
        monkeypatch.setitem(FAMILIES, name, replace(FAMILIES[name], heads=heads, width=width))
    counts = []
    for name in NAMES:
        shape = shape_named(name)
        network = build(shape, blocks_of(shape, None)[1], torch.device("meta"), torch.bfloat16)
        counts.append(round(sum(x.numel() for x in network.parameters()) / 1e9, 2))
    assert counts == [8.06, 2.24, 11.89, 1.42]


# --- the command


def run(*words: str) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["--device", "cpu", *words]))


def test_the_whole_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--shapes", ",".join(NAMES), "--rounds", "2", "--negatives", "3,5", "--json")
    assert run(*words) == 0
    out, err = capsys.readouterr()
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert file.name.endswith("-model.json")
    found = json.loads(file.read_text("utf-8"))
    assert found["study"] == "model" and set(found["versions"]) == {"torch", "diffusers", "vsf"}
    assert len(found["rows"]) == 2 * (3 * 8 + 7) and not [row for row in found["rows"] if "failed" in row]
    for row in found["rows"]:
        assert (row["blocks"], row["blocks_of_model"]) == (
            1,
            {"sd35-large": 38, "sd35-medium": 24, "flux": 57, "wan-1.3b": 30}[row["family"]],
        )
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"] and row["weight_bytes"] > 0
        assert not row["whole"] and "extra_share" not in row
        if row["method"] == "none":
            assert row["extra_bytes"] == 0
        elif row["method"] != "cfg":
            assert row["extra_bytes"] > 4 * TEXT_WIDTH * row["negative_tokens"]
    assert "SD3.5 large, 64x64: 1 of 38 blocks, batch 1" in out and "fewer blocks than the models have" in out
    assert "7 of 8: model: wan-1.3b-64-5f, batch 1, 5 negative tokens" in err


def test_of_a_whole_network_the_share_of_memory_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    words = (
        "--shapes",
        "wan-1.3b-64-1f",
        "--blocks",
        "all",
        "--methods",
        "vsf",
        "--rounds",
        "1",
        "--batches",
        "2",
    )
    assert run(*words, "--json", str(file), "--dtype", "bfloat16") == 0
    (row,) = json.loads(file.read_text("utf-8"))["rows"]
    assert row["whole"] and (row["blocks"], row["batch"]) == (30, 2)
    assert row["extra_share"] == pytest.approx(
        row["extra_bytes"] / (row["weight_bytes"] + row["unguided_bytes"]), abs=1e-5
    )
    assert f"{row['extra_share']:+.2%}" in capsys.readouterr().out


def test_a_method_that_fails_says_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: MaskedOnce, *args: Any, **others: Any) -> Any:
        raise RuntimeError("no valid execution plans\nat somewhere")

    monkeypatch.setattr(MaskedOnce, "__call__", refuse)
    file = tmp_path / "found.json"
    assert (
        run("--shapes", "flux-64", "--methods", "vsf-masked,nasa", "--rounds", "1", "--json", str(file)) == 0
    )
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert [(row["method"], row.get("failed")) for row in rows] == [
        ("nasa", None),
        ("vsf-masked", "no valid execution plans"),
    ]
