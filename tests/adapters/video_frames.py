"""The frames of a video file, decoded without the code under test."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_frames(path: Path) -> np.ndarray:
    """`[n, h, w, 3]` uint8."""
    import imageio_ffmpeg  # here, as not every environment has it

    frames = imageio_ffmpeg.read_frames(f"file:{path}", pix_fmt="rgb24")
    width, height = next(frames)["source_size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])
