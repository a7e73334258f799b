"""What a job shows beside its results: a map for each, none too many, and no result lost or changed."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference_forge
import small_mmdit
import small_wan
import torch
from PIL import Image
from small_host import Host, Model, Processing, letters, process_images, weighted

from vsf_lib.adapters.generation import Report
from vsf_lib.adapters.share import Maps, ShareRecord
from vsf_lib.errors import GuidanceError
from vsf_lib.heatmap import Scale, heat, overlay
from vsf_lib.heatmap_sheet import draw_steps
from vsf_lib.settings import Settings, fields
from vsf_lib.webui.beside import Besides
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.guide import Guide
from vsf_lib.webui.paste import READERS

STRENGTH = {"alpha": 1.2, "beta": 0.1, "negative_prompt": "wheels"}
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How the hosts read a line of parameters, of at least three."""


@pytest.fixture
def model() -> Model:
    return Model(weighted(small_mmdit.SmallMMDiT()))


@pytest.fixture
def host() -> Host:
    return Host()


def job(model: Model, host: Host, heatmap: str = "picture", **values: Any) -> Processing:
    settings = values.pop("settings", {})
    arguments = ({**STRENGTH, "heatmap": heatmap, **settings},)
    return Processing(model, Callbacks(host), host, arguments=arguments, **values)


def pairs(text: str) -> dict[str, str]:
    return dict(PAIR.findall(text.split("\n")[-1]))


def pixels(images: list[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize("heatmap", ["picture", "each step"])
def test_the_results_are_the_same_and_come_first(model, host, heatmap):
    common = {"n_iter": 2, "batch_size": 2}
    off = job(model, host, "off", **common)
    on = job(model, host, heatmap, **common)
    plain, shown = process_images(off), process_images(on)
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(plain, shown, strict=True))
    assert len(off.processed.images) == len(off.processed.infotexts) == 4
    each = {"picture": 1, "each step": 2}[heatmap]
    assert len(on.processed.images) == len(on.processed.infotexts) == 4 + 4 * each
    for before, after in zip(off.processed.images, on.processed.images, strict=False):
        assert np.array_equal(before, after)
    assert on.processed.infotexts[:4] == off.processed.infotexts
    assert [text for _, text, _, _ in host.published] == on.processed.infotexts[4:]
    assert [index for _, _, index, _ in host.published] == sorted([*range(4)] * each)
    assert not on.comments
    assert "sample" not in vars(on)


@torch.inference_mode()
def test_each_result_has_its_own_map(model, host):
    negatives = ["wheels", "roof"]
    p = job(model, host, settings={"negative_prompt": ""}, negative_prompt=negatives, steps=1)
    process_images(p)
    torch.manual_seed(0)
    noise = torch.randn(2, 4, 6, 4, dtype=torch.float64)
    args = {
        "input": noise,
        "timestep": torch.ones(2, dtype=torch.float64),
        "c": {
            "c_crossattn": torch.stack([letters("prompt0", 7), letters("prompt1", 7)]),
            "y": torch.zeros(2, 8, dtype=torch.float64),
        },
    }
    network = model.original.model.diffusion_model
    results, texts = p.processed.images, p.processed.infotexts
    for row, text in enumerate(negatives):
        shares: list[torch.Tensor] = []
        settings = Settings(alpha=1.2, beta=0.1)
        reference_forge.guided_row(network, args, row, letters(text), settings, shares)
        share = torch.stack(shares).mean(dim=(0, 1)).reshape(3, 2).numpy()
        wanted = overlay(results[row], share, Scale.of(share))
        assert results[2 + row].size == results[row].size
        assert np.abs(np.asarray(results[2 + row]).astype(int) - np.asarray(wanted)).max() <= 1
        assert pairs(texts[2 + row])["Map negative prompt"] == text
        assert pairs(texts[2 + row])["Map scale"] == str(Scale.of(share))


def test_the_steps_have_a_scale_of_their_own(model, host, monkeypatch):
    """It goes over all of them, and so beyond that of their mean."""
    kept: list[Maps] = []
    read = ShareRecord.read
    monkeypatch.setattr(ShareRecord, "read", lambda record: kept.append(read(record)) or kept[-1])
    p = job(model, host, "each step")
    process_images(p)
    (maps,) = kept
    scales = [pairs(text)["Map scale"] for text in p.processed.infotexts[2:]]
    for row in range(2):
        mean, each = (Scale.of(shares.double().numpy()) for shares in (maps.mean[row], maps.each[:, row]))
        assert scales[2 * row : 2 * row + 2] == [str(mean), str(each)]
        assert str(mean) != str(each)


def test_it_cannot_be_taken_for_a_result(model, host):
    p = job(model, host, "each step", n_iter=2, batch_size=1, settings={"end": 0.5})
    process_images(p)
    for text, seed in zip(p.processed.infotexts[2:], (100, 100, 101, 101), strict=True):
        first, last = text.split("\n")
        assert first.startswith("Not a result: a map of where VSF acted")
        assert f"seed {seed}" in first
        told = pairs(last)
        assert told["Seed"] == str(seed)
        assert told["Map steps"] == "2 of 3"
        assert told["Map layers"] == "3"
        assert re.fullmatch(r"[\d.e-]+ to [\d.e-]+", told["Map scale"])
        assert not {field.infotext for field in fields()} & set(told)
        assert not {"Steps", "Sampler", "CFG scale", "Size", "Model"} & set(told)
        pasted = {name: reader({**told, "Prompt": first}) for name, reader in READERS.items()}
        assert pasted.pop("enabled") is False
        assert set(pasted.values()) == {None}


def test_any_negative_prompt_stays_in_its_value(model, host):
    negative = 'wheels, Seed: 7\nSteps: 9 "x"'
    p = job(model, host, batch_size=1, settings={"negative_prompt": negative})
    process_images(p)
    text = p.processed.infotexts[1]
    assert len(text.split("\n")) == 2
    assert list(pairs(text)) == ["Seed", "Map", "Map scale", "Map steps", "Map layers", "Map negative prompt"]
    assert pairs(text)["Seed"] == "100"


def test_off_records_nothing(model, host, monkeypatch):
    monkeypatch.setattr(ShareRecord, "add", lambda *_: pytest.fail("recorded"))
    p = job(model, host, "off")
    process_images(p)
    assert len(p.processed.images) == 2


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_methods_without_a_share_say_so(model, host, method):
    common = {"settings": {"method": method}}
    plain, p = job(model, host, "off", **common), job(model, host, "each step", **common)
    before, after = process_images(plain), process_images(p)
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(before, after, strict=True))
    assert len(p.processed.images) == 2
    assert p.comments == [
        f"VSF does not show where it acted: the method {method} does not act by a share of attention"
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"script_args": (1, "x")}, "a script is selected"),  # the first of the list
        ({"txt2img_upscale": True}, "the WebUI's upscale button"),
    ],
    ids=["script", "upscale"],
)
def test_who_puts_pictures_together_in_another_way_gets_results_only(model, host, values, says):
    p = job(model, host, **values)
    process_images(p)
    assert len(p.processed.images) == len(p.processed.infotexts) == 2
    assert says in p.comments[0]


@pytest.mark.parametrize(
    ("hires_pass", "shown"), [("both", "second"), ("first", "first"), ("second", "second")]
)
def test_hires_shows_the_last_guided_pass(model, host, hires_pass, shown):
    texts = {"first": "wheels", "second": "roof"}
    p = job(
        model,
        host,
        enable_hr=True,
        settings={"negative_prompt": "", "hires_pass": hires_pass},
        negative_prompt=texts["first"],
        hr_negative_prompt=texts["second"],
    )
    process_images(p)
    results, maps = p.processed.images[:2], p.processed.images[2:]
    assert [image.size for image in maps] == [image.size for image in results] == [(64, 96)] * 2
    assert {pairs(text)["Map pass"] for text in p.processed.infotexts[2:]} == {shown}
    assert {pairs(text)["Map negative prompt"] for text in p.processed.infotexts[2:]} == {texts[shown]}
    assert not p.comments


def test_an_interrupted_picture_shows_its_steps(model, host):
    p = job(model, host, steps=4)
    p.on_step = lambda step: setattr(host, "stopped", step == 2)
    process_images(p)
    assert len(p.processed.images) == 4
    assert pairs(p.processed.infotexts[-1])["Map steps"] == "2 of 2"
    host.stopped = False
    early = job(model, host)
    early.on_step = lambda step: setattr(host, "stopped", True)
    process_images(early)
    assert len(early.processed.images) == 2, "nothing was guided, so there is nothing to show"


def test_a_video_has_none_and_says_so_once(host):
    """What is one picture to the model is many to the WebUI: its frames."""
    p = job(Model(weighted(small_wan.SmallWan())), host, batch_size=5, video=True)
    process_images(p)
    assert len(p.processed.images) == 5
    (said,) = p.comments
    assert "a video has many pictures in one" in said


def test_what_goes_wrong_at_the_end_leaves_nothing_on_the_job(model, host):
    p = job(model, host)
    p.callbacks.process(p, p.arguments)
    guide = Guide.of(p)
    assert guide is not None
    guide._besides._made.append("a picture")
    with pytest.raises(AttributeError):
        p.callbacks.postprocess(p, object())
    assert Guide.of(p) is None
    assert "sample" not in vars(p)


def test_a_later_batch_does_not_show_an_earlier_ones_map(model, host):
    p = job(model, host, n_iter=2)
    batches = []

    def on_step(step: int) -> None:
        batches.append(step)
        host.stopped = len(batches) > p.steps

    p.on_step = on_step
    process_images(p)
    assert len(p.processed.images) == 4 + 2
    assert [index for _, _, index, _ in host.published] == [0, 1]


@pytest.mark.parametrize("place", ["draw", "publish", "record"])
def test_an_error_of_the_map_costs_no_result(model, host, monkeypatch, place):
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no space left")

    before = process_images(job(model, host, "off"))
    if place == "draw":
        monkeypatch.setattr("vsf_lib.heatmap.overlay", fail)
    elif place == "publish":
        monkeypatch.setattr(host, "publish", fail)
    else:
        monkeypatch.setattr(ShareRecord, "read", fail)
    p = job(model, host)
    after = process_images(p)
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(before, after, strict=True))
    assert len(p.processed.images) == (4 if place == "publish" else 2)
    assert "swallowed" not in p.comments
    assert any("no space left" in comment for comment in [*p.comments, p.processed.comments])


def test_masks_between_the_results_keep_every_text_with_its_picture(model, host):
    p = job(model, host)
    masks: list[Image.Image] = []

    def with_masks(processed: Any) -> None:
        for at in (1, 3):
            masks.append(Image.new("RGB", (32, 48)))
            processed.images.insert(at, masks[-1])

    own = p.callbacks.postprocess
    p.callbacks.postprocess = lambda p, processed: (with_masks(processed), own(p, processed))
    process_images(p)
    images, texts = p.processed.images, p.processed.infotexts
    assert len(images) == len(texts) == 6
    assert texts[2] == images[2].info["parameters"]
    assert texts[3] == ""
    assert all(text.startswith("Not a result") for text in texts[4:])


def area_of(
    size: tuple[int, int], latent: tuple[int, int], row: int = 0, *, hires: bool = False, **values: Any
) -> Any:
    """Where a map of one token per two latents comes to lie."""
    p = SimpleNamespace(**{"width": 64, "height": 64, "iteration": 0, "batch_size": 1, **values})
    host = Host()
    host.pastes = values.get("pastes", True)
    tokens = torch.rand(row + 1, -(-latent[0] // 2), -(-latent[1] // 2))
    maps = Maps((0,), tokens, None, latent)
    return Besides(p, host, "picture", print)._area(maps, size, row, hires=hires)


def test_a_map_lies_where_the_model_drew():
    assert area_of((64, 64), (8, 8)) == (0, 0, 64, 64)
    assert area_of((256, 128), (8, 8)) == (0, 0, 256, 128), "another extension has enlarged the result"
    assert area_of((72, 56), (7, 9), width=72, height=56) == (0, 0, 80, 64), "half a token at two edges"
    original = Image.new("RGBA", (200, 100))
    masked = {"paste_to": (50, 20, 40, 40), "overlay_images": [original]}
    assert area_of((200, 100), (8, 8), **masked) == (50, 20, 90, 60)
    assert area_of((400, 200), (8, 8), **masked) == (100, 40, 180, 120)
    assert area_of((64, 64), (8, 8), pastes=False, **masked) == (0, 0, 64, 64)
    two = {**masked, "overlay_images": [original, Image.new("RGBA", (100, 100))]}
    assert area_of((400, 200), (8, 8), 0, **two) == (100, 40, 180, 120)
    assert area_of((200, 200), (8, 8), 1, **two) == (100, 40, 180, 120), "each is put back into its own"
    assert area_of((200, 200), (8, 8), 2, **two) == (100, 40, 180, 120), "of a batch that shares the last"
    cut = {
        "enable_hr": True,
        "hr_upscale_to_x": 128,
        "hr_upscale_to_y": 128,
        "truncate_x": 0,
        "truncate_y": 5,
    }
    assert area_of((128, 88), (11, 16), hires=True, **cut) == (0, 0, 128, 96)
    assert area_of((128, 88), (8, 8), **cut) == (0, -16, 128, 112), "the first pass, enlarged and cut"
    assert area_of((64, 64), (8, 8), **cut) == (0, 0, 64, 64), "interrupted before the second pass"
    with pytest.raises(GuidanceError, match="4x8 latents where the picture has 8x8"):
        area_of((64, 64), (8, 4))


def test_colours_cover_the_area_and_nothing_else():
    picture = Image.fromarray(np.random.default_rng().integers(0, 256, (60, 80, 3)).astype(np.uint8))
    shares = np.random.default_rng().random((4, 4))
    scale = Scale.of(shares)
    grey = picture.convert("L").convert("RGB")
    inside = np.asarray(overlay(picture, shares, scale, (20, 10, 52, 42)))
    plain = np.asarray(grey).copy()
    part = grey.crop((20, 10, 52, 42))
    plain[10:42, 20:52] = np.asarray(Image.blend(part, heat(shares, scale, 32, 32), 0.65))
    assert np.array_equal(inside, plain)
    beyond = np.asarray(overlay(picture, shares, scale, (-10, -20, 90, 80)))
    whole = heat(shares, scale, 100, 100).crop((10, 20, 90, 80))
    assert np.array_equal(beyond, np.asarray(Image.blend(grey, whole, 0.65)))


def test_the_steps_cover_the_same_area():
    picture = Image.fromarray(np.random.default_rng().integers(0, 256, (128, 256, 3)).astype(np.uint8))
    shares = np.random.default_rng().random((4, 4))
    sheet, scale = draw_steps("x", picture, [(0, shares)], (64, 32, 192, 96))
    wanted = np.asarray(overlay(picture, shares, scale, (64, 32, 192, 96)))
    assert any(
        np.array_equal(np.asarray(sheet.crop((12, top, 12 + 256, top + 128))), wanted)
        for top in range(sheet.height - 127)
    ), "as large as a tile, so that nothing is scaled"
    larger = picture.resize((512, 256), Image.Resampling.NEAREST)
    enlarged, _ = draw_steps("x", larger, [(0, shares)], (128, 64, 384, 192))
    assert enlarged.size == sheet.size
    moved = np.abs(np.asarray(enlarged).astype(int) - np.asarray(sheet)).mean()
    other, _ = draw_steps("x", larger, [(0, shares)], (64, 32, 192, 96))
    assert moved < np.abs(np.asarray(other).astype(int) - np.asarray(sheet)).mean() / 2


def test_a_pass_without_a_map_says_why():
    said: list[str] = []
    p = SimpleNamespace(width=64, height=64, iteration=0, batch_size=1, all_seeds=[1])
    besides = Besides(p, Host(), "picture", said.append)
    besides.begin_pass().give_up("another extension calls the model in parts")
    report = Report("vsf", ("a",), "x", 1, 1, (0,), False, 1, (2,), None)
    besides.end_pass(report, hires=False, negatives=("wheels",))
    besides.draw(0, Image.new("RGB", (64, 64)))
    processed = SimpleNamespace(images=[1], infotexts=["x"], comments="")
    besides.add_to(processed)
    assert processed.images == [1]
    besides.draw(1, Image.new("RGB", (64, 64)))
    assert len(said) == 1
    assert "in parts" in said[0]


def test_nothing_of_the_host_is_imported():
    source = Path("vsf_lib/webui/beside.py").read_text(encoding="utf-8")
    assert "modules" not in re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE)


@pytest.mark.parametrize("inner_heatmap", ["off", "picture"])
def test_a_job_within_a_job_adds_nothing(model, host, inner_heatmap):
    """An extension that mends a part of each result makes a job of its own for it."""
    alone = job(model, host)
    process_images(alone)
    inner, outer = job(model, host, inner_heatmap, batch_size=1), job(model, host)
    own = outer.callbacks.postprocess_image_after_composite

    def mend_first(p: Any, shown: Any) -> None:
        inner.callbacks = outer.callbacks if p is outer else inner.callbacks
        if p is outer and inner.processed is None:
            process_images(inner)
        own(p, shown)

    outer.callbacks.postprocess_image_after_composite = mend_first
    process_images(outer)
    assert len(inner.processed.images) == {"off": 1, "picture": 2}[inner_heatmap]
    assert outer.processed.infotexts == alone.processed.infotexts
    for one, other in zip(outer.processed.images, alone.processed.images, strict=True):
        assert np.array_equal(one, other)
