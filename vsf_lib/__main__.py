"""`python -m vsf_lib`."""

from __future__ import annotations

import os
import sys

from vsf_lib.cli import INTERRUPTED, main

if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:
        # Python remembers an interrupt that passed through `exec`, as it often does within imports, and would
        # end by the signal instead of by the code.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
