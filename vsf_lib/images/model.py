"""Which model is meant, and whether its folder is whole, found out without torch and before it is loaded.

Owns the reading of a diffusers folder's own files (its index, configurations and the heads of its weights),
so that a missing or cut off file is named within milliseconds. Does not load a model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.images.single_file import FLUX, SD3, SUFFIX, SingleFile, inspect_file, read_head
from vsf_lib.program import program
from vsf_lib.scenes.model import FOLDER, MODELS, NAME, WAN, meant

PIPELINES = {SD3: "Stable Diffusion 3 and 3.5", FLUX: "Flux.1"}
INDEX = "model_index.json"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NEEDED = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_HALF = "fp16"
_FLUX_TIMES = 4
"""How many times its own size Flux may draw. Its positions have no end, but its sense of form has."""
_FLUX_LATENT = 128
"""The own size of Flux in latents."""
_PUBLISHED = {
    SD3: "such as stabilityai/stable-diffusion-3.5-large-turbo for that model",
    FLUX: "such as black-forest-labs/FLUX.1-schnell for schnell",
}
_VIDEOS = "that is a built-in model of videos, for {}. Otherwise "
_EXAMPLE = "stabilityai/stable-diffusion-3.5-large-turbo"


@dataclass(frozen=True)
class Folder:
    """A diffusers folder that has all its files."""

    path: Path
    pipeline: str
    """The pipeline's class, one of `PIPELINES`."""
    sequence_length: int
    """How many tokens of a prompt T5 reads."""
    distilled: bool
    """Whether it takes distilled guidance, as Flux dev does and schnell does not."""
    variant: str | None
    """fp16 where the weights exist in that variant only."""
    absent: tuple[str, ...]
    """Parts that the index lists as left out, such as the big T5 text encoder."""
    weights: int
    """Bytes of all weights."""
    own_size: int
    multiple: int
    largest: int
    file: SingleFile | None = None
    """Where the transformer's weights are, if not in the folder."""

    @property
    def flux(self) -> bool:
        """Whether it is a Flux model."""
        return self.pipeline == FLUX

    def size(self, asked: tuple[int, int] | None) -> tuple[int, int]:
        """The size to draw, by default the model's own; raises SettingsError if the model cannot draw it."""
        if asked is None:
            return self.own_size, self.own_size
        for name, value in zip(("width", "height"), asked, strict=True):
            if value < self.multiple or value > self.largest or value % self.multiple:
                raise SettingsError(
                    f"the {name} is {value}, but this model draws multiples of {self.multiple} up to "
                    f"{self.largest}: try --size {self._nearest(asked[0])}x{self._nearest(asked[1])}"
                )
        return asked

    def _nearest(self, value: int) -> int:
        rounded = round(value / self.multiple) * self.multiple
        return min(max(rounded, self.multiple), self.largest // self.multiple * self.multiple)


@dataclass(frozen=True)
class Model:
    """A model that was asked for: the built-in one, a folder, a file with the folder of its other parts, or a
    Hugging Face id (`folder` None)."""

    name: str
    """What `find_model` takes to find the same again, also from another working directory."""
    folder: Folder | None
    parts: str = ""
    """Where the other parts of a single file are."""

    @property
    def built_in(self) -> bool:
        """Whether it is one of the small models that come with this package."""
        return self.name in MODELS

    def fingerprint(self) -> str:
        """Changes with the built-in model's weights; empty for others, which are too big to read twice."""
        if not self.built_in or self.folder is None:
            return ""
        digest = hashlib.sha256()
        for folder in dict.fromkeys((self.folder.path, FOLDER)):  # the small ones share their other parts
            for file in sorted(folder.rglob("*.safetensors")):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:10]


def find_model(asked: str, parts: str | None = None) -> Model:
    """The model behind `scenes`, a folder, a file or a Hugging Face id; raises ModelError for what cannot be
    one. `parts` names the folder with what a single file lacks."""
    if asked not in MODELS:
        path, is_folder, exists = _look(asked)
        if exists and not is_folder:
            return _single(path, parts)
    if parts is not None:
        raise ModelError(f"--parts goes with a single {SUFFIX} file, but the model is {_short(asked)}")
    if asked in MODELS:
        return _built_in(asked)
    if is_folder:
        return Model(_portable(path), inspect(path))
    if not _HUB_ID.fullmatch(asked):
        hint = _VIDEOS.format(program("video")) if asked == WAN else meant(asked, MODELS)
        raise ModelError(
            f"there is no model {_short(asked)}: {hint}pass {', '.join(MODELS)}, a "
            f"folder in diffusers' format, or a Hugging Face id such as {_EXAMPLE}"
        )
    return Model(asked, None)


def _built_in(name: str) -> Model:
    own = MODELS[name].folder
    if not FOLDER.is_dir():
        raise ModelError(
            f"the built-in model is not at {FOLDER}: get the whole repository again, or train it with "
            f"{program('scenes train')}"
        )
    if not own.is_dir():
        raise ModelError(
            f"the model {name} is not shipped yet: train it with {program('scenes train')} --model {name}"
        )
    whole = inspect(FOLDER)
    if name == NAME:
        return Model(name, whole)
    distilled = bool(_read_json(own / "config.json").get("guidance_embeds"))
    _, size = _weights(own, _STEMS["diffusers"])
    return Model(
        name,
        replace(whole, path=own, pipeline=FLUX, distilled=distilled, weights=whole.weights + size),
    )


def _look(asked: str) -> tuple[Path, bool, bool]:
    """The path, and whether it is a folder and there at all."""
    try:
        path = Path(asked).expanduser()
        return path, path.is_dir(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no home, a zero byte
        raise ModelError(f"cannot look for a model {_short(asked)}: {error}") from error


def _single(path: Path, parts: str | None) -> Model:
    file = inspect_file(path)
    if parts is None:
        raise ModelError(
            f"{path} is a single file, without tokenizers and configurations: name with --parts a folder in "
            "diffusers' format that has these, the text encoders and the VAE "
            f"({_PUBLISHED[file.pipeline]}; its transformer's weights may be left out)"
        )
    folder, is_folder, _ = _look(parts)
    if not is_folder:
        raise ModelError(f"--parts is {_short(parts)}, which is no folder: name one in diffusers' format")
    return Model(_portable(path), inspect(folder, file), _portable(folder))


def inspect(path: Path, file: SingleFile | None = None) -> Folder:
    """Reads what is cheap to read in a diffusers folder; raises ModelError naming the file that is wrong.

    With `file` the transformer's weights are there, and the folder gives everything else.
    """
    if not (path / INDEX).is_file():
        raise ModelError(f"{path} is no model: it has no {INDEX}; pass a folder in diffusers' format")
    index = read_index(path / INDEX)
    parts = {
        name: entry[0]
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
    }
    missing = [name for name in _NEEDED if name not in parts]
    if missing:
        raise ModelError(f"{path / INDEX} lists no {missing[0]}, which is needed to draw")
    pipeline = str(index["_class_name"])
    if file is not None:
        if file.pipeline != pipeline:
            raise ModelError(
                f"{file.path} is {PIPELINES[file.pipeline]}, but the parts in {path} are of "
                f"{PIPELINES[pipeline]}: name those of the same model"
            )
        file.check(_read_json(path / "transformer" / "config.json"), path)
    weights = {}
    for name, library in parts.items():
        if not (path / name).is_dir():
            raise ModelError(f"{path} is incomplete: it has no folder {name}; copy or download it again")
        if name.startswith("tokenizer"):
            _need_one(path / name, _TOKENIZER_FILES)
        elif name == "scheduler":
            _read_json(path / name / "scheduler_config.json")
        elif library in _STEMS and name != "feature_extractor":
            _read_json(path / name / "config.json")
            if name != "transformer" or file is None:
                weights[name] = _weights(path / name, _STEMS[library])
    return Folder(
        path=path,
        pipeline=pipeline,
        absent=tuple(name for name, entry in index.items() if entry == [None, None]),
        variant=_variant(path, {name: half for name, (half, _) in weights.items()}),
        weights=sum(size for _, size in weights.values()) + (file.size if file else 0),
        file=file,
        **_told(path, pipeline),
    )


def read_index(file: Path) -> dict[str, Any]:
    """What a model_index.json says; raises ModelError unless it is of a pipeline that can be guided."""
    index = _read_json(file)
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        known = " and ".join(f"{name} ({title})" for name, title in PIPELINES.items())
        raise ModelError(f"{file} is of a {kind}, but only {known} are supported")
    return index


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else name[:197] + "...")


def _portable(path: Path) -> str:
    """Absolute, but without the name of who is at home here."""
    absolute = path.resolve()
    try:
        return f"~/{absolute.relative_to(Path.home().resolve()).as_posix()}"
    except (RuntimeError, ValueError):
        return absolute.as_posix()


def _told(path: Path, pipeline: str) -> dict[str, Any]:
    """What the configurations of transformer and vae say."""
    transformer = _read_json(path / "transformer" / "config.json")
    vae = _read_json(path / "vae" / "config.json")
    try:
        scale = 2 ** (len(vae["block_out_channels"]) - 1)
        return (_of_flux if pipeline == FLUX else _of_sd3)(transformer, vae, scale)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the configurations of transformer and vae in {path} lack {error}") from error


def _of_sd3(transformer: dict[str, Any], vae: dict[str, Any], scale: int) -> dict[str, Any]:
    multiple = scale * int(transformer["patch_size"])
    return {
        "sequence_length": 256,
        "distilled": False,
        "own_size": int(transformer["sample_size"]) * scale,
        "multiple": multiple,
        "largest": int(transformer["pos_embed_max_size"]) * multiple,
    }


def _of_flux(transformer: dict[str, Any], vae: dict[str, Any], scale: int) -> dict[str, Any]:
    int(transformer["num_single_layers"])  # or it is another network's
    distilled = bool(transformer.get("guidance_embeds", False))
    own = int(vae.get("sample_size", _FLUX_LATENT * scale))
    return {
        # schnell was trained with half of dev's
        "sequence_length": 512 if distilled else 256,
        "distilled": distilled,
        "own_size": own,
        "multiple": 2 * scale,
        "largest": _FLUX_TIMES * own,
    }


def _variant(path: Path, halves: dict[str, bool]) -> str | None:
    if all(halves.values()):
        return _HALF
    for name, half in halves.items():
        if half:
            raise ModelError(f"{path / name} has {_HALF} weights only, unlike the rest; download it again")
    return None


def _weights(folder: Path, stem: str) -> tuple[bool, int]:
    """Whether a part's weights are in the fp16 variant, and their bytes; raises ModelError if not whole."""
    for half in (False, True):
        single = folder / (f"{stem}.{_HALF}.safetensors" if half else f"{stem}.safetensors")
        index = folder / f"{stem}.safetensors.index{f'.{_HALF}' if half else ''}.json"
        if single.is_file():
            return half, read_head(single)[1]
        if index.is_file():
            files = sorted(set(_shards(index)))
            return half, sum(read_head(folder / file)[1] for file in files)
    raise ModelError(f"{folder / stem}.safetensors is missing: copy or download the model again")


def _shards(index: Path) -> Iterator[str]:
    table = _read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} lists no weights: copy or download the model again")
    for file in table.values():
        yield str(file)


def _need_one(folder: Path, names: tuple[str, ...]) -> None:
    if not any((folder / name).is_file() for name in names):
        raise ModelError(f"{folder} has none of {', '.join(names)}: copy or download the model again")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: copy or download the model again") from None
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{file} is damaged: {error}; copy or download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is damaged: it holds no JSON object; copy or download it again")
    return content
