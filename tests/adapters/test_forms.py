"""Other forms of attention in VSF's place: whole outputs of SD3 and Flux against float64 runs, and the door.

The references' own VSF is exchanged for each form's definition; all around it stays theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import reference_flux
import reference_sd3
import tiny_flux
import tiny_sd3
import tiny_wan
import torch
from recorder import Recorder, assert_rows_match
from torch import Tensor

from vsf_lib.adapters import Form, encode_negatives, guided
from vsf_lib.attention import ablations, joint_attention, variant_attention
from vsf_lib.bench import forms
from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)


def softmax_over(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, less: Tensor | float = 0.0) -> Tensor:
    logits = q @ k.mT / q.shape[-1] ** 0.5 - less
    return logits.masked_fill(~sees, -torch.inf).softmax(-1) @ v


def undiluted(settings: Settings, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
    """Image rows keep what they see of I and P whole; the rows of P and N0 as in VSF."""
    i, p, n = (kind == which for which in range(3))
    own = torch.where((kind == 2)[:, None], (i | n)[None], (i | p)[None])
    out = softmax_over(q, k, v, own)
    less = settings.beta * n.double()
    weights = (q @ k.mT / q.shape[-1] ** 0.5 - less).softmax(-1) * n
    return torch.where(i[:, None], out - settings.alpha * weights @ v, out)


def without_duplicate_and_mask(settings: Settings, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
    flipped = torch.where((kind == 2)[:, None], -settings.alpha * v, v)
    less = settings.beta * ((kind == 0)[:, None] & (kind == 2)[None]).double()
    return softmax_over(q, k, flipped, torch.ones(len(kind), len(kind), dtype=torch.bool), less)


def ordinary_text(settings: Settings, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
    return softmax_over(q, k, v, torch.ones(len(kind), len(kind), dtype=torch.bool))


def released(settings: Settings, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
    """The first half of N is prompt; the second is N0."""
    kind = kind.clone()
    n = (kind == 2).nonzero().flatten()
    kind[n[: len(n) // 2]] = 1
    columns = torch.cat([kind, torch.full((len(n) // 2,), 3)])
    sees = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0]]).bool()[kind][:, columns]
    keys = torch.cat([k, k[:, :, kind == 2]], 2)
    values = torch.cat([v, -settings.alpha * v[:, :, kind == 2]], 2)
    return softmax_over(q, keys, values, sees, settings.beta * (columns == 3))


# form, its definition, and the embedding that the reference is given
FORMS: dict[str, tuple[Form, Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    form.name: (form, definition, embed)
    for form, definition, embed in (
        (forms.UNDILUTED, undiluted, lambda e: e),
        (forms.NO_DUPLICATE_NO_MASK, without_duplicate_and_mask, lambda e: e),
        (forms.EMBEDDING_FLIP, ordinary_text, lambda e: -VSF.alpha * e),
        (forms.RELEASED, released, lambda e: torch.cat([e, e])),
    )
}


@pytest.fixture(scope="module", params=["sd3", "flux"])
def model(request: pytest.FixtureRequest) -> tuple[Any, ModuleType, Callable[..., Any]]:
    """A pipeline, its reference and how it is called."""
    tiny, reference = {"sd3": (tiny_sd3, reference_sd3), "flux": (tiny_flux, reference_flux)}[request.param]
    return tiny.make_pipeline(), reference, tiny.generate


def test_each_form_is_what_it_is_called() -> None:
    """The attention of each is tested against float64 under its own name in tests/attention."""
    masked = {
        "no mask": ablations.no_mask_attention,
        "no duplicate": ablations.no_duplicate_attention,
        "no duplicate, no mask": ablations.no_duplicate_no_mask_attention,
        "whole-embedding flip": ablations.embedding_flip_attention,
        "released form": ablations.released_attention,
    }
    assert {form.name: form.attention for form in (*forms.ABLATIONS, forms.RELEASED)} == masked
    where = {"image": slice(0, 9), "positive": slice(9, 13), "negative": slice(13, 16)}
    q, k, v = torch.randn(3, 1, 2, 16, 8, generator=torch.Generator().manual_seed(3)) * 2
    values = {
        "undiluted": {"variant": "undiluted", "limit": None},
        "norm-limited": {"variant": "flip", "limit": forms.LIMIT},
        "undiluted, limited": {"variant": "undiluted", "limit": forms.LIMIT},
    }
    outs = {}
    for form in forms.VARIANTS:
        outs[form.name] = form.attention(q, k, v, **where, alpha=6.0, beta=0.0)
        wanted = variant_attention(q, k, v, **where, **values[form.name], alpha=6.0, beta=0.0)
        assert torch.equal(outs[form.name], wanted), form.name
    assert set(outs) == set(values)
    assert not torch.equal(outs["undiluted"], outs["undiluted, limited"]), "the limit acts here"


@pytest.mark.parametrize("name", FORMS)
def test_whole_outputs_match_the_form_in_float64(
    name: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, reference, generate = model
    form, definition, embed = FORMS[name]
    masked = getattr(reference, "_MaskedProcessor", None) or reference._Masked
    monkeypatch.setattr(masked, "vsf", lambda self, *qkv_kind: definition(VSF, *qkv_kind))
    with Recorder(pipe) as seen, guided(pipe, VSF, form=form) as guidance:
        generate(pipe, num_inference_steps=2)
    assert guidance.report is not None
    assert guidance.report.method == form.name
    assert_rows_match(
        seen,
        [embed(reference.negative_embedding(pipe, "wheels"))],
        lambda inputs, row: reference.Reference(pipe.transformer, None)(inputs, row),
        lambda inputs, row, negative: reference.Reference(pipe.transformer, VSF)(inputs, row, negative),
    )


@pytest.mark.parametrize("form", [*forms.VARIANTS, *forms.ABLATIONS, forms.RELEASED], ids=lambda f: f.name)
def test_every_form_draws_its_own_picture_and_says_by_what(form: Form, model: Any) -> None:
    pipe, _, generate = model
    with guided(pipe, VSF.changed(alpha=40.0), ["wheels", "small blue roof"], form=form) as guidance:
        drawn = generate(pipe, ["a red car", "a boat"], num_inference_steps=1)
    with guided(pipe, VSF.changed(alpha=40.0), ["wheels", "small blue roof"]):
        vsf = generate(pipe, ["a red car", "a boat"], num_inference_steps=1)
    assert drawn.isfinite().all()
    assert not torch.allclose(drawn, vsf, atol=1e-4)
    assert guidance.report is not None
    assert guidance.report.method == form.name
    exact = "exact (cpu-flash)" if form in forms.VARIANTS else "scaled_dot_product_attention"
    assert guidance.report.kernel == exact


def test_a_form_gets_what_vsf_gets(model: Any) -> None:
    """So VSF's own function as a form changes nothing but the name."""
    pipe, _, generate = model
    asked: list[dict[str, Any]] = []

    def attention(*qkv: Tensor, **options: Any) -> Any:
        asked.append(options)
        return joint_attention(*qkv, **options)

    settings = VSF.changed(end=0.5)
    with guided(pipe, settings, form=Form("spy", attention)) as guidance:
        drawn = generate(pipe)
    with guided(pipe, settings) as plain:
        assert torch.equal(generate(pipe), drawn)
    assert len(asked) == 2 * len(plain.report.layers)  # type: ignore[union-attr]
    options = ["image", "positive", "negative", "alpha", "beta", "negative_mask", "kernel"]
    assert all(list(each) == options for each in asked)
    assert guidance.report is not None
    assert guidance.report.method == "spy"
    assert guidance.report.guided_steps == (0, 1)


def test_unguided_rows_and_blocks_stay_unguided() -> None:
    """With classifier-free guidance in one batch, and in single-stream blocks when they are left out."""
    pipe = tiny_sd3.make_pipeline()
    reference = reference_sd3.Reference(pipe.transformer, None)
    with Recorder(pipe) as seen, guided(pipe, VSF, form=forms.RELEASED):
        tiny_sd3.generate(pipe, guidance_scale=3.0, negative_prompt="big", num_inference_steps=1)
    (output,), (inputs,) = seen.outputs, seen.inputs
    assert float((output[0].double() - reference(inputs, 0)).abs().max()) < 2e-5 * float(output.std())
    assert not torch.allclose(output[1].double(), reference(inputs, 1), atol=1e-3)

    pipe = tiny_flux.make_pipeline()
    with guided(pipe, VSF.changed(blocks="double"), form=forms.NO_MASK) as guidance:
        tiny_flux.generate(pipe, num_inference_steps=1)
    assert guidance.report is not None
    assert len(guidance.report.layers) == tiny_flux.DOUBLES


def test_given_embeddings_go_through_the_form_as_well() -> None:
    pipe = tiny_sd3.make_pipeline()
    with guided(pipe, VSF, form=forms.EMBEDDING_FLIP):
        encoded_inside = tiny_sd3.generate(pipe)
    with guided(pipe, VSF, negative_embeddings=encode_negatives(pipe, VSF), form=forms.EMBEDDING_FLIP):
        assert torch.equal(tiny_sd3.generate(pipe), encoded_inside)


def test_factors_per_token() -> None:
    """Two begin and end tokens and a word of CLIP, a word and an end token of T5."""
    pipe = tiny_sd3.make_pipeline()
    with guided(pipe, VSF.changed(alpha=3.0)):
        doubled = tiny_sd3.generate(pipe)
    with guided(pipe, VSF, form=forms.weighted("all twice", [2.0] * 5)):
        assert torch.allclose(tiny_sd3.generate(pipe), doubled, atol=1e-4)
    with guided(pipe, VSF, form=forms.weighted("words twice", [1, 2, 1, 2, 1])):
        assert not torch.allclose(tiny_sd3.generate(pipe), doubled, atol=1e-3)


def test_the_log_names_the_form(caplog: pytest.LogCaptureFixture) -> None:
    pipe = tiny_sd3.make_pipeline()
    with caplog.at_level(logging.INFO, "vsf"), guided(pipe, VSF, form=forms.UNDILUTED):
        tiny_sd3.generate(pipe)
    assert caplog.messages[-1].startswith("undiluted (alpha 1.5, beta 0.3) on 3 layers")


def test_what_a_form_cannot_be_used_with_is_refused() -> None:
    pipe = tiny_sd3.make_pipeline()
    with pytest.raises(SettingsError, match='takes the place of method "vsf", but method is "nag"'):
        guided(pipe, VSF.changed(method="nag"), form=forms.UNDILUTED).__enter__()
    with pytest.raises(SettingsError, match="no share to record"):
        guided(pipe, VSF, form=forms.UNDILUTED, record_share=True).__enter__()
    with pytest.raises(SettingsError, match="one of joint attention"):
        guided(tiny_wan.make_pipeline(), VSF, form=forms.UNDILUTED).__enter__()
    with pytest.raises(SettingsError, match="is a method's name"):
        Form("vsf", joint_attention)
