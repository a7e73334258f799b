"""Where a WebUI of this family keeps what videos need, and what its visitors may do.

One of the modules that import `modules.*`; every import stands in the function that needs it. Loads with any
pydantic or none.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from vsf_lib.video.places import Places, Rights
from vsf_lib.video.single_file import kinds


def places() -> Places:
    """The folders of this WebUI."""
    from modules import paths_internal, shared

    models = Path(paths_internal.models_path)
    return Places(
        data=data_folder(),
        outputs=Path(paths_internal.default_output_dir) / "videos",
        models=models / "diffusers",
        loras=Path(getattr(shared.cmd_opts, "lora_dir", None) or models / "Lora"),
        files=_file_folders(models),
        downloads={
            kinds.TRANSFORMER: models / "diffusion_models",
            kinds.VAE: models / "VAE",
            kinds.TEXT_ENCODER: models / "text_encoder",
        },
    )


def data_folder() -> Path:
    """Where this WebUI keeps what belongs to videos, the packages among it."""
    from modules import paths_internal

    return Path(paths_internal.data_path) / "vsf-video"


def rights() -> Rights:
    """As the WebUI has it for extensions: a public one installs and deletes nothing."""
    from modules import shared

    public = bool(getattr(shared.cmd_opts, "disable_extension_access", False))
    hidden = bool(getattr(shared.cmd_opts, "hide_ui_dir_config", False))
    return Rights(
        install=not public,
        paths=not public,
        delete=not public,
        open_folder=not (public or hidden),
        privately="start the WebUI without --listen and --share, or with --enable-insecure-extension-access",
    )


def job_folder(seed: int, prompt: str, width: int, height: int) -> Path:
    """Below the folder for videos, as the WebUI's options for pictures say."""
    from modules import shared
    from modules.images import FilenameGenerator

    if not shared.opts.save_to_dirs:
        return Path()
    pattern = shared.opts.directories_filename_pattern or "[prompt_words]"
    size = SimpleNamespace(width=width, height=height)
    named = FilenameGenerator(None, seed, prompt, size).apply(pattern)
    return Path(named.strip(" /\\"))


def _file_folders(models: Path) -> tuple[Path, ...]:
    """Where users of this WebUI and of others keep models in parts; arguments may name more."""
    from modules import shared

    named = (getattr(shared.cmd_opts, name, None) for name in ("ckpt_dir", "vae_dir", "text_encoder_dir"))
    usual = ("diffusion_models", "unet", "Stable-diffusion", "VAE", "text_encoder", "text_encoders")
    folders = [*(models / name for name in usual), *(Path(name) for name in named if name)]
    return tuple(dict.fromkeys(folder.absolute() for folder in folders))
