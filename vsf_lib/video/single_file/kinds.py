"""What kind of model a file of weights is, told by the names of its tensors.

Owns the signs that tell them apart, for lists of files and for errors that say what a wrong file is. Knows
nothing of sizes and of what can be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vsf_lib.video.single_file.headers import Header

LORA = "a LoRA"
TRANSFORMER = "a Wan transformer"
VAE = "a Wan VAE"
TEXT_ENCODER = "a UMT5 text encoder"

_SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(sign, re.MULTILINE))
    for kind, sign in (
        (LORA, r"\.lora_(down|up|A|B)\b|\.diff_b$|\.diff$"),
        (TRANSFORMER, r"^(.*\.)?blocks\.0\.(self_attn\.norm_q|attn1\.norm_q)\.weight$"),
        (VAE, r"^(.*\.)?decoder\.(middle\.0\.residual\.0|mid_block\.resnets\.0\.norm1)\.gamma$"),
        (
            TEXT_ENCODER,
            r"^(.*\.)?(blocks\.1\.pos_embedding\.embedding|"
            r"encoder\.block\.1\.layer\.0\.SelfAttention\.relative_attention_bias)\.weight$",
        ),
        ("a T5 text encoder", r"encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight$|^enc\.blk\.0\.attn_q"),
        ("a CLIP text encoder", r"text_model\.encoder\.layers\.0\."),
        ("a Stable Diffusion checkpoint", r"(^|\.)input_blocks\.0\.0\.|^down_blocks\.0\.resnets\.0\."),
        ("a Stable Diffusion 3 transformer", r"(^|\.)joint_blocks\.0\."),
        ("a Flux transformer", r"(^|\.)double_blocks\.0\."),
        ("a VAE for pictures", r"(^|\.)decoder\.mid\.block_1\.|(^|\.)decoder\.mid_block\."),
    )
)


def kinds(tensors: Mapping[str, object]) -> tuple[str, ...]:
    """All that the tensors are, the likeliest first: a checkpoint may hold several networks."""
    names = "\n".join(tensors)
    return tuple(kind for kind, sign in _SIGNS if sign.search(names))


def told(header: Header) -> str:
    """The same in words for an error."""
    found = kinds(header.tensors)
    if found:
        return found[0]
    return f"of an unknown kind (its tensors: {', '.join(sorted(header.tensors)[:2])}, ...)"
