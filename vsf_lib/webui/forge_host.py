"""What a guide asks of a WebUI, answered by Forge's own modules.

Imports `modules.*` and `backend.*`; every import stands in the function that needs it, so that a host that
lacks one fails by name where it matters and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.encoding import Encoder
from vsf_lib.webui.options import Options, chosen
from vsf_lib.webui.request import Checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image


class ForgeHost:
    """See `guide.Host`. Holds no state: options are read when they are asked for."""

    @property
    def options(self) -> Options:
        return chosen()

    def t5_enabled(self) -> bool:
        from modules import shared

        return bool(getattr(shared.opts, "sd3_enable_t5", True))

    def load_text_encoders(self, model: Any) -> None:
        from backend import memory_management

        memory_management.load_model_gpu(model.forge_objects.clip.patcher)

    def conditions(
        self, p: Any, texts: Sequence[str], encoder: Encoder, cache: list[Any], *, hires: bool
    ) -> Sequence[Sequence[Any]]:
        from modules import prompt_parser, sd_samplers

        def total(name: str, steps: int) -> int:
            config = sd_samplers.find_sampler_config(name)
            return int(config.total_steps(steps)) if config else steps

        def parse(_: Any, prompts: Any, steps: int, hires_steps: int | None, old: bool) -> Any:
            return prompt_parser.get_learned_conditioning(encoder, prompts, steps, hires_steps, old)

        steps, hires_steps = total(p.sampler_name, p.steps), None
        width, height, guidance = p.width, p.height, p.distilled_cfg_scale
        networks = p.extra_network_data
        if hires:
            networks = p.hr_extra_network_data
            hires_steps = total(p.hr_sampler_name or p.sampler_name, p.hr_second_pass_steps or p.steps)
            width, height, guidance = p.hr_upscale_to_x, p.hr_upscale_to_y, p.hr_distilled_cfg
        prompts = prompt_parser.SdConditioning(
            texts, is_negative_prompt=True, width=width, height=height, distilled_cfg_scale=guidance
        )
        return p.get_conds_with_caching(parse, prompts, steps, [cache], networks, hires_steps)

    def interrupted(self) -> bool:
        from modules import shared

        return bool(shared.state.interrupted or shared.state.skipped)

    def pastes_back(self) -> bool:
        from modules import shared

        return bool(getattr(shared.opts, "overlay_inpaint", True))

    def publish(self, p: Any, picture: Image, text: str, index: int, suffix: str) -> None:
        from modules import images, shared

        if shared.opts.enable_pnginfo:
            picture.info["parameters"] = text
        if not (chosen().save_heatmaps and p.save_samples()):
            return
        place = p.iteration, p.batch_index
        try:  # names of files may be made of these
            p.iteration, p.batch_index = divmod(index, p.batch_size)
            images.save_image(
                picture,
                # A folder of its own: the host cuts long names, and two that are cut alike would be one file.
                str(Path(p.outpath_samples) / "vsf-maps"),
                "",
                p.all_seeds[index],
                p.all_prompts[index],
                shared.opts.samples_format,
                info=text,
                p=p,
                suffix=suffix,
            )
        finally:
            p.iteration, p.batch_index = place

    def hires_checkpoint(self, p: Any) -> Checkpoint | None:
        from modules import sd_models

        name = getattr(p, "hr_checkpoint_name", None)
        if not name or name == "Use same checkpoint":
            return None
        found = sd_models.get_closet_checkpoint_match(name)
        return None if found is None else peek(Path(found.filename))
