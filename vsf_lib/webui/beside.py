"""The pictures that stand beside a result and show where VSF acted in it.

Owns when there are none, and why; which map belongs to which result and where in it; and what such a picture
says of itself. It must never be taken for a result: its parameters name no prompt, no setting of VSF's and no
sampler. Nothing here may cost a result: whatever goes wrong becomes a notice. Imports no host module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vsf_lib.adapters.generation import Report
from vsf_lib.adapters.share import PATCH, Maps, ShareRecord
from vsf_lib.errors import GuidanceError, VSFError
from vsf_lib.infotext import encode, write_pairs
from vsf_lib.settings import SHARING
from vsf_lib.webui.request import HEATMAP_STEPS, PASSES

if TYPE_CHECKING:  # drawing loads them when there is something to draw
    import numpy as np
    from PIL import Image

    from vsf_lib.heatmap import Scale

_LATENT = 8
"""Pixels along a side of a latent."""


class PublishingHost(Protocol):
    """What these pictures ask of the WebUI."""

    def pastes_back(self) -> bool:
        """Whether an inpainted part is put back into the picture that it was cut from."""

    def publish(self, p: Any, picture: Image.Image, text: str, index: int, suffix: str) -> None:
        """Gives a picture beside result `index` its parameters, and saves it if that is chosen."""


@dataclass(frozen=True)
class _Acted:
    """A guided pass of the batch that runs."""

    maps: Maps | None
    problem: str | None
    report: Report
    hires: bool
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """One such picture."""

    picture: Image.Image
    text: str
    """Its parameters."""
    index: int
    """The result's, from 0."""
    suffix: str


def why_not(p: Any, method: str) -> str | None:
    """Why a job cannot show where it acted, although that was asked; None where it can."""
    if method not in SHARING:
        return f"the method {method} does not act by a share of attention"
    if getattr(p, "txt2img_upscale", False):
        return "the WebUI's upscale button puts one picture into the gallery and no more"
    arguments = getattr(p, "script_args", None) or (0,)
    if isinstance(arguments[0], int) and arguments[0] > 0:
        # Those take a generation's pictures and their parameters apart, and put them together in their way.
        return "a script is selected that makes its own of the pictures (X/Y/Z plot, SD upscale and others)"
    return None


class Besides:
    """Of one generation, from its first pass to its end."""

    def __init__(self, p: Any, host: PublishingHost, show: str, say: Callable[[str], None]) -> None:
        """`show` is one of HEATMAPS, but not off; `say` takes notices."""
        self._p = p
        self._host = host
        self._each_step = show == HEATMAP_STEPS
        self._say = say
        self._record: ShareRecord | None = None
        self._acted: _Acted | None = None
        self._made: list[Beside] = []

    def next_batch(self) -> None:
        """Nothing of the batch before belongs to the pictures that come."""
        self._record = self._acted = None

    def begin_pass(self) -> ShareRecord:
        """What the pass that comes next writes into."""
        self._record = ShareRecord(each_step=self._each_step)
        return self._record

    def end_pass(self, report: Report, *, hires: bool, negatives: tuple[str, ...]) -> None:
        """That pass was guided. In hires fix the later of two such passes is the one that is shown."""
        record, self._record = self._record, None
        if record is None:
            return
        try:
            maps, problem = record.read(), record.problem
        except Exception as error:  # not for the price of the result, here and below
            maps, problem = None, f"{type(error).__name__}: {error}"
        self._acted = _Acted(maps, problem, report, hires, negatives)

    def draw(self, index: int, picture: Image.Image) -> None:
        """Draws what belongs to result `index` of the job, one of the batch that was guided last."""
        acted = self._acted
        if acted is None:
            return
        if acted.maps is None:
            self._acted = None  # the notice is one for all pictures, which for a video are its frames
            self._say(
                f"VSF cannot show where it acted: {acted.problem or 'no share of attention was recorded'}"
            )
            return
        try:
            self._made += self._drawn(acted, acted.maps, index, picture)
        except Exception as error:
            told = error if isinstance(error, VSFError) else f"{type(error).__name__}: {error}"
            self._say(f"VSF cannot show where it acted: {told}")

    def add_to(self, processed: Any) -> None:
        """Puts them behind the results, and their parameters behind the results' parameters."""
        made, self._made = self._made, []
        if not made:
            return
        # Masks have no entry of their own in the host's list, so that it can be the shorter one.
        later = processed.images[len(processed.infotexts) :]
        texts = [str(getattr(image, "info", {}).get("parameters", "")) for image in later]
        processed.infotexts = [*processed.infotexts, *texts, *(beside.text for beside in made)]
        processed.images = [*processed.images, *(beside.picture for beside in made)]
        for beside in made:
            try:
                self._host.publish(self._p, beside.picture, beside.text, beside.index, beside.suffix)
            except Exception as error:
                self._say(f"VSF cannot save the picture of where it acted: {error}")
                processed.comments += f"VSF cannot save the picture of where it acted: {error}\n"

    def _drawn(self, acted: _Acted, maps: Maps, index: int, picture: Image.Image) -> list[Beside]:
        from vsf_lib.heatmap import Scale, overlay
        from vsf_lib.heatmap_sheet import draw_steps

        row = index - self._p.iteration * self._p.batch_size
        area = self._area(maps, picture.size, row, hires=acted.hires)
        mean = maps.mean[row].double().numpy()
        scale = Scale.of(mean)
        which = PASSES[acted.hires]
        told = _Told(self._p, maps, acted.report, index, acted.negatives[row], which)
        made = [Beside(overlay(picture, mean, scale, area), told.text(scale), index, "-vsf-map")]
        if maps.each is not None:
            of_step = dict(zip(maps.steps, maps.each[:, row].double().numpy(), strict=True))
            sheet, common = draw_steps(told.title, picture, _shown(of_step, acted.report.steps_run), area)
            made.append(Beside(sheet, told.text(common, each_step=True), index, "-vsf-steps"))
        return made

    def _area(
        self, maps: Maps, size: tuple[int, int], row: int, *, hires: bool
    ) -> tuple[float, float, float, float]:
        """Where in a result of `size` the map lies, in pixels."""
        p = self._p
        height, width = maps.latent
        cut = int(getattr(p, "truncate_x", 0)), int(getattr(p, "truncate_y", 0))
        expected = (p.width // _LATENT, p.height // _LATENT)
        if hires:
            expected = (p.hr_upscale_to_x // _LATENT - cut[0], p.hr_upscale_to_y // _LATENT - cut[1])
        if (width, height) != expected:
            raise GuidanceError(
                f"the model drew {width}x{height} latents where the picture has {expected[0]}x{expected[1]}"
            )
        whole = width * _LATENT, height * _LATENT
        left, top, across, down = 0.0, 0.0, float(whole[0]), float(whole[1])
        paste_to, originals = getattr(p, "paste_to", None), getattr(p, "overlay_images", None)
        if paste_to is not None and originals and self._host.pastes_back():
            left, top, across, down = paste_to
            whole = originals[min(row, len(originals) - 1)].size
        elif getattr(p, "enable_hr", False) and not hires and size != whole:
            # The second pass enlarges what the first has drawn, and may cut its edges.
            across, down = p.hr_upscale_to_x, p.hr_upscale_to_y
            left, top = -(cut[0] // 2) * _LATENT, -(cut[1] // 2) * _LATENT
            whole = p.hr_upscale_to_x - cut[0] * _LATENT, p.hr_upscale_to_y - cut[1] * _LATENT
        # Tokens may reach beyond the latents, and another extension may have enlarged the result.
        across *= maps.mean.shape[-1] * PATCH / width
        down *= maps.mean.shape[-2] * PATCH / height
        x, y = size[0] / whole[0], size[1] / whole[1]
        return left * x, top * y, (left + across) * x, (top + down) * y


def _shown(of_step: Mapping[int, np.ndarray], total: int) -> list[tuple[int, np.ndarray | None]]:
    """All `total` steps with their maps; of very many only some of those that were guided."""
    from vsf_lib.heatmap_sheet import MOST_STEPS, shown_steps

    total = max(total, *(step + 1 for step in of_step))
    if total <= MOST_STEPS:
        return [(step, of_step.get(step)) for step in range(total)]
    guided = list(of_step)
    return [(guided[i], of_step[guided[i]]) for i in shown_steps(len(guided))]


@dataclass(frozen=True)
class _Told:
    """What such a picture says of itself."""

    p: Any
    maps: Maps
    report: Report
    index: int
    negative: str
    which: str

    @property
    def seed(self) -> int:
        return int(self.p.all_seeds[self.index])

    @property
    def title(self) -> str:
        return f"not {self.negative}: the share of attention, over the result with seed {self.seed}"

    def text(self, scale: Scale, *, each_step: bool = False) -> str:
        """A sentence where results have their prompt, and pairs of which none is a setting. Of what the host
        knows only the seed, which its save button wants, is among them."""
        report = self.report
        what = "at each step" if each_step else "in the mean"
        pairs: dict[str, str | float] = {
            "Seed": str(self.seed),
            "Map": f"share of attention {what}",
            "Map scale": str(scale),
            "Map steps": f"{len(self.maps.steps)} of {report.steps_run}",
            "Map layers": str(len(report.layers)),
            "Map negative prompt": encode(self.negative, "Map negative prompt"),
        }
        if getattr(self.p, "enable_hr", False):
            pairs["Map pass"] = self.which
        first = f"Not a result: a map of where VSF acted, over the picture with seed {self.seed} in grey."
        return f"{first}\n{write_pairs(pairs)}"
