"""What the tests of this folder do to a generation from inside a real Forge. Not a part of the product.

One dictionary says what: `{"masked": {...}}` guides with a masked float64 attention that shares no code
with vsf_lib, `{"raise": {...}}` breaks a block in the middle of sampling (with `"cell"` in that cell of a
sweep alone), `{"negatives": [...]}` gives each picture its own negative prompt, `{"separate": true}` leaves
no memory for calls of several batches, and `{"census": true}` writes into the infotext what is left on the
model and in memory.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gradio as gr
import numpy
import torch
from modules import scripts

LIVES_FOR_ONE_GENERATION = {
    "vsf_lib.webui.guide.Guide",
    "vsf_lib.webui.request.Request",
    "vsf_lib.webui.encoding.Schedule",
    "vsf_lib.adapters.forge.SamplingPass",
    "vsf_lib.adapters.call.GuidedCall",
}
_REFERENCE = Path(__file__).resolve().parents[3] / "attention" / "attention_reference.py"


class VSFTrials(scripts.Script):
    """Titled as such, so that no script of the product is meant."""

    def title(self) -> str:
        return "VSF trials"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        return [gr.JSON(visible=False)]

    def process(self, p: Any, wanted: dict[str, Any] | None = None) -> None:
        self.undo = ExitStack()
        if wanted and "negatives" in wanted:
            p.all_negative_prompts = list(wanted["negatives"])
        if wanted and wanted.get("census"):
            counted = " ".join(f"{name} {number}" for name, number in census(p.sd_model).items())
            p.extra_generation_params["VSF trials census"] = counted

    def process_batch(self, p: Any, wanted: dict[str, Any] | None = None, **_: Any) -> None:
        if wanted and "masked" in wanted:
            asked = wanted["masked"]
            self.negative = encode(p.sd_model, asked["negative_prompt"])
            if asked.get("negative_scale"):
                self.negative += asked["negative_scale"] * (self.negative - padding(p.sd_model))

    def process_before_every_sampling(self, p: Any, wanted: dict[str, Any] | None = None, **_: Any) -> None:
        if not wanted:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        p.sd_model.forge_objects.unet = unet
        if "masked" in wanted:
            video = hasattr(unet.model.diffusion_model, "text_embedding")
            masked = masked_video if video else masked_wrapper
            unet.set_model_unet_function_wrapper(masked(unet, self.negative, **wanted["masked"]))
        if "raise" in wanted:
            asked = dict(wanted["raise"])
            cell = asked.pop("cell", None)
            if cell is None or cell == vars(p).get("_vsf_axes"):
                break_block(unet.model.diffusion_model, **asked)
        if wanted.get("separate"):
            self.undo.enter_context(patch.object(unet.model, "memory_required", lambda *_, **__: 10**15))

    def postprocess(self, p: Any, processed: Any, wanted: dict[str, Any] | None = None) -> None:
        self.undo.close()


def census(model: Any) -> dict[str, int]:
    """What guidance puts on a model, living objects of the product, and the megabytes of all tensors."""
    gc.collect()
    network = model.forge_objects.unet.model.diffusion_model
    modules = list(network.modules())
    living = [(thing, type(thing)) for thing in gc.get_objects()]
    tensors = [thing for thing, kind in living if issubclass(kind, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    module = sys.modules[type(network).__module__]
    taps = [getattr(module, name, None) for name in ("attention", "attention_function")]
    return {
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        "forwards": sum("forward" in vars(m) for m in modules),
        "taps": sum(str(getattr(tap, "__module__", "")).startswith("vsf_lib") for tap in taps),
        "ours": sum(f"{kind.__module__}.{kind.__name__}" in LIVES_FOR_ONE_GENERATION for _, kind in living),
        "megabytes": sum(storages.values()) // 2**20,
    }


def break_block(model: Any, *, block: str, call: int, error: str) -> None:
    """Raises `error` behind `block` when it runs for the time numbered `call`, then leaves no trace."""
    kinds = {"RuntimeError": RuntimeError, "OutOfMemoryError": torch.OutOfMemoryError}
    calls = []

    def count(*_: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            handle.remove()
            raise kinds[error]("forced by a test")

    handle = model.get_submodule(block).register_forward_hook(count)


@torch.inference_mode()
def encode(model: Any, text: str) -> torch.Tensor:
    """The tokens of `text` and nothing else through the encoders, float32 `[n, 4096]`."""
    from backend import memory_management
    from modules.shared import opts

    memory_management.load_model_gpu(model.forge_objects.clip.patcher)

    def clip(engine: Any) -> torch.Tensor:
        words = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        return engine.encode_with_transformers(torch.tensor([[engine.id_start, *words, engine.id_end]]))[0]

    def t5(engine: Any) -> torch.Tensor:
        words = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        if hasattr(engine, "process_attn_mask"):  # UMT5
            tokens = torch.tensor([[*words, engine.end_token]])
            return engine.encode_with_transformers(tokens, torch.ones_like(tokens))[0]
        return engine.encode_with_transformers(torch.tensor([[*words, engine.id_end]]))[0]

    t5_engine = model.text_processing_engine_t5
    if not hasattr(model, "text_processing_engine_g"):
        return t5(t5_engine).clone()
    both = torch.cat([clip(model.text_processing_engine_l), clip(model.text_processing_engine_g)], dim=1)
    parts = [torch.cat([both, both.new_zeros(len(both), 4096 - both.shape[1])], dim=1)]
    if opts.sd3_enable_t5:
        parts.append(t5(t5_engine).to(both))
    return torch.cat(parts)


@torch.inference_mode()
def padding(model: Any) -> torch.Tensor:
    """The mean of what T5 gives for 256 padding tokens and nothing else, `[4096]`."""
    engine = model.text_processing_engine_t5
    return engine.encode_with_transformers(torch.full((1, 256), engine.id_pad))[0].mean(0)


def masked_wrapper(
    unet: Any,
    negative: torch.Tensor,
    *,
    negative_prompt: str,
    alpha: float,
    beta: float,
    negative_scale: float = 0,
    blocks: str = "both",
    method: str = "vsf",
    share_file: str | None = None,
) -> Any:
    """Every call at CFG 1 guided by the table of the method, read literally.

    `share_file` is given the weight of N1 `[calls, pictures, n_i]`, mean over guided layers and heads.
    """
    spec = importlib.util.spec_from_file_location("attention_reference", _REFERENCE)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    model = unet.model.diffusion_model
    module = sys.modules[type(model).__module__]
    name = "attention_function" if hasattr(module, "attention_function") else "attention"
    original = getattr(module, name)
    shares: list[torch.Tensor] = []

    def call(apply_model: Any, args: dict[str, Any]) -> Any:
        conditioning = args["c"]
        text = conditioning["c_crossattn"]
        n_n, n_p, image = len(negative), text.shape[1], args["input"][0, 0].numel() // 4
        joined = torch.cat([negative.to(text).expand(len(text), -1, -1), text], dim=1)
        parts = {"negative": slice(0, n_n), "positive": slice(n_n, n_n + n_p)}
        inside: list[str] = []
        of_layers: list[torch.Tensor] = []

        def attention(q: Any, k: Any, v: Any, heads: int, *rest: Any, **more: Any) -> Any:
            length = q.shape[2] if more.get("skip_reshape") else q.shape[1]
            if length == image:  # the second, image-only attention of SD3.5 medium
                return original(q, k, v, heads, *rest, **more)
            if not more.get("skip_reshape"):
                q, k, v = (x.reshape(len(x), length, heads, -1).transpose(1, 2) for x in (q, k, v))
            seen = blocks == "both" or not inside[-1].startswith("single")
            where = {**parts, "image": slice(n_n + n_p, length)}
            off = float("inf")
            out, w = reference.reference(q, k, v, **where, alpha=alpha, beta=beta if seen else off)
            if seen:
                of_layers.append(w.mean(1))
            if method == "difference" and seen:
                # O_b - alpha w (O_n - O_b) is what the flip gives, less its dilution, plus alpha w O_b.
                i = where["image"]
                ordinary, _ = reference.reference(q, k, v, **where, alpha=0.0, beta=off)
                out[:, :, i] += (1 + alpha) * w[..., None] * ordinary[:, :, i]
            return out.to(q).transpose(1, 2).flatten(2)

        with ExitStack() as undo:
            undo.enter_context(patch.object(module, name, attention))
            for path, block in model.named_modules():
                if path.count(".") == 1 and path.split(".")[0].endswith("_blocks"):
                    hook = block.register_forward_pre_hook(lambda *_, path=path: inside.append(path))
                    undo.callback(hook.remove)
            result = apply_model(args["input"], args["timestep"], **{**conditioning, "c_crossattn": joined})
        shares.append(torch.stack(of_layers).mean(0))
        if share_file is not None:
            numpy.save(share_file, torch.stack(shares).numpy())
        return result

    return call


def masked_video(
    unet: Any, negative: torch.Tensor, *, negative_prompt: str, alpha: float, beta: float, method: str = "vsf"
) -> Any:
    """The same for attention that crosses over to text: one softmax over [P, N], in float64."""
    model = unet.model.diffusion_model

    def forward(layer: Any, x: Any, context: Any, n_image: int | None = None) -> Any:
        def split(y: Any) -> Any:
            return y.double().unflatten(2, (layer.num_heads, -1)).transpose(1, 2)

        def softmax(*keys: Any, bias: Any = 0.0) -> Any:
            logits = torch.cat([q @ k.transpose(-1, -2) for k in keys], -1) / q.shape[-1] ** 0.5
            return (logits + bias).softmax(-1)

        image, text = (
            (context[:, :n_image], context[:, n_image:]) if hasattr(layer, "k_img") else (None, context)
        )
        q, k, v = split(layer.norm_q(layer.q(x))), split(layer.norm_k(layer.k(text))), split(layer.v(text))
        n = model.text_embedding(negative[None].to(x))
        k_n, v_n = split(layer.norm_k(layer.k(n))), split(layer.v(n))
        bias = torch.cat([torch.zeros(k.shape[2]), torch.full((k_n.shape[2],), -beta)]).double()
        of_p, of_n = softmax(k, k_n, bias=bias).split([k.shape[2], k_n.shape[2]], dim=-1)
        out = of_p @ v - alpha * of_n @ v_n
        if method == "difference":
            ordinary = softmax(k) @ v
            out = ordinary - alpha * of_n.sum(-1, keepdim=True) * (softmax(k_n) @ v_n - ordinary)
        if image is not None:
            out = out + softmax(split(layer.norm_k_img(layer.k_img(image)))) @ split(layer.v_img(image))
        return layer.o(out.to(x).transpose(1, 2).flatten(2))

    def call(apply_model: Any, args: dict[str, Any]) -> Any:
        with ExitStack() as undo:
            for block in model.blocks:
                layer = block.cross_attn
                mine = lambda x, context, context_img_len=None, layer=layer: forward(  # noqa: E731
                    layer, x, context, context_img_len
                )
                undo.enter_context(patch.object(layer, "forward", mine))
            return apply_model(args["input"], args["timestep"], **args["c"])

    return call
