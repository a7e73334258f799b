"""What a judge is asked, and what its replies are taken for: never a yes or a no that it did not say."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence

import pytest
from PIL import Image

from vsf_lib.bench.neggen.asking import REMINDER, SIDE, TRIES, ask, question, read_reply, scaled
from vsf_lib.bench.neggen.prompts import Item

ITEM = Item("A zebra.", "stripes", "Does the picture show a zebra?", "Are the stripes missing?")
NOTHING = (None, None, None)


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"answer_1": true, "answer_2": false, "quality": 0.7}', (True, False, 0.7)),
        ('```json\n{"answer_1": false, "answer_2": true, "quality": 1}\n```', (False, True, 1.0)),
        ('{"answer_1": "Yes", "answer_2": " no ", "quality": "0.5"}', (True, False, 0.5)),
        (
            '<think>{"answer_1": false, "answer_2": true, "quality": 0}? No.</think>\n'
            '{"reasoning": "a {zebra}", "answer_1": true, "answer_2": false, "quality": 0.3}',
            (True, False, 0.3),
        ),
        ("answer_1: yes\nanswer_2: **No**\nquality: 0.8", (True, False, 0.8)),
        ("**answer_1**: True, **answer_2**: False, **quality**: .5", (True, False, 0.5)),
        ('{"answer_1": true, "quality": 0.5}', (True, None, 0.5)),
        ('{"answer_1": 1, "answer_2": 0, "quality": true}', NOTHING),
        ('{"answer_1": "maybe", "answer_2": null, "quality": 7}', NOTHING),
        ('{"answer_1": "true or false", "answer_2": [true], "quality": {"of": 1}}', NOTHING),
        ('{"answer_1": true, "answer_2": false, "quality": NaN}', (True, False, None)),
        ('{"answer_1": true, "answer_2": false, "quality": -0.1}', (True, False, None)),
        ("answer_1: yes. Or rather answer_1: no. answer_2: no", (None, False, None)),
        ("Yes, it shows a zebra, and no, the stripes are there.", NOTHING),
        ("true\nfalse", NOTHING),
        ('{"answer_1": true, "answer_2": fal', (True, None, None)),
        ("answer_1: yes, answer_2: no, quality: 0.9/1", (True, False, None)),
        ("answer_1: yesterday, answer_2: no, quality: 0.85.", (None, False, 0.85)),
        ("answer_1: yes/no, answer_2: false | true, quality: 0 or 1", NOTHING),
        (REMINDER, NOTHING),
        (question(ITEM), NOTHING),
        ("I cannot help with that.", NOTHING),
        ("", NOTHING),
        ("{" * 50_000, NOTHING),
        ('{"answer_1":' * 5_000, NOTHING),
        ('{"answer_1": true, "answer_2": true, "quality": 1e999}', (True, True, None)),
        ('{"answer_1": true, "answer_2": true, "quality": ' + "9" * 5000 + "}", (True, True, None)),
    ],
)
def test_replies_are_read_for_what_they_say(
    text: str, read: tuple[bool | None, bool | None, float | None]
) -> None:
    got = read_reply(text)
    assert got == read
    assert [type(x) for x in got] == [type(x) for x in read]


def test_any_answer_comes_back_however_it_is_wrapped() -> None:
    generator = random.Random(random.SystemRandom().randrange(2**31))
    for _ in range(200):
        truth = (generator.random() < 0.5, generator.random() < 0.5, round(generator.random(), 1))
        content = dict(zip(("answer_1", "answer_2", "quality"), truth, strict=True))
        content["reasoning"] = "".join(generator.choices('ab{}"\\\n:', k=20))
        names = list(content)
        generator.shuffle(names)
        text = json.dumps({name: content[name] for name in names}, indent=generator.choice([None, 2]))
        assert (
            read_reply(generator.choice(["", "So:\n", "{}"]) + text + generator.choice(["", "\n```"]))
            == truth
        )


def test_the_question_holds_both_and_which_way_yes_is() -> None:
    text = question(ITEM)
    assert text.index(ITEM.question_1) < text.index(ITEM.question_2) < text.index("quality:")
    assert "true if it is missing" in text
    assert ITEM.prompt not in text, "the judge is asked what it sees, not what was wanted"


class Scripted:
    def __init__(self, *replies: str) -> None:
        self._replies = list(replies)
        self.heard: list[list[str]] = []

    def reply(self, picture: bytes, turns: Sequence[str]) -> str:
        self.heard.append(list(turns))
        return self._replies.pop(0)


def test_what_cannot_be_read_is_asked_again_and_then_stays_unread() -> None:
    judge = Scripted("Well.", '{"answer_1": true}', "I said so.")
    answer = ask(judge, png(8, 8), ITEM)
    assert (answer.positive, answer.negative, answer.quality) == (True, None, None)
    assert answer.values == (1.0, None, None)
    assert list(answer.replies) == ["Well.", '{"answer_1": true}', "I said so."]
    first = [question(ITEM)]
    assert judge.heard == [
        first,
        [*first, "Well.", REMINDER],
        [*first, "Well.", REMINDER, '{"answer_1": true}', REMINDER],
    ]
    assert len(judge.heard) == TRIES


def test_a_reply_that_can_be_read_is_not_asked_for_again() -> None:
    judge = Scripted('{"answer_1": false, "answer_2": true, "quality": 0}')
    assert ask(judge, png(8, 8), ITEM).values == (0.0, 1.0, 0.0)
    assert len(judge.heard) == 1


def test_the_first_word_on_a_question_counts() -> None:
    judge = Scripted(
        '{"answer_1": true, "quality": 0.5}', '{"answer_1": false, "answer_2": true, "quality": 1}'
    )
    assert ask(judge, png(8, 8), ITEM).values == (1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((64, 64), (SIDE, SIDE)),
        ((1024, 768), (SIDE, 336)),
        ((300, 1200), (112, SIDE)),
        ((4000, 1), (SIDE, 1)),
    ],
)
def test_every_picture_is_shown_at_one_size(size: tuple[int, int], seen: tuple[int, int]) -> None:
    for mode in ("RGB", "L", "RGBA"):
        with Image.open(io.BytesIO(scaled(png(*size, mode)))) as shown:
            assert (shown.size, shown.mode) == (seen, "RGB")
