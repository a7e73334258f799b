"""The built-in model's structure with random weights, for tests of what does not depend on its skill."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def untrained() -> Any:
    """A pipeline as the built-in model's, made once; tests leave it as they found it."""
    import torch

    from vsf_lib.scenes.training import autoencoder
    from vsf_lib.scenes.training.flow import SHIFT
    from vsf_lib.scenes.training.networks import Networks

    pipe = Networks.build(autoencoder.build(), 3).pipeline(SHIFT)
    # Random decoders draw nearly one grey; this one's pictures differ visibly where their latents do.
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(6)
    pipe.set_progress_bar_config(disable=True)
    return pipe
