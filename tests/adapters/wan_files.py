"""The tiny Wan as the folder that users have, a LoRA for it as its users get them, and Wan's parts as single
files under the names that such files have: Wan's own, ComfyUI's and Kijai's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_wan
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from tiny_sd3 import WORDS, enliven
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

WIDTH = 24
LAYERS = 2
"""Of the model that is saved as single files: its sizes must be told by its tensors, as the real one's."""


def save(folder: Path, seed: int = 0) -> Path:
    """The folder of a whole pipeline."""
    tiny_wan.make_pipeline(seed).save_pretrained(folder)
    return folder


def save_lora(file: Path, seed: int = 0, layers: int = tiny_wan.LAYERS, width: int = WIDTH) -> Path:
    """A LoRA under the keys that Kijai's files have."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(layers):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                stem = f"diffusion_model.blocks.{layer}.{attention}.{part}"
                weights[f"{stem}.lora_down.weight"] = torch.randn(4, width, generator=generator)
                weights[f"{stem}.lora_up.weight"] = torch.randn(width, 4, generator=generator) / 4
    save_file(weights, file)
    return file


def spiece(folder: Path) -> Path:
    """A sentencepiece model of the tests' words, with UMT5's special tokens."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "words.txt"
    text.write_text("\n".join(" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=400, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True, normalization_rule_name="identity",
        minloglevel=2,
    )  # fmt: skip
    return folder / "spiece.model"


def tokenizer(model: Path) -> PreTrainedTokenizerFast:
    """What a folder in diffusers' format has: the same as `model`, in the fast library's own form."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    listed = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    fast = Tokenizer(Unigram(listed, unk_id=2, byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace(prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )


def small(words: Path, seed: int = 0) -> Any:
    """A WanPipeline whose parts are small, but shaped as the real ones."""
    torch.manual_seed(seed)
    fast = tokenizer(words)
    transformer = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=128, text_dim=32, freq_dim=64, ffn_dim=160,
        num_layers=LAYERS,
    )  # fmt: skip
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(fast) + 3, d_model=32, d_kv=64, d_ff=48, num_layers=2, num_heads=2)
    )
    vae = AutoencoderKLWan(base_dim=4)
    enliven(transformer, encoder, vae, tables=("shared",))
    scheduler = tiny_wan.make_pipeline().scheduler
    return WanPipeline(
        transformer=transformer, text_encoder=encoder, tokenizer=fast, vae=vae, scheduler=scheduler
    )


@dataclass(frozen=True)
class Files:
    """The small model as a folder and as single files under the names that users have."""

    pipe: Any
    folder: Path
    words: Path
    transformer: Path
    vae: Path
    text_encoder: Path


def save_files(folder: Path, seed: int = 0) -> Files:
    """The same weights in both ways."""
    words = spiece(folder / "words")
    pipe = small(words, seed)
    pipe.save_pretrained(folder / "wan")
    return Files(
        pipe,
        folder / "wan",
        words,
        write(own_transformer(pipe.transformer.state_dict()), folder / "wan2.1_t2v.safetensors"),
        write(own_vae(pipe.vae.state_dict()), folder / "wan_2.1_vae.safetensors"),
        write(comfy_text_encoder(pipe, words), folder / "umt5_xxl_fp16.safetensors"),
    )


def own_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Wan's own names for diffusers'."""
    return _renamed(
        state,
        (r"^condition_embedder\.(text|time)_embedder\.linear_1", r"\1_embedding.0"),
        (r"^condition_embedder\.(text|time)_embedder\.linear_2", r"\1_embedding.2"),
        (r"^condition_embedder\.time_proj", "time_projection.1"),
        (r"^proj_out", "head.head"),
        (r"^scale_shift_table", "head.modulation"),
        (r"scale_shift_table", "modulation"),
        (r"\.norm2\.", ".norm3."),
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.to_out\.0\.", ".o."),
        (r"\.to_([qkv])\.", r".\1."),
        (r"\.ffn\.net\.0\.proj", ".ffn.0"),
        (r"\.ffn\.net\.2", ".ffn.2"),
    )


def own_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Wan's own names for diffusers'."""
    return _renamed(
        state,
        (r"(mid_block|down_blocks|up_blocks)(.*)\.norm1\.", r"\1\2.residual.0."),
        (r"(mid_block|down_blocks|up_blocks)(.*)\.conv1\.", r"\1\2.residual.2."),
        (r"(mid_block|down_blocks|up_blocks)(.*)\.norm2\.", r"\1\2.residual.3."),
        (r"(mid_block|down_blocks|up_blocks)(.*)\.conv2\.", r"\1\2.residual.6."),
        (r"conv_shortcut", "shortcut"),
        (r"^post_quant_conv", "conv2"),
        (r"^quant_conv", "conv1"),
        (r"conv_in", "conv1"),
        (r"norm_out", "head.0"),
        (r"conv_out", "head.2"),
        (r"mid_block\.attentions\.0", "middle.1"),
        (r"mid_block\.resnets\.0", "middle.0"),
        (r"mid_block\.resnets\.1", "middle.2"),
        (r"down_blocks", "downsamples"),
        (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}"),
    )


def own_text_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Wan's own names for Hugging Face's."""
    return _renamed(
        {name: tensor for name, tensor in state.items() if name != "encoder.embed_tokens.weight"},
        (r"^shared", "token_embedding"),
        (r"^encoder\.final_layer_norm", "norm"),
        (r"^encoder\.block", "blocks"),
        (r"layer\.0\.SelfAttention\.relative_attention_bias", "pos_embedding.embedding"),
        (r"layer\.0\.SelfAttention", "attn"),
        (r"layer\.0\.layer_norm", "norm1"),
        (r"layer\.1\.layer_norm", "norm2"),
        (r"layer\.1\.DenseReluDense\.wi_0", "ffn.gate.0"),
        (r"layer\.1\.DenseReluDense\.wi_1", "ffn.fc1"),
        (r"layer\.1\.DenseReluDense\.wo", "ffn.fc2"),
    )


def comfy_text_encoder(pipe: Any, words: Path) -> dict[str, Tensor]:
    """What ComfyUI's file has: the tokenizer is a tensor."""
    state = {k: v for k, v in pipe.text_encoder.state_dict().items() if k != "encoder.embed_tokens.weight"}
    return {**state, "spiece_model": torch.tensor(list(words.read_bytes()), dtype=torch.uint8)}


def scaled(state: Mapping[str, Tensor], *, rows: bool = False) -> dict[str, Tensor]:
    """fp8 as in files named "scaled": maps are divided by their largest value and that is a tensor beside."""
    made: dict[str, Tensor] = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in state.items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            made[name] = tensor
            continue
        most = tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().max()
        stem = name.removesuffix(".weight")
        made[name] = (tensor / (most / 448)).to(torch.float8_e4m3fn)
        made[f"{stem}.scale_weight"] = most / 448
        made[f"{stem}.scale_input"] = torch.tensor(1.0)
    return made


def unscaled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a scaled file stands for."""
    return {
        name: tensor.float() * state.get(name.removesuffix("weight") + "scale_weight", torch.ones(()))
        for name, tensor in state.items()
        if "scale" not in name.rsplit(".")[-1] or name.endswith("scale_shift_table")
    }


def write(state: Mapping[str, Tensor], file: Path, prefix: str = "") -> Path:
    """A safetensors file."""
    save_file({prefix + name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, file)
    return file


def write_gguf(state: Mapping[str, Tensor], file: Path, kind: str = "Q8_0") -> Path:
    """A file as city96's: maps of blocks in `kind`, the rest in float32."""
    import gguf

    writer = gguf.GGUFWriter(str(file), "wan")
    quantised = getattr(gguf.GGMLQuantizationType, kind)
    for name, tensor in state.items():
        of_block = name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2
        chosen = quantised if of_block else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(tensor.float().numpy(), chosen)
        writer.add_tensor(name, data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _renamed(state: Mapping[str, Tensor], *rules: tuple[str, Any]) -> dict[str, Tensor]:
    made = {}
    for name, tensor in state.items():
        for sign, new in rules:
            name = re.sub(sign, new, name)
        made[name] = tensor
    return made
