"""`bench evidence`: docs/evidence.md, written from the JSON and pictures that the benchmarks left.

Owns the page: its order, its tables, and the sentences that follow from the numbers; conclusions that need a
person stand in a file of their own. Measures nothing; a study that is not there is said to be missing, with
the command that makes it.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vsf_lib.bench import evidence_video
from vsf_lib.bench.results import markdown_table, shown
from vsf_lib.bench.trade_off import KEPT, at_removal, best_removal
from vsf_lib.errors import ModelError, OutputError
from vsf_lib.files import reason, written_whole
from vsf_lib.scenes.model import MODELS, NAME

DATA, PAGE = Path("docs/evidence"), Path("docs/evidence.md")
ANSWERS = "answers.md"
"""What a person concluded from the numbers; stands before them."""
FLOORS = (0.9, 0.92, 0.94, 0.96)
MATCHED = (0.5, 0.7)
TITLES = {
    NAME: "SD3.5's architecture (scenes)",
    "flux-schnell": "Flux schnell's architecture (flux-schnell)",
    "flux-dev": "Flux dev's architecture (flux-dev)",
}
STUDIES = {
    "scenes": "--json docs/evidence/scenes-{model}.json --sheet docs/evidence/scenes-{model}.png",
    "curves": "--curves --json docs/evidence/curves-{model}.json --plot docs/evidence/curves-{model}.png",
    "questions": "--questions --json docs/evidence/questions-{model}.json",
    "pointing": "--pointing --json docs/evidence/pointing-{model}.json "
    "--sheet docs/evidence/pointing-{model}.png",
}

_HEAD = """\
# Does it work, why, and where does it stop?

Written by `python install.py bench evidence` from the files in `docs/evidence`, which the commands below
each heading make again.

**What was measured here**: the small models of this repository. They have the architectures of SD3.5,
Flux and Wan from diffusers' own classes, draw a little world of 64x64 pixels in few steps without
classifier-free guidance, and are read by a judge network that was trained on renders alone. A
*negative* score is the share of pictures from which the part that the negative prompt names is gone;
*positive* is the share that shows all that the prompt names; *quality* the share of clean drawings.
Prompts are combinations that no model was trained on, unless a table says "tuning".

**What was not measured here**: the real models. Nobody here has run SD3.5, Flux or Wan with their own
weights. That a form of the method is better on a small model is a reason to try it on a large one, not a
result for it. What the paper measured on the real ones is below, and in `vsf_lib/presets.py` each preset
names its source.

## The paper's own figures

SD3.5-large-turbo, 200 prompts with 2 seeds, judged by a multimodal language model (Guo & Du, "Value Sign
Flip"):

| | positive | negative | quality |
| --- | --- | --- | --- |
| VSF Strong | 0.870 | 0.545 | 0.952 |
| VSF Quality | 0.980 | 0.420 | 0.986 |
| NAG | 0.993 | 0.220 | 0.968 |
| NAG Strong | 0.975 | 0.320 | 0.901 |
| NASA | 0.970 | 0.380 | 0.867 |
| none | 0.990 | 0.195 | 0.968 |
| CFG, 28 steps | 1.000 | 0.300 | 0.956 |
"""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"where the studies' files are ({DATA})")
    parser.add_argument("--out", type=Path, default=PAGE, help=f"the page to write ({PAGE})")


def run(args: Namespace) -> int:
    """Writes the page."""
    page = render(args.data, args.out.parent)
    try:
        with written_whole(args.out) as part:
            part.write_text(page, "utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"cannot write {args.out}: {reason(error)}; choose another --out") from error
    print(args.out)
    return 0


def render(data: Path, base: Path) -> str:
    """The page for the files in `data`, with pictures named as seen from the folder `base`."""
    if not data.is_dir():
        raise ModelError(f"there is no folder {data}: run the studies first, or pass --data")
    answers = data / ANSWERS
    parts = [_HEAD, *([answers.read_text("utf-8")] if answers.is_file() else [])]
    for model in MODELS:
        parts.append(f"## {TITLES[model]}\n")
        for study, section in _SECTIONS.items():
            file, flags = data / f"{study}-{model}.json", STUDIES[study].format(model=model)
            if file.is_file():
                result = _read(file)
                parts += section(result, _picture(file, base))
                flags = f"--pairs {result['pairs']} --seeds {result['seeds']} {flags}"
            else:
                parts.append(f"### {study.capitalize()}\n\n{_MISSING}")
            parts.append(f"`python install.py bench scenes --model {model} {flags}`\n")
    parts += _video(data, base)
    parts += _pictures(base)
    return "\n".join(parts).rstrip("\n") + "\n"


_MISSING = "*Not measured yet.*\n"


def _video(data: Path, base: Path) -> Iterator[str]:
    """What the small Wan shows; a study of its own with a judge of its own kind."""
    file, flags = data / "video-wan.json", evidence_video.FLAGS
    yield f"{evidence_video.HEADING}\n"
    if file.is_file():
        result = _read(file)
        yield from evidence_video.section(result, _picture(file, base))
        flags = f"--pairs {result['pairs']} --seeds {result['seeds']} {flags}"
    else:
        yield _MISSING
    yield f"`python install.py bench scenes --video {flags}`\n"


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {reason(error)}; make it again") from error
    return found


def _picture(file: Path, base: Path) -> str:
    """The picture that belongs to a study's file, as the page names it; empty if there is none."""
    picture = file.with_suffix(".png")
    return Path(os.path.relpath(picture, base)).as_posix() if picture.is_file() else ""


def _conditions(result: Mapping[str, Any], pairs: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['pairs']} {pairs} pairs x {result['seeds']} seeds, {result['steps']} steps; {versions}, "
        f"{result['machine']}.\n"
    )


def _methods(result: dict[str, Any], picture: str) -> Iterator[str]:
    yield "### The methods at their settings\n"
    yield markdown_table(
        ("method", "positive", "negative", "quality", "values"),
        [
            (name, *(f"{row[share]:.3f}" for share in ("positive", "negative", "quality")), row["values"])
            for name, row in result["methods"].items()
        ],
    )
    yield (
        "`vsf`, `vsf-strong` and `difference` are the presets, `nag-strong` is the VSF paper's. Each other "
        "method stands where a small sweep on tuning pairs found the most removal at positive 0.9 "
        "(`vsf-kept`: of all of VSF's, `vsf-paper`: of its published form, `difference-kept`: of the "
        "difference's)."
    )
    yield _conditions(result, "held-out")
    if picture:
        yield f"![The same twelve prompts by each method]({picture})\n"


def _curves(result: dict[str, Any], picture: str) -> Iterator[str]:
    yield "### Curves: what each gives up for what it removes\n"
    if picture:
        yield f"![Negative against positive and against quality, a line per method]({picture})\n"
    lines = sorted(result["lines"], key=lambda line: line["best"]["negative"][0] or -1.0, reverse=True)
    yield f"The most that each removes while positive stays at {KEPT:.2f} or more, with its interval:\n"
    yield markdown_table(
        ("", "kind", "most removed", "at", "with"),
        [
            (
                line["name"],
                line["group"],
                shown(line["best"]["negative"]),
                _at(line["knob"], line["best"]["strength"]),
                line["held"] or "-",
            )
            for line in lines
        ],
    )
    yield _verdict(result["lines"])
    yield _matched(result["lines"])
    yield _conditions(result, "held-out") + f"In square brackets: {result['bands']}.\n"


def _at(knob: str, strength: float | None) -> str:
    return f"{knob} {strength:.3g}" if knob and strength is not None else "-"


def _verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    """Whether VSF lies above NAG and NASA wherever positive is high, said floor by floor."""
    rows = []
    above = []
    for floor in FLOORS:
        best = {name: _highest(lines, name, floor) for name in ("vsf", "nag", "nasa", "difference")}
        above.append(best["vsf"] > max(best["nag"], best["nasa"]))
        rows.append((f"{floor:.2f}", *(f"{value:.3f}" if value >= 0 else "never" for value in best.values())))
    if all(above):
        said = "VSF is above NAG and NASA at each of these."
    elif any(above):
        where = ", ".join(f"{floor:.2f}" for floor, is_above in zip(FLOORS, above, strict=True) if is_above)
        said = f"VSF is above NAG and NASA at positive {where}, not at the others."
    else:
        said = "VSF is not above NAG and NASA at any of these."
    return (
        "The highest line of each kind where positive is at least so much:\n\n"
        + markdown_table(("positive at least", "vsf", "nag", "nasa", "difference"), rows)
        + f"\n{said}\n"
    )


def _matched(lines: Sequence[Mapping[str, Any]]) -> str:
    """What methods keep where they remove as much as each other."""
    rows = []
    for line in lines:
        if line["group"] in ("vsf", "difference", "baseline"):
            points = _points(line)
            strengths = np.array([point["strength"] for point in line["points"]])
            found = [at_removal(points, strengths, removal) for removal in MATCHED]
            rows.append(
                (line["name"], *("-" if np.isnan(x) else f"{x:.2f}" for row in found for x in row[[1, 3]]))
            )
    head = [f"{name} at {removal:.0%}" for removal in MATCHED for name in ("positive", "quality")]
    return "Where so many of the parts are gone, between the points that were drawn:\n\n" + markdown_table(
        ("", *head), rows
    )


def _points(line: Mapping[str, Any]) -> np.ndarray:
    """`[n, 3]`: positive, negative and quality of a line's points."""
    shares = ("positive", "negative", "quality")
    return np.array([[point[name][0] for name in shares] for point in line["points"]])


def _highest(lines: Sequence[Mapping[str, Any]], kind: str, floor: float) -> float:
    """The most removal of any line of `kind` (a group, or the beginning of its name); -1 if none has any."""
    found = [-1.0]
    for line in lines:
        if line["group"] == kind or line["name"].split(",")[0].split()[0] == kind:
            found.append(float(np.nan_to_num(best_removal(_points(line), floor), nan=-1.0)))
    return max(found)


def _questions(result: dict[str, Any], _: str) -> Iterator[str]:
    yield "### Choices inside VSF, at equal removal\n"
    yield (
        "Each arm is compared where it removes half and 70 % of the parts, since a fixed alpha would "
        "compare strengths. *Area* is the mean, over all floors of positive from 0.9 to 1, of the most that "
        "is removed; *usable* are the doublings of alpha with positive >= 0.9 and negative >= 0.5.\n"
    )
    for question in result["questions"]:
        yield f"**{question['title'][0].upper()}{question['title'][1:]}**\n"
        yield markdown_table(
            (
                "",
                *(f"{name} at {int(100 * float(r))} %" for r in _removals(question) for name in _SHARES),
                *_WHOLE,
            ),
            [
                (
                    arm["name"],
                    *(shown(arm["at_removal"][r][name], 2) for r in _removals(question) for name in _SHARES),
                    shown(arm["best"]["negative"], 2),
                    shown(arm["area"], 2),
                    shown(arm["usable"]["octaves"], 1),
                )
                for arm in question["arms"]
            ],
        )
    yield _conditions(result, "tuning") + f"In square brackets: {result['bands']}.\n"


_SHARES = ("alpha", "positive", "quality")
_WHOLE = ("most removed", "area", "usable")


def _removals(question: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(question["arms"][0]["at_removal"])


def _pointing(result: dict[str, Any], picture: str) -> Iterator[str]:
    yield "### Where it acts\n"
    yield (
        "How often the peak of the negative prompt's share of attention lies on the part, as a part finder "
        "sees it in the unguided picture. *Guided* is the map of a heat map; *probe* reads the attention "
        "while the picture stays the unguided one (beta 20). *Ranked* is how often a cell on the part has "
        "more than another cell of the object, of which one half is chance.\n"
    )
    if not result["counted"]:
        yield "No unguided picture had its part.\n"
        return
    rows = [
        (name, view, *_pointed(rates))
        for name, views in result["rates"].items()
        for view, rates in views.items()
        if view == "mean" or "own" in name
    ]
    rows += [
        (f"a random cell of the {what}", "chance", *_pointed(rates))
        for what, rates in result["chance"].items()
    ]
    yield markdown_table(
        ("peak of the map", "view", "cell touches the part", "cell's centre on it", "ranked above the rest"),
        rows,
    )
    yield (
        f"{result['counted']} of {result['pictures']} pictures have the part unguided; {result['pairs']} "
        f"held-out pairs x {result['seeds']} seeds, {result['steps']} steps, {result['settings']}.\n"
    )
    if picture:
        yield f"![Pictures, the part that was found, and the maps with their peaks]({picture})\n"


def _pointed(rates: Mapping[str, float | None]) -> tuple[str, ...]:
    found = (rates.get(name) for name in ("overlaps", "centred", "ranked"))
    return tuple("-" if value is None else f"{value:.3f}" for value in found)


_SECTIONS = {"scenes": _methods, "curves": _curves, "questions": _questions, "pointing": _pointing}


def _pictures(base: Path) -> Iterator[str]:
    """Pictures that belong to no study, beside the page."""
    for file, title, command in (
        ("car-heatmap.png", "A heat map", f"generate {_CAR} --seed 4 --compare --heatmap --out docs/car.png"),
        ("sweep.png", "A sweep", f"generate {_CAR} --seed 2 --sweep alpha=0:8:0.5 --out docs/sweep.png"),
        ("recipes.png", "Recipes", "bench scenes --recipes --sheet docs/recipes.png"),
    ):
        if (base / file).is_file():
            yield f"## {title}\n\n![{title}]({file})\n\n`python install.py {command}`\n"


_CAR = '--prompt "a red car on a field" --negative-prompt "wheels"'
