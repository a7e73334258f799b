"""Requests to a running Forge."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

UNLESS_SAID = {"sd3_enable_t5": False, "vsf_strictness": "stop", "forge_additional_modules": []}
"""Sent with every request: the host does not take back what one sets, if it was never saved before."""


ON = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0, "negative_tokens": "all"}
"""Guidance by the extension's own box."""
LABEL = "VSF alpha: 2"
"""What the parameters of such a picture say."""


HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.7,
    "hr_additional_modules": ["Use same choices"],
    "hr_cfg": 1,
}
"""What hires fix needs through the API."""


@dataclass
class Answer:
    """What a generation gave."""

    pictures: list[np.ndarray]
    infotexts: list[str]
    info: dict[str, Any] = field(default_factory=dict)


class ForgeError(Exception):
    """The host answered with an error."""


class Forge:
    """Requests to a running host."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._options: Collection[str] | None = None
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with self._open(request, timeout=1200) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ForgeError(error.read().decode()) from None

    def txt2img(self, model: str, vsf: Any = None, **values: Any) -> Answer:
        return self._generate("txt2img", model, vsf, values)

    def img2img(self, model: str, picture: np.ndarray, vsf: Any = None, **values: Any) -> Answer:
        return self._generate("img2img", model, vsf, {"init_images": [picture_of(picture)], **values})

    def body(self, model: str, vsf: Any, values: dict[str, Any]) -> dict[str, Any]:
        """A request. `trial` and `memory` go to the scripts of those names in `trials/`; `scripts` has the
        arguments of others by title.
        """
        trial, memory = values.pop("trial", None), values.pop("memory", None)
        others = values.pop("scripts", {})
        options = {"sd_model_checkpoint": model, **UNLESS_SAID, **values.pop("options", {})}
        if self._options is None:
            self._options = self.request("/sdapi/v1/options").keys()
        body = {
            "prompt": "a red car",
            "steps": 3,
            "width": 256,
            "height": 256,
            "cfg_scale": 1,
            "seed": 1,
            "sampler_name": "Euler",
            "scheduler": "Simple",
            # Not all of these hosts have it, and an option that is unknown is an error. An extension's are
            # not listed before they are saved.
            "override_settings": {
                name: value
                for name, value in options.items()
                if name in self._options or name != "sd3_enable_t5"
            },
            "override_settings_restore_afterwards": True,
            **values,
        }
        given = {"VSF": vsf, "VSF trials": trial, "VSF memory trials": memory, **others}
        body["alwayson_scripts"] = {
            title: {"args": args if isinstance(args, list) else [args]}
            for title, args in given.items()
            if args is not None
        }
        return body

    def _generate(self, kind: str, model: str, vsf: Any, values: dict[str, Any]) -> Answer:
        answer = self.request(f"/sdapi/v1/{kind}", self.body(model, vsf, values))
        info = json.loads(answer["info"])
        pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(x)))) for x in answer["images"]]
        return Answer(pictures, info["infotexts"], info)


def picture_of(pixels: np.ndarray) -> str:
    """A picture as the API takes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def same(one: Answer, other: Answer) -> bool:
    """Whether all pixels are equal."""
    return len(one.pictures) == len(other.pictures) and all(
        np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True)
    )


def difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Mean absolute difference of the pixels, of 255."""
    return float(np.mean([np.abs(a.astype(float) - b) for a, b in zip(one, other, strict=True)]))
