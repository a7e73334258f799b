"""`bench model`: what guidance adds to one step of a whole denoiser, in time and memory."""

from __future__ import annotations
