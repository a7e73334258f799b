"""The untrained small model: SD3.5's architecture from diffusers' and transformers' own classes, in small.

What is like SD3.5-medium: joint blocks, dual attention in the first ones, RMS-normed queries and keys, two
CLIP text encoders plus T5 in one text sequence, pooled CLIP vectors, a 2-D position table, rectified flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from vsf_lib.scenes.world import PUNCTUATION, WORDS

CLIP_LENGTH = 16
T5_LENGTH = 16
_PAD, _BOS, _UNK, _EOS = "<pad>", "<s>", "<unk>", "</s>"


def build_normalizer() -> normalizers.Normalizer:
    """Small letters, and a space for each sign of punctuation that is no word, as in `check_words`."""
    silent = normalizers.Replace(Regex(f"[{PUNCTUATION}]"), " ")
    return normalizers.Sequence([normalizers.Lowercase(), silent])


def build_tokenizer(*, begin: bool) -> PreTrainedTokenizerFast:
    """Word-level: one token a word. `begin` puts a begin token first, as CLIP's does and T5's does not."""
    vocabulary = {token: i for i, token in enumerate([_PAD, _BOS, _UNK, _EOS, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNK))
    core.normalizer = build_normalizer()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A {_EOS}" if begin else f"$A {_EOS}",
        special_tokens=[(_BOS, vocabulary[_BOS]), (_EOS, vocabulary[_EOS])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=CLIP_LENGTH if begin else 256,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_UNK,
    )


def build_clip(seed: int) -> CLIPTextModelWithProjection:
    """A causal text encoder of two layers; its last but one hidden state is what SD3 reads."""
    torch.manual_seed(seed)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(WORDS) + 4,
            hidden_size=64,
            intermediate_size=192,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            hidden_act="quick_gelu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
        )
    )


def build_t5() -> T5EncoderModel:
    """One bidirectional layer; its norm and relative positions are T5's own."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(WORDS) + 4,
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=3,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


TEACHER_LAYERS = 7
STUDENT_LAYERS = 6
"""The whole pipeline must stay below 10 MB in half precision."""


def build_transformer(layers: int) -> SD3Transformer2DModel:
    """The denoiser: 64 image tokens, CLIP's 16 and T5's tokens as text."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=16,
        dual_attention_layers=(0, 1, 2),
        qk_norm="rms_norm",
    )


@dataclass
class Networks:
    """All parts of the pipeline, in training or trained."""

    vae: AutoencoderKL
    transformer: SD3Transformer2DModel
    clip_l: CLIPTextModelWithProjection
    clip_g: CLIPTextModelWithProjection
    t5: T5EncoderModel

    @classmethod
    def build(cls, vae: AutoencoderKL, seed: int, layers: int = STUDENT_LAYERS) -> Networks:
        """Untrained, but for the autoencoder."""
        torch.manual_seed(seed)
        return cls(vae, build_transformer(layers), build_clip(seed), build_clip(seed + 1), build_t5())

    def learners(self) -> list[nn.Module]:
        """What flow training changes."""
        return [self.transformer, self.clip_l, self.clip_g, self.t5]

    def pipeline(self, shift: float) -> StableDiffusion3Pipeline:
        """The same as a pipeline, sharing the weights."""
        return StableDiffusion3Pipeline(
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
            vae=self.vae,
            text_encoder=self.clip_l,
            tokenizer=build_tokenizer(begin=True),
            text_encoder_2=self.clip_g,
            tokenizer_2=build_tokenizer(begin=True),
            text_encoder_3=self.t5,
            tokenizer_3=build_tokenizer(begin=False),
        )

    @classmethod
    def of(cls, pipe: StableDiffusion3Pipeline) -> Networks:
        """The parts of a pipeline, sharing the weights."""
        return cls(pipe.vae, pipe.transformer, pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
