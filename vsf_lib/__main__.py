"""`python -m vsf_lib`."""

from __future__ import annotations

import sys

from vsf_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
