"""Messages of the library in a page's words: it names flags, and a page has labels."""

from __future__ import annotations

import re

from vsf_lib.settings import fields

_FLAG = r"(?<![\w-])--(?:[a-z][a-z-]*[a-z])"
_LABELS = {
    "from-image": "the file",
    "guidance-scale": "guidance scale",
    "parts": "“Other parts”",
    "heatmap": "“Show where it acts”",
    "compare": "“Before and after”",
    "dtype": "“Precision”",
    "out": "the file",
}


def label(text: str) -> str:
    """A field's label as this page has it, without the name of the project."""
    own = text.removeprefix("VSF ")
    return own[:1].upper() + own[1:]


def on_page(message: str) -> str:
    """`message` with the page's labels in place of flags."""
    labels = {item.flag.removeprefix("--"): f"“{label(item.label)}”" for item in fields()} | _LABELS

    def named(found: re.Match[str]) -> str:
        name = found[0].removeprefix("--")
        return labels.get(name, f"“{label(name.replace('-', ' '))}”")

    message = re.sub(rf'\b(?:pass|give) ({_FLAG})( "[^"]*"|, what [^:;]*)?', r"fill in \1", message)
    message = re.sub(rf"\bwith ({_FLAG})(?= a )", r"in \1", message)
    return re.sub(_FLAG, named, message)
