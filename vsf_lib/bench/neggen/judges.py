"""Which judge is meant by `--judge`, and what makes two judges the same.

Owns the choice. A spec is plain data that travels to other machines; the API key is not in it, only the name
of the variable that has it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vsf_lib.bench.neggen.asking import Answer, ask, question
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.errors import SettingsError
from vsf_lib.scenes.model import MODELS

SCENES = "scenes"
KEY_VARIABLE = "OPENAI_API_KEY"
PUBLISHED = "Qwen/Qwen2.5-VL-7B-Instruct"


class Judge(Protocol):
    """Something that answers the three questions about a picture."""

    def ask(self, picture: bytes, item: Item) -> Answer:
        """About a PNG file's content."""


@dataclass(frozen=True)
class JudgeSpec:
    """A judge that was asked for."""

    kind: Literal["scenes", "endpoint", "local"]
    address: str = ""
    """The endpoint's base address, or the local model's id or folder."""
    model: str = ""
    """The endpoint's model."""
    adapter: str = ""
    key_variable: str = ""
    """The environment variable with the API key; empty where none is sent."""
    timeout: float = 120.0
    device: str = "auto"

    @property
    def remote(self) -> bool:
        """Whether asking is waiting, so that several may be asked at once, and from this machine only."""
        return self.kind == "endpoint"

    def asked(self, item: Item) -> str:
        """What it is asked about an item, in full."""
        return f"{item.prompt}\n{item.missing_element}" if self.kind == "scenes" else question(item)


def choose_judge(
    judge: str | None,
    *,
    drawn_by: str,
    model: str | None = None,
    adapter: str | None = None,
    key_variable: str | None = None,
    timeout: float = 120.0,
    device: str = "auto",
) -> JudgeSpec:
    """The judge behind the flags; raises SettingsError for what contradicts itself."""
    if judge is None:
        if drawn_by not in MODELS:
            raise SettingsError(
                "no judge: pass --judge with the address of an OpenAI-compatible endpoint and --judge-model, "
                f"or a Qwen2.5-VL such as {PUBLISHED}"
            )
        judge = SCENES
    is_url = re.match(r"https?://", judge, re.IGNORECASE) is not None
    if model is not None and not is_url:
        raise SettingsError("--judge-model goes with an endpoint: pass --judge http://... or leave it out")
    if key_variable is not None and not is_url:
        raise SettingsError("--judge-key-env goes with an endpoint: pass --judge http://... or leave it out")
    if adapter is not None and (is_url or judge == SCENES):
        raise SettingsError("--judge-adapter goes with a local Qwen2.5-VL: name that with --judge")
    if is_url:
        return _endpoint(judge, model, key_variable, timeout)
    if judge == SCENES:
        return JudgeSpec("scenes")
    return JudgeSpec("local", judge, adapter=adapter or "", device=device)


def identity(spec: JudgeSpec) -> dict[str, Any]:
    """What an answer depends on beside picture and question; may download the model to look at it."""
    if spec.kind == "endpoint":
        return {"kind": spec.kind, "address": spec.address, "model": spec.model}
    if spec.kind == "scenes":
        from vsf_lib.scenes.judge import WEIGHTS

        return {"kind": spec.kind, "weights": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:10]}
    from vsf_lib.bench.neggen.keys import fingerprint
    from vsf_lib.bench.neggen.qwen import check_kind, folder_of

    folder = folder_of(spec.address)
    check_kind(folder)
    told: dict[str, Any] = {"kind": spec.kind, "weights": fingerprint(folder)}
    if spec.adapter:
        told["adapter"] = fingerprint(folder_of(spec.adapter))
    return told


def make_judge(spec: JudgeSpec) -> Judge:
    """The judge, loaded; raises ModelError or SettingsError."""
    if spec.kind == "scenes":
        from vsf_lib.bench.neggen.network import SceneJudge

        return SceneJudge()
    if spec.kind == "endpoint":
        from vsf_lib.bench.neggen.endpoint import Endpoint

        return _Asker(Endpoint(spec.address, spec.model, key_of(spec), spec.timeout))
    from vsf_lib.bench.neggen.qwen import Qwen

    return _Asker(Qwen.load(spec.address, spec.adapter, spec.device))


def name_of(told: Mapping[str, Any]) -> str:
    """An identity in a few words."""
    return " ".join(str(value) for value in told.values())


def key_of(spec: JudgeSpec) -> str:
    """The API key; raises SettingsError, without saying it, where it could not be sent."""
    key = os.environ.get(spec.key_variable, "").strip() if spec.key_variable else ""
    if not re.fullmatch(r"[!-~]*", key):
        raise SettingsError(f"the key in {spec.key_variable} has signs that no key has: set it again")
    return key


def _endpoint(address: str, model: str | None, key_variable: str | None, timeout: float) -> JudgeSpec:
    rest = address.split("://", 1)[1]
    if "@" in rest.split("/", 1)[0] or "?" in rest or "#" in rest:
        raise SettingsError(
            "--judge has a name, a password or a query in its address: pass the bare address, such as "
            "http://127.0.0.1:8000/v1, and the key in an environment variable (--judge-key-env)"
        )
    if not model:
        raise SettingsError(f"--judge {address} needs --judge-model: the name that the endpoint knows it by")
    if key_variable is not None and not os.environ.get(key_variable):
        raise SettingsError(f"--judge-key-env names {key_variable}, but that variable is not set: set it")
    address = re.sub(r"/chat/completions$", "", address.rstrip("/"))
    return JudgeSpec("endpoint", address, model, key_variable=key_variable or KEY_VARIABLE, timeout=timeout)


@dataclass(frozen=True)
class _Asker:
    """A talker as a judge."""

    talker: Any

    def ask(self, picture: bytes, item: Item) -> Answer:
        return ask(self.talker, picture, item)
