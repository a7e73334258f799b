"""VSF (Value Sign Flip): negative prompts for distilled image and video models, inside the attention."""

from __future__ import annotations

__version__ = "0.1.0"
