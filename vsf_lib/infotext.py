"""How one text becomes one infotext value, and back without loss.

Owns the line format that the WebUIs put under a picture: `Key: value, Key: value`. Knows nothing of settings,
of pictures or of any host module. The hosts' rules that matter here:

- a value with a comma, colon or newline is written as a JSON string, any other is written bare;
- on reading, whatever stands in double quotes is taken as JSON once, so a bare text in quotes loses them;
- a value `12x34` becomes two keys, one equal to its key is written without the key, an empty one is dropped;
- a line with the names of a certain picture site and of Flux is rewritten.

A text that would suffer from one of these is wrapped as a JSON array of one string, `["..."]`. That does not
start with a quote, so the hosts carry it unchanged whether or not they put it in quotes of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

WRAP = '["'
_SIZE = re.compile(r"\d+x\d+\n?\Z")
_REWRITTEN = "Civitai"
# What a text field, an editor or str.splitlines could alter on the way; \n is safe, hosts put it in quotes.
_FRAGILE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
_NEEDS_QUOTES = re.compile(r"[,:\n]")
_KEY = re.compile(r"\w[\w /-]+\Z")
_PAIR = re.compile(
    r"""\s* (?P<key> \w [\w /-]+ ) : \s*
        (?: (?P<json> " (?: [^"\\] | \\. )* " ) (?= , | \Z ) | (?P<bare> [^,]* ) ) (?: , | \Z )""",
    re.VERBOSE | re.DOTALL,
)


def encode(text: str, key: str = "") -> str:
    """The infotext value for `text` under `key`: whatever host carries it, `decode` gives `text` again."""
    plain = (
        text != ""
        and text == text.strip()
        and not text.startswith(('"', WRAP))
        and text != key
        and not _SIZE.match(text)
        and not _FRAGILE.search(text)
        and _REWRITTEN not in text
    )
    if plain:
        return text
    wrapped = json.dumps([text], ensure_ascii=False).replace(
        _REWRITTEN, f"\\u{ord(_REWRITTEN[0]):04x}{_REWRITTEN[1:]}"
    )
    return _FRAGILE.sub(lambda match: f"\\u{ord(match.group()):04x}", wrapped)


def decode(value: str) -> str:
    """The text that `encode` was given; a value that nobody wrapped is itself."""
    if value.startswith(WRAP):
        try:
            content = json.loads(value)
        except ValueError:
            return value
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], str):
            return content[0]
    return value


def printable(text: str) -> str:
    """`text` with a space for every sign that does not travel safely, for showing; not loss-free."""
    return _FRAGILE.sub(" ", text)


def is_key(name: str) -> bool:
    """Whether the hosts would recognise `name` as a key."""
    return _KEY.match(name) is not None


def write_pairs(pairs: Mapping[str, str | float]) -> str:
    """One line of pairs. Values stand as given (see `encode`), in quotes where the line needs them."""
    return ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items())


def read_pairs(line: str) -> dict[str, str]:
    """The pairs of one line, values out of their quotes but still encoded; other text is passed over."""
    return dict(_read(_PAIR.finditer(line)))


def _quoted(value: str | float) -> str:
    if not isinstance(value, str):
        # 7.0 is written 7, as the hosts do; float("7") is the same number.
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
    return json.dumps(value, ensure_ascii=False) if _NEEDS_QUOTES.search(value) else value


def _read(matches: Iterable[re.Match[str]]) -> Iterable[tuple[str, str]]:
    for match in matches:
        quoted = match["json"]
        if quoted is None:
            yield match["key"], match["bare"].rstrip()
            continue
        try:
            yield match["key"], json.loads(quoted)
        except ValueError:
            yield match["key"], quoted
