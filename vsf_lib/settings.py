"""The settings of a guided generation: the one source of fields, bounds, defaults, labels and names.

UI, API, pasting, infotext, command line and X/Y/Z axes derive from this model through `fields()`. Fields are
only ever appended; labels, infotext names and defaults never change (infotext leaves defaults out).
Must not know a model, a host or a pipeline, and imports no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vsf_lib.errors import SettingsError
from vsf_lib.infotext import decode, encode

Method = Literal["vsf", "difference", "nag", "nasa", "off"]
Blocks = Literal["both", "double"]
NegativeTokens = Literal["all", "words"]
HiresPass = Literal["both", "first", "second"]
_HALF = "valid Unicode: retype it, it holds half of a character"
SHARING: frozenset[str] = frozenset({"vsf", "difference"})
"""The methods that act by the share of attention which the negative prompt gets."""
GUIDING: frozenset[str] = SHARING | {"nag", "nasa"}


@dataclass(frozen=True)
class Slider:
    """What a slider offers; the model itself may accept more."""

    minimum: float
    maximum: float
    step: float


@dataclass(frozen=True)
class Knob:
    """What a front end needs to know of a field, beside its type, bounds and default."""

    label: str
    infotext: str
    help: str
    slider: Slider | None = None
    methods: frozenset[str] = GUIDING
    """The methods that read this field; for the others it stays out of the infotext."""
    always: bool = False
    """Written even at its default, because presets resolve it per model."""
    webui: bool = False
    """Means something in a WebUI only."""
    pipeline: bool = False
    """Means something outside of a WebUI only."""


@dataclass(frozen=True)
class SettingField:
    """One field of Settings, flattened for front ends."""

    name: str
    label: str
    infotext: str
    help: str
    flag: str
    default: Any
    kind: type
    """float or str."""
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    slider: Slider | None
    methods: frozenset[str]
    always: bool
    webui: bool
    pipeline: bool


class Settings(BaseModel):
    """What to keep out of the picture, by which method and how strongly.

    A bad value raises SettingsError with one line, however the model is made: `Settings(...)`, `create`,
    `model_validate`, `changed`. `model_copy(update=...)` does not validate, so use `changed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Annotated[
        Method,
        Knob(
            "VSF method",
            "VSF method",
            "How the negative prompt acts: vsf; difference, which keeps more of the picture and takes more "
            "alpha; or nag and nasa to compare.",
        ),
    ] = "vsf"
    negative_prompt: Annotated[
        str,
        Knob(
            "VSF negative prompt",
            "VSF negative prompt",
            "What the picture must not show. A few plain words work best.",
        ),
    ] = ""
    alpha: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "VSF alpha",
            "VSF alpha",
            "How strongly the flipped values push away from the negative prompt.",
            Slider(0.0, 10.0, 0.05),
            methods=SHARING,
            always=True,
        ),
    ] = 1.6
    beta: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "VSF beta",
            "VSF beta",
            "How much less attention the negative prompt gets; more protects the rest of the picture.",
            Slider(0.0, 2.0, 0.05),
            methods=SHARING,
            always=True,
        ),
    ] = 0.2
    negative_scale: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "VSF negative scale",
            "VSF negative scale",
            "Flux only: how far the negative embedding is moved away from an empty one.",
            Slider(0.0, 16.0, 0.5),
        ),
    ] = 0.0
    start: Annotated[
        float,
        Field(ge=0, le=1),
        Knob(
            "VSF start",
            "VSF start",
            "Fraction of the steps at which guidance begins.",
            Slider(0.0, 1.0, 0.05),
        ),
    ] = 0.0
    end: Annotated[
        float,
        Field(ge=0, le=1),
        Knob("VSF end", "VSF end", "Fraction of the steps at which guidance ends.", Slider(0.0, 1.0, 0.05)),
    ] = 1.0
    nag_phi: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "NAG phi",
            "VSF NAG phi",
            "NAG: how far attention is extrapolated away from the negative prompt.",
            Slider(0.0, 16.0, 0.1),
            methods=frozenset({"nag"}),
        ),
    ] = 4.0
    nag_tau: Annotated[
        float,
        Field(ge=1, le=100),
        Knob(
            "NAG tau",
            "VSF NAG tau",
            "NAG: the norm that the extrapolation may reach, as a multiple of the ordinary one.",
            Slider(1.0, 10.0, 0.1),
            methods=frozenset({"nag"}),
        ),
    ] = 2.5
    nag_alpha: Annotated[
        float,
        Field(ge=0, le=1),
        Knob(
            "NAG alpha",
            "VSF NAG alpha",
            "NAG: the share of the extrapolated attention in the result.",
            Slider(0.0, 1.0, 0.005),
            methods=frozenset({"nag"}),
        ),
    ] = 0.125
    nasa_alpha: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "NASA alpha",
            "VSF NASA alpha",
            "NASA: how much of the negative prompt's attention is subtracted.",
            Slider(0.0, 1.0, 0.01),
            methods=frozenset({"nasa"}),
        ),
    ] = 0.25
    blocks: Annotated[
        Blocks,
        Knob(
            "VSF blocks",
            "VSF blocks",
            "Flux only: guide both kinds of block, or the double-stream ones alone.",
        ),
    ] = "both"
    hires_pass: Annotated[
        HiresPass,
        Knob(
            "VSF hires pass",
            "VSF hires pass",
            "With hires fix: guide both passes, or the first or second alone.",
            webui=True,
        ),
    ] = "both"

    negative_tokens: Annotated[
        NegativeTokens,
        Knob(
            "VSF negative tokens",
            "VSF negative tokens",
            "What of the negative prompt acts: all its tokens as in the paper, or its words alone, without "
            "begin and end tokens. Words alone disturb the rest of the picture less, but need more alpha.",
            methods=SHARING,
        ),
    ] = "all"

    pooled_shift: Annotated[
        float,
        Field(ge=0, le=100),
        Knob(
            "VSF pooled shift",
            "VSF pooled shift",
            "Flux only: how far the prompt's pooled embedding is moved away from the negative prompt's. The "
            "released code of the paper moves it by 0.1, the paper itself does not.",
            Slider(0.0, 1.0, 0.05),
            methods=SHARING,
            pipeline=True,
        ),
    ] = 0.0

    if not TYPE_CHECKING:  # type checkers keep the signature that they derive from the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise SettingsError(_one_line(error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # JSON's true would become 1: whoever writes it means a switch, and this is none.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is float:
            raise ValueError("a boolean is no number")
        return value

    @field_validator("negative_prompt")
    @classmethod
    def _strip(cls, text: str) -> str:
        # Infotext cannot hold outer white space, and no encoder gives it a meaning.
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ValueError(_HALF)  # no tokenizer and no file can hold it
        return text.strip()

    @model_validator(mode="after")
    def _method_acts(self) -> Settings:
        # These give exactly the unguided attention, which must not be labelled as guided. (Alpha 0 is not
        # such a value for vsf: the negative still takes its share of attention, VSF paper, appendix C.)
        idle = {"difference": ("alpha",), "nag": ("nag_phi", "nag_alpha"), "nasa": ("nasa_alpha",)}
        for name in idle.get(self.method, ()):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} is 0, with which {self.method} guides nothing: raise it")
        return self

    @model_validator(mode="after")
    def _start_before_end(self) -> Settings:
        if self.start >= self.end:
            raise ValueError(
                f"start is {self.start:g} and end is {self.end:g}, but start must be below end: "
                "lower start or raise end"
            )
        return self

    @classmethod
    def create(cls, **values: Any) -> Settings:
        """Settings from values of unchecked types and names, such as an API's; raises SettingsError."""
        return cls.model_validate(values)

    def changed(self, **values: Any) -> Settings:
        """A validated copy with other values; raises SettingsError."""
        return self.create(**{**self.model_dump(), **values})

    @property
    def negative_form(self) -> str:
        """The form of the negative: "padded" like a prompt, as NAG and NASA are defined, "all" or "words"."""
        return self.negative_tokens if self.method in SHARING else "padded"

    def canonical(self) -> Settings:
        """The same guidance with every field that the method does not read at its default."""
        read = {field.name: getattr(self, field.name) for field in fields() if self._reads(field)}
        return self.create(**{**read, "method": self.method})

    def guided_steps(self, total: int) -> range:
        """The steps i of `total` with start <= i / total < end; empty if both lie between two steps."""
        # Comparing i / total, because start * total may round past a whole number (0.7 * 10 > 7).
        inside = (
            [i for i in range(total) if self.start <= i / total < self.end] if self.method != "off" else []
        )
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def infotext(self) -> dict[str, str | float]:
        """The pairs that a picture carries; empty when the method is off."""
        pairs: dict[str, str | float] = {}
        for field in fields():
            value = getattr(self, field.name)
            if self._reads(field) and (field.always or value != field.default):
                pairs[field.infotext] = encode(value, field.infotext) if field.kind is str else float(value)
        return pairs

    @classmethod
    def from_infotext(cls, pairs: Mapping[str, Any]) -> Settings | None:
        """What `infotext` was made from (its `canonical` form), or None where no pair is ours.

        Other keys are passed over, those of later versions too. An unreadable value raises SettingsError.
        """
        found = {field: pairs[field.infotext] for field in fields() if field.infotext in pairs}
        if not found:
            return None
        return cls.create(
            **{
                field.name: decode(value) if field.kind is str and isinstance(value, str) else value
                for field, value in found.items()
            }
        )

    def _reads(self, field: SettingField) -> bool:
        return self.method in field.methods


def fields() -> tuple[SettingField, ...]:
    """All fields in their order, which is the order of widgets, API arguments and infotext pairs."""
    return _FIELDS


def field(name: str) -> SettingField:
    """The field of that name."""
    for candidate in _FIELDS:
        if candidate.name == name:
            return candidate
    raise SettingsError(_unknown(name))


def _collect() -> Iterator[SettingField]:
    for name, info in Settings.model_fields.items():
        knob = next(item for item in info.metadata if isinstance(item, Knob))
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        yield SettingField(
            name=name,
            label=knob.label,
            infotext=knob.infotext,
            help=knob.help,
            flag="--" + name.replace("_", "-"),
            default=info.default,
            kind=float if info.annotation is float else str,
            choices=choices,
            low=next((item.ge for item in info.metadata if hasattr(item, "ge")), None),
            high=next((item.le for item in info.metadata if hasattr(item, "le")), None),
            slider=knob.slider,
            methods=knob.methods,
            always=knob.always,
            webui=knob.webui,
            pipeline=knob.pipeline,
        )


_FIELDS = tuple(_collect())


def _one_line(error: ValidationError) -> str:
    """The first thing wrong, as one line: field, value, bounds, remedy."""
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return str(problem["ctx"]["error"]) if "ctx" in problem else f"the settings: {problem['msg']}"
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return _unknown(name)
    return f"{name} is {_short(problem['input'])}, but must be {_wanted(field(name), problem['type'])}"


def _wanted(field: SettingField, problem: str) -> str:
    if field.choices:
        return f"one of {', '.join(field.choices)}: choose one of these"
    if field.kind is str:
        if problem in ("string_unicode", "value_error"):
            return _HALF
        return 'text: pass a string, or "" for none'
    usual = (
        f" (usually up to {field.slider.maximum:g})"
        if field.slider and field.slider.maximum != field.high
        else ""
    )
    # Of what presets know better than the default, that is no advice.
    advice = "" if field.always else f": try {field.default:g}, the default"
    return f"a number from {field.low:g} to {field.high:g}{usual}{advice}"


def _unknown(name: str) -> str:
    names = [field.name for field in _FIELDS]
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(names)}"
    return f"there is no setting {_short(name)}: {remedy}"


def _short(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
