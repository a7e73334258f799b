"""What happens at a press in the Image tab, called as gradio calls it, with a worker that draws when told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

gr = pytest.importorskip("gradio")

from pictures import noise, save  # noqa: E402

from vsf_lib.images.asked import Asked  # noqa: E402
from vsf_lib.images.row import Row  # noqa: E402
from vsf_lib.jobs import messages  # noqa: E402
from vsf_lib.studio.desk import ImageDesk  # noqa: E402
from vsf_lib.studio.ui.tab import ImageTab  # noqa: E402

SKIP = gr.skip()


class Brush:
    """A worker that has begun to draw, and goes on when the test says so."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.alive = True

    def draw(
        self,
        asked: Asked,
        folder: Path,
        look: Callable[[messages.Event], None],
        stopped: Callable[[], bool],
    ) -> messages.Event:
        look(messages.Progress("drawing", 1, 8))
        while not self.may_end.wait(0.01):
            if stopped():
                return messages.Cancelled()
        path = save(folder / "drawn.png", noise(np.random.default_rng()))
        return messages.Drawn(str(path), "", 0.0)

    def close(self) -> None: ...


@pytest.fixture
def brush() -> Brush:
    return Brush()


@pytest.fixture
def tab(tmp_path: Path, brush: Brush) -> Iterator[ImageTab]:
    def row(folder: Path, **others: Any) -> Row:
        return Row(folder, worker=lambda: brush, **others)  # type: ignore[arg-type, return-value]

    desk = ImageDesk(tmp_path / "outputs", row=row)
    with gr.Blocks() as blocks:
        made = ImageTab(desk)
        made.connect(blocks)
    yield made
    brush.may_end.set()
    desk.close()


def press(tab: ImageTab, **values: Any) -> str:
    """Generate; gives the key of the job."""
    form = {name: element.value for name, element in tab._form.elements.items()} | values
    said, *_, key = tab._begin(False, *form.values())
    assert "error" not in said
    return str(key)


def said(steps: Iterator[list[Any]], words: str) -> list[Any]:
    """The first step that says so."""
    return next(step for step in steps if words in str(step[0]))


def test_a_page_that_is_loaded_anew_follows_its_job_and_may_cancel_it(tab: ImageTab) -> None:
    key = press(tab)
    before = tab._follow(key)
    said(before, "step 1 of 8")
    after = tab._take_up(key, "")
    first = next(after)
    assert "step 1 of 8" in first[0]
    assert (first[1]["interactive"], first[3]["interactive"], first[4]) == (False, True, key)
    tab._cancel(key)
    for steps in (after, before):
        *_, last = steps
        assert "cancelled" in last[0]
        assert (last[1]["interactive"], last[3]["interactive"], last[4]) == (True, False, "")


def test_a_job_is_taken_up_by_a_new_tab_when_its_own_is_gone(tab: ImageTab, brush: Brush) -> None:
    key = press(tab)
    page = tab._follow(key)
    next(page)
    (alone,) = tab._take_up("", key)
    assert alone == [SKIP] * len(alone), "two tabs of a browser draw each their own"
    page.close()  # as gradio does when a visitor leaves
    taken = tab._take_up("", key)
    assert key in next(taken)
    brush.may_end.set()
    *_, last = taken
    assert str(last[-3]).endswith("drawn.png")
    assert not tab._followed


def test_what_has_ended_or_is_of_another_run_is_not_taken_up(tab: ImageTab, brush: Brush) -> None:
    key = press(tab)
    brush.may_end.set()
    *_, last = tab._follow(key)
    width = len(last)
    for own, other in ((key, key), ("", ""), ("0123456789abcdef", "1"), ("1", "1")):
        assert [*tab._take_up(own, other)] == [[SKIP] * width], (own, other)
    assert tab._cancel("1") is not None, "nothing of another's is cancelled, and nothing raised"


def test_a_refused_job_is_told_and_nothing_is_followed(tab: ImageTab) -> None:
    form = {name: element.value for name, element in tab._form.elements.items()} | {"seed": 1.5}
    told, *_, key = tab._begin(False, *form.values())
    assert "seed is 1.5, but must be a whole number" in told
    assert key == ""
    ((*same,),) = tab._follow(key)
    assert same == [SKIP] * len(same), "what was said stays"


def test_an_entry_whose_file_is_gone_says_so_and_leaves_the_history(tab: ImageTab, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    files = [save(tmp_path / "outputs" / f"x-{number}.png", noise(rng), age=number) for number in range(3)]
    paths = list(map(str, files))
    chosen = SimpleNamespace(index=1)
    *shown, path, _, _ = tab._choose(paths, chosen)  # type: ignore[arg-type]
    assert path == paths[1]
    files[1].unlink()
    for update in (tab._choose(paths, chosen), tab._view(paths[1], "Where it acts")):  # type: ignore[arg-type]
        caption, gallery, listed = update[3], *update[-2:]
        assert "x-1.png is not there any more" in caption
        assert "vsf-error" in caption
        assert listed == [paths[0], paths[2]]
        assert len(gallery) == 2
    assert shown[3] != caption
