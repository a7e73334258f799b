"""What javascript/vsf.js does, and leaves alone, in a page that others share: needs selenium and Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browsing

SCRIPT = Path(__file__).parents[2] / "javascript" / "vsf.js"
_PAGE = """<!doctype html><meta charset="utf-8"><script>{script}</script>
<div id="ours"><div class="vsf-typed"><input type="number" id="typed"><input type="text" id="text"></div>
<div class="vsf-drop" id="zone"><input type="file" id="file"></div></div>
<input type="number" id="other"><p id="beside">beside</p>"""
_BLUR = """
const field = document.getElementById(arguments[0]);
let heard = false;
field.addEventListener('blur', () => { heard = true; });
field.focus();
field.blur();
return heard;
"""
_DRAG = """
const [kind, onto, type] = arguments;
const data = new DataTransfer();
if (type === 'Files') data.items.add(new File(['x'], 'a.png')); else data.setData('text/plain', 'x');
const event = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: data});
document.getElementById(onto).dispatchEvent(event);
return [event.defaultPrevented, document.getElementById('file')?.files.length ?? 0];
"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    file = tmp_path / "page.html"
    file.write_text(_PAGE.format(script=SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
    with browsing(file.as_uri()) as driver:
        yield driver.execute_script


def test_only_our_numbers_do_not_hear_that_they_lose_the_focus(page: Any) -> None:
    assert [page(_BLUR, name) for name in ("typed", "text", "other")] == [False, True, True]


def test_a_file_that_is_dropped_beside_the_zone_counts_as_in_it(page: Any) -> None:
    page("window.told = 0; document.getElementById('file').onchange = () => { told += 1; };")
    assert page(_DRAG, "dragover", "beside", "Files") == [True, 0]
    assert page(_DRAG, "drop", "beside", "Files") == [True, 1]
    assert page("return told") == 1


def test_a_file_does_not_open_in_the_page_s_place_while_the_zone_holds_another(page: Any) -> None:
    page("document.getElementById('file').remove()")
    for kind in ("dragover", "drop"):
        assert page(_DRAG, kind, "beside", "Files") == [True, 0], kind


def test_what_is_dragged_for_others_is_left_to_them(page: Any) -> None:
    for kind in ("dragover", "drop"):
        assert page(_DRAG, kind, "beside", "text") == [False, 0], kind
    page("document.getElementById('beside').ondrop = (event) => event.preventDefault()")
    assert page(_DRAG, "drop", "beside", "Files") == [True, 0], "another has taken it"
    page("document.getElementById('ours').style.display = 'none'")
    for kind in ("dragover", "drop"):
        assert page(_DRAG, kind, "typed", "Files") == [False, 0], "another tab is open"
