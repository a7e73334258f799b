"""Benchmarks of quality and speed. They print what README and notes may quote."""

from __future__ import annotations
