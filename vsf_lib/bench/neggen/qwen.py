"""A Qwen2.5-VL on this machine as judge, with an optional adapter.

Owns loading it and one reply of it, which is always its likeliest. Knows no question.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vsf_lib.cli.pictures import choose_device, why_not
from vsf_lib.errors import ModelError, is_out_of_memory

KIND = "qwen2_5_vl"
MOST_TOKENS = 512
"""Of a reply: room for a fine-tuned judge that explains itself first."""


class Qwen:
    """The model and its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor

    @classmethod
    def load(cls, name: str, adapter: str = "", device: str = "auto") -> Qwen:
        """From a folder or the hub; raises ModelError with what to do."""
        from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration

        place = choose_device(device)
        folder = folder_of(name)
        half = torch.bfloat16 if place.type in ("cuda", "mps") else torch.float32
        try:
            kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            if kind != KIND:
                raise ModelError(f"the judge {name} is of the kind {kind}, but must be a Qwen2.5-VL")
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder, torch_dtype=half, local_files_only=True
            )
            if adapter:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(folder_of(adapter)))
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, ImportError) as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"cannot load the judge {name}{f' with {adapter}' if adapter else ''}: {reason}"
            ) from error
        return cls(model.to(place), processor)

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
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = self._processor(text=[text], images=[image], return_tensors="pt").to(self._model.device)
        made = self._model.generate(
            **inputs, max_new_tokens=MOST_TOKENS, do_sample=False, temperature=None, top_p=None, top_k=None
        )
        return str(
            self._processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        )


def folder_of(name: str) -> Path:
    """The folder of that name, or the hub's model of that id, downloaded first if need be."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except Exception as error:  # the hub's client has no common base class across its versions
        raise ModelError(f"cannot get the judge {name!r}: {why_not(error)}") from error
