"""VSF (Value Sign Flip): a negative prompt for distilled image and video models, said inside the attention."""

from __future__ import annotations

__version__ = "0.1.0"
