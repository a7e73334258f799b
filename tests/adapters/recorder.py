"""Guidance seen from outside: what the denoiser was called with, what it gave, what was left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


class Recorder:
    """The denoiser's calls inside a `with`: keyword arguments and first outputs."""

    def __init__(self, pipe: Any) -> None:
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[Tensor] = []
        self._handles = [
            pipe.transformer.register_forward_pre_hook(self._before, with_kwargs=True),
            pipe.transformer.register_forward_hook(self._after),
        ]

    def _before(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.inputs.append(dict(kwargs))

    def _after(self, module: Any, args: Any, output: Any) -> None:
        self.outputs.append(output[0])

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def assert_rows_match(
    seen: Recorder,
    negatives: Sequence[Tensor | None],
    unguided: Callable[[dict[str, Any], int], Tensor],
    guided: Callable[[dict[str, Any], int, Tensor], Tensor],
    tolerance: float = 2e-5,
) -> None:
    """Every row of every recorded call against its own run of a reference; one entry of `negatives` per row,
    None where a row is to be unguided."""
    assert seen.outputs
    for inputs, output in zip(seen.inputs, seen.outputs, strict=True):
        assert len(output) == len(negatives)
        for row, negative in enumerate(negatives):
            plain = unguided(inputs, row)
            expected = plain if negative is None else guided(inputs, row, negative)
            scale = float(plain.std())
            assert difference(output[row], expected) < tolerance * scale
            if negative is not None:  # or the comparison would prove nothing
                assert difference(expected, plain) > 0.02 * scale


def state(pipe: Any) -> Any:
    """Everything that guidance could leave behind."""
    transformer = pipe.transformer
    return (
        set(pipe.__dict__),
        {name: set(module.__dict__) for name, module in transformer.named_modules()},
        {name: id(x.processor) for name, x in transformer.named_modules() if hasattr(x, "processor")},
        [len(hooks) for name, hooks in transformer.__dict__.items() if "hooks" in name and hooks is not None],
        id(pipe.encode_prompt.__func__),
        id(pipe.maybe_free_model_hooks.__func__),
    )
