"""The life of a guidance: from entering `with guided(...)` to the pipeline being as it was before.

Owns everything that is put on a pipeline and its removal: three of the pipeline's methods are shadowed on the
instance (checking its inputs ends what was left unfinished, encoding the prompt begins a generation, freeing
the models ends it), two hooks sit on the denoiser, and attention processors are exchanged during a guided
call only. A denoiser that was compiled in its place has hooks inside of the compiled graph, so that there the
compiled call is shadowed instead. Knows no network but through its adapter.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall, Recording
from vsf_lib.adapters.compiled import Tally, TracedCall, compiled_call, is_compiled
from vsf_lib.adapters.form import Form
from vsf_lib.adapters.generation import Generation, Report
from vsf_lib.adapters.negative_cache import NegativeCache
from vsf_lib.adapters.negatives import encode_pooled, encode_texts
from vsf_lib.adapters.registry import Adapter
from vsf_lib.adapters.rows import TextRows
from vsf_lib.errors import GuidanceError, ModelError, PromptError
from vsf_lib.settings import Settings

log = logging.getLogger("vsf")


class _Exchanged(NamedTuple):
    """A layer whose processor is not its own at the moment."""

    name: str
    layer: Any
    original: Any
    ours: Any


class Session:
    """What `guided` enters and leaves."""

    def __init__(
        self,
        pipe: Any,
        adapter: Adapter,
        settings: Settings,
        negatives: Sequence[str] | Sequence[Tensor],
        reports: list[Report],
        *,
        kernel: str,
        record_share: Recording,
        form: Form | None = None,
        cache: NegativeCache | None = None,
        fuse: bool = False,
    ) -> None:
        self._pipe = pipe
        self._adapter = adapter
        self._settings = settings
        self._negatives = negatives
        self._reports = reports
        self._kernel = kernel
        self._record_share = record_share
        self._form = form
        self._cache = cache
        self._fuse = fuse
        self._denoiser = adapter.denoiser(pipe)
        self._compiled = is_compiled(self._denoiser)
        if self._compiled and (record_share or form is not None):
            raise ModelError(
                "the transformer is compiled (torch.compile), and in a compiled one neither the negative's "
                "share is recorded nor another form run; load the pipeline without compiling it"
            )
        self._active = False
        self._undo = ExitStack()
        self._generation: Generation | None = None
        self._call: GuidedCall | None = None
        self._exchanged: list[_Exchanged] = []

    def __enter__(self) -> Session:
        around = compiled_call(self._denoiser)
        for hook in (around, *self._denoiser._forward_pre_hooks.values()):
            if isinstance(getattr(hook, "__self__", None), Session):
                raise GuidanceError(
                    "this model is guided already, and guidances do not nest; leave the outer one first, or "
                    "name both things in one negative prompt"
                )
        with ExitStack() as undo:
            undo.callback(self._restore_processors)
            if around is None:
                self._hook(undo)
            else:
                self._surround(undo, around)
            self._shadow(undo, "check_inputs", self._start)
            self._shadow(undo, "encode_prompt", self._begin)
            self._shadow(undo, "maybe_free_model_hooks", self._finish)
            self._active = True
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._active = False
        self._undo.close()
        if self._generation is not None and kind is None:
            log.warning("a generation was left before its end, so nothing is reported for it")

    def _hook(self, undo: ExitStack) -> None:
        before = self._denoiser.register_forward_pre_hook(self._before_call, with_kwargs=True)
        undo.callback(before.remove)
        after = self._denoiser.register_forward_hook(self._after_call, with_kwargs=True, always_call=True)
        undo.callback(after.remove)

    def _surround(self, undo: ExitStack, compiled: Callable[..., Any]) -> None:
        """What the hooks do, around the compiled call of the denoiser."""
        denoiser: Any = self._denoiser
        self._compiled_call = compiled
        denoiser._compiled_call_impl = self._around_call

        def restore() -> None:
            if denoiser._compiled_call_impl == self._around_call:
                denoiser._compiled_call_impl = compiled

        undo.callback(restore)

    def _around_call(self, *args: Any, **kwargs: Any) -> Any:
        output = None
        try:
            changed = self._before_call(self._denoiser, args, kwargs)
            given, named = (args, kwargs) if changed is None else changed
            output = self._compiled_call(*given, **named)
        finally:
            self._after_call(self._denoiser, args, kwargs, output)
        return output

    def _shadow(self, undo: ExitStack, name: str, act: Callable[..., Any]) -> None:
        """Puts `act(original, ...)` before a method of the pipeline, on this instance only."""
        before = self._pipe.__dict__.get(name)
        original = getattr(self._pipe, name)

        @functools.wraps(original)
        def shadow(*args: Any, **kwargs: Any) -> Any:
            return act(original, *args, **kwargs) if self._active else original(*args, **kwargs)

        def restore() -> None:
            if self._pipe.__dict__.get(name) is not shadow:
                return  # someone else has put theirs on top; ours does nothing any more
            if before is None:
                del self._pipe.__dict__[name]
            else:
                self._pipe.__dict__[name] = before

        self._pipe.__dict__[name] = shadow
        undo.callback(restore)

    def _start(self, check_inputs: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Every call of a pipeline begins so, and the next text that it encodes is the prompt.
        self._generation = None
        return check_inputs(*args, **kwargs)

    def _begin(self, encode_prompt: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._restore_processors()  # left over if a KeyboardInterrupt ended the last call
        self._check_denoiser()
        result = encode_prompt(*args, **kwargs)
        bound = inspect.signature(encode_prompt).bind(*args, **kwargs)
        bound.apply_defaults()
        asked = bound.arguments

        conditional, unconditional = self._adapter.encoded(asked, result)
        begun, self._generation = self._generation, None
        if self._adapter.separate_unconditional and begun and begun.encoded_unconditional(conditional):
            self._generation = begun
            return result
        prompts = self._adapter.prompts(asked, conditional)
        negatives = self._negatives
        if len(negatives) not in (1, prompts):
            raise PromptError(
                f"{len(negatives)} negative prompts for {prompts} prompts: give one for all, or one for each"
            )
        texts = [negative for negative in negatives if isinstance(negative, str)]
        embeddings = [negative for negative in negatives if isinstance(negative, Tensor)]
        pooled = None
        if texts:
            encode = (self._pipe, self._adapter, self._settings, texts, asked, encode_prompt, self._cache)
            embeddings, pooled = encode_texts(*encode), encode_pooled(*encode)
        if any(embedding.shape[-1] != conditional.shape[-1] for embedding in embeddings):
            raise PromptError(
                f"a negative embedding has width {embeddings[0].shape[-1]} and the prompt's has "
                f"{conditional.shape[-1]}: encode the negative with the model that it is for"
            )
        if self._form is not None and self._form.embed is not None:
            embeddings = [self._form.embed(each, self._settings.alpha) for each in embeddings]
        per_prompt = len(conditional) // prompts
        whose = [row // per_prompt if len(embeddings) > 1 else 0 for row in range(len(conditional))]
        self._generation = Generation(
            self._pipe,
            self._adapter,
            self._settings,
            TextRows(conditional, unconditional),
            [embeddings[which] for which in whose],
            kernel=self._kernel,
            record_share=self._record_share,
            pooled=None if pooled is None else [pooled[which] for which in whose],
            form=self._form,
            fuse=self._fuse,
        )
        return result

    def _finish(self, maybe_free_model_hooks: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = maybe_free_model_hooks(*args, **kwargs)
        generation, self._generation = self._generation, None
        if generation is not None:
            try:
                self._check_denoiser()
                self._reports.append(generation.finish())
            finally:
                generation.forget()
        return result

    def _before_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._generation is None:
            raise GuidanceError(
                "the denoiser was called outside of a generation: call the pipeline itself, or leave the "
                "guidance"
            )
        call = self._call = self._generation.open(args, kwargs)
        if call is None:
            return None
        layers = self._adapter.layers(self._denoiser)
        for name, ours in self._processors(call, layers, args, kwargs).items():
            layer = layers[name]
            self._exchanged.append(_Exchanged(name, layer, layer.processor, ours))
            layer.processor = ours
        changed = self._adapter.arguments(kwargs, call.batch.negative)
        if call.batch.pooled is not None:
            changed = self._adapter.move_pooled(changed, call.batch.pooled, self._settings.pooled_shift)
        return args, changed

    def _processors(
        self,
        call: GuidedCall,
        layers: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Mapping[str, Any]:
        """Ours, by the names of the layers."""

        def make(calls: Mapping[str, GuidedCall | TracedCall]) -> dict[str, Any]:
            return {
                name: self._adapter.processor(
                    self._denoiser, name, each, silent=self._adapter.silent(name, self._settings)
                )
                for name, each in calls.items()
            }

        if not self._compiled:
            return make(dict.fromkeys(layers, call))
        text = self._adapter.text(args, kwargs)
        if text is None:
            raise GuidanceError("a call without text was to be guided")
        n_i = self._adapter.image_tokens(kwargs)
        tally = call.tally = call.keep("tally", lambda: Tally(call, layers, text, n_i))
        return call.keep("processors", lambda: make(tally.traced))

    def _after_call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        call, claimed = self._call, tuple(layer.name for layer in self._exchanged)
        self._restore_processors()
        if call is not None and output is not None and self._generation is not None:  # no output: it raised
            if call.tally is not None:
                silent = {name for name in claimed if self._adapter.silent(name, self._settings)}
                call.tally.count(call, silent)
            self._generation.close(call, claimed, self._adapter.output(output))

    def _restore_processors(self) -> None:
        self._call = None
        while self._exchanged:
            last = self._exchanged.pop()
            if last.layer.processor is last.ours:
                last.layer.processor = last.original

    def _check_denoiser(self) -> None:
        if self._adapter.denoiser(self._pipe) is not self._denoiser:
            raise GuidanceError(
                "the pipeline's denoiser was replaced while it was guided; leave the guidance, then replace "
                "it"
            )
