"""Which of a job's files its parts come from, and whether they go together, told by their headers.

Owns what has to be given beside a single file. Reads no weights and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import ModelError
from vsf_lib.scenes.model import WAN
from vsf_lib.video.job import VideoJob
from vsf_lib.video.single_file import text_encoder as text_file
from vsf_lib.video.single_file import transformer as transformer_file
from vsf_lib.video.single_file import vae as vae_file
from vsf_lib.video.single_file.headers import GGUF, SAFETENSORS
from vsf_lib.video.single_file.weights import Part


@dataclass(frozen=True)
class Files:
    """The parts that do not come from the model's folder."""

    transformer: Part | None
    vae: Part | Path | None
    text: text_file.Text | None


def look(job: VideoJob) -> Files:
    """What the job's files are, by their headers; raises ModelError for what cannot be used."""
    alone = is_file(job.model)
    if alone and Path(job.model).suffix.lower() not in (SAFETENSORS, GGUF):
        raise ModelError(
            f"{Path(job.model).name} is no {SAFETENSORS} or {GGUF} file: other formats can run code, so none "
            "is read; give a folder in diffusers' format, or a transformer's file"
        )
    if alone and not (job.vae and job.text_encoder):
        wanted = [
            f"the {name} (such as {such})"
            for name, given, such in (
                ("VAE", job.vae, "wan_2.1_vae.safetensors"),
                ("text encoder", job.text_encoder, "umt5_xxl_fp16.safetensors"),
            )
            if not given
        ]
        raise ModelError(
            f"the model {Path(job.model).name} is one file, with the transformer alone: give "
            f"{' and '.join(wanted)} too"
        )
    files = Files(
        transformer_file.look(Path(job.model).expanduser()) if alone else None,
        vae_file.look(job.vae) if job.vae else None,
        text_file.look(job.text_encoder) if job.text_encoder else None,
    )
    if files.transformer is not None:
        transformer_file.check_reader(files.transformer)
    if files.transformer is not None and files.text is not None and isinstance(files.text.encoder, Part):
        reads, gives = files.transformer.config["text_dim"], files.text.encoder.config["d_model"]
        if reads != gives:
            raise ModelError(
                f"{Path(job.model).name} reads texts of {reads} channels, but {Path(job.text_encoder).name} "
                f"gives {gives}: the text encoder is another model's"
            )
    return files


def is_file(model: str) -> bool:
    """Whether a job's model is the file of a transformer, there or not, rather than a folder or a hub id."""
    if model == WAN:
        return False
    path = Path(model).expanduser()
    return path.is_file() or (not path.exists() and path.suffix.lower() in (SAFETENSORS, GGUF))
