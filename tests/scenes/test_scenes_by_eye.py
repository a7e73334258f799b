"""The judge against a person's eye on 200 pictures that the built-in model drew, guided weakly to strongly.

`by_eye.png` holds the pictures in rows of 20, `by_eye.json` what the person saw before the judge was asked:
is the object that the prompt names there, is the part that the negative prompt names there, is it a clean
drawing. `null` where the person could not tell.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vsf_lib.scenes.judge import Judge

HERE = Path(__file__).parent
LABELS = json.loads((HERE / "by_eye.json").read_text("utf-8"))["pictures"]
COLUMNS = 20


def pictures() -> np.ndarray:
    sheet = np.asarray(Image.open(HERE / "by_eye.png"))
    rows, columns = sheet.shape[0] // 64, sheet.shape[1] // 64
    assert columns == COLUMNS
    return sheet.reshape(rows, 64, columns, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)


@pytest.mark.parametrize(("question", "least"), [("object", 0.92), ("part", 0.9), ("clean", 0.75)])
def test_judge_sees_what_a_person_sees(question: str, least: float) -> None:
    verdicts = Judge.load()(pictures())
    assert len(verdicts) == len(LABELS) == 200
    answers = []
    for verdict, label in zip(verdicts, LABELS, strict=True):
        seen = {
            "object": verdict.kind == label["kind"],
            "part": label["negative_prompt"] in verdict.parts,
            "clean": verdict.clean,
        }[question]
        if label[question] is not None:
            answers.append(seen == label[question])
    assert len(answers) >= 130, "too few that a person was sure of"
    assert np.mean(answers) >= least
