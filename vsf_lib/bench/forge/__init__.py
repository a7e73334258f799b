"""Seconds per step inside of a running WebUI, guided against unguided. Knows the host's public API only."""

from __future__ import annotations
