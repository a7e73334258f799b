"""The lines of the quality curves: every method, variant and ablation, and how each one's strength is swept.

Owns which values are swept and which are held. A baseline must not lose because its paper's own values were
left out, so those lie on its lines.
"""

from __future__ import annotations

import math
from typing import Final

from vsf_lib.adapters import Form
from vsf_lib.bench import forms
from vsf_lib.bench.drawing import Method
from vsf_lib.bench.tracing import Line, rounded
from vsf_lib.settings import Settings

ALPHAS = (0.1, 0.25, 0.6, 1.3, 3.0)
"""VSF's alphas at beta 0. A bias takes a factor of about exp(-beta) off what the negative gets of attention,
so that is what other betas' alphas are multiplied by."""
BETAS = (1.0, 2.0)
DIFFERENCE: Final = "difference"
TOKENS = {"all": "all tokens", "words": "words only"}


def alphas(beta: float) -> tuple[float, ...]:
    """The coarse sweep of alpha at `beta`."""
    return tuple(rounded(alpha * math.exp(beta)) for alpha in ALPHAS)


def vsf_line(
    name: str, group: str, settings: Settings, form: Form | None = None, *, beside: str = ""
) -> Line:
    """VSF, or a form in its place, over alpha with all else as in `settings`."""
    held = [f"beta {settings.beta:g}", TOKENS[settings.negative_tokens]]
    if settings.negative_scale:
        held.append(f"negative scale {settings.negative_scale:g}")
    if settings.blocks != "both":
        held.append(f"{settings.blocks} blocks only")
    return Line(
        name,
        group,
        "alpha",
        alphas(settings.beta),
        lambda alpha: Method(name, settings.changed(alpha=alpha), form=form),
        ", ".join(held),
        most=100.0,
        beside=beside,
    )


def _vsf_name(settings: Settings) -> str:
    return f"{settings.method}, {TOKENS[settings.negative_tokens]}, beta {settings.beta:g}"


def curve_lines(like: Settings) -> list[Line]:
    """Everything that is compared; `like` are the model's own settings, of which VSF's lines keep the rest.

    The difference and the variants stand with the model's own choice of tokens, where VSF has a line of its
    own to compare them with. The ablations stand at beta 0 with all tokens, as the paper's authors ran them,
    beside "no bias", which is VSF there.
    """
    published = like.changed(negative_tokens="all", beta=0.0)
    whole, biased = _vsf_name(published.changed(beta=BETAS[0])), like.changed(beta=BETAS[0])
    vsf = [like.changed(negative_tokens=tokens, beta=beta) for tokens in TOKENS for beta in BETAS]
    return [
        Line("none", "none", "", (1.0,), lambda _: Method("none", Settings(method="off"))),
        *(vsf_line(_vsf_name(settings), "vsf", settings) for settings in vsf),
        *baseline_lines(),
        *(
            vsf_line(_vsf_name(settings), DIFFERENCE, settings)
            for settings in (like.changed(method=DIFFERENCE, beta=beta) for beta in BETAS)
        ),
        *(vsf_line(x.name, "variant", biased, x, beside=_vsf_name(biased)) for x in forms.VARIANTS),
        vsf_line("no bias", "ablation", published, beside=whole),
        *(
            vsf_line(x.name, "ablation", published, x, beside=whole)
            for x in (*forms.ABLATIONS, forms.RELEASED)
        ),
    ]


def baseline_lines() -> list[Line]:
    """NAG over phi and over its alpha, and around NAG Strong; NASA; CFG."""
    nag = Settings(method="nag", nag_tau=2.5, nag_alpha=0.25, nag_phi=4.0)
    strong = nag.changed(nag_tau=5.0, nag_alpha=0.5)
    return [
        Line(
            "nag over phi",
            "baseline",
            "phi",
            (1.0, 2.0, 4.0, 8.0, 16.0),
            lambda phi: Method("nag over phi", nag.changed(nag_phi=phi)),
            "tau 2.5, alpha 0.25",
        ),
        Line(
            "nag over alpha",
            "baseline",
            "alpha",
            (0.06, 0.125, 0.25, 0.5, 1.0),
            lambda alpha: Method("nag over alpha", nag.changed(nag_alpha=alpha)),
            "phi 4, tau 2.5",
            most=1.0,
        ),
        Line(
            "nag strong over phi",
            "baseline",
            "phi",
            (1.0, 2.0, 4.0, 11.0),
            lambda phi: Method("nag strong over phi", strong.changed(nag_phi=phi)),
            "tau 5, alpha 0.5",
        ),
        Line(
            "nasa",
            "baseline",
            "alpha",
            (0.05, 0.15, 0.25, 0.5, 1.0),
            lambda alpha: Method("nasa", Settings(method="nasa", nasa_alpha=alpha)),
        ),
        Line(
            "cfg",
            "baseline",
            "scale",
            (1.5, 2.0, 3.0, 4.5, 7.0),
            lambda scale: Method("cfg", Settings(method="off"), guidance_scale=scale),
            "two passes a step",
            most=20.0,
        ),
    ]
