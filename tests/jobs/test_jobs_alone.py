"""Jobs are of any kind: their package knows none of those that use it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from vsf_lib import jobs

_CODE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = ("torch", "vsf_lib.video", "vsf_lib.images", "vsf_lib.studio", "vsf_lib.webui", "gradio")
print([name for name in sys.modules if name in heavy or name.startswith(tuple(f"{one}." for one in heavy))])
"""


def test_every_module_of_it_imports_no_torch_and_none_that_uses_it() -> None:
    names = [module.name for module in pkgutil.walk_packages(jobs.__path__, f"{jobs.__name__}.")]
    assert "vsf_lib.jobs.messages" in names
    done = subprocess.run([sys.executable, "-c", _CODE, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
