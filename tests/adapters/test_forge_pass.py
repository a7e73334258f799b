"""Guided passes on small networks of Forge's kinds, against the reference; and all that may go wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import reference_forge
import reference_small_wan
import small_flux
import small_mmdit
import small_neo_flux
import small_wan
import torch
from torch import Tensor, nn

from vsf_lib.adapters import forge_flux, forge_sd35, forge_wan
from vsf_lib.adapters.forge import SamplingPass
from vsf_lib.adapters.forge_network import check_model
from vsf_lib.adapters.registry import find_network
from vsf_lib.errors import GuidanceError, ModelError, SettingsError
from vsf_lib.settings import Settings

TEXT_TOKENS = 7
KINDS = {
    "sd35": (small_mmdit.SmallMMDiT, forge_sd35.NETWORK),
    "flux": (small_flux.SmallFlux, forge_flux.NETWORK),
    "neo flux": (small_neo_flux.SmallNeoFlux, forge_flux.NETWORK),
    "wan": (small_wan.SmallWan, forge_wan.NETWORK),
    # As many image tokens as text tokens, so that nothing is told by its length.
    "wan image": (partial(small_wan.SmallWan, image=True, image_tokens=TEXT_TOKENS), forge_wan.NETWORK),
}
JOINT = [kind for kind in KINDS if "wan" not in kind]


def guided_row(kind: str, *args: Any) -> Tensor:
    """What a row must be, by the reference for its kind of attention."""
    return (reference_forge if kind in JOINT else reference_small_wan).guided_row(*args)


def build(kind: str) -> nn.Module:
    """Weights large enough that every part of a block matters; float64, so that an error is one of ours."""
    model = KINDS[kind][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.6 / parameter.shape[-1] ** 0.5))
    return model.double().eval()


def call_of(pictures: int, entries: list[int], kind: str = "flux") -> dict[str, Any]:
    """A model call as the host makes it: whole batches, one per entry (0 prompt, 1 unconditional)."""
    rows = pictures * len(entries)
    frames = () if kind in JOINT else (3,)
    return {
        "input": torch.randn(rows, 4, *frames, 6, 4, dtype=torch.float64),
        "timestep": torch.rand(rows, dtype=torch.float64),
        "cond_or_uncond": entries,
        "c": {
            "c_crossattn": torch.randn(rows, TEXT_TOKENS, 16, dtype=torch.float64),
            "y": torch.randn(rows, 8, dtype=torch.float64),
            "transformer_options": {"cond_or_uncond": entries, "theirs": object()},
        },
    }


def apply_to(model: nn.Module) -> Callable[..., Tensor]:
    def apply_model(
        x: Tensor, t: Tensor, c_crossattn: Tensor, transformer_options: Any, **rest: Any
    ) -> Tensor:
        return model(x, t, context=c_crossattn, transformer_options=transformer_options, **rest)

    return apply_model


def begin(
    kind: str, model: nn.Module, negatives: list[Tensor], step: int = 0, total: int = 4, **settings: Any
) -> SamplingPass:
    """A pass whose host has just said that `step` of `total` comes next."""
    values = {"alpha": 1.3, "beta": 0.3, **settings}
    sampling = SamplingPass(KINDS[kind][1], model, Settings(**values), lambda _: negatives)
    sampling.note(step, total)
    return sampling


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("entries", [[0], [1, 0], [1, 0, 0]], ids=str)
@pytest.mark.parametrize("blocks", ["both", "double"])
@pytest.mark.parametrize("method", ["vsf", "difference"])
def test_each_row_is_what_the_equations_give(kind, entries, blocks, method):
    model, args = build(kind), call_of(2, entries, kind)
    negatives = [torch.randn(3, 16), torch.randn(5, 16)]
    sampling = begin(kind, model, negatives, blocks=blocks, method=method)
    with torch.inference_mode():
        out = sampling.wrapper()(apply_to(model), args)
        plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
    moved = (out - plain).abs().flatten(1).amax(1)
    for row in range(len(out)):
        guided = entries[row // 2] == 0
        wanted = guided_row(kind, model, args, row, negatives[row % 2] if guided else None, sampling.settings)
        torch.testing.assert_close(out[row], wanted, atol=1e-5, rtol=1e-5)
        assert guided or moved[row] < 1e-9
    assert moved.max() > 1e-2  # a single row may look past its negative prompt by chance


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_other_methods_move_prompts_only(kind, method):
    model, args = build(kind), call_of(1, [1, 0], kind)
    with torch.inference_mode():
        out = begin(kind, model, [torch.randn(3, 16)], method=method).wrapper()(apply_to(model), args)
        plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
    torch.testing.assert_close(out[0], plain[0], atol=1e-5, rtol=1e-5)
    assert (out[1] - plain[1]).abs().max() > 1e-3


def test_steps_outside_the_window_and_calls_without_prompts_are_the_hosts_own(kind):
    model = build(kind)
    sampling = begin(kind, model, [torch.randn(3, 16)], start=0.25, end=0.5)
    with torch.inference_mode():
        for step, entries, same in ((0, [0], True), (1, [1], True), (1, [0], False), (2, [1, 0], True)):
            args = call_of(1, entries, kind)
            sampling.note(step, 4)
            out = sampling.wrapper()(apply_to(model), args)
            plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
            assert torch.equal(out, plain) == same
    sampling.note(3, 4)
    sampling.wrapper()(apply_to(model), call_of(1, [0], kind))
    report = sampling.finish()
    assert report.guided_steps == (1,)
    assert report.steps_run == 4
    assert set(report.layers) == set(KINDS[kind][1].blocks(model))


def test_a_sampler_with_more_calls_than_the_host_counts_is_guided_to_its_end(kind):
    model = build(kind)
    sampling = begin(kind, model, [torch.randn(3, 16)], total=2)
    with torch.inference_mode():
        for step in range(5):
            args = call_of(1, [0], kind)
            sampling.note(step, 2)
            out = sampling.wrapper()(apply_to(model), args)
            assert not torch.equal(out, apply_to(model)(args["input"], args["timestep"], **args["c"]))
    assert not sampling.over(4, 2)
    assert sampling.finish().guided_steps == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("window", [{"start": 0.5}, {"end": 0.5}])
def test_a_window_has_no_place_in_more_calls_than_the_host_counts(kind, window):
    model = build(kind)
    sampling = begin(kind, model, [torch.randn(3, 16)], total=2, **window)
    with torch.inference_mode():
        for step in range(2):
            sampling.note(step, 2)
            sampling.wrapper()(apply_to(model), call_of(1, [0], kind))
        sampling.note(2, 2)
        with pytest.raises(GuidanceError, match="more often than 2 times"):
            sampling.wrapper()(apply_to(model), call_of(1, [0], kind))


def test_the_negative_may_change_with_the_step(kind):
    model, args = build(kind), call_of(1, [0], kind)
    texts = [[torch.randn(3, 16)], [torch.randn(4, 16)]]
    sampling = SamplingPass(KINDS[kind][1], model, Settings(alpha=1.0, beta=0.0), lambda step: texts[step])
    for step in (0, 1):
        sampling.note(step, 2)
        with torch.inference_mode():
            out = sampling.wrapper()(apply_to(model), args)
        wanted = guided_row(kind, model, args, 0, texts[step][0], sampling.settings)
        torch.testing.assert_close(out[0], wanted, atol=1e-5, rtol=1e-5)


def test_an_earlier_wrapper_is_called_with_the_text_that_it_needs_and_all_else_as_it_was(kind):
    model, args = build(kind), call_of(1, [0], kind)
    seen = []

    def theirs(apply_model: Any, given: dict[str, Any]) -> Tensor:
        seen.append(given)
        return apply_model(given["input"], given["timestep"], **given["c"])

    sampling = begin(kind, model, [torch.randn(3, 16)])
    before = dict(args["c"])
    with torch.inference_mode():
        chained = sampling.wrapper(theirs)(apply_to(model), args)
        direct = sampling.wrapper()(apply_to(model), args)
    assert torch.equal(chained, direct)
    assert seen[0]["c"]["c_crossattn"].shape[1] == TEXT_TOKENS + (3 if kind in JOINT else 0)
    assert seen[0]["c"]["transformer_options"] is args["c"]["transformer_options"]
    assert all(args["c"][name] is value for name, value in before.items())


class Stop(BaseException):
    """Like KeyboardInterrupt, which a test runner would take for itself."""


@pytest.mark.parametrize(
    "error", [None, RuntimeError("out of memory"), Stop()], ids=["none", "error", "stop"]
)
def test_afterwards_the_model_is_as_before(kind, error):
    model, args = build(kind), call_of(1, [0], kind)
    network = KINDS[kind][1]
    tap = network.tap(model)
    before, plain = tap.function, None
    with torch.inference_mode():
        plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
    last = list(network.blocks(model).values())[-1]

    def fail(*_: Any) -> None:
        if error is not None:
            raise error

    handle = last.register_forward_pre_hook(fail)
    sampling = begin(kind, model, [torch.randn(3, 16)])
    try:
        sampling.wrapper()(apply_to(model), args)
    except BaseException as raised:
        assert raised is error
    else:
        assert error is None
    handle.remove()
    assert tap.function is before
    for block in model.modules():
        assert not block._forward_pre_hooks
        assert not block._forward_hooks
        assert "forward" not in vars(block)
    with torch.inference_mode():
        assert torch.equal(apply_to(model)(args["input"], args["timestep"], **args["c"]), plain)


def test_a_block_that_does_not_use_the_exchanged_attention_is_an_error(kind, monkeypatch):
    model = build(kind)
    network = KINDS[kind][1]
    block = list(network.blocks(model).values())[1]
    own = type(block).forward

    class Own(type(block)):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            tap = network.tap(model)
            ours = tap.function
            setattr(tap.module, tap.name, genuine)
            try:
                return own(self, *args, **kwargs)
            finally:
                setattr(tap.module, tap.name, ours)

    genuine = network.tap(model).function
    block.__class__ = Own
    with pytest.raises(GuidanceError, match=r"did not guide 1 of"):
        begin(kind, model, [torch.randn(3, 16)]).wrapper()(apply_to(model), call_of(1, [0], kind))
    assert network.tap(model).function is genuine


@pytest.mark.parametrize("kind", JOINT)
def test_a_text_that_changes_on_its_way_is_an_error(kind):
    model = build(kind)
    first = next(iter(KINDS[kind][1].blocks(model).values()))
    name = "context" if kind == "sd35" else "txt"

    def shorten(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if name in kwargs:
            return args, {**kwargs, name: kwargs[name][:, 1:]}
        return (args[0][:, 1:], *args[1:]), kwargs

    handle = first.register_forward_pre_hook(shorten, with_kwargs=True)
    with pytest.raises(GuidanceError, match="9 text tokens where 10 were expected"):
        begin(kind, model, [torch.randn(3, 16)]).wrapper()(apply_to(model), call_of(1, [0], kind))
    handle.remove()


ALL, FIRST, NONE = "all", "first", "none"
"""Which blocks a call runs: a cache leaves the others out and gives an earlier call's result."""


def cached(runs: list[str], entries: list[list[int]] | None = None, **settings: Any) -> SamplingPass:
    """A pass of as many steps as `runs`, in which each step's calls run those blocks."""
    model = build("flux")
    first = model.double_blocks[0]
    uses = {ALL: lambda _: True, FIRST: lambda block: block is first, NONE: lambda _: False}
    sampling = begin("flux", model, [torch.randn(3, 16)], 0, len(runs), **settings)
    for step, blocks in enumerate(runs):
        sampling.note(step, len(runs))
        model.uses = uses[blocks]
        for call in entries or [[0]]:
            sampling.wrapper()(apply_to(model), call_of(1, call))
    return sampling


def test_a_cached_step_is_neither_guided_nor_an_error():
    assert cached([ALL, FIRST, NONE]).finish().guided_steps == (0,)
    assert cached([ALL, ALL, NONE], start=0.3).finish().guided_steps == (1,)
    assert cached([ALL, ALL, NONE], end=0.3).finish().guided_steps == (0,)
    assert cached([ALL, NONE], [[1, 0]]).finish().guided_steps == (0,)


@pytest.mark.parametrize("blocks", [FIRST, NONE])
@pytest.mark.parametrize(
    ("runs", "entries", "settings", "says"),
    [
        ([], None, {}, "step 0 is answered.*earlier picture"),
        ([ALL], None, {"start": 0.3}, "step 1 is to be guided.*without guidance"),
        ([ALL], None, {"end": 0.3}, "step 1 has a call that is not to be guided.*under guidance"),
        ([ALL], [[1], [0]], {}, "step 1 has a call that is not to be guided.*under guidance"),
        ([ALL], [[0], [1]], {}, "step 1 is to be guided.*without guidance"),
    ],
    ids=["from before", "unguided start", "guided end", "guided uncond", "unguided cond"],
)
def test_a_cache_must_not_answer_a_call_of_another_kind(blocks, runs, entries, settings, says):
    with pytest.raises(GuidanceError, match=says):
        cached([*runs, blocks, blocks], entries, **settings)


def in_tiles(order: list[int], sizes: tuple[int, ...]) -> Callable[..., Tensor]:
    """A host's wrapper that calls the model on tiles of 4 columns, as many at once as `sizes` says, with the
    rows of all of them in `order` (the places of one tile's rows)."""

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        tiles, done = args["input"].split(4, dim=-1), []
        for size in sizes:
            now = tiles[len(done) : len(done) + size]
            rows = [(tile, row) for tile in range(size) for row in range(len(args["input"]))]
            rows = sorted(rows, key=lambda place: [place[i] for i in order])
            which = [row for _, row in rows]
            out = apply_model(
                torch.stack([now[tile][row] for tile, row in rows]),
                args["timestep"][which],
                **{
                    name: value[which] if isinstance(value, Tensor) else value
                    for name, value in args["c"].items()
                },
            )
            back = {place: out[i] for i, place in enumerate(rows)}
            done += [
                torch.stack([back[tile, row] for row in range(len(args["input"]))]) for tile in range(size)
            ]
        return torch.cat(done, dim=-1)

    return wrapper


TILE_BY_TILE, ROW_BY_ROW = [0, 1], [1, 0]


def wide(args: dict[str, Any]) -> dict[str, Any]:
    """The call, of latents that three tiles of it lie side by side in."""
    shape = args["input"].shape
    return {**args, "input": torch.randn(*shape[:-1], 12, dtype=torch.float64)}


@pytest.mark.parametrize("entries", [[0], [1, 0]], ids=str)
@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_pictures_in_tiles_are_guided_tile_by_tile(kind, entries, method):
    model, args = build(kind), wide(call_of(2, entries, kind))
    negatives = [torch.randn(3, 16), torch.randn(5, 16)]
    sampling = begin(kind, model, negatives, method=method, total=1)
    with torch.inference_mode():
        out = sampling.wrapper(in_tiles(TILE_BY_TILE, (2, 1)))(apply_to(model), args)
    report = sampling.finish()
    assert report.guided_steps == (0,)
    assert report.images == 2
    for tile in range(3):
        columns = slice(4 * tile, 4 * tile + 4)
        alone = {**args, "input": args["input"][..., columns]}
        with torch.inference_mode():
            single = begin(kind, model, negatives, method=method).wrapper()(apply_to(model), alone)
        torch.testing.assert_close(out[..., columns], single, atol=1e-6, rtol=1e-6)
        for row in range(len(out) if method == "vsf" else 0):
            guided = entries[row // 2] == 0
            negative = negatives[row % 2] if guided else None
            wanted = guided_row(kind, model, alone, row, negative, sampling.settings)
            torch.testing.assert_close(out[row][..., columns], wanted, atol=1e-5, rtol=1e-5)


def test_tiles_in_another_order_are_an_error(kind):
    model, args = build(kind), wide(call_of(1, [1, 0], kind))
    sampling = begin(kind, model, [torch.randn(3, 16)], total=2)
    for step, order in enumerate((ROW_BY_ROW, TILE_BY_TILE)):  # a later step in order mends nothing
        sampling.note(step, 2)
        sampling.wrapper(in_tiles(order, (3,)))(apply_to(model), args)
    with pytest.raises(GuidanceError, match="tiles whose prompts are in an order that is not known"):
        sampling.finish()

    def half(apply_model: Any, given: dict[str, Any]) -> Tensor:
        return in_tiles(TILE_BY_TILE, (3,))(apply_model, {**given, "input": given["input"][:1]})

    with pytest.raises(GuidanceError, match="3 rows in place of 2"):
        begin(kind, model, [torch.randn(3, 16)]).wrapper(half)(apply_to(model), args)


def test_skip_layer_guidance_stays_unguided():
    kind = "sd35"
    model, args = build(kind), call_of(1, [0], kind)
    args["c"]["transformer_options"]["skip_layers"] = [1]
    with torch.inference_mode():
        out = begin(kind, model, [torch.randn(3, 16)]).wrapper()(apply_to(model), args)
        plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
    assert torch.equal(out, plain)


def test_a_pass_answers_for_the_steps_that_the_host_took(kind):
    model = build(kind)
    sampling = begin(kind, model, [torch.randn(3, 16)], 0, 3)
    with pytest.raises(GuidanceError, match="did not reach it"):
        sampling.finish()
    for step in (0, 1):
        sampling.note(step, 3)
        sampling.wrapper()(apply_to(model), call_of(1, [0], kind))
    report = sampling.finish()  # a sampler that looks twice at all steps but the last
    assert report.guided_steps == (0, 1)
    sampling.note(2, 3)  # a call that went past the wrapper
    with pytest.raises(GuidanceError, match=r"steps \[2\]"):
        sampling.finish()
    with pytest.raises(GuidanceError, match=r"steps \[2\]"):
        sampling.finish(interrupted=True)


def test_a_host_that_does_not_count_is_an_error(kind):
    model = build(kind)
    sampling = SamplingPass(KINDS[kind][1], model, Settings(), lambda _: [torch.randn(3, 16)])
    with pytest.raises(GuidanceError, match="did not say which step"):
        sampling.wrapper()(apply_to(model), call_of(1, [0], kind))


def test_a_window_between_two_steps_is_an_error(kind):
    model = build(kind)
    sampling = begin(kind, model, [torch.randn(3, 16)], 0, 2, start=0.6, end=0.9)
    with pytest.raises(SettingsError, match="none of 2 steps"):
        sampling.wrapper()(apply_to(model), call_of(1, [0], kind))


def test_values_that_are_not_finite_are_an_error(kind):
    model = build(kind)
    texts = [[torch.full((3, 16), torch.inf)], [torch.randn(3, 16)]]
    sampling = SamplingPass(KINDS[kind][1], model, Settings(), lambda step: texts[step])
    for step in (0, 1):  # a later call that is sound mends nothing
        sampling.note(step, 2)
        sampling.wrapper()(apply_to(model), call_of(1, [0], kind))
    with pytest.raises(GuidanceError, match=r"not finite.*with VSF off"):  # it may be the host's own fault
        sampling.finish()


def test_a_step_whose_negative_is_empty_is_the_models_own_and_said_so(kind):
    """A schedule such as [wheels::0.5] has nothing to keep out from some step on."""
    model, empty = build(kind), torch.zeros(0, 16)
    by_step = {0: [torch.randn(3, 16)], 1: [empty]}
    sampling = SamplingPass(KINDS[kind][1], model, Settings(), by_step.__getitem__)
    with torch.inference_mode():
        for step in by_step:
            args = call_of(1, [0], kind)
            plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
            sampling.note(step, 2)
            assert torch.equal(sampling.wrapper()(apply_to(model), args), plain) == (step == 1)
    assert sampling.finish().guided_steps == (0,)

    nothing = begin(kind, model, [empty], total=1)
    with torch.inference_mode():
        nothing.wrapper()(apply_to(model), call_of(1, [0], kind))
    assert not nothing.acted
    with pytest.raises(GuidanceError, match="no step has a negative prompt"):
        nothing.finish()


def test_one_picture_may_have_nothing_to_keep_out_while_another_has(kind):
    model, args = build(kind), call_of(2, [0], kind)
    negatives = [torch.randn(3, 16), torch.zeros(0, 16)]
    with torch.inference_mode():
        out = begin(kind, model, negatives).wrapper()(apply_to(model), args)
        plain = apply_to(model)(args["input"], args["timestep"], **args["c"])
    wanted = guided_row(kind, model, args, 0, negatives[0], Settings(alpha=1.3, beta=0.3))
    torch.testing.assert_close(out[0], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[1], plain[1], atol=1e-9, rtol=1e-9)


def test_rows_that_belong_to_no_picture_are_an_error(kind):
    sampling = begin(kind, model := build(kind), [torch.randn(3, 16)] * 2)
    with pytest.raises(GuidanceError, match="3 rows for 2 pictures"):
        sampling.wrapper()(apply_to(model), call_of(3, [0], kind))


def test_what_cannot_be_guided_is_refused_by_name(kind, monkeypatch):
    model = build(kind)
    network = KINDS[kind][1]
    check_model(network, model)
    block = next(iter(network.blocks(model).values()))

    block.forward = lambda *args: None
    with pytest.raises(ModelError, match="another extension"):
        check_model(network, model)
    block.forward.__module__ = "sd_forge_negpip.scripts"
    with pytest.raises(ModelError, match="NegPiP has replaced"):
        check_model(network, model)
    del block.forward

    block._compiled_call_impl = object()
    with pytest.raises(ModelError, match="compiled"):
        check_model(network, model)
    block._compiled_call_impl = None

    tap = network.tap(model)
    monkeypatch.setattr(sys.modules[type(model).__module__], tap.name, lambda query, keys: query)
    with pytest.raises(ModelError, match="update the extension"):
        check_model(network, model)


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by place"])
def test_a_mask_is_refused_however_it_is_given(kind, named):
    network, flux = KINDS[kind][1], "flux" in kind
    q = torch.randn(1, 2, 5, 4) if flux else torch.randn(1, 5, 8)
    options = {"skip_reshape": True} if flux else {}
    function = network.attention(lambda *_, **__: pytest.fail("not guided"), lambda q, *_, **__: q)
    assert function(q, q, q, 2, **options).shape == (1, 5, 8)
    mask = torch.zeros(5, 5)
    with pytest.raises(GuidanceError, match="masks its attention"):
        if named:
            function(q, q, q, 2, mask=mask, **options)
        else:
            function(q, q, q, 2, mask, **options)


def test_networks_are_told_by_their_structure():
    for kind, (_, network) in KINDS.items():
        assert find_network(build(kind)) is network
    assert find_network(nn.Linear(2, 2)) is None
    chroma = build("flux")
    for block in chroma.double_blocks:  # Chroma's blocks are modulated from outside
        del block.txt_mod
    assert find_network(chroma) is None
