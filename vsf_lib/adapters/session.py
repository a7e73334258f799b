"""The life of a guidance: from entering `with guided(...)` to the pipeline being as it was before.

Owns everything that is put on a pipeline and its removal: three of the pipeline's methods are shadowed on the
instance (checking its inputs ends what was left unfinished, encoding the prompt begins a generation, freeing
the models ends it), two hooks sit on the denoiser, and attention processors are exchanged during a guided
call only. Knows no network but through its adapter.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall, Recording
from vsf_lib.adapters.form import Form
from vsf_lib.adapters.generation import Generation, Report
from vsf_lib.adapters.negatives import encode_pooled, encode_texts
from vsf_lib.adapters.registry import Adapter
from vsf_lib.adapters.rows import TextRows
from vsf_lib.errors import GuidanceError, PromptError
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
    ) -> None:
        self._pipe = pipe
        self._adapter = adapter
        self._settings = settings
        self._negatives = negatives
        self._reports = reports
        self._kernel = kernel
        self._record_share = record_share
        self._form = form
        self._denoiser = adapter.denoiser(pipe)
        self._active = False
        self._undo = ExitStack()
        self._generation: Generation | None = None
        self._call: GuidedCall | None = None
        self._exchanged: list[_Exchanged] = []

    def __enter__(self) -> Session:
        for hook in self._denoiser._forward_pre_hooks.values():
            if isinstance(getattr(hook, "__self__", None), Session):
                raise GuidanceError(
                    "this model is guided already, and guidances do not nest; leave the outer one first, or "
                    "name both things in one negative prompt"
                )
        with ExitStack() as undo:
            undo.callback(self._restore_processors)
            before = self._denoiser.register_forward_pre_hook(self._before_call, with_kwargs=True)
            undo.callback(before.remove)
            after = self._denoiser.register_forward_hook(self._after_call, with_kwargs=True, always_call=True)
            undo.callback(after.remove)
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
            encode = (self._pipe, self._adapter, self._settings, texts, asked, encode_prompt)
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
        )
        return result

    def _finish(self, maybe_free_model_hooks: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = maybe_free_model_hooks(*args, **kwargs)
        generation, self._generation = self._generation, None
        if generation is not None:
            self._check_denoiser()
            self._reports.append(generation.finish())
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
        for name, layer in self._adapter.layers(self._denoiser).items():
            ours = self._adapter.processor(self._denoiser, name, call)
            self._exchanged.append(_Exchanged(name, layer, layer.processor, ours))
            layer.processor = ours
        changed = self._adapter.arguments(kwargs, call.batch.negative)
        if call.batch.pooled is not None:
            changed = self._adapter.move_pooled(changed, call.batch.pooled, self._settings.pooled_shift)
        return args, changed

    def _after_call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        call, claimed = self._call, tuple(layer.name for layer in self._exchanged)
        self._restore_processors()
        if call is not None and output is not None and self._generation is not None:  # no output: it raised
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
