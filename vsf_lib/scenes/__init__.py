"""The small trained models' world: what can be drawn, how, who judges it, how the models are made."""

from __future__ import annotations
