"""The model that a processing object will use: what it is, and the network that guides it."""

from __future__ import annotations

from typing import Any

from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.adapters.registry import find_network
from vsf_lib.errors import ModelError
from vsf_lib.webui.networks import listed, titles
from vsf_lib.webui.request import Checkpoint


def checkpoint_of(p: Any) -> Checkpoint:
    """What is known of the model that `p` will use."""
    name = str(getattr(p, "sd_model_name", None) or "")
    model = diffusion_model(p)
    network = find_network(model) if model is not None else None
    return Checkpoint(
        name=name,
        network=None if network is None else network.title,
        guidance_embedding=bool(getattr(model, "guidance_embed", False)),
    )


def diffusion_model(p: Any) -> Any:
    """The network's module, or None where nothing is loaded."""
    objects = getattr(getattr(p, "sd_model", None), "forge_objects", None)
    return getattr(getattr(getattr(objects, "unet", None), "model", None), "diffusion_model", None)


def network_of(model: Any) -> ForgeNetwork:
    """How that module is guided; raises ModelError for one that is not."""
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
