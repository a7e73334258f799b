"""`bench model`: that each method's step is what the library gives, what a step adds by count, the floor, the
command. No times."""

from __future__ import annotations

import gc
import json
import random
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vsf_lib.adapters import guided
from vsf_lib.attention import joint_attention
from vsf_lib.bench.methods import CFG_SCALE
from vsf_lib.bench.model import command
from vsf_lib.bench.model.networks import (
    TEXT_WIDTH,
    Blocks,
    blocks_of,
    build,
    encoded,
    inputs,
    pipeline,
    twin,
)
from vsf_lib.bench.model.steps import MaskedOnce, Steps
from vsf_lib.bench.model.work import floor, more_of, step
from vsf_lib.bench.speed.course import Call, Cell
from vsf_lib.bench.speed.methods import ALPHA, BETA, METHODS
from vsf_lib.bench.speed.shapes import FAMILIES, Shape, shape_named
from vsf_lib.errors import GuidanceError
from vsf_lib.settings import Settings

CPU = torch.device("cpu")
NAMES = ("sd35-large-64", "sd35-medium-64", "flux-64", "wan-1.3b-64-5f")
JOINT = NAMES[:3]
WHOLE = {
    "sd35-large": Blocks(0, 3, ends=True),
    "sd35-medium": Blocks(2, 1, ends=True),
    "flux": Blocks(1, 2),
    "wan-1.3b": Blocks(0, 2),
}
RAN = {"cpu-flash": "exact (cpu-flash)", "three-call": "three-call"}
OTHERWISE = {True: "scaled_dot_product_attention", False: "masked"}
SIZES = {"sd35-large": (38, 64), "sd35-medium": (24, 64), "flux": (24, 128), "wan-1.3b": (12, 128)}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, name, replace(family, heads=3, width=16, text=random.randint(9, 14)))


def network_of(shape: Shape, blocks: Blocks | None = None) -> nn.Module:
    """Weights so large that everything which guidance does is seen in the output."""
    network = build(shape, blocks or WHOLE[shape.family.name], CPU, torch.float32)
    for name, x in network.named_parameters():
        if x.ndim >= 2:
            x.normal_(0, x[0].numel() ** -0.5)
        elif "norm" not in name:
            x.normal_(0, 0.2)
    return network


@contextmanager
def steps(name: str, n_n: int, *, batch: int = 1, network: nn.Module | None = None) -> Iterator[Steps]:
    cell = Cell(shape_named(name), batch, n_n, CPU, torch.float32)
    with torch.inference_mode(), ExitStack() as undo:
        yield Steps.of(cell, network or network_of(cell.shape), undo)


def output(call: Call) -> Tensor:
    if call.begin is not None:
        call.begin()
    return call.run()


# --- what is called


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


# --- the floor


def counted(run: Callable[[], object]) -> int:
    """What PyTorch's own counter finds."""

    def pairs(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **others: Any) -> int:
        batch, heads, asks, width = q
        return int(4 * batch * heads * asks * k[2] * width)

    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: pairs}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_unguided_steps_flops_are_those_that_pytorch_counts(name: str, batch: int) -> None:
    shape = shape_named(name)
    blocks = WHOLE[shape.family.name]
    network, arguments = network_of(shape, blocks), inputs(shape, batch, CPU, torch.float32)
    assert step(shape, blocks, batch).flops == counted(lambda: network(**arguments))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_vsf_does_its_floors_work_and_hardly_more(name: str, batch: int) -> None:
    """More by N's way through the text embedder, which goes with the prompt's in every step, and in the last
    block by N's own rows, which nobody reads."""
    n = random.randint(3, 6)
    with steps(name, n, batch=batch) as own:
        shape, blocks = own.cell.shape, WHOLE[own.cell.shape.family.name]
        c, i = shape.heads * shape.width, shape.image
        for call in own.calls(["vsf", "difference"], every_kernel=False):
            output(call)  # Wan's keys of N are made in the first step
            found = counted(call.run) - step(shape, blocks, batch).flops
            least = more_of(call.method, shape, blocks, n, batch).flops
            embedded = 2 * n * TEXT_WIDTH * c if shape.joint else 0
            last = 2 * n * c * c + 4 * n * (i + n) * c if shape.family.name.startswith("sd3") else 0
            assert found == least + batch * (embedded + last), call.method
            assert floor(call.method, shape, blocks, n, batch).added_flops == least


@pytest.mark.parametrize("name", NAMES)
def test_nag_and_nasa_do_the_work_of_their_published_form(name: str) -> None:
    """Beside what VSF has more than its floor: they look at [I, N] and [I, P] as two whole attentions."""
    with steps(name, 4) as own:
        shape, blocks = own.cell.shape, WHOLE[own.cell.shape.family.name]
        c, i, p = shape.heads * shape.width, shape.image, shape.text
        for call in own.calls(["nag", "nasa"], every_kernel=False):
            output(call)
            found = counted(call.run) - step(shape, blocks, 1).flops
            least = more_of(call.method, shape, blocks, 4, 1).flops
            embedded = 2 * p * TEXT_WIDTH * c if shape.joint else 0
            last = 2 * p * c * c + 4 * p * (i + p) * c if shape.family.name.startswith("sd3") else 0
            assert found == least + embedded + last, call.method


def test_the_floor_of_the_real_steps() -> None:
    """SD3.5 large by hand, from the layers of its 38 blocks, 20 negative tokens, at 1024x1024."""
    family = replace(FAMILIES["sd35-large"], heads=38, width=64, text=333)
    shape = replace(shape_named("sd35-large-1024"), family=family, heads=38)
    blocks = blocks_of(shape, None)[1]
    c, n, i = 2432, 20, 4096
    by_block = 12 * 2 * n * c * c + 4 * (2 * i * n + n * n) * c
    last = 2 * 2 * n * c * c + 4 * i * n * c
    found = floor("vsf", shape, blocks, n, 1)
    assert found.added_flops == 37 * by_block + last
    assert found.flops == pytest.approx(1 + found.added_flops / step(shape, blocks, 1).flops)
    assert 1.004 < found.flops < 1.006
    assert floor("cfg", shape, blocks, n, 1).flops == 2 == floor("cfg", shape, blocks, n, 1).moved
    assert floor("none", shape, blocks, n, 1).flops == 1


def test_the_floors_bytes_are_of_added_rows_alone() -> None:
    """One ordinary block of 48 channels, by hand: weights are read for the prompt's tokens anyway."""
    shape, n, batch = shape_named("sd35-large-64"), 4, 3
    c = shape.heads * shape.width
    linear = 4 * 2 * n * c + n * (c + 4 * c) * 2
    assert more_of("vsf", shape, Blocks(0, 1), n, batch).moved == batch * (linear + 4 * n * c)
    own = step(shape, Blocks(0, 1), batch)
    assert floor("vsf", shape, Blocks(0, 1), n, batch).moved == pytest.approx(
        1 + batch * (linear + 4 * n * c) / own.moved
    )


# --- what a step does, by count


class Shapes(TorchDispatchMode):
    """What operators give, new or seen anew, by its shape, and which operators ran; the rows of each linear
    layer; the queries of each attention, and the elements that their memory holds."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, ...]] = []
        self.ran: list[str] = []
        self.rows: list[int] = []
        self.asked: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.ran.append(name)
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.made.append(tuple(x.shape))
        if name == "linear":  # in inference mode it is no addmm yet
            self.rows.append(args[0].shape[:-1].numel())
        if "scaled_dot_product" in name:
            q = args[0]
            self.asked.append((q.shape[2], q.untyped_storage().nbytes() // q.element_size()))
        return out


def pairs_of(shape: Shape, n: int, made: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes with an axis of queries and one of keys."""
    i, p = shape.image, shape.text
    lengths = {i, p, n, i + p, i + n, p + n, i + p + n, i + p + 2 * n}
    return [x for x in made if sum(size in lengths for size in x) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_and_no_logits_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a guided step; the published form's mask shows that the count would find them."""
    family = shape_named(name).family
    # Lengths that are no count of heads, of channels or of anything else here.
    monkeypatch.setitem(FAMILIES, family.name, replace(family, text=47))
    size = name.rpartition("-64")[0] + "-112" + ("-1f" if "wan" in name else "")
    with steps(size, 5) as own:
        shape, found = own.cell.shape, {}
        assert shape.image == 49
        for call in own.calls(["none", "vsf", "difference", "vsf-masked"], every_kernel=False):
            if call.begin is not None:
                call.begin()
            with Shapes() as shapes:
                call.run()
            found[call.method] = pairs_of(shape, 5, shapes.made)
    assert found["none"] == found["vsf"] == found["difference"] == []
    assert bool(found["vsf-masked"]) == shape.joint


@pytest.mark.parametrize("name", NAMES)
def test_a_guided_step_asks_the_device_nothing_and_calls_attention_as_often_as_it_must(name: str) -> None:
    """After its first step. In joint attention P lies between I and N, so N looks at them in two calls: four
    in all, and two in cross-attention."""
    waits = {"_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero"}
    with torch.inference_mode(), Shapes() as shapes:
        assert torch.ones(3).all() and torch.equal(torch.ones(3), torch.ones(3))
    assert len(waits & set(shapes.ran)) >= 2  # they would be seen
    with steps(name, 5) as own:
        counts = {}
        for call in own.calls(["none", "vsf", "nag"], every_kernel=False):
            output(call)
            with Shapes() as shapes:
                call.run()
            assert not waits & set(shapes.ran), call.method
            counts[call.method] = sum("scaled_dot_product" in name for name in shapes.ran)
        layers = WHOLE[own.cell.shape.family.name].count
        # Beside the layers that see text: SD3.5 medium's second attention, Wan's self-attention.
        others = {"sd35-medium-64": 2, "wan-1.3b-64-5f": 2}.get(name, 0)
        assert counts["none"] == layers + others
        assert counts["vsf"] == (4 if own.cell.shape.joint else 2) * layers + others
        assert counts["nag"] == 2 * layers + others


def test_crosswise_the_negative_is_projected_once_in_a_generation() -> None:
    """Its two embedding layers and each layer's k and v, whatever the number of steps; of the prompt in every
    step."""
    n = 7
    with steps("wan-1.3b-64-5f", n) as own:
        layers, p = WHOLE["wan-1.3b"].count, own.cell.shape.text
        (call,) = own.calls(["vsf"], every_kernel=False)
        for _ in range(2):
            call.begin()
            by_step = []
            for _ in range(3):
                with Shapes() as shapes:
                    call.run()
                by_step.append((shapes.rows.count(n), shapes.rows.count(p)))
            assert by_step == [(2 + 2 * layers, 2 + 2 * layers), *[(0, 2 + 2 * layers)] * 2]


def test_jointly_the_negative_goes_through_each_layer_with_the_prompt() -> None:
    """As many linear calls as unguided, with N's rows in those of the text: none of them runs twice."""
    n = 7
    with steps("sd35-large-64", n) as own:
        p = own.cell.shape.text
        rows = {}
        for call in own.calls(["none", "vsf"], every_kernel=False):
            output(call)
            with Shapes() as shapes:
                call.run()
            rows[call.method] = shapes.rows
        assert rows["vsf"] == [count + n if count == p else count for count in rows["none"]]
        assert rows["vsf"].count(p + n) == 1 + 2 * 6 + 3


@pytest.mark.parametrize("name", JOINT)
def test_the_ordinary_attention_is_a_view_of_the_layers_own_tensors(name: str) -> None:
    """q, k and v of [I, P] are not copied: they lie in memory that holds N as well."""
    n = 5
    with steps(name, n, batch=2) as own:
        s = own.cell.shape
        (call,) = own.calls(["vsf"], every_kernel=False)
        output(call)
        with Shapes() as shapes:
            call.run()
        ordinary = [held for rows, held in shapes.asked if rows == s.image + s.text]
        assert len(ordinary) == WHOLE[s.family.name].count
        assert set(ordinary) == {2 * s.heads * s.width * (s.image + s.text + n)}


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
