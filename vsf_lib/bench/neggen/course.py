"""The course of a run: look, draw what is missing, ask what is missing, count.

Owns the order, which is that of the list whatever is done first, and that every picture and answer is kept as
soon as it is there. How it is drawn, asked and counted stands elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsf_lib.bench.drawing import Method
from vsf_lib.bench.neggen import work
from vsf_lib.bench.neggen.artist import Place, depends_on, request_for
from vsf_lib.bench.neggen.asking import QUESTIONS, Answer
from vsf_lib.bench.neggen.cluster import Cluster
from vsf_lib.bench.neggen.judges import JudgeSpec
from vsf_lib.bench.neggen.keys import digest
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.bench.neggen.scores import summary
from vsf_lib.bench.neggen.store import Store
from vsf_lib.bench.neggen.unread import example
from vsf_lib.cli.console import Progress, note
from vsf_lib.images.request import Request


@dataclass(frozen=True)
class Plan:
    """Everything that is to be drawn and asked."""

    base: Request
    """The model, its steps and size; prompt, settings and seed of it count for nothing."""
    methods: Sequence[Method]
    items: Sequence[Item]
    seeds: Sequence[int]
    judge: JudgeSpec
    jobs: int = 1
    """How many questions a remote judge gets at once."""
    ask_again: bool = False
    """Whether what was not read before is asked anew."""


@dataclass(frozen=True)
class _Cell:
    """One picture of the plan."""

    method: int
    item: int
    seed: int
    request: Request
    key: str


@dataclass(frozen=True)
class _Question:
    """One picture to ask about, by the key of the answer."""

    key: str
    asked: dict[str, Any]
    picture: str
    item: Item


class Course:
    """One run, which may be the continuation of an earlier one in the same store."""

    def __init__(self, plan: Plan, store: Store, cluster: Cluster | None = None) -> None:
        self._plan, self._store, self._cluster = plan, store, cluster
        self._place: Place = self._call(work.look_at_model, plan.base)
        self._cells = [
            _Cell(m, i, s, request, digest(depends_on(request, self._place)))
            for s, seed in enumerate(plan.seeds)
            for i, item in enumerate(plan.items)
            for m, method in enumerate(plan.methods)
            for request in (request_for(plan.base, self._place, method, item, seed),)
        ]
        self.judge: dict[str, Any] = (
            work.look_at_judge(plan.judge)
            if plan.judge.remote
            else self._call(work.look_at_judge, plan.judge)
        )

    @property
    def place(self) -> Place:
        """What the model comes to."""
        return self._place

    def run(self) -> dict[str, Any]:
        """Draws and asks what is missing; the numbers and the list of pictures as JSON."""
        self._draw()
        questions = [self._question(cell) for cell in self._cells]
        self._ask(questions)
        return self._results(questions)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments) if self._cluster is None else self._cluster.call(function, *arguments)

    def _draw(self) -> None:
        wanted = {cell.key: cell for cell in self._cells}
        missing = {key: cell for key, cell in wanted.items() if not self._store.has_picture(key)}
        if not missing:
            return
        note(_begin("drawing", len(missing), len(wanted), "pictures"), prefix="")
        progress = Progress(len(missing), "pictures", bars=False)
        base, place = self._plan.base, self._place
        if self._cluster is None:
            for key, cell in missing.items():
                label = progress.label(self._plan.methods[cell.method].name)
                self._store.keep_picture(key, work.draw(base, place, cell.request, label))
                progress.done()
            return
        units = _by_unit((cell.seed, cell.item, key) for key, cell in missing.items())
        tasks = [(base, place, [missing[key].request for key in keys]) for keys in units]
        for number, contents in self._cluster.each(work.draw_all, tasks):
            for key, content in zip(units[number], contents, strict=True):
                self._store.keep_picture(key, content)
            progress.done(len(contents))

    def _question(self, cell: _Cell) -> _Question:
        item = self._plan.items[cell.item]
        asked = {
            "picture": hashlib.sha256(self._store.picture(cell.key)).hexdigest(),
            "judge": self.judge,
            "question": self._plan.judge.asked(item),
        }
        return _Question(digest(asked), asked, cell.key, item)

    def _ask(self, questions: Sequence[_Question]) -> None:
        wanted = {question.key: question for question in questions}
        missing = {key: question for key, question in wanted.items() if self._is_missing(key)}
        if not missing:
            return
        note(_begin("asking about", len(missing), len(wanted), "pictures"), prefix="")
        progress = Progress(len(missing), "answers", bars=False)
        if self._cluster is not None and not self._plan.judge.remote:
            self._ask_cluster(questions, missing, progress)
        elif self._plan.judge.remote and self._plan.jobs > 1:
            self._ask_at_once(missing, progress)
        else:
            for question in missing.values():
                self._ask_one(question)
                progress.done()

    def _is_missing(self, key: str) -> bool:
        answer = self._store.answer(key)
        return answer is None or (self._plan.ask_again and None in answer.values)

    def _ask_one(self, question: _Question) -> None:
        picture = self._store.picture(question.picture)
        self._keep(question, work.ask(self._plan.judge, picture, question.item))

    def _keep(self, question: _Question, answer: Answer) -> None:
        self._store.keep_answer(question.key, answer, question.asked)

    def _ask_at_once(self, missing: dict[str, _Question], progress: Progress) -> None:
        work.judge_for(self._plan.judge)  # before the threads: it is held once
        pool = ThreadPoolExecutor(self._plan.jobs)
        try:
            for done in as_completed([pool.submit(self._ask_one, question) for question in missing.values()]):
                done.result()
                progress.done()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask_cluster(
        self, questions: Sequence[_Question], missing: dict[str, _Question], progress: Progress
    ) -> None:
        assert self._cluster is not None
        places: dict[str, tuple[int, int]] = {}
        for cell, question in zip(self._cells, questions, strict=True):
            places.setdefault(question.key, (cell.seed, cell.item))
        units = _by_unit((*places[key], key) for key in missing)

        def tasks() -> Iterator[tuple[Any, ...]]:
            for keys in units:
                pictures = [self._store.picture(missing[key].picture) for key in keys]
                yield self._plan.judge, self.judge, pictures, missing[keys[0]].item

        for number, answers in self._cluster.each(work.ask_all, tasks()):
            for key, answer in zip(units[number], answers, strict=True):
                self._keep(missing[key], answer)
            progress.done(len(answers))

    def _results(self, questions: Sequence[_Question]) -> dict[str, Any]:
        plan = self._plan
        values = np.full((len(plan.methods), len(plan.items), len(plan.seeds), len(QUESTIONS)), np.nan)
        pictures, answers = [], []
        for cell, question in zip(self._cells, questions, strict=True):
            answer = self._store.answer(question.key)
            answers.append(answer)
            told = (None,) * len(QUESTIONS) if answer is None else answer.values
            values[cell.method, cell.item, cell.seed] = [np.nan if x is None else x for x in told]
            pictures.append(
                {
                    "prompt": question.item.prompt,
                    "missing_element": question.item.missing_element,
                    "method": plan.methods[cell.method].name,
                    "seed": plan.seeds[cell.seed],
                    "picture": self._store.picture_path(cell.key).name,
                    **dict(zip(QUESTIONS, told, strict=True)),
                }
            )
        return {
            **summary([method.name for method in plan.methods], values),
            "pictures": pictures,
            "unread_reply": example(answers),
        }


def _by_unit(cells: Iterator[tuple[int, int, str]]) -> list[list[str]]:
    """The keys of each seed and prompt together, in order."""
    units: dict[tuple[int, int], list[str]] = {}
    for seed, item, key in cells:
        units.setdefault((seed, item), []).append(key)
    return list(units.values())


def _begin(does: str, missing: int, all_of_them: int, what: str) -> str:
    kept = f" ({all_of_them - missing} are kept from before)" if missing < all_of_them else ""
    return f"{does} {missing} {what}{kept}"
