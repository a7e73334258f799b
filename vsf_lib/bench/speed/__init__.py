"""What the benchmarks of speed share, and `bench speed`, which runs them all."""

from __future__ import annotations
