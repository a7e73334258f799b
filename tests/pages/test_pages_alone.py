"""Who may know whom: the pages' common parts know no page, and what a desk knows is no gradio."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from vsf_lib import pages

_CODE = """
import importlib, sys
heavy, *names = sys.argv[1:]
for name in names:
    importlib.import_module(name)
print([name for name in sys.modules if name.startswith(tuple(heavy.split()))])
"""


def _imported(heavy: str, *names: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _CODE, heavy, *names], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_part_of_it_knows_a_page_a_host_or_what_makes_something() -> None:
    pytest.importorskip("gradio")
    names = [module.name for module in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}.")]
    assert "vsf_lib.pages.suggestions" in names
    others = "vsf_lib.video vsf_lib.studio vsf_lib.webui vsf_lib.images vsf_lib.jobs modules. torch"
    assert _imported(others, *names) == "[]"


@pytest.mark.parametrize(
    "name",
    ["vsf_lib.pages.numbers", "vsf_lib.pages.said", "vsf_lib.pages.words", "vsf_lib.video.desk",
     "vsf_lib.studio.desk"],
)  # fmt: skip
def test_desks_and_what_they_use_know_no_gradio_and_load_no_torch(name: str) -> None:
    assert _imported("gradio torch diffusers", name) == "[]"
