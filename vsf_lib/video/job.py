"""A video that is to be made: the one source of its fields for tab, command line, queue, worker and infotext.

Owns bounds, defaults and the arithmetic of frames; how guidance acts is in `Settings`. Imports no torch, no
host and no file but what `from_infotext` is handed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.metadata import (
    COMPARISON,
    COMPARISON_VALUE,
    FINGERPRINT,
    Parameters,
    format_parameters,
    parse_parameters,
)
from vsf_lib.scenes.model import WAN
from vsf_lib.seeds import LARGEST_SEED
from vsf_lib.settings import Settings
from vsf_lib.video import builtin
from vsf_lib.video.checked import checked
from vsf_lib.video.lora import Lora

Format = Literal["mp4", "webm", "gif", "png"]
Offload = Literal["auto", "none", "model", "group"]

SIZES: Mapping[str, tuple[int, int]] = {
    "480p landscape": (832, 480),
    "480p portrait": (480, 832),
    "720p landscape": (1280, 720),
}
MULTIPLE = 16
"""Width and height: the VAE makes 8 pixels of one latent, the transformer one token of 2 x 2 latents."""
STRIDE = 4
"""Frames per latent frame behind the first, which stands for one frame: all lengths are 4 k + 1."""
USUAL_FRAMES = 81
MOST_FRAMES = 241
UNIPC = "UniPC"
_SETTLING = 8
"""CausVid's first frames are over-contrasty, five in its authors' videos: so many extra ones are made and
dropped (a multiple of STRIDE)."""

_KEYS = {
    "frames": "VSF frames",
    "fps": "VSF fps",
    "flow_shift": "VSF flow shift",
    "dropped": "VSF dropped frames",
    "loras": "VSF loras",
    "vae": "VSF VAE",
    "text_encoder": "VSF text encoder",
}
VIDEO = f"{_KEYS['frames']}: "
"""What the parameters of every video hold, and of no picture."""
_BETWEEN = " | "
"""Between LoRAs in the infotext: a sign that file names do not have."""


class VideoJob(BaseModel):
    """What to make. A bad value raises SettingsError or PromptError with one line, through `create`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str
    settings: Settings = Settings()
    model: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    """The built-in one's name, the folder of a Wan in diffusers' format, a hub id or a transformer's file."""
    loras: tuple[Lora, ...] = ()
    width: Annotated[int, Field(ge=64, le=4096)] = 832
    height: Annotated[int, Field(ge=64, le=4096)] = 480
    frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] = USUAL_FRAMES
    """In the file: 4 k + 1."""
    fps: Annotated[int, Field(ge=1, le=120)] = 16
    steps: Annotated[int, Field(ge=1, le=100)] = 8
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    guidance_scale: Annotated[float, Field(ge=1, le=30)] = 1.0
    """Classifier-free guidance, off at 1: distilled models run without it."""
    flow_shift: Annotated[float, Field(gt=0, le=20)] | None = None
    """None: by the size, as the model's authors give it."""
    drop_frames: Annotated[int, Field(ge=0, le=40)] | None = None
    """Extra frames made at the start and dropped; None: by the LoRAs."""
    format: Format = "mp4"
    quality: Annotated[int, Field(ge=1, le=10)] = 8
    """Of the file: 10 is the largest."""
    offload: Offload = "auto"
    vae: str = ""
    """A file, or a folder in diffusers' format; needed beside a transformer's file, else the model's own."""
    text_encoder: str = ""
    """The same for UMT5."""
    compare: bool = False
    """Two videos of the same seed in one, left without and right with the negative prompt."""

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the prompt is empty: say what the video shows")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ValueError("the prompt holds half of a character: retype it")
        return text.strip()

    @field_validator("vae", "text_encoder")
    @classmethod
    def _part(cls, path: str) -> str:
        if any(ord(sign) < 32 for sign in path):
            raise ValueError(f"{path!r} cannot be a file or folder: it has control signs in it")
        return path.strip()

    @field_validator("width", "height")
    @classmethod
    def _multiple(cls, pixels: int) -> int:
        if pixels % MULTIPLE:
            low = pixels // MULTIPLE * MULTIPLE
            raise ValueError(
                f"width and height must be multiples of {MULTIPLE}: {low} or {low + MULTIPLE}, not {pixels}"
            )
        return pixels

    @field_validator("frames")
    @classmethod
    def _length(cls, frames: int) -> int:
        if frames % STRIDE != 1:
            low = (frames - 1) // STRIDE * STRIDE + 1
            raise ValueError(
                f"the number of frames must be {STRIDE} k + 1: {low} or {low + STRIDE}, not {frames}"
            )
        return frames

    @field_validator("drop_frames")
    @classmethod
    def _dropped(cls, count: int | None) -> int | None:
        if count is not None and count % STRIDE:
            raise ValueError(f"frames are dropped in groups of {STRIDE}, and {count} is no multiple of it")
        return count

    @classmethod
    def create(cls, **values: Any) -> VideoJob:
        """A job from values of unchecked types and names; raises SettingsError or PromptError."""
        if not str(values.get("prompt", "")).strip():
            raise PromptError("the prompt is empty: say what the video shows")
        made: VideoJob = checked(cls, values)
        if made.compare and not made.acts:
            made._refuse_comparison()
        builtin.check(made)
        return made

    def changed(self, **values: Any) -> VideoJob:
        """A validated copy with other values."""
        return self.create(**{**self.model_dump(), **values})

    def _refuse_comparison(self) -> None:
        if self.settings.method == "off":
            raise SettingsError("there is nothing to compare with method off: choose another method")
        raise PromptError("a comparison needs a negative prompt: say what the video must not show")

    @property
    def acts(self) -> bool:
        """Whether there is something to keep out, and a method to do it."""
        return self.settings.method != "off" and bool(self.settings.negative_prompt)

    @property
    def effective_shift(self) -> float:
        """The flow shift: Wan's authors give 3 for 480p and 5 for 720p."""
        if self.flow_shift is not None:
            return self.flow_shift
        return 5.0 if self.width * self.height > 832 * 480 else 3.0

    @property
    def effective_drop(self) -> int:
        """How many frames are made in front of the first and dropped."""
        if self.drop_frames is not None:
            return self.drop_frames
        return _SETTLING if any("causvid" in lora.file.lower() for lora in self.loras) else 0

    @property
    def made_frames(self) -> int:
        """How many frames the model makes: 4 k + 1 again."""
        return self.frames + self.effective_drop

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told before it starts."""
        told = []
        if self.settings.method != "off" and not self.settings.negative_prompt:
            told.append("there is no negative prompt, so nothing is guided: an ordinary video")
        elif self.settings.negative_prompt and not self.acts and self.guidance_scale == 1:
            told.append("the method is off, so the negative prompt does nothing")
        known = builtin.USUAL["frames"] if self.model == WAN else USUAL_FRAMES
        if self.frames > known:
            told.append(
                f"{self.frames} frames are more than the {known} that Wan was trained on: expect "
                "repetition, and more memory"
            )
        if self.effective_drop:
            told.append(f"{self.effective_drop} frames at the start are made and dropped (CausVid settles)")
        return tuple(told)

    def infotext(self, *, version: str = "", guided: bool = True, fingerprint: str = "") -> str:
        """The parameters as the WebUIs write them; `guided` False leaves out what did not act.

        `fingerprint` is that of the model's weights.
        """
        extra = {
            _KEYS["frames"]: str(self.frames),
            _KEYS["fps"]: str(self.fps),
            _KEYS["flow_shift"]: f"{self.effective_shift:g}",
        }
        if self.effective_drop:
            extra[_KEYS["dropped"]] = str(self.effective_drop)
        if self.loras:
            extra[_KEYS["loras"]] = _BETWEEN.join(map(str, self.loras))
        for name in ("vae", "text_encoder"):
            if getattr(self, name):
                extra[_KEYS[name]] = getattr(self, name)
        if fingerprint:
            extra[FINGERPRINT] = fingerprint
        acts = guided and self.acts
        if acts and self.compare:
            extra[COMPARISON] = COMPARISON_VALUE
        host = "" if acts or self.guidance_scale == 1 else self.settings.negative_prompt
        return format_parameters(
            Parameters(
                prompt=self.prompt,
                negative_prompt=host,
                steps=self.steps,
                sampler=UNIPC,
                cfg_scale=self.guidance_scale,
                seed=self.seed,
                width=self.width,
                height=self.height,
                model=self.model,
                version=version,
                settings=self.settings if acts else None,
                extra=extra,
            )
        )

    @classmethod
    def from_infotext(cls, infotext: str) -> VideoJob:
        """The job that a video was made from; SettingsError where it cannot be repeated."""
        read = parse_parameters(infotext)
        if _KEYS["frames"] not in read.extra:
            picture = "; they are a picture's: drop it in the tab Image, or draw it again with generate"
            raise SettingsError(
                "these are not the parameters of a video that this program made"
                + (picture if read.steps else "")
            )
        settings = read.settings or Settings(method="off", negative_prompt=read.negative_prompt)
        values: dict[str, Any] = {
            "prompt": read.prompt,
            "settings": settings.model_dump(),
            "model": read.model,
            "width": read.width,
            "height": read.height,
            "steps": read.steps,
            "seed": read.seed,
            "guidance_scale": read.cfg_scale,
            "frames": _whole(read.extra, "frames"),
            "fps": _whole(read.extra, "fps"),
            "flow_shift": _number(read.extra, "flow_shift"),
            "drop_frames": _whole(read.extra, "dropped", 0),
            "vae": read.extra.get(_KEYS["vae"], ""),
            "text_encoder": read.extra.get(_KEYS["text_encoder"], ""),
            "compare": COMPARISON in read.extra,
        }
        if read.model == WAN:  # not in the text, as it changes nothing
            values["offload"] = builtin.USUAL["offload"]
        listed = read.extra.get(_KEYS["loras"], "")
        values["loras"] = [Lora.parse(text).model_dump() for text in listed.split(_BETWEEN) if text]
        return cls.create(**values)


def _whole(extra: Mapping[str, str], name: str, default: int | None = None) -> int:
    number = _number(extra, name, default)
    if not number.is_integer():  # NaN and infinity neither
        raise SettingsError(f"{_KEYS[name]} is {number:g} in the infotext, but must be a whole number")
    return int(number)


def _number(extra: Mapping[str, str], name: str, default: float | None = None) -> float:
    text = extra.get(_KEYS[name])
    if text is None and default is not None:
        return float(default)
    try:
        return float(str(text))
    except ValueError:
        raise SettingsError(f"{_KEYS[name]} is {text!r} in the infotext, but must be a number") from None
