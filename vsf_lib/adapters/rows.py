"""What a call of the denoiser is for: which of its rows are prompts to guide and which are unconditional.

Owns the comparison of a call's text with what the pipeline encoded. Decides by content, not by the order in
which calls come, and refuses to guess. Knows nothing of attention or of how the negative is brought in.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from vsf_lib.errors import GuidanceError


class TextRows:
    """Tells, for one generation, what each row of a denoiser call carries."""

    def __init__(self, conditional: Tensor, unconditional: Tensor | None) -> None:
        """Takes what the pipeline encoded, `[R, n_p, C]` each; `unconditional` only if it will be used."""
        self._conditional = conditional
        self._unconditional = unconditional
        # A pipeline passes the same tensors in every step, at most two in turn: comparing once per tensor
        # spares a wait per step.
        self._answered: deque[tuple[Tensor, tuple[bool, ...]]] = deque(maxlen=2)

    @property
    def awaits_unconditional(self) -> bool:
        """Whether no unconditional text is known."""
        return self._unconditional is None

    def add_unconditional(self, unconditional: Tensor) -> None:
        """Takes the unconditional text of a pipeline that encodes it after the prompt."""
        self._unconditional = unconditional

    def guided(self, text: Tensor) -> tuple[bool, ...]:
        """For each row of a call's text: is it a prompt (True) or unconditional (False)."""
        for known, answer in self._answered:
            if known is text:
                return answer
        answer = self._compare(text)
        self._answered.append((text, answer))
        return answer

    def _compare(self, text: Tensor) -> tuple[bool, ...]:
        cond, uncond = self._conditional, self._unconditional
        if uncond is None:
            if _same(text, cond):
                return (True,) * len(cond)
        elif len(text) == len(uncond) + len(cond):
            if _same(text[: len(uncond)], uncond) and _same(text[len(uncond) :], cond):
                return (False,) * len(uncond) + (True,) * len(cond)
        else:
            is_cond, is_uncond = _same(text, cond), _same(text, uncond)
            if is_cond and is_uncond:
                raise GuidanceError(
                    "the prompt and the unconditional prompt are the same text, and the pipeline sends them "
                    "one at a time: which of them to guide is unknown; change one of the texts, or switch "
                    "classifier-free guidance off (guidance_scale 1; with Flux true_cfg_scale 1)"
                )
            if is_cond or is_uncond:
                return (is_cond,) * len(text)
        raise GuidanceError(
            f"a denoiser call carries text of shape {tuple(text.shape)} that is neither the encoded prompt "
            f"{tuple(cond.shape)} nor the unconditional one: something else changes the prompt during the "
            "steps (a callback, a hook?), and guiding the wrong rows would be silent; remove it, or "
            "generate without guidance"
        )


def _same(text: Tensor, encoded: Tensor) -> bool:
    """Whether a call's text is what was encoded, which a pipeline may have moved and rounded."""
    return text is encoded or (text.shape == encoded.shape and torch.equal(text, encoded.to(text)))
