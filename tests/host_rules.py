"""The rules of a WebUI for infotext, as a scanner written here, and its own functions if there is one.

`VSF_FORGE_ROOT` names the folder of a Forge. Its functions are taken out of their source one by one, because
its module cannot be imported without the whole WebUI.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import settings

# No test here is about time, and a busy machine is slow.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FORGE_ROOT = os.environ.get("VSF_FORGE_ROOT")


class Scanner:
    """The rules, in words of our own."""

    @staticmethod
    def quote(value: object) -> str:
        text = str(value)
        return json.dumps(value, ensure_ascii=False) if {",", "\n", ":"} & set(text) else text

    @staticmethod
    def paste(infotext: str) -> dict[str, Any]:
        *lines, last = infotext.strip().split("\n")
        if len(_scan(last)) < 3:
            lines, last = [*lines, last], ""
        found: dict[str, Any] = {}
        texts, negative = ["", ""], False
        for line in lines:
            line = line.strip()
            if line.startswith("Negative prompt:"):
                negative, line = True, line[16:].strip()
            texts[negative] = f"{texts[negative]}\n{line}" if texts[negative] else line
        if "Civitai" in last and "FLUX" in last:
            for number in range(9):
                last = last.replace(f"Clip skip: {number}, ", "")
            last = last.replace("Sampler: Undefined, ", "Sampler: Euler, Schedule type: Simple, ")
            last = last.replace("CFG scale: ", "CFG scale: 1, Distilled CFG Scale: ")
        for key, value in _scan(last):
            if not value:
                continue
            if value[0] == value[-1] == '"':
                with contextlib.suppress(ValueError):
                    value = json.loads(value)
            sides = value.split("x")
            if len(sides) == 2 and all(re.fullmatch(r"\d+", side.removesuffix("\n")) for side in sides):
                found[f"{key}-1"], found[f"{key}-2"] = sides
            else:
                found[key] = value
        return {**found, "Prompt": texts[0], "Negative prompt": texts[1]}


def _scan(line: str) -> list[tuple[str, str]]:
    pairs, at = [], 0
    while at < len(line):
        pair = _pair_at(line, at)
        if pair is None:
            at += 1
        else:
            pairs.append(pair[:2])
            at = pair[2]
    return pairs


def _pair_at(line: str, at: int) -> tuple[str, str, int] | None:
    def word(index: int) -> bool:
        return index < len(line) and (line[index].isalnum() or line[index] == "_")

    def skip(index: int) -> int:
        while index < len(line) and line[index].isspace():
            index += 1
        return index

    begin = end = skip(at)
    if not word(begin):
        return None
    while word(end) or (end < len(line) and line[end] in " -/"):
        end += 1
    if end - begin < 2 or not line.startswith(":", end):
        return None
    key, value = line[begin:end], skip(end + 1)
    if line.startswith('"', value):
        close = value + 1
        while close < len(line) and line[close] != '"':
            close += 2 if line[close] == "\\" else 1
        if value + 1 < close < len(line) and line[close + 1 : close + 2] in ("", ","):
            return key, line[value : close + 1], close + 2
    comma = line.find(",", value)
    comma = len(line) if comma < 0 else comma
    return key, line[value:comma], comma + 1


class Forge:
    """The functions of a real Forge."""

    def __init__(self, root: str) -> None:
        source = (Path(root) / "modules" / "infotext_utils.py").read_text(encoding="utf-8")
        wanted = {"quote", "unquote", "parse_generation_parameters", "restore_old_hires_fix_params"}
        wanted |= {"re_param_code", "re_param", "re_imagesize"}
        tree = ast.parse(source)
        tree.body = [
            node
            for node in tree.body
            if getattr(node, "name", None) in wanted
            or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted)
            or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        ]
        options = SimpleNamespace(
            infotext_skip_pasting=[],
            infotext_styles="Ignore",
            sd_model_checkpoint="",
            forge_additional_modules=[],
            use_old_hires_fix_width_height=False,
        )
        names: dict[str, Any] = {
            "re": re,
            "json": json,
            "os": os,
            "print": lambda *_: None,
            "shared": SimpleNamespace(opts=options),
            "prompt_parser": SimpleNamespace(parse_prompt_attention=lambda _: []),
            "infotext_versions": SimpleNamespace(backcompat=lambda _: None),
            "main_entry": SimpleNamespace(module_list={}),
        }
        exec(compile(tree, "infotext_utils.py", "exec"), names)
        self.quote = names["quote"]
        self.paste = names["parse_generation_parameters"]


HOSTS: dict[str, Any] = {"scanner": Scanner()} | ({"forge": Forge(FORGE_ROOT)} if FORGE_ROOT else {})


def through(host: Any, pairs: Mapping[str, Any], prompt: str = "a cat") -> dict[str, Any]:
    """What pasting finds of `pairs` after the host wrote them under a picture, between pairs of its own."""
    before = {"Steps": 8, "Sampler": "Euler", "CFG scale": 1.0, "Seed": 7, "Size": "64x48"}
    after = {"Hashes": 'model: "a, b"', "Version": "f2.0.1"}
    values = {**before, **pairs, **after}
    line = ", ".join(key if key == value else f"{key}: {host.quote(value)}" for key, value in values.items())
    found = host.paste(f"{prompt}\nNegative prompt: dog\n{line}".strip())
    for key, value in {**before, **after}.items():
        if key != "Size":
            assert found[key] == str(value), key
    assert (found["Size-1"], found["Size-2"]) == ("64", "48")
    return found
