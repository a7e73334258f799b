"""What can be fetched from the hub: the models and LoRAs that are usual, as data, and any that a user names.

Owns how such a name is written, and what a file is by its name. Knows no network and no folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vsf_lib.errors import SettingsError
from vsf_lib.video.single_file.headers import GGUF, SAFETENSORS
from vsf_lib.video.single_file.kinds import LORA, TEXT_ENCODER, TRANSFORMER, VAE

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")
_SITE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/")
_HINTS = tuple(
    (kind, re.compile(sign, re.IGNORECASE))
    for kind, sign in (
        (LORA, r"lora"),
        (TEXT_ENCODER, r"umt5|text_?encoder"),
        (VAE, r"vae"),
        (TRANSFORMER, r"\.gguf\Z|t2v|diffusion_?model|unet"),
    )
)


def is_id(text: str) -> bool:
    """Whether it could be the name of a repository."""
    return _ID.match(text) is not None


@dataclass(frozen=True)
class Source:
    """A repository of the hub in diffusers' format, or one file of a repository."""

    id: str
    file: str = ""
    """Nothing: the whole pipeline."""

    @classmethod
    def parse(cls, text: str) -> Source:
        """`OWNER/NAME`, `OWNER/NAME/FILE`, or the address of either's page; raises SettingsError."""
        path, on_site = _SITE.subn("", text.strip(), count=1)
        words = path.split("?")[0].rstrip("/").split("/")
        id, rest = "/".join(words[:2]), words[2:]
        if on_site and rest and rest[0] in ("blob", "resolve", "tree"):
            if rest[1:2] != ["main"]:
                raise SettingsError(f"{text} is another version than main, and only main is fetched")
            rest = rest[2:]
        if not is_id(id):
            raise SettingsError(
                f"{text!r} is no name on the hub: give OWNER/NAME, such as {BASES[0].source}, or "
                "OWNER/NAME/FILE"
            )
        if rest and not rest[-1].lower().endswith((SAFETENSORS, GGUF)):
            raise SettingsError(
                f"{rest[-1]} is no {SAFETENSORS} or {GGUF} file: other formats can run code, so none is "
                "fetched"
            )
        return cls(id, "/".join(rest))

    @property
    def name(self) -> str:
        """Of the folder or file that it becomes."""
        return (self.file or self.id).rsplit("/", 1)[-1]

    @property
    def likely(self) -> str:
        """What a file is, by its name: one of `kinds`. Its header tells, once it is here."""
        return next((kind for kind, sign in _HINTS if sign.search(self.file)), LORA)

    def __str__(self) -> str:
        return f"{self.id}/{self.file}" if self.file else self.id


@dataclass(frozen=True)
class Offer:
    """A source that a page offers by itself."""

    source: Source
    label: str
    about: str


BASES = (
    Offer(Source("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), "Wan 2.1 T2V 1.3B", "the small one, for most cards"),
    Offer(Source("Wan-AI/Wan2.1-T2V-14B-Diffusers"), "Wan 2.1 T2V 14B", "better, for large cards"),
)
_KIJAI = "Kijai/WanVideo_comfy"
LORAS = (
    Offer(
        Source(_KIJAI, "Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32.safetensors"),
        "CausVid LoRA for 1.3B",
        "few steps without CFG; a weight of 0.5 is usual",
    ),
    Offer(
        Source(_KIJAI, "Wan21_CausVid_14B_T2V_lora_rank32.safetensors"),
        "CausVid LoRA for 14B",
        "few steps without CFG",
    ),
    Offer(
        Source(_KIJAI, "Wan21_CausVid_14B_T2V_lora_rank32_v2.safetensors"),
        "CausVid LoRA v2 for 14B",
        "few steps without CFG",
    ),
    Offer(
        Source(_KIJAI, "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors"),
        "lightx2v LoRA for 14B",
        "few steps without CFG; users report it better than CausVid",
    ),
)
