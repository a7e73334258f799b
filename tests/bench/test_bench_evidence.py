"""The evidence page: what it says of numbers, what is missing, and that the committed one is up to date."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from vsf_lib.bench.evidence import DATA, PAGE, add_arguments, render, run
from vsf_lib.errors import ModelError, OutputError
from vsf_lib.scenes.model import MODELS

ROOT = Path(__file__).parents[2]
VERSIONS = {"pairs": 3, "seeds": 1, "steps": 4, "machine": "abacus", "versions": {"torch": "9.9"}}


def line(name: str, group: str, *points: tuple[float, float]) -> dict[str, Any]:
    """A curve of (positive, negative) at rising strengths."""
    return {
        "name": name,
        "group": group,
        "knob": "alpha",
        "held": "",
        "best": {"negative": [points[0][1], None, None], "strength": 1.5},
        "points": [
            {"strength": i + 1.0, "positive": [p, p, p], "negative": [n, n, n], "quality": [1, 1, 1]}
            for i, (p, n) in enumerate(points)
        ],
    }


def curves(vsf: float, nag: float, nasa: float) -> dict[str, Any]:
    lines = [
        line("vsf, all tokens, beta 1", "vsf", (1.0, vsf), (0.0, 1.0)),
        line("nag over phi", "baseline", (1.0, nag), (0.95, nag)),
        line("nasa", "baseline", (0.93, nasa), (0.93, nasa)),
        line("difference, words only, beta 1", "difference", (1.0, 0.1), (0.5, 0.1)),
    ]
    return {**VERSIONS, "bands": "none", "lines": lines}


def page(folder: Path, **studies: dict[str, Any]) -> str:
    for name, result in studies.items():
        (folder / f"{name}-scenes.json").write_text(json.dumps(result), "utf-8")
    return render(folder, folder)


def test_what_is_missing_is_said_with_its_command(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert text.count("*Not measured yet.*") == 4 * len(MODELS) + 1
    assert "bench scenes --model flux-dev --curves --json docs/evidence/curves-flux-dev.json" in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.5, 0.4, 0.3), "VSF is above NAG and NASA at each of these."),
        ((0.1, 0.9, 0.3), "VSF is above NAG and NASA at positive 0.96, not at the others."),
        ((0.1, 0.9, 0.9), "VSF is above NAG and NASA at positive 0.96, not at the others."),
    ],
)
def test_the_verdict_follows_from_the_curves(
    tmp_path: Path, values: tuple[float, float, float], said: str
) -> None:
    result = curves(*values)
    if values[1] == 0.9:  # NAG's ends below 0.96
        result["lines"][1] = line("nag over phi", "baseline", (0.95, 0.9), (0.9, 0.9))
    assert said in page(tmp_path, curves=result)


def test_the_verdict_owns_up_to_a_defeat(tmp_path: Path) -> None:
    result = curves(0.1, 0.9, 0.9)
    result["lines"][1] = line("nag over phi", "baseline", (1.0, 0.9), (0.9, 0.9))
    text = page(tmp_path, curves=result)
    assert "VSF is not above NAG and NASA at any of these." in text
    row = next(row for row in text.splitlines() if row.startswith("| 0.90"))
    # On the way from (1, 0.1) to (0, 1) VSF has removed 0.19 where positive is 0.9.
    assert row == "| 0.90 | 0.190 | 0.900 | 0.900 | 0.100 |"


def test_methods_are_set_side_by_side_at_equal_removal(tmp_path: Path) -> None:
    result = curves(0.3, 0.4, 0.3)
    result["lines"][0] = line("vsf, all tokens, beta 1", "vsf", (1.0, 0.4), (0.8, 0.6), (0.2, 1.0))
    text = page(tmp_path, curves=result)
    assert "| vsf, all tokens, beta 1 | 0.90 | 1.00 | 0.65 | 1.00 |" in text
    assert "| nasa | - | - | - | - |" in text, "it never gets there"


def test_what_was_measured_can_be_measured_again(tmp_path: Path) -> None:
    text = page(tmp_path, curves=curves(0.5, 0.4, 0.3))
    assert "bench scenes --model scenes --pairs 3 --seeds 1 --curves" in text


def test_answers_stand_before_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "answers.md").write_text("## Answers\n\nForty-two.\n", "utf-8")
    text = page(tmp_path, curves=curves(0.5, 0.4, 0.3))
    assert text.index("Forty-two.") < text.index("## SD3.5's architecture")


def test_pictures_are_shown_where_they_are(tmp_path: Path) -> None:
    assert "![" not in page(tmp_path, curves=curves(0.5, 0.4, 0.3))
    (tmp_path / "curves-scenes.png").write_bytes(b"")
    text = render(tmp_path, tmp_path.parent)
    assert f"({tmp_path.name}/curves-scenes.png)" in text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "curves-scenes.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*curves-scenes\.json"):
        render(tmp_path, tmp_path)
    with pytest.raises(ModelError, match="there is no folder"):
        render(tmp_path / "none", tmp_path)


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    with pytest.raises(OutputError, match="cannot write"):
        run(parser.parse_args(["--data", str(tmp_path), "--out", str(tmp_path / "no" / "page.md")]))


def test_the_committed_page_is_what_its_files_say() -> None:
    assert (ROOT / PAGE).read_text("utf-8") == render(ROOT / DATA, (ROOT / PAGE).parent)


def test_videos_have_their_section(tmp_path: Path) -> None:
    scores = {"positive": [0.9, 0.85, 0.95], "negative": [0.75, 0.7, 0.8], "quality": [1, 1, 1],
              "steady": [1, 1, 1], "flips": [0.25, 0.1, 0.4], "flicker": [0.0125, 0.01, 0.02]}  # fmt: skip
    swept = {name: value[0] for name, value in scores.items()}
    (tmp_path / "video-wan.json").write_text(
        json.dumps(
            {
                **VERSIONS,
                "bands": "none",
                "methods": [{"name": "vsf", "values": "alpha 2", **scores}],
                "sweeps": {"steps": [{"name": "vsf", "values": "4 steps", **swept, "negative": 0.5}]},
            }
        ),
        "utf-8",
    )
    text = page(tmp_path)
    assert "| vsf | 0.90 [0.85 0.95] | 0.75 [0.70 0.80] |" in text
    assert "| 0.25 [0.10 0.40] | 0.0125 [0.0100 0.0200] | alpha 2 |" in text
    assert "| vsf | 4 steps | 0.90 | 0.50 | 1.00 | 1.00 | 0.25 | 0.0125 |" in text
    assert (
        "`python install.py bench scenes --video --pairs 3 --seeds 1 --json docs/evidence/video-wan.json"
        in text
    )
