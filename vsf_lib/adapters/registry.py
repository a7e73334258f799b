"""The table of supported pipelines, and what a network's module must provide.

Adding a network is one module with an `ADAPTER` (or a `NETWORK`, in hosts of the Forge family) and one row
here. A row names classes by text, so that neither diffusers nor any model code is imported before such a
pipeline is at hand. Knows no network itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.compiled import TracedCall
from vsf_lib.errors import ModelError
from vsf_lib.settings import Settings

if TYPE_CHECKING:
    from vsf_lib.adapters.forge_network import ForgeNetwork


class Adapter(Protocol):
    """How one network is reached. Stateless: all that changes lives in the session that uses it."""

    joint: bool
    """Whether text and image share one attention, in which a `form.Form` may stand in VSF's place."""
    extrapolates: bool
    """Whether `Settings.negative_scale` (eq. 10) means something for this network's embeddings."""
    two_kinds: bool
    """Whether it has double-stream and single-stream blocks for `Settings.blocks` to choose from."""
    moves_pooled: bool
    """Whether `Settings.pooled_shift` means something for it."""
    separate_unconditional: bool
    """Whether its pipelines encode the unconditional prompt by a second call of `encode_prompt`."""

    def check_encoders(self, pipe: Any) -> None:
        """Raises ModelError, with the remedy, if the pipeline lacks what encodes a negative prompt."""

    def denoiser(self, pipe: Any) -> nn.Module:
        """The network to guide, after checking that pipe and network can be; raises ModelError with the
        remedy."""

    def layers(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """The attention layers that see text, by name: what guidance claims. Each has a `processor` to
        exchange."""

    def prompts(self, arguments: Mapping[str, Any], conditional: Tensor) -> int:
        """How many prompts `encode_prompt` was asked for; each fills an equal run of `conditional`'s rows."""

    def encoded(
        self, arguments: Mapping[str, Any], result: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """The conditional and, if it will be used, the unconditional text of what `encode_prompt`
        returned."""

    def negative(
        self,
        pipe: Any,
        texts: Sequence[str],
        form: str,
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        """The negative embeddings `[n, C]`, one per text, where `arguments` are what `encode_prompt` gets.

        `form` is "padded" like a prompt, "all" tokens without padding, or the "words" of those alone.
        """

    def padding(self, pipe: Any, arguments: Mapping[str, Any]) -> Tensor:
        """p0 `[C]` of eq. 10; asked for only if it `extrapolates`."""

    def pooled(
        self,
        pipe: Any,
        texts: Sequence[str],
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        """The pooled embeddings `[C]` of the negative prompts; asked for only if it `moves_pooled`."""

    def move_pooled(self, kwargs: Mapping[str, Any], pooled: Tensor, shift: float) -> dict[str, Any]:
        """A denoiser call's arguments with its pooled embedding moved away from `pooled` `[B or 1, C]`."""

    def text(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """The text `[B, n_p, C]` of a denoiser call, or None for a call that must stay as it is."""

    def arguments(self, kwargs: Mapping[str, Any], negative: Tensor) -> dict[str, Any]:
        """A guided call's arguments: with N `[B or 1, n_n, C]` at the outer end of the text where both go
        through the network together (joint attention), as they are where N does not (cross-attention)."""

    def image_tokens(self, kwargs: Mapping[str, Any]) -> int:
        """How many there are in a denoiser call, where layers are handed one sequence of text and image."""

    def silent(self, name: str, settings: Settings) -> bool:
        """Whether a layer carries N along unseen."""

    def processor(
        self, denoiser: nn.Module, name: str, call: GuidedCall | TracedCall, *, silent: bool
    ) -> Any:
        """What takes the place of the layer's own processor during one guided call.

        With a `TracedCall`, during all those of its arrangement of rows; a compiler goes through it.
        """

    def output(self, output: Any) -> Tensor:
        """The tensor in what the denoiser returned."""


@dataclass(frozen=True)
class _Row:
    pipeline: str
    module: str


_FORGE = ("vsf_lib.adapters.forge_sd35", "vsf_lib.adapters.forge_flux", "vsf_lib.adapters.forge_wan")
_TABLE = (
    _Row("StableDiffusion3Pipeline", "vsf_lib.adapters.diffusers_sd3"),
    _Row("StableDiffusion3Img2ImgPipeline", "vsf_lib.adapters.diffusers_sd3"),
    _Row("StableDiffusion3InpaintPipeline", "vsf_lib.adapters.diffusers_sd3"),
    _Row("FluxPipeline", "vsf_lib.adapters.diffusers_flux"),
    _Row("FluxImg2ImgPipeline", "vsf_lib.adapters.diffusers_flux"),
    _Row("WanPipeline", "vsf_lib.adapters.diffusers_wan"),
    _Row("WanImageToVideoPipeline", "vsf_lib.adapters.diffusers_wan"),
)


def find_adapter(pipe: object) -> Adapter:
    """The adapter for a pipeline, by the names of its class and that class's bases."""
    names = {cls.__name__ for cls in type(pipe).__mro__}
    for row in _TABLE:
        if row.pipeline in names:
            try:
                adapter: Adapter = importlib.import_module(row.module).ADAPTER
            except ImportError as error:
                raise ModelError(
                    f"guidance for {row.pipeline} needs diffusers 0.34 or later: "
                    f"{error}; install a version that has them"
                ) from error
            return adapter
    supported = ", ".join(row.pipeline for row in _TABLE)
    raise ModelError(f"a {type(pipe).__name__} cannot be guided; load the model with one of: {supported}")


def forge_networks() -> tuple[ForgeNetwork, ...]:
    """The networks that are known in hosts of the Forge family."""
    return tuple(importlib.import_module(name).NETWORK for name in _FORGE)


def find_network(model: nn.Module) -> ForgeNetwork | None:
    """The network of a host of the Forge family that `model` is, by its structure; None for any other."""
    return next((network for network in forge_networks() if network.matches(model)), None)
