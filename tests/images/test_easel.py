"""What an easel says and leaves out where the model cannot do all that was asked for, with a real model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from vsf_lib.images.asked import Asked
from vsf_lib.images.easel import Easel
from vsf_lib.jobs import messages
from vsf_lib.metadata import parse_parameters, read_png
from vsf_lib.scenes.model import FOLDER


def notes(events: list[messages.Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, messages.Note))


def test_a_model_that_has_no_heat_maps_draws_its_picture(tmp_path: Path) -> None:
    """The page asks for a heat map unless told otherwise."""
    copy = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    for file in (copy / "model_index.json", copy / "scheduler" / "scheduler_config.json"):
        text = file.read_text("utf-8")
        assert "FlowMatchEulerDiscreteScheduler" in text
        file.write_text(
            text.replace("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"), "utf-8"
        )
    events: list[messages.Event] = []
    drawn = Easel(events.append, lambda: False).draw(
        Asked(
            prompt="a red car", given={"negative_prompt": "wheels"}, seed=1, steps=2, model=str(copy),
            compare=True, heatmap=True,
        ),
        tmp_path / "out",
    )  # fmt: skip
    assert drawn.heatmap == ""
    assert parse_parameters(read_png(drawn.path)).settings is not None
    assert "there is no heat map: the scheduler is a FlowMatchHeunDiscreteScheduler" in notes(events)


def test_a_size_that_the_small_model_has_not_learnt_is_told(tmp_path: Path) -> None:
    events: list[messages.Event] = []
    easel = Easel(events.append, lambda: False)
    asked = Asked(prompt="a red car", seed=1, steps=1, size="64x64")
    easel.draw(asked, tmp_path)
    assert "has learnt" not in notes(events)
    easel.draw(Asked(**{**asked.told(), "size": "64x80"}), tmp_path)
    assert "the scenes model has learnt 64x64 only" in notes(events)
