"""Guidance in models that torch.compile has changed: equal to uncompiled, and no more graphs than are due.

The backend is "eager": what is tested is what gets into a graph, how many there are, and when they are made
anew. What inductor makes of the same attention is tested in tests/attention/test_attention_compile.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny_flux
import tiny_sd3
import tiny_wan
import torch
from recorder import difference, state
from torch._dynamo.utils import counters

from vsf_lib.adapters import Form, guided
from vsf_lib.attention.ablations import no_mask_attention
from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)

TINY: dict[str, Any] = {"sd3": tiny_sd3, "flux": tiny_flux, "wan": tiny_wan}
PARTS = {
    "sd3": ("transformer_blocks",),
    "flux": ("transformer_blocks", "single_transformer_blocks"),
    "wan": ("blocks",),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def wrap(pipe: Any, kind: str) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)


def compile_in_place(pipe: Any, kind: str) -> None:
    pipe.transformer.compile(backend="eager", fullgraph=True)


def compile_blocks(pipe: Any, kind: str) -> None:
    """What compile_repeated_blocks does, which SD3 lacks in some versions."""
    for part in PARTS[kind]:
        for block in getattr(pipe.transformer, part):
            block.compile(backend="eager", fullgraph=True)


WAYS = {"wrapped": wrap, "in place": compile_in_place, "blocks": compile_blocks}
Way = Callable[[Any, str], None]


def graphs() -> int:
    assert not counters["graph_break"]
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", list(TINY))
def test_compiled_equals_uncompiled_and_is_as_before_afterwards(kind: str, way: str) -> None:
    tiny = TINY[kind]
    pipe = tiny.make_pipeline()
    plain = tiny.generate(pipe)
    settings = {
        name: VSF.changed(**values)
        for name, values in {
            "one": {},
            "other": {"alpha": 0.7, "beta": 0.0, "start": 0.3},
            "longer": {"negative_prompt": "big blue wheels"},
        }.items()
    }
    wanted = {}
    for name, values in settings.items():
        with guided(pipe, values):
            wanted[name] = tiny.generate(pipe)
        assert difference(wanted[name], plain) > 0.02 * float(plain.std())
    WAYS[way](pipe, kind)
    assert difference(tiny.generate(pipe), plain) < 1e-5
    before, unguided = state(pipe), graphs()
    made = {}
    for name, values in settings.items():
        with guided(pipe, values) as guidance:
            found = tiny.generate(pipe)
        assert difference(found, wanted[name]) < 1e-5 * float(plain.std())
        assert guidance.report is not None
        assert guidance.report.kernel == "exact (cpu-flash), compiled"
        made[name] = graphs()
        if name == "one":
            assert state(pipe) == before
            assert difference(tiny.generate(pipe), plain) < 1e-5
            assert graphs() == made[name]  # the unguided graphs are still there
    # One guided graph for each unguided one, in Flux one more, for strides that change with the length of the
    # text; other strengths need none, another length of the negative once more, and any length from then on.
    assert made["one"] <= 2 * unguided + (kind == "flux")
    assert made["other"] == made["one"]
    assert made["longer"] <= made["one"] + unguided
    with guided(pipe, VSF.changed(negative_prompt="small roof and sail and boat")):
        tiny.generate(pipe)
    assert graphs() == made["longer"]
    assert state(pipe) == before


@pytest.mark.parametrize(
    ("kind", "method"), [("sd3", "nag"), ("flux", "difference"), ("wan", "difference"), ("wan", "nasa")]
)
def test_other_methods(kind: str, method: str) -> None:
    tiny = TINY[kind]
    pipe, settings = tiny.make_pipeline(), VSF.changed(method=method, nag_alpha=0.5)
    with guided(pipe, settings):
        wanted = tiny.generate(pipe, num_inference_steps=2)
    compile_in_place(pipe, kind)
    with guided(pipe, settings):
        found = tiny.generate(pipe, num_inference_steps=2)
    assert difference(found, wanted) < 1e-5 * float(wanted.std())
    assert graphs() > 0


@pytest.mark.parametrize("kind", ["sd3", "wan"])
def test_batches_with_cfg_and_a_negative_per_prompt(kind: str) -> None:
    tiny = TINY[kind]
    pipe, texts, prompts = tiny.make_pipeline(), ["wheels", "small blue roof"], ["a red car", "a boat"]
    options = {"guidance_scale": 3.0, "negative_prompt": ["", "big"]}
    with guided(pipe, VSF, texts):
        wanted = tiny.generate(pipe, prompts, num_inference_steps=2, **options)
    wrap(pipe, kind)
    with guided(pipe, VSF, texts):
        found = tiny.generate(pipe, prompts, num_inference_steps=2, **options)
    assert difference(found, wanted) < 1e-5 * float(wanted.std())
    assert graphs() > 0


def test_single_blocks_of_flux_carry_the_negative_unseen() -> None:
    pipe, settings = tiny_flux.make_pipeline(), VSF.changed(blocks="double")
    with guided(pipe, settings) as before:
        wanted = tiny_flux.generate(pipe)
    compile_blocks(pipe, "flux")
    with guided(pipe, settings) as guidance:
        found = tiny_flux.generate(pipe)
    assert difference(found, wanted) < 1e-5 * float(wanted.std())
    assert guidance.report is not None and before.report is not None
    assert guidance.report.layers == before.report.layers


@pytest.mark.parametrize("way", list(WAYS))
def test_a_graph_that_leaves_guidance_out_is_an_error(way: str) -> None:
    """As when someone tells the compiler not to look at what has changed."""
    pipe = tiny_wan.make_pipeline()  # whose text has one length, guided or not
    WAYS[way](pipe, "wan")
    plain, before = tiny_wan.generate(pipe), state(pipe)
    stance: Any = torch.compiler.set_stance
    missed = pytest.raises(GuidanceError, match=r"3 of 3 layers did not run guided.*blocks\.0\.attn2")
    with guided(pipe, VSF) as guidance, stance(skip_guard_eval_unsafe=True), missed:
        tiny_wan.generate(pipe)
    assert guidance.report is None
    assert state(pipe) == before
    assert torch.equal(tiny_wan.generate(pipe), plain)


@pytest.mark.parametrize(
    ("way", "error"), [("wrapped", RuntimeError), ("in place", RuntimeError), ("in place", KeyboardInterrupt)]
)
def test_as_before_after_an_exception(way: str, error: type[BaseException]) -> None:
    pipe = tiny_wan.make_pipeline()
    WAYS[way](pipe, "wan")
    plain, before = tiny_wan.generate(pipe), state(pipe)

    def fail(*_: Any) -> None:
        raise error

    with pytest.raises(error), guided(pipe, VSF):
        tiny_wan.generate(pipe, callback_on_step_end=fail)
    assert state(pipe) == before
    assert torch.equal(tiny_wan.generate(pipe), plain)


@pytest.mark.parametrize("way", list(WAYS))
def test_guidances_do_not_nest(way: str) -> None:
    pipe = tiny_sd3.make_pipeline()
    WAYS[way](pipe, "sd3")
    with guided(pipe, VSF), pytest.raises(GuidanceError, match="do not nest"), guided(pipe, VSF):
        pass


def test_what_cannot_be_done_in_a_compiled_model_is_refused() -> None:
    pipe = tiny_sd3.make_pipeline()
    compile_blocks(pipe, "sd3")
    with pytest.raises(ModelError, match="neither the negative's share"):
        guided(pipe, VSF, record_share=True).__enter__()
    with pytest.raises(ModelError, match="nor another form"):
        guided(pipe, VSF, form=Form("no mask", no_mask_attention)).__enter__()
