"""What the benchmarks' plots share: colours, dashes and marks, and whether there is matplotlib at all.

Knows no plot.
"""

from __future__ import annotations

import importlib.util

from vsf_lib.errors import SettingsError

# Okabe and Ito's colours, which colour-blind people tell apart; dashes and marks do without colour.
BLACK, BLUE, SKY, GREEN, YELLOW, ORANGE, RED, PINK = (
    "#000000",
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#B8A500",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
)  # fmt: skip  (the yellow is darkened: the original is not seen as a line on white)
DASHES = ("-", "--", "-.", ":")
MARKS = "osD^vPX*"


def check_drawable() -> None:
    """Raises SettingsError, with the remedy, where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError(
            "--plot needs matplotlib, which is not installed: run `python install.py bench ...`, which "
            "brings it, `pip install matplotlib`, or leave --plot out"
        )
