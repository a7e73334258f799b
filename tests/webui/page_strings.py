"""Every English text of ours that a WebUI's page shows and that a language file can translate.

The WebUI replaces whole texts of its page: labels, help, choices, buttons, placeholders, and messages without
values in them. They are gathered from the elements as built, and the messages from the code.
`python tests/webui/page_strings.py` writes the template anew and says what each language lacks.
"""

from __future__ import annotations

import ast
import html
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "docs" / "localization-template.json"
LANGUAGES = ROOT / "localizations"
_SPOKEN = (
    "vsf_lib/controls.py",
    "vsf_lib/pages/suggestions.py",
    "vsf_lib/video/ui",
    "vsf_lib/video/desk.py",
    "vsf_lib/video/job.py",
    "vsf_lib/video/lora.py",
    "vsf_lib/webui/support.py",
)
"""Code whose messages reach the page as they are."""
_NAMES = re.compile(r"VSF|vsf|nag|nasa|wan|mp4|webm|gif|png|LoRAs|[\w.-]+/[\w./-]+")
"""What is the same in every language."""
_PARTS = frozenset({
    "text encoder", "the last one", "its file is gone", "the job", "VSF frames", "VSF fps", "VSF flow shift",
    "VSF dropped frames", "VSF loras", "VSF VAE", "VSF text encoder", "the video", "its folder",
    "nobody has measured it",
})  # fmt: skip
"""What the page shows only as part of something longer."""


def gather() -> list[str]:
    """In the order of the page: panel, settings, axes, sweep, video tab, messages."""
    from vsf_lib.settings import fields

    unsaid = _PARTS | {field.name for field in fields()}  # a field's own name is none of a language
    found = [*_panel(), *_options(), *_axes(), *_sweep(), *_video(), *_messages()]
    kept = [
        text
        for text in found
        if re.search("[A-Za-z]{2}", text) and not _NAMES.fullmatch(text) and text not in unsaid
    ]
    return list(dict.fromkeys(kept))


def template() -> dict[str, str]:
    return {text: text for text in gather()}


def load(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _panel() -> Iterator[str]:
    import gradio as gr

    @contextmanager
    def accordion(value: bool, *, label: str, elem_id: str) -> Iterator[Any]:
        with gr.Accordion(label):
            yield gr.Checkbox(value, label=label)

    components = ModuleType("modules.ui_components")
    components.InputAccordion = accordion  # type: ignore[attr-defined]
    with _host(ui_components=components):
        from vsf_lib.webui import panel

        with gr.Blocks() as blocks:
            panel.build(lambda name: name)
    yield from _elements(blocks)


def _options() -> Iterator[str]:
    said: list[str] = []

    class OptionInfo:
        def __init__(
            self, default: Any, label: str, kind: Any = None, arguments: Any = None, section: Any = ("", "")
        ) -> None:
            said.extend([section[1], label, *(arguments or {}).get("choices", ())])

        def info(self, text: str) -> OptionInfo:
            said.append(f"({text})")  # as the hosts show it
            return self

    opts = SimpleNamespace(add_option=lambda name, option: None)
    with _host(shared=SimpleNamespace(opts=opts, OptionInfo=OptionInfo)):
        from vsf_lib.webui import options

        options.add()
    yield from said


def _axes() -> Iterator[str]:
    from vsf_lib.webui.axes import axes

    for axis in axes():
        yield axis.label


def _sweep() -> Iterator[str]:
    import gradio as gr

    from vsf_lib.webui import sweep_panel
    from vsf_lib.webui.sweep_request import TITLE

    with gr.Blocks() as blocks:
        sweep_panel.build(lambda name: name)
    yield from (TITLE, *_elements(blocks))


def _video() -> Iterator[str]:
    from vsf_lib.video.desk import Desk, Places, Rights
    from vsf_lib.video.ui.page import build
    from vsf_lib.webui.video_host import ForgeSurroundings

    # As it is shipped, also where the small model is not trained yet.
    there = patch("vsf_lib.video.builtin.is_there", lambda: True)
    with tempfile.TemporaryDirectory() as folder, there:
        places = Places(Path(folder) / "data", Path(folder) / "videos")
        for rights in (Rights(), Rights(install=False)):
            desk = Desk(places, rights, around=ForgeSurroundings())
            yield from _elements(build(desk))
            desk.close()


def _elements(blocks: Any) -> Iterator[str]:
    for component in blocks.config["components"]:
        props, kind = component["props"], component["type"]
        if kind in ("html", "markdown", "button"):
            shown = re.split(r"<[^>]*>", str(props.get("value") or ""))
            yield from (html.unescape(text).strip() for text in shown)
            continue
        for name in ("label", "info", "placeholder"):
            if isinstance(props.get(name), str):
                yield props[name]
        for choice in props.get("choices") or ():
            yield str(choice[0] if isinstance(choice, list | tuple) else choice)


def _messages() -> Iterator[str]:
    for place in _SPOKEN:
        path = ROOT / place
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            yield from _sentences(ast.parse(file.read_text(encoding="utf-8")))


def _sentences(tree: ast.AST) -> Iterator[str]:
    """Its strings of several words, but for docstrings and parts of formatted ones."""
    passed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            passed |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            text = node.value.strip()
            if " " in text and not re.search(r"[<{\\]|^[,:(]", text) and re.match("[A-Za-z]", text):
                yield text


@contextmanager
def _host(**parts: Any) -> Iterator[None]:
    """Modules of a host, as far as building a page asks for them."""
    modules = ModuleType("modules")
    given = {"shared": SimpleNamespace(opts=SimpleNamespace()), **parts}
    for name, part in given.items():
        setattr(modules, name, part)
    named = {"modules": modules, **{f"modules.{name}": part for name, part in given.items()}}
    import_module("vsf_lib.webui.request")  # and torch with it, which cannot be loaded twice: see below
    with patch.dict(sys.modules, named):  # forgets what is loaded meanwhile
        yield


if __name__ == "__main__":
    texts = template()
    TEMPLATE.write_text(json.dumps(texts, ensure_ascii=False, indent=4) + "\n", encoding="utf-8")
    for language in sorted(LANGUAGES.glob("*.json")):
        there = load(language)
        for text in (text for text in texts if text not in there):
            sys.stdout.write(f"{language.name} lacks: {text}\n")
        for text in (text for text in there if text not in texts):
            sys.stdout.write(f"{language.name} has what is gone: {text}\n")
