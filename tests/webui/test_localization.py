"""The language files hold each text of the page, and only those."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("gradio")

from page_strings import LANGUAGES, TEMPLATE, gather, load, template

AGAIN = "run `python tests/webui/page_strings.py`, which writes the template and says what is missing"
_SAME = re.compile(r"(\[VSF\] |VSF )?((NAG|NASA) )?(alpha|beta|phi|tau)|Flux schnell", re.IGNORECASE)
"""What may be in another language as it is in English."""
_KEPT = re.compile(r"VSF|NAG|NASA|LoRA|Flux|SD3\.5|WebUI|Forge|CausVid|lightx2v|CFG|GPU|\d+(?:\.\d+)?")
"""Names and numbers, which no translation loses."""
_TRANSLATED = {"GPU": "显卡"}
"""Names that a language may have a word for."""


def test_the_template_holds_what_the_page_shows() -> None:
    texts, there = template(), load(TEMPLATE)
    _compare(texts, there, "the template")
    assert list(there) == list(texts), AGAIN


def test_texts_are_gathered_from_everywhere() -> None:
    """One of each kind, so that a gatherer that finds nothing is seen."""
    assert {
        "VSF negative prompt", "Custom", "[VSF] Alpha",
        "(stop: end the generation with a message; skip: go on unguided, with a notice)",
        "Video prompt", "How large is it?", "Pause the queue", "Go on with the queue",
        "no job is chosen: click one in the queue or the history", "480p portrait",
        "What the picture must not show. Empty: the WebUI's own negative prompt is used.",
    } <= set(gather())  # fmt: skip


@pytest.mark.parametrize("path", sorted(LANGUAGES.glob("*.json")), ids=lambda path: path.stem)
def test_a_language_translates_all_of_it(path) -> None:
    texts, there = template(), load(path)
    _compare(texts, there, path.name)
    same = [text for text, shown in there.items() if text == shown and not _SAME.fullmatch(text)]
    assert same == [], "not translated"
    for text, shown in there.items():
        assert shown == shown.strip() != ""
        for name in _KEPT.findall(text):
            assert name in shown or _TRANSLATED.get(name, name) in shown, (text, shown)
        for pair in ("()", "“”", "\uff08\uff09"):  # the last are those of Chinese
            assert shown.count(pair[0]) == shown.count(pair[1]), shown


def test_a_file_is_read_by_the_host_as_it_is() -> None:
    """The hosts merge the files of one name, and show the names in their settings."""
    assert [path.stem for path in sorted(LANGUAGES.iterdir())] == ["zh_CN"]
    for path in LANGUAGES.iterdir():
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
        assert len(dict(pairs)) == len(pairs), "a text stands twice"
        assert all(isinstance(part, str) for pair in pairs for part in pair)


def _compare(texts: dict[str, str], there: dict[str, str], called: str) -> None:
    """Fails with every text by which they differ."""
    wrong = [f"{called} lacks: {text}" for text in texts if text not in there]
    wrong += [f"{called} has what the page does not show: {text}" for text in there if text not in texts]
    assert not wrong, "\n".join([*wrong, AGAIN])
