"""`python -m vsf_lib studio`: the page on its own, until Ctrl-C.

Owns where the page keeps things: in folders below the current one that are named as in the WebUIs.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vsf_lib.cli.console import note
from vsf_lib.cli.download import LORAS, MODELS
from vsf_lib.cli.output import DEFAULT as PICTURES
from vsf_lib.cli.video import FOLDER
from vsf_lib.errors import SettingsError
from vsf_lib.video.single_file import kinds

DATA = Path("outputs", "video-queue")
FILES = {
    kinds.TRANSFORMER: Path("models", "diffusion_models"),
    kinds.VAE: Path("models", "VAE"),
    kinds.TEXT_ENCODER: Path("models", "text_encoder"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """The page's own options."""
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any free one")
    parser.add_argument(
        "--listen",
        action="store_true",
        help="let other machines in, too; installing, downloading, deleting and free paths are then off",
    )
    parser.add_argument("--browser", action="store_true", help="open the page in this machine's browser")


def run(args: Namespace) -> int:
    """Serves until it is interrupted."""
    from vsf_lib.studio import HOST, open_page
    from vsf_lib.studio.desk import ImageDesk
    from vsf_lib.video.desk import Desk, Places, Rights

    if not 0 <= args.port < 65536:
        raise SettingsError(f"--port is {args.port}, but must be 0 to 65535: try 7860")
    local = not args.listen
    images = ImageDesk(Path(PICTURES).absolute(), MODELS.absolute(), paths=local)
    desk = Desk(
        Places(
            data=DATA.absolute(),
            outputs=Path(FOLDER).absolute(),
            models=MODELS.absolute(),
            loras=LORAS.absolute(),
            files=tuple(folder.absolute() for folder in FILES.values()),
            downloads={kind: folder.absolute() for kind, folder in FILES.items()},
        ),
        Rights(
            install=local,
            paths=local,
            delete=local,
            open_folder=local,
            privately="start the studio without --listen",
        ),
        around=images.around,
    )
    try:
        with open_page(
            desk, images, host=HOST if local else "0.0.0.0", port=args.port, browser=args.browser
        ) as address:
            note(f"the page is at {address} (Ctrl-C ends it)", prefix="")
            _ = images.row, desk.runner  # to be ready for the first visitor, and for jobs that were left
            while True:
                time.sleep(1)  # not longer: Windows hears Ctrl-C only in between
    except KeyboardInterrupt:
        note("ended; jobs that wait go on the next time", prefix="")
    finally:
        images.close()
        desk.close()
    return 0
