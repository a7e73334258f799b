"""What somebody should be told of a picture once its model is known, before it is drawn. Knows no torch."""

from __future__ import annotations

from vsf_lib.images.model import Folder, Model
from vsf_lib.images.request import Request
from vsf_lib.scenes.model import SIZE


def remarks(request: Request, model: Model, folder: Folder) -> list[str]:
    """Of what the model does with the request."""
    told = []
    if folder.file is not None and folder.file.more:
        told.append(f"the file's own {' and '.join(folder.file.more)} are not read, but those of --parts")
    if model.built_in and request.size not in (None, (SIZE, SIZE)):
        told.append(
            f"the {model.name} model has learnt {SIZE}x{SIZE} only: expect poor pictures at other sizes"
        )
    return told


def other_weights(request: Request, model: Model, source: str) -> list[str]:
    """Whether `source`, the file that the request repeats, was made with other weights."""
    if request.fingerprint in ("", model.fingerprint()):
        return []
    return [f"{source} was made with other weights of this model, so the picture differs"]
