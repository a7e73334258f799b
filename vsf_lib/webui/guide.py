"""One call of the host's `process_images` under guidance: from its first callback to the end of sampling.

Owns what is put on a processing object and on its patched model, and the rule that nothing goes unguided in
silence: the host swallows an exception in a callback, so every error is kept and raised again inside
`p.sample`, where it ends the generation. What it needs of the host comes in through `Host`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vsf_lib.adapters.forge import ForgeNetwork, SamplingPass, pass_on
from vsf_lib.adapters.generation import Report
from vsf_lib.adapters.registry import find_network
from vsf_lib.errors import GuidanceError, ModelError, PromptError, SettingsError, VSFError
from vsf_lib.settings import fields
from vsf_lib.webui.encoding import Encoder, Schedule, plain_text
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import Checkpoint, Request

log = logging.getLogger("vsf")

ATTRIBUTE = "_vsf_guide"
_KEYS = frozenset(field.infotext for field in fields())


class Host(Protocol):
    """The few things of the WebUI that a guide asks for, so that it can be told from its logic."""

    @property
    def options(self) -> Options:
        """What is chosen in the WebUI's settings."""

    def t5_enabled(self) -> bool:
        """Whether SD3.5's text has its T5 part."""

    def load_text_encoders(self, model: Any) -> None:
        """Brings them to their device."""

    def conditions(
        self, p: Any, texts: Sequence[str], encoder: Encoder, cache: list[Any], *, hires: bool
    ) -> Sequence[Sequence[Any]]:
        """The host's schedule of embeddings per text, for the pass that comes next."""

    def interrupted(self) -> bool:
        """Whether the user has stopped or skipped this job."""


def checkpoint_of(p: Any) -> Checkpoint:
    """What is known of the model that `p` will use."""
    name = str(getattr(p, "sd_model_name", None) or "")
    model = _diffusion_model(p)
    network = find_network(model) if model is not None else None
    return Checkpoint(
        name=name,
        network=None if network is None else network.title,
        guidance_embedding=bool(getattr(model, "guidance_embed", False)),
    )


class Guide:
    """Lives as long as the processing object that it is an attribute of."""

    def __init__(self, p: Any, host: Host, caches: dict[Any, list[Any]]) -> None:
        """`caches` outlives the generation: encoded negatives by what they depend on beside the text."""
        self._p = p
        self._host = host
        self._caches = caches
        self._request: Request | None = None
        self._error: Exception | None = None
        self._negatives: tuple[str, ...] | None = None
        self._pass: SamplingPass | None = None
        self._acted = False
        """Whether an earlier pass of this batch was guided: then its pictures cannot go on as if off."""
        self._schedules: dict[bool, Schedule] = {}
        """By whether they are for the second pass of hires fix."""
        self.reports: list[Report] = []

    @classmethod
    def of(cls, p: Any) -> Guide | None:
        """The guide of a processing object, if it has one of its own and not one copied with it."""
        guide = vars(p).get(ATTRIBUTE)
        return guide if isinstance(guide, cls) and guide._p is p else None

    def attach(self) -> None:
        """Takes this generation: from here on nothing of it is sampled but through this guide."""
        detach(self._p)
        original = self._p.sample

        @functools.wraps(original)
        def sample(*args: Any, **kwargs: Any) -> Any:
            return self._sample(original, *args, **kwargs)

        setattr(sample, ATTRIBUTE, self)
        setattr(self._p, ATTRIBUTE, self)
        self._p.sample = sample

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do: guidance, or an error to raise."""
        return self._request is not None or self._error is not None

    def protect(self, act: Callable[[], None]) -> None:
        """Runs a callback's work; what it raises is kept, to be raised again where it counts."""
        if self._error is not None:
            return
        try:
            act()
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Nothing of this generation is guided any more; unless told otherwise, nothing is drawn."""
        self._forget_keys()
        half = self._acted or (self._pass is not None and self._pass.acted)
        if isinstance(error, VSFError) and not self._host.options.strict and not half:
            self._request = None
            self._say(f"VSF is off for this picture: {error}")
            return
        self._error = error

    def accept(self, request: Request) -> None:
        """Takes what is asked for; the infotext says so from here on, until something fails."""
        self._request = request
        self._p.extra_generation_params.update(request.settings.infotext())

    def prepare_batch(self) -> None:
        """Encodes the negatives of the batch that comes next, while the host has its text encoders loaded."""
        self._pass = None
        self._acted = False
        self._schedules.clear()
        self._negatives = None
        if self._request is None:
            return
        self._negatives = self._request.negatives(self._p.negative_prompts)
        if self._negatives is None:
            self._forget_keys()
            self._say("VSF did nothing: both negative prompts are empty")
            return
        self._p.extra_generation_params.update(self._request.settings.infotext())
        if self._guides(hires=False):
            self._schedules[False] = self._encode(self._negatives, hires=False)

    def prepare_pass(self) -> None:
        """Puts the guidance on the host's patched model; called before every sampling, in hires fix twice."""
        if self._request is None or self._negatives is None:
            return
        unet = self._p.sd_model.forge_objects.unet
        previous = unet.model_options.get("model_function_wrapper")
        if self._pass is not None and getattr(previous, "vsf_pass", None) is self._pass:
            return
        self._finish_pass()
        hires = bool(getattr(self._p, "is_hr_pass", False))
        if not self._guides(hires=hires):
            return
        if hires and hires not in self._schedules:
            self._schedules[hires] = self._encode(self._hires_negatives(), hires=True)
        model = unet.model.diffusion_model
        self._pass = SamplingPass(_network(model), model, self._request.settings, self._schedules[hires])
        self._patch(self._wrapper(self._pass, previous))

    def _wrapper(self, sampling: SamplingPass, previous: Callable[..., Any] | None) -> Callable[..., Any]:
        """Some things show only when the model is called: what stops or skips a picture does so then, too."""
        guided = sampling.wrapper(previous)

        def call_model(apply_model: Callable[..., Any], args: dict[str, Any]) -> Any:
            self._raise_error()
            if self._pass is sampling:
                try:
                    return guided(apply_model, args)
                except VSFError as error:
                    self.fail(error)
                    self._raise_error()
                    self._pass = None
            return pass_on(apply_model, args, previous)

        call_model.vsf_pass = sampling  # type: ignore[attr-defined]
        return call_model

    def refuse_pass(self) -> None:
        """Ends a sampling that is about to begin although an error is known."""
        if self._error is not None:
            self._patch(lambda *_: self._raise_error())

    def note_step(self, step: int, total: int) -> None:
        """The host's count, just before each call of the denoiser."""
        if self._pass is not None:
            self._pass.note(step, total)

    def _sample(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            self._raise_error()
            samples = original(*args, **kwargs)
            self._raise_error()  # a callback failed between two passes
            self._finish_pass()
        except BaseException:
            self._forget_keys()
            raise
        finally:
            self._pass = None
        return samples

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _finish_pass(self) -> None:
        done, self._pass = self._pass, None
        if done is None:
            return
        interrupted = self._host.interrupted()
        if not done.begun:
            if interrupted:
                self._forget_keys()  # nothing was drawn, so nothing was guided
            elif not getattr(self._p, "is_hr_pass", False):  # there the host asks twice for one sampling
                raise GuidanceError(
                    "sampling ended without calling the model under guidance: another extension replaces "
                    "the sampler; switch that off"
                )
            return
        self.reports.append(done.finish(interrupted=interrupted))
        self._acted = True

    def _guides(self, *, hires: bool) -> bool:
        if self._request is None:
            return False
        asked = self._request.settings.hires_pass
        if not getattr(self._p, "enable_hr", False):
            return True
        return asked in ("both", "second" if hires else "first")

    def _encode(self, texts: Sequence[str], *, hires: bool) -> Schedule:
        if self._request is None:
            raise GuidanceError("there is nothing to encode")
        settings, model = self._request.settings, self._p.sd_model
        network = _network(model.forge_objects.unet.model.diffusion_model)
        if settings.negative_scale and not network.extrapolates:
            raise SettingsError(
                f"VSF negative scale is {settings.negative_scale:g}, but it does nothing on "
                f"{network.title}: set it to 0"
            )
        form, t5 = settings.negative_form, self._host.t5_enabled()
        encoder = Encoder(model, form=form, t5=t5, load=lambda: self._host.load_text_encoders(model))
        cache = self._caches.setdefault((form, t5, hires), [None, None])
        rows = self._host.conditions(
            self._p, [plain_text(text) for text in texts], encoder, cache, hires=hires
        )
        padding = encoder.of_padding() if settings.negative_scale else None
        return Schedule(rows, settings.negative_scale, padding)

    def _hires_negatives(self) -> tuple[str, ...]:
        start = self._p.iteration * self._p.batch_size
        host = self._p.all_hr_negative_prompts[start : start + self._p.batch_size]
        texts = None if self._request is None else self._request.negatives(host)
        if texts is None:
            raise PromptError(
                "the second pass of hires fix has no negative prompt: write one, or choose to guide the "
                "first pass only"
            )
        return texts

    def _patch(self, wrapper: Callable[..., Any]) -> None:
        objects = self._p.sd_model.forge_objects
        patched = objects.unet.clone()
        patched.set_model_unet_function_wrapper(wrapper)
        objects.unet = patched

    def _forget_keys(self) -> None:
        for key in _KEYS:
            self._p.extra_generation_params.pop(key, None)

    def _say(self, text: str) -> None:
        log.warning("%s", text)
        self._p.comment(text)


def detach(p: Any) -> None:
    """Removes what an earlier run of `p`, or of what it was copied from, has left on it."""
    vars(p).pop(ATTRIBUTE, None)
    if hasattr(vars(p).get("sample"), ATTRIBUTE):
        del p.sample


def _diffusion_model(p: Any) -> Any:
    objects = getattr(getattr(p, "sd_model", None), "forge_objects", None)
    return getattr(getattr(getattr(objects, "unet", None), "model", None), "diffusion_model", None)


def _network(model: Any) -> ForgeNetwork:
    network = find_network(model)
    if network is None:
        raise ModelError(
            f"VSF guides SD3.5 and Flux, and the loaded model is a {type(model).__name__}: load one of "
            "those, or switch VSF off"
        )
    return network
