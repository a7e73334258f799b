"""Pictures from a running WebUI of the Forge family by its API, and what it says that it did.

Owns requests and answers. Knows no clock.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from vsf_lib.errors import GuidanceError, SettingsError

_GUIDED = re.compile(r"(?:^|, )VSF [\w ]+: ")
"""A field of ours in the last line of a picture's parameters."""

_HOURS = 3 * 3600.0


@dataclass(frozen=True)
class Asked:
    """What is the same for all pictures of a run."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    sampler: str
    scheduler: str
    seed: int
    checkpoint: str | None
    alpha: float | None
    beta: float | None


class Host:
    """A running WebUI at an address such as http://127.0.0.1:7860."""

    def __init__(self, url: str) -> None:
        if not url.lower().startswith(("http://", "https://")):
            raise SettingsError(f"--url is {url!r}, but must be an address such as http://127.0.0.1:7860")
        self._url = url.rstrip("/")
        own = urllib.parse.urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = (urllib.request.ProxyHandler({}),) if own else ()  # which know nothing of this machine's
        self._open = urllib.request.build_opener(*proxies).open

    def draw(self, asked: Asked, method: str, steps: int) -> str:
        """Has one picture drawn by `method`, or by none if that is "off"; returns its parameters.

        Raises GuidanceError if those do not say so, and SettingsError for what the host refuses.
        """
        answer = self._request("/sdapi/v1/txt2img", body(asked, method, steps))
        try:
            infotext: str = json.loads(answer["info"])["infotexts"][0]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SettingsError(f"{self._url} answers otherwise than a WebUI does ({error!r})") from error
        said = _GUIDED.search(infotext.rsplit("\n", 1)[-1]) is not None
        if said != (method != "off"):
            which = "does not say" if method != "off" else "says"
            raise GuidanceError(
                f"the picture of method {method} {which} that VSF acted, so there is nothing to compare: is "
                f"the extension installed, and does it know the loaded model? ({infotext})"
            )
        return infotext

    def _request(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with self._open(request, timeout=_HOURS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(2000).decode(errors="replace").split())
            hint = ": start it with --api" if error.code == 404 else f": {said}"
            raise SettingsError(f"{self._url}{path} answers {error.code}{hint}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SettingsError(
                f"{self._url} does not answer ({error}): start the WebUI with --api, or give another --url"
            ) from error


def body(asked: Asked, method: str, steps: int) -> dict[str, Any]:
    """The request: the same picture but for guidance and steps."""
    request: dict[str, Any] = {
        "prompt": asked.prompt,
        "steps": steps,
        "width": asked.width,
        "height": asked.height,
        "cfg_scale": 1,
        "seed": asked.seed,
        "sampler_name": asked.sampler,
        "scheduler": asked.scheduler,
        "save_images": False,
        "send_images": False,
    }
    if asked.checkpoint is not None:
        request["override_settings"] = {"sd_model_checkpoint": asked.checkpoint}
        request["override_settings_restore_afterwards"] = False
    if method != "off":
        given = {"alpha": asked.alpha, "beta": asked.beta}
        ours: dict[str, Any] = {"method": method, "negative_prompt": asked.negative_prompt}
        ours |= {name: value for name, value in given.items() if value is not None}
        request["alwayson_scripts"] = {"VSF": {"args": [ours]}}
    return request
