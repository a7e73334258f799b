"""The small trained models' world: what can be drawn, how it is drawn, who judges it, how the models are made."""

from __future__ import annotations
