"""A Qwen2.5-VL on this machine as judge, with an optional adapter.

Owns loading it and one reply of it, which is always its likeliest. Knows no question.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vsf_lib.errors import ModelError, is_out_of_memory, is_unreadable
from vsf_lib.images.loading import choose_device, why_not

KIND = "qwen2_5_vl"
MOST_TOKENS = 512
"""Of a reply: room for a fine-tuned judge that explains itself first."""


class Qwen:
    """The model, its tokenizer and its reader of pictures.

    Not transformers' processor of the three, which needs torchvision for the videos that nobody shows here.
    """

    def __init__(self, model: Any, tokenizer: Any, reader: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._reader = reader

    @classmethod
    def load(cls, name: str, adapter: str = "", device: str = "auto") -> Qwen:
        """From a folder or the hub; raises ModelError with what to do."""
        place = choose_device(device)
        folder = folder_of(name)
        check_kind(folder)
        half = torch.bfloat16 if place.type in ("cuda", "mps") else torch.float32
        try:
            from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            reader = AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder, torch_dtype=half, local_files_only=True
            )
            if adapter:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(folder_of(adapter)))
        except Exception as error:  # see is_unreadable
            if is_out_of_memory(error) or not is_unreadable(error):
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"cannot load the judge {name}{f' with {adapter}' if adapter else ''}: {reason}"
            ) from error
        if not tokenizer.chat_template:
            raise ModelError(f"the judge {name} has no chat template: it must be an instruct model")
        return cls(model.to(place), tokenizer, reader)

    @torch.inference_mode()
    def reply(self, picture: bytes, turns: Sequence[str]) -> str:
        """What it says to a PNG and a conversation, in which every second turn is its own."""
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
            image = opened.convert("RGB")
        messages = [
            {
                "role": "assistant" if place % 2 else "user",
                "content": [*([{"type": "image"}] if place == 0 else []), {"type": "text", "text": turn}],
            }
            for place, turn in enumerate(turns)
        ]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        seen = self._reader(images=[image], return_tensors="pt")
        # One place of the text for each patch that the language model gets of the picture.
        count = int(seen["image_grid_thw"].prod()) // self._reader.merge_size**2
        mark = self._tokenizer.convert_ids_to_tokens(self._model.config.image_token_id)
        words = self._tokenizer([text.replace(mark, mark * count, 1)], return_tensors="pt")
        if int((words["input_ids"] == self._model.config.image_token_id).sum()) != count:
            raise ModelError("the judge's chat template has no place for a picture: it is of another model")
        made = self._model.generate(
            input_ids=words["input_ids"].to(self._model.device),
            attention_mask=words["attention_mask"].to(self._model.device),
            pixel_values=seen["pixel_values"].to(self._model.device, self._model.dtype),
            image_grid_thw=seen["image_grid_thw"].to(self._model.device),
            max_new_tokens=MOST_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        return str(self._tokenizer.decode(made[0, words["input_ids"].shape[1] :], skip_special_tokens=True))


def check_kind(folder: Path) -> None:
    """Raises ModelError unless the folder is of a Qwen2.5-VL."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"the judge in {folder} has no config.json that can be read: {error}") from error
    if kind != KIND:
        raise ModelError(f"the judge in {folder} is of the kind {kind}, but must be a Qwen2.5-VL ({KIND})")


def folder_of(name: str) -> Path:
    """The folder of that name, or the hub's model of that id, downloaded first if need be."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        # Where the hub cannot be reached it gives what is here.
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except Exception as error:  # the hub's client has no common base class across its versions
        raise ModelError(f"cannot get the judge {name!r}: {why_not(error)}") from error
