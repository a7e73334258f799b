"""One call of the host's `process_images` under guidance: from its first callback to the end of sampling.

Owns what is put on a processing object and on its patched model, and the rule that nothing goes unguided in
silence: the host swallows an exception in a callback, so every error is kept and raised again inside
`p.sample`, where it ends the generation. What it needs of the host comes in through `Host`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from vsf_lib.adapters.forge import SamplingPass, pass_on
from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.adapters.registry import find_network
from vsf_lib.errors import GuidanceError, ModelError, PromptError, VSFError
from vsf_lib.settings import fields
from vsf_lib.webui.beside import Besides, PublishingHost, why_not
from vsf_lib.webui.encoding import Schedule
from vsf_lib.webui.memory import declare
from vsf_lib.webui.negatives import EncodingHost, Negatives
from vsf_lib.webui.networks import listed, titles
from vsf_lib.webui.notices import notices
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import HEATMAP_OFF, PASSES, Checkpoint, Request

log = logging.getLogger("vsf")

ATTRIBUTE = "_vsf_guide"
_KEYS = frozenset(field.infotext for field in fields())


class Host(EncodingHost, PublishingHost, Protocol):
    """The few things of the WebUI that a guide asks for, so that it can be told from its logic."""

    @property
    def options(self) -> Options:
        """What is chosen in the WebUI's settings."""

    def interrupted(self) -> bool:
        """Whether the user has stopped or skipped this job."""

    def hires_checkpoint(self, p: Any) -> Checkpoint | None:
        """What the second pass of hires fix uses, if that is another file than the first pass and known."""


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

    def __init__(self, p: Any, host: Host, negatives: Negatives) -> None:
        self._p = p
        self._host = host
        self._negatives = negatives
        self._request: Request | None = None
        self._error: Exception | None = None
        self._shadow: Callable[..., Any] | None = None
        self._before: Any = None
        """What stood in the place of the shadow, if another extension had put something there."""
        self._texts: dict[bool, tuple[str, ...]] = {}
        """Of this batch's passes that are guided, by whether they are the second one of hires fix."""
        self._schedules: dict[bool, Schedule] = {}
        self._pass: SamplingPass | None = None
        self._hires = False
        """Which pass that one is for."""
        self._acted = False
        """Whether a pass of this batch was guided: then its pictures cannot go on as if VSF were off."""
        self._put: list[Callable[[], None]] = []
        """Of each patched model, what takes it off again."""
        self._besides: Besides | None = None
        """What is to be shown beside the results."""

    @classmethod
    def of(cls, p: Any) -> Guide | None:
        """The guide of a processing object, if it has one of its own and not one copied with it."""
        guide = vars(p).get(ATTRIBUTE)
        return guide if isinstance(guide, cls) and guide._p is p else None

    def attach(self) -> None:
        """Takes this generation: its next sampling goes through this guide.

        Only until that begins, so that copies of `p` that are made later sample by themselves.
        """
        detach(self._p)
        self._before = vars(self._p).get("sample")
        original = self._p.sample

        @functools.wraps(original)
        def sample(*args: Any, **kwargs: Any) -> Any:
            if self._shadow is not sample:  # kept by someone who wrapped it in an earlier batch
                return original(*args, **kwargs)
            self._let_go()
            return self._sample(original, *args, **kwargs)

        setattr(sample, ATTRIBUTE, self)
        setattr(self._p, ATTRIBUTE, self)
        self._p.sample = self._shadow = sample

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
        """This batch is not guided any more; unless told otherwise, nothing is drawn."""
        self._forget_keys()
        half = self._acted or (self._pass is not None and self._pass.acted)
        if isinstance(error, VSFError) and not self._host.options.strict and not half:
            self._texts, self._pass = {}, None
            self._say(f"VSF is off for this picture: {error}")
            return
        self._error = error

    def accept(self, request: Request) -> None:
        """Takes what is asked for, as far as it means something for this job."""
        if not getattr(self._p, "enable_hr", False):
            request = replace(request, settings=request.settings.changed(hires_pass="both"))
        self._request = request
        if request.heatmap == HEATMAP_OFF:
            return
        reason = why_not(self._p, request.settings.method)
        if reason is None:
            self._besides = Besides(self._p, self._host, request.heatmap, self._say)
        else:
            self._say(f"VSF does not show where it acted: {reason}")

    def prepare_batch(self) -> None:
        """Encodes the negatives of the batch that comes next, while the host has its text encoders loaded."""
        self._pass = None
        self._acted = False
        if self._besides is not None:
            self._besides.next_batch()
        self._schedules.clear()
        self._texts = {}
        self._forget_keys()  # of the batch before, or of a job that this one was copied from
        self.attach()
        if self._request is None:
            return
        self._texts = self._texts_of_passes(self._request)
        if not self._texts:
            self._say("VSF did nothing: both negative prompts are empty")
        elif False in self._texts:
            self._schedules[False] = self._encode(hires=False)
            self._write_keys()

    def prepare_pass(self, x: Any = None, c: Any = None, uc: Any = None) -> None:
        """Puts the guidance on the host's patched model; called before every sampling, in hires fix twice.

        x, c, uc: the latents and the conditioning of that sampling, for the memory that guidance will need.
        """
        unet = self._p.sd_model.forge_objects.unet
        previous = unet.model_options.get("model_function_wrapper")
        if self._pass is not None and getattr(previous, "vsf_pass", None) is self._pass:
            return
        hires = bool(getattr(self._p, "is_hr_pass", False))
        if self._pass is not None and self._hires == hires and not self._pass.begun:
            self._pass = None  # asked for again before it was sampled
        self._finish_pass()
        if hires not in self._texts or self._request is None:
            return
        if hires not in self._schedules:
            self._schedules[hires] = self._encode(hires=hires)
        model, settings, schedule = unet.model.diffusion_model, self._request.settings, self._schedules[hires]
        network = _network(model)
        record = None if self._besides is None else self._besides.begin_pass()
        self._pass = SamplingPass(network, model, settings, schedule, record)
        self._hires = hires
        patched = self._patch(self._wrapper(self._pass, previous), self._pass)
        declare(patched, network, settings.method, schedule, x, c, uc)
        self._write_keys()

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
            return pass_on(apply_model, args, previous)

        return call_model

    def refuse_pass(self) -> None:
        """Ends a sampling that is about to begin although an error is known."""
        if self._error is not None:
            self._patch(lambda *_: self._raise_error())

    def note_step(self, step: int, total: int) -> None:
        """The host's count, just before each call of the denoiser, which a refiner may have exchanged."""
        sampling = self._pass
        if sampling is None:
            return
        if getattr(self._p, "refiner_switch_at", None):
            self.protect(lambda: self._follow(sampling, step, total))
            self.refuse_pass()
        sampling.note(step, total)

    def _follow(self, sampling: SamplingPass, step: int, total: int) -> None:
        unet = self._p.sd_model.forge_objects.unet
        model = unet.model.diffusion_model
        if model is sampling.model:
            sampling.forget()  # some hosts only load other weights into it
            return
        if not sampling.network.matches(model) and sampling.over(step, total):
            return  # what comes is the host's own, whatever draws it
        sampling.follow(model)
        self._patch(self._wrapper(sampling, unet.model_options.get("model_function_wrapper")), sampling)

    def _sample(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            self._raise_error()
            samples = original(*args, **kwargs)
            self._raise_error()  # a callback failed between two passes
            self._finish_pass()
            if self._texts and not self._acted:
                self._forget_keys()
                if not self._host.interrupted():
                    self._say("VSF did nothing: the pass that it was to guide was not made")
        except BaseException:
            self._forget_keys()
            raise
        finally:
            self._pass = None
            self._take_off()
        return samples

    def _raise_error(self) -> None:
        if self._error is None:
            return
        if isinstance(self._error, VSFError) and "VSF" not in str(self._error):
            raise type(self._error)(f"VSF: {self._error}") from self._error
        raise self._error

    def _finish_pass(self) -> None:
        done, self._pass = self._pass, None
        if done is None:
            return
        interrupted = self._host.interrupted()
        if interrupted and not done.acted:
            return  # whatever was drawn in it was not guided
        if not done.begun:
            raise GuidanceError(
                "sampling ended without calling the model under guidance: another extension replaces "
                "the sampler; switch that off"
            )
        report = done.finish(interrupted=interrupted)
        self._acted = True
        if self._besides is not None:
            self._besides.end_pass(report, hires=self._hires, negatives=self._texts[self._hires])

    def drawn(self, index: int, picture: Any) -> None:
        """Result `index` is done, and nothing but its saving comes."""
        if self._besides is not None:
            self._besides.draw(index, picture)

    def end(self, processed: Any) -> None:
        """All results are there, with their parameters, so that what is told now is in none of them."""
        if self._besides is not None:
            self._besides.add_to(processed)
        told = notices(self._p.comments)
        if told:
            processed.extra_generation_params = {**(processed.extra_generation_params or {}), **told}

    def _texts_of_passes(self, request: Request) -> dict[bool, tuple[str, ...]]:
        """The negatives of each pass that is to be guided; none if all of those are empty."""
        p, asked = self._p, request.settings.hires_pass
        host = {False: p.negative_prompts}
        if getattr(p, "enable_hr", False):
            start = p.iteration * p.batch_size
            host[True] = p.all_hr_negative_prompts[start : start + p.batch_size]
            host = {hires: texts for hires, texts in host.items() if asked in ("both", PASSES[hires])}
        if _network(_diffusion_model(p)).one_text:
            host = {hires: texts[:1] for hires, texts in host.items()}
        found = {hires: request.negatives(texts) for hires, texts in host.items()}
        there = {hires: texts for hires, texts in found.items() if texts is not None}
        if there and len(there) < len(found):
            lacking = next(hires for hires, texts in found.items() if texts is None)
            raise PromptError(
                f"the {PASSES[lacking]} pass of hires fix has no negative prompt: write one, or choose to "
                f"guide the {PASSES[not lacking]} pass only"
            )
        return there

    def _encode(self, *, hires: bool) -> Schedule:
        if self._request is None:
            raise GuidanceError("there is nothing to encode")
        return self._negatives.schedule(
            self._p,
            self._texts[hires],
            self._request.settings,
            self._host,
            hires=hires,
            network=_network(_diffusion_model(self._p)),
        )

    def _patch(self, wrapper: Callable[..., Any], sampling: SamplingPass | None = None) -> Any:
        objects = self._p.sd_model.forge_objects
        before, patched = objects.unet, objects.unet.clone()
        previous = before.model_options.get("model_function_wrapper")
        held = [wrapper]

        def call_model(apply_model: Callable[..., Any], args: dict[str, Any]) -> Any:
            return held[0](apply_model, args) if held else pass_on(apply_model, args, previous)

        def take_off() -> None:
            held.clear()
            call_model.vsf_pass = None  # type: ignore[attr-defined]
            if objects.unet is patched:
                objects.unet = before

        call_model.vsf_pass = sampling  # type: ignore[attr-defined]
        patched.set_model_unet_function_wrapper(call_model)
        objects.unet = patched
        self._put.append(take_off)
        return patched

    def _take_off(self) -> None:
        """The host's model is its own again, and ours empty where somebody has put theirs on top: the host
        would keep it, and with it all of this job, until the next one."""
        while self._put:
            self._put.pop()()

    def _write_keys(self) -> None:
        if self._request is not None:
            self._p.extra_generation_params.update(self._request.settings.infotext())

    def _forget_keys(self) -> None:
        forget_keys(self._p)

    def _say(self, text: str) -> None:
        log.warning("%s", text)
        self._p.comment(text)

    def _let_go(self) -> None:
        """The processing object has its own `sample` again, or what another extension had put there."""
        if vars(self._p).get("sample") is not self._shadow:
            return  # someone has put theirs on top, and calls ours
        if self._before is None:
            del self._p.sample
        else:
            self._p.sample = self._before


def forget_keys(p: Any) -> None:
    """The infotext of `p` says nothing of guidance."""
    for key in _KEYS:
        p.extra_generation_params.pop(key, None)


def detach(p: Any) -> None:
    """Removes what an earlier run of `p`, or of what it was copied from, has left on it."""
    vars(p).pop(ATTRIBUTE, None)
    guide = getattr(vars(p).get("sample"), ATTRIBUTE, None)
    if guide is None:
        return
    if guide._p is p:
        guide._let_go()
    else:
        del p.sample


def _diffusion_model(p: Any) -> Any:
    objects = getattr(getattr(p, "sd_model", None), "forge_objects", None)
    return getattr(getattr(getattr(objects, "unet", None), "model", None), "diffusion_model", None)


def _network(model: Any) -> ForgeNetwork:
    network = find_network(model)
    if network is None:
        raise ModelError(
            f"VSF guides {listed(titles())} here, and the loaded model is {_named(model)}: load one of "
            "those, or switch VSF off"
        )
    return network


def _named(model: Any) -> str:
    """A model that cannot be guided, with the reason where its kind is one that people take for another."""
    kind = type(model).__name__
    if kind.lower().startswith(("svdq", "nunchaku")):
        return f"a {kind}, whose attention runs in Nunchaku's own kernels, out of reach"
    return f"a {kind}"
