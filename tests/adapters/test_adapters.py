"""The door and the table of networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_importing_the_door_imports_no_model_code() -> None:
    code = "import sys, vsf_lib.adapters; sys.exit(bool({'diffusers', 'transformers'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
