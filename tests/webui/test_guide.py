"""Whole generations in a small host: guided as claimed, or ended; off and afterwards as if never there."""

from __future__ import annotations

import copy
import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import reference_forge
import reference_small_wan
import small_flux
import small_mmdit
import small_wan
import torch
from small_host import Host, Model, Processing, letters, process_images, weighted

from vsf_lib.adapters import forge_flux
from vsf_lib.errors import GuidanceError, ModelError, PromptError, SettingsError
from vsf_lib.settings import Settings
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.negatives import Negatives
from vsf_lib.webui.notices import NOTICES
from vsf_lib.webui.request import Checkpoint


@pytest.fixture
def model() -> Model:
    return Model(weighted(small_mmdit.SmallMMDiT()))


@pytest.fixture
def host() -> Host:
    return Host()


def job(model: Model, host: Host, settings: dict[str, Any] | None, **values: Any) -> Processing:
    arguments = () if settings is None else ({"alpha": 1.2, "beta": 0.1, **settings},)
    callbacks = Callbacks(host) if settings is not None else None
    return Processing(model, callbacks, host, arguments=arguments, **values)


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))


def plain(model: Model, host: Host, **values: Any) -> list[Any]:
    return process_images(job(model, host, None, **values))


@torch.inference_mode()
def test_pictures_are_what_the_equations_give(model, host):
    negatives = ["wheels", "roof"]
    pictures = process_images(job(model, host, {}, negative_prompt=negatives, steps=1))
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
    for row, text in enumerate(negatives):
        wanted = noise[row] - reference_forge.guided_row(
            network, args, row, letters(text), Settings(alpha=1.2, beta=0.1)
        )
        torch.testing.assert_close(pictures[row][0], wanted, atol=1e-6, rtol=1e-6)


@torch.inference_mode()
def test_a_video_is_one_picture_of_many_frames(host):
    """The WebUI has a text for each frame, and takes the first."""
    network = weighted(small_wan.SmallWan())
    model = Model(network)
    common = {"batch_size": 5, "video": True, "steps": 1}
    off = process_images(job(model, host, None, **common))
    made = process_images(job(model, host, {}, negative_prompt="wheels", **common))
    own = process_images(job(model, host, {"negative_prompt": "wheels"}, **common))
    assert same(made, own)
    assert all("VSF alpha" in infotext for _, infotext in made)
    assert model.encoded == ["wheels", "wheels"], "two jobs, each with one text"
    torch.manual_seed(0)
    noise = torch.randn(1, 4, 5, 6, 4, dtype=torch.float64)
    args = {
        "input": noise,
        "timestep": torch.ones(1, dtype=torch.float64),
        "c": {"c_crossattn": letters("prompt0", 7)[None]},
    }
    settings = Settings(alpha=1.2, beta=0.1)
    wanted = noise[0] - reference_small_wan.guided_row(network, args, 0, letters("wheels"), settings)
    torch.testing.assert_close(torch.stack([x for x, _ in made], 1), wanted, atol=1e-6, rtol=1e-6)
    assert not same(made, off)
    assert same(process_images(job(model, host, None, **common)), off)


def network_of(kind: str) -> torch.nn.Module:
    return weighted({"sd35": small_mmdit.SmallMMDiT, "wan": small_wan.SmallWan}[kind]())


@pytest.mark.parametrize("fast", [False, True], ids=["another model", "other weights"])
@pytest.mark.parametrize("kind", ["sd35", "wan"])
def test_a_refiner_is_guided_too(host, kind, fast):
    """Half of the steps are another model's, with its own keys and values of the negative."""
    first, second = network_of(kind), network_of(kind)
    video = {"batch_size": 1, "video": kind == "wan", "steps": 2, "negative_prompt": "wheels"}
    refined = {"refiner": second, "refiner_switch_at": 0.5, "refiner_fast": fast}
    made = process_images(job(Model(copy.deepcopy(first)), host, {}, **video, **refined))
    torch.manual_seed(0)
    x = torch.randn(*((1, 4, 1, 6, 4) if video["video"] else (1, 4, 6, 4)), dtype=torch.float64)
    reference = reference_small_wan if kind == "wan" else reference_forge
    for step, network in enumerate((first, second)):
        args = {
            "input": x,
            "timestep": torch.full((1,), 1 - step / 2, dtype=torch.float64),
            "c": {
                "c_crossattn": letters("prompt0", 7)[None],
                "y": torch.zeros(1, 8, dtype=torch.float64),
            },
        }
        settings = Settings(alpha=1.2, beta=0.1)
        x = x - reference.guided_row(network, args, 0, letters("wheels"), settings)[None] / 2
    wanted = x[0].unbind(1)[0] if video["video"] else x[0]
    torch.testing.assert_close(made[0][0], wanted, atol=1e-6, rtol=1e-6)
    assert "VSF alpha" in made[0][1]


@pytest.mark.parametrize("strict", [True, False])
def test_a_refiner_of_another_kind_ends_the_picture(model, strict):
    """Half of it is guided already, so that there is no going on without."""
    refined = {
        "refiner": network_of("wan"),
        "refiner_switch_at": 0.5,
        "steps": 2,
        "negative_prompt": "wheels",
    }
    with pytest.raises(ModelError, match=r"exchanged in the middle for a SmallWan, which is no SD3\.5"):
        process_images(job(model, Host(strict=strict), {}, **refined))


def test_a_refiner_of_another_kind_may_come_after_the_guided_steps(model, host):
    """Nothing of what it draws is claimed."""
    first, second = model.original.model.diffusion_model, network_of("wan")
    second.forward = lambda x, *_, **__: x / 3  # any model of another kind: its steps are its own
    values = {"refiner_switch_at": 0.5, "steps": 4, "negative_prompt": "wheels", "batch_size": 1}
    settings = {"end": 0.5, "heatmap": "picture"}
    p = job(Model(copy.deepcopy(first)), host, settings, refiner=second, **values)
    refined = process_images(p)
    assert "VSF alpha" in refined[0][1]
    assert "Map steps: 2 of 4" in p.processed.infotexts[1]
    unguided = plain(Model(copy.deepcopy(first)), host, refiner=second, **values)
    assert not same(refined, unguided)
    stopping = job(model, host, {"end": 0.5}, **{**values, "refiner_switch_at": None})
    stopping.on_step = lambda step: setattr(host, "stopped", step == 2)
    halves = process_images(stopping)
    host.stopped = False
    wanted = halves[0][0]
    for _ in range(2):
        wanted = wanted - wanted / 3 / 4
    torch.testing.assert_close(refined[0][0], wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", ["sd35", "wan"])
def test_a_refiner_of_the_same_kind_after_the_guided_steps_draws_as_ever(host, kind):
    """That its calls run all of its blocks is asked of its own."""
    first, second = network_of(kind), network_of(kind)
    values = {"batch_size": 1, "video": kind == "wan", "steps": 4, "negative_prompt": "wheels"}
    values |= {"refiner": second, "refiner_switch_at": 0.5}
    half = process_images(job(Model(copy.deepcopy(first)), host, {"end": 0.5}, **values))
    assert "VSF alpha" in half[0][1]
    assert not same(half, plain(Model(copy.deepcopy(first)), host, **values))
    assert not any(block._forward_hooks for block in second.modules())


def test_a_refiner_that_cannot_be_guided_is_refused_like_a_model(model, host):
    second = network_of("sd35")
    second.joint_blocks[0]._compiled_call_impl = object()
    values = {"refiner": second, "refiner_switch_at": 0.5, "steps": 2, "negative_prompt": "wheels"}
    with pytest.raises(ModelError, match="compiled"):
        process_images(job(model, host, {}, **values))


def test_with_skip_a_refiner_of_another_kind_draws_an_unguided_picture(model):
    """Nothing was guided yet when it came, so that the whole picture can go on as if VSF were off."""
    second = network_of("wan")
    second.forward = lambda x, *_, **__: x / 3
    values = {"refiner": second, "refiner_switch_at": 0.5, "steps": 4, "negative_prompt": "wheels"}
    first = model.original.model.diffusion_model
    p = job(Model(copy.deepcopy(first)), Host(strict=False), {"start": 0.5}, **values)
    pictures = process_images(p)
    assert same(pictures, plain(Model(copy.deepcopy(first)), Host(), **values))
    assert pictures[0][1] == {}
    assert "exchanged in the middle" in p.comments[0]


@torch.inference_mode()
def test_equation_10_on_flux(host):
    network = weighted(small_flux.SmallFlux())
    model = Model(network)
    settings = {"negative_prompt": "roof", "negative_scale": 3.0}
    callbacks = Callbacks(host)
    arguments = ({"alpha": 1.2, "beta": 0.1, **settings},)
    for _ in range(2):
        pictures = process_images(
            Processing(model, callbacks, host, arguments=arguments, steps=1, batch_size=1, n_iter=2)
        )
    assert model.paddings == 1, "the encoding of padding is kept"
    torch.manual_seed(0)
    noise = torch.randn(1, 4, 6, 4, dtype=torch.float64)
    args = {
        "input": noise,
        "timestep": torch.ones(1, dtype=torch.float64),
        "c": {"c_crossattn": letters("prompt0", 7)[None], "y": torch.zeros(1, 8, dtype=torch.float64)},
    }
    negative = letters("roof") + 3.0 * (letters("roof") - letters("~" * 256).mean(0))
    wanted = noise[0] - reference_forge.guided_row(network, args, 0, negative, Settings(alpha=1.2, beta=0.1))
    torch.testing.assert_close(pictures[0][0], wanted, atol=1e-5, rtol=1e-5)


def test_the_infotext_says_what_was_done_and_off_leaves_nothing(model, host):
    before = plain(model, host)
    on = process_images(job(model, host, {"negative_prompt": "wheels"}))
    assert not same(on, before)
    assert Settings.from_infotext(on[0][1]) == Settings(negative_prompt="wheels", alpha=1.2, beta=0.1)
    off = job(model, host, {"enabled": False, "negative_prompt": "wheels"})
    pictures = process_images(off)
    assert same(pictures, before)
    assert pictures[0][1] == {}
    assert "sample" not in vars(off)
    assert same(plain(model, host), before)


def test_each_batch_has_its_own_negatives_and_encodes_once(model, host):
    texts = ["wheels", "roof", "sail", "hat"]
    together = process_images(job(model, host, {}, negative_prompt=texts, n_iter=2))
    alone = process_images(job(model, host, {}, negative_prompt=texts[:2]))
    assert same(together[:2], alone)
    assert not same(together[2:], alone)
    callbacks = Callbacks(host)
    model.encoded.clear()
    for _ in range(2):
        process_images(Processing(model, callbacks, host, arguments=({"negative_prompt": "hat"},)))
    assert model.encoded == ["hat", "hat"], "two pictures of one batch, encoded once in two generations"


def test_cfg_keeps_its_unconditional_rows(model, host):
    at_3 = process_images(job(model, host, {"negative_prompt": "wheels"}, cfg_scale=3.0))
    assert not same(at_3, plain(model, host, cfg_scale=3.0))


@pytest.mark.parametrize("hires_pass", ["both", "first", "second"])
def test_hires_passes(model, host, hires_pass):
    p = job(model, host, {"negative_prompt": "wheels", "hires_pass": hires_pass}, enable_hr=True)
    seen = []
    p.on_step = lambda step: seen.append(
        (p.is_hr_pass, "model_function_wrapper" in model.forge_objects.unet.model_options)
    )
    pictures = process_images(p)
    guided = {is_hr for is_hr, wrapped in seen if wrapped}
    assert guided == {"both": {False, True}, "first": {False}, "second": {True}}[hires_pass]
    assert "VSF alpha" in pictures[0][1]
    assert not same(pictures, plain(model, host, enable_hr=True))


def test_hires_has_its_own_negative(model, host):
    p = job(model, host, {}, negative_prompt="wheels", hr_negative_prompt="roof", enable_hr=True)
    process_images(p)
    assert model.encoded == ["wheels", "wheels", "roof", "roof"]


def test_both_boxes_empty_is_a_notice_and_nothing_else(model, host):
    p = job(model, host, {})
    pictures = process_images(p)
    assert same(pictures, plain(model, host))
    assert pictures[0][1] == {}
    assert len(p.comments) == 1
    assert "both negative prompts are empty" in p.comments[0]
    assert p.processed.extra_generation_params == {NOTICES: p.comments}, "an API's client sees no comments"
    assert not p.extra_generation_params, "and no infotext has them"


def test_where_all_went_well_there_are_no_notices(model, host):
    p = job(model, host, {"negative_prompt": "wheels"})
    p.comments.append("somebody else's")
    process_images(p)
    assert "VSF alpha" in p.processed.extra_generation_params
    assert NOTICES not in p.processed.extra_generation_params


BAD = {
    "settings": ({"alpha": float("nan"), "negative_prompt": "wheels"}, {}, SettingsError, "alpha is nan"),
    "some empty": ({}, {"negative_prompt": ["wheels", ""]}, SettingsError, "picture 2"),
    "no scale": ({"negative_scale": 2, "negative_prompt": "x"}, {}, SettingsError, "does nothing on SD3.5"),
    "no step": ({"start": 0.4, "end": 0.5, "negative_prompt": "x"}, {}, SettingsError, "none of 3 steps"),
    "hires": (
        {},
        {"negative_prompt": "x", "hr_negative_prompt": " ", "enable_hr": True},
        PromptError,
        "second pass",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_ends_the_generation_and_the_next_is_as_ever(model, host, case):
    settings, values, kind, says = BAD[case]
    before = plain(model, host)
    p = job(model, host, settings, **values)
    steps = []
    p.on_step = lambda step: steps.append((p.is_hr_pass, step))
    with pytest.raises(kind, match=says):
        process_images(p)
    assert all(step == 0 for is_hr, step in steps if is_hr or case != "hires"), "ended at once"
    assert not any(key.startswith("VSF") for key in p.extra_generation_params)
    assert "swallowed" not in p.comments
    assert same(plain(model, host), before)


@pytest.mark.parametrize("hires", [False, True])
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_host_does_not_keep_the_job_with_its_model(model, host, hires, error):
    def on_step(_: int) -> None:
        if error is not None:
            raise error("in the middle of sampling")

    p = job(model, host, {"negative_prompt": "wheels"}, n_iter=1, enable_hr=hires)
    p.on_step = on_step
    with nullcontext() if error is None else pytest.raises(error):
        process_images(p)
    assert "model_function_wrapper" not in model.forge_objects.unet.model_options


def test_what_another_keeps_of_ours_holds_no_job(model, host):
    """An extension that patches the model after us copies our wrapper with the rest."""
    kept: list[Any] = []

    def on_step(_: int) -> None:
        objects = model.forge_objects
        if not kept:
            objects.unet = objects.unet.clone()
            kept.append(objects.unet.model_options["model_function_wrapper"])

    p = job(model, host, {"negative_prompt": "wheels"}, n_iter=1)
    p.on_step = on_step
    process_images(p)
    left = weakref.ref(p)
    del p
    gc.collect()
    assert left() is None
    args = {"input": 1, "timestep": 2, "c": {}}
    assert kept[0](lambda x, t: (x, t), args) == (1, 2)


@pytest.mark.parametrize("case", ["settings", "some empty", "no scale", "no step"])
def test_with_skip_it_goes_on_unguided_and_says_so(model, case):
    host = Host(strict=False)
    settings, values, _, says = BAD[case]
    p = job(model, host, settings, **values)
    pictures = process_images(p)
    assert same(pictures, plain(model, host))
    assert pictures[0][1] == {}
    assert says in "".join(p.comments)


@pytest.mark.parametrize("call", [1, 3])
def test_skip_never_hides_that_half_of_a_picture_was_guided(model, call):
    """What goes wrong at the first step leaves it unguided; a later one cannot go on as if VSF were off."""
    host = Host(strict=False)
    calls = []

    def cut(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(1)
        return ((args[0][:, 1:], *args[1:]), kwargs) if len(calls) == call else None

    p = job(model, host, {"negative_prompt": "wheels"}, n_iter=1)
    block = model.original.model.diffusion_model.joint_blocks[1]
    handle = block.register_forward_pre_hook(cut, with_kwargs=True)
    try:
        if call == 1:
            assert same(process_images(p), plain(model, host, n_iter=1))
            assert "text tokens where" in p.comments[0]
        else:
            with pytest.raises(GuidanceError, match="text tokens where"):
                process_images(p)
    finally:
        handle.remove()
    assert p.extra_generation_params == {}


def test_skip_does_not_leave_the_second_pass_alone_unguided(model):
    """What is wrong with the second pass is known before the first one, or it ends the generation."""
    host = Host(strict=False)
    settings, values, _, says = BAD["hires"]
    p = job(model, host, settings, **values)
    assert same(process_images(p), plain(model, host, **values))
    assert says in p.comments[0]
    calls = []

    def cut(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(1)
        return ((args[0][:, 1:], *args[1:]), kwargs) if len(calls) == 4 else None

    block = model.original.model.diffusion_model.joint_blocks[1]
    handle = block.register_forward_pre_hook(cut, with_kwargs=True)
    with pytest.raises(GuidanceError, match="text tokens where"):
        process_images(job(model, host, {"negative_prompt": "wheels"}, enable_hr=True))
    handle.remove()


def test_a_model_that_cannot_be_guided_is_named(host):
    other = Model(torch.nn.Linear(2, 2))
    p = job(other, host, {"negative_prompt": "wheels"})
    with pytest.raises(ModelError, match="the loaded model is a Linear"):
        process_images(p)


def test_what_fails_inside_the_model_ends_the_generation(model, host):
    before = plain(model, host)
    block = model.original.model.diffusion_model.joint_blocks[1]

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = block.register_forward_pre_hook(fail)
    p = job(model, host, {"negative_prompt": "wheels"})
    with pytest.raises(RuntimeError, match="out of memory"):
        process_images(p)
    handle.remove()
    assert not any(key.startswith("VSF") for key in p.extra_generation_params)
    assert same(plain(model, host), before)


def test_an_interrupt_keeps_what_was_guided(model, host):
    p = job(model, host, {"negative_prompt": "wheels"})

    def stop(step: int) -> None:
        host.stopped = step == 2

    p.on_step = stop
    pictures = process_images(p)
    assert "VSF alpha" in pictures[0][1]
    host.stopped = False
    at_once = job(model, host, {"negative_prompt": "wheels"})
    at_once.on_step = lambda step: setattr(host, "stopped", True)
    assert "VSF alpha" not in process_images(at_once)[0][1]


def test_a_sampler_that_does_not_call_the_model_is_an_error(model, host):
    p = job(model, host, {"negative_prompt": "wheels"}, steps=0)
    with pytest.raises(GuidanceError, match="without calling the model"):
        process_images(p)


def test_a_copied_job_does_not_inherit_the_guide(model, host):
    """X/Y/Z plots copy a processing object and run the copies."""
    p = job(model, host, {"negative_prompt": "wheels"})
    first = process_images(p)
    again = copy.copy(p)
    again.arguments = ({"negative_prompt": "roof", "alpha": 1.2, "beta": 0.1},)
    second = process_images(again)
    assert not same(first, second)
    third = copy.copy(again)
    third.arguments = (False,)
    third.extra_generation_params = {}
    assert same(process_images(third), plain(model, host))
    assert same(process_images(p), first)


def test_an_earlier_wrapper_still_acts(model, host):
    def double(apply: Any, args: dict[str, Any]) -> Any:
        return 2 * apply(args["input"], args["timestep"], **args["c"])

    model.original.set_model_unet_function_wrapper(double)
    doubled = process_images(job(model, host, {"negative_prompt": "wheels"}))
    plain_double = plain(model, host)
    model.original.model_options.clear()
    assert not same(doubled, process_images(job(model, host, {"negative_prompt": "wheels"})))
    assert not same(doubled, plain_double)


def test_an_interrupt_before_the_guided_steps_keeps_the_picture_without_keys(model, host):
    p = job(model, host, {"negative_prompt": "wheels", "start": 0.5}, steps=4)
    p.on_step = lambda step: setattr(host, "stopped", step == 1)
    pictures = process_images(p)
    assert len(pictures) == 2
    assert pictures[0][1] == {}


def test_a_skip_in_the_second_pass_keeps_what_the_first_one_did(model, host):
    p = job(model, host, {"negative_prompt": "wheels"}, enable_hr=True)
    p.on_step = lambda step: setattr(host, "stopped", p.is_hr_pass)
    assert "VSF alpha" in process_images(p)[0][1]


def test_a_copied_job_does_not_inherit_keys(model, host):
    """A plot's copies share the dictionary of the infotext; a value left out as a default stays in it."""
    p = job(model, host, {"negative_prompt": "wheels", "start": 0.3})
    process_images(p)
    again = copy.copy(p)
    again.arguments = ({"negative_prompt": "wheels", "alpha": 1.2, "beta": 0.1},)
    assert "VSF start" not in process_images(again)[0][1]


def test_each_batch_has_its_own_keys_and_hires_negatives(model):
    """One batch that cannot be guided does not take the following ones along."""
    texts = ["wheels", "", "roof", "sail"]
    with_skip = Host(strict=False)
    p = job(model, with_skip, {}, negative_prompt=texts, n_iter=2)
    pictures = process_images(p)
    assert [bool(pairs) for _, pairs in pictures] == [False, False, True, True]
    assert "picture 2" in p.comments[0]
    later = process_images(job(model, with_skip, {}, negative_prompt=texts[2:] + texts[:2], n_iter=2))
    assert [bool(pairs) for _, pairs in later] == [True, True, False, False], "the first one is finished"
    strict = Host()
    model.encoded.clear()
    hires = ["a", "b", "c", "d"]
    process_images(
        job(model, strict, {}, negative_prompt="x", hr_negative_prompt=hires, enable_hr=True, n_iter=2)
    )
    assert model.encoded == ["x", "x", "a", "b", "c", "d"]


def test_a_first_pass_that_was_not_sampled_is_not_called_guided(model, host):
    p = job(model, host, {"negative_prompt": "wheels", "hires_pass": "first"}, enable_hr=True)
    p.first_pass_made = True
    pictures = process_images(p)
    assert pictures[0][1] == {}
    assert "was not made" in p.comments[0]
    lost = job(model, host, {"negative_prompt": "wheels"}, enable_hr=True)
    lost.ignores_first_wrapper = True
    with pytest.raises(GuidanceError, match="without calling the model"):
        process_images(lost)


def test_hires_alone_can_have_a_negative(model, host):
    values = {"negative_prompt": "", "hr_negative_prompt": "roof", "enable_hr": True}
    second = process_images(job(model, host, {"hires_pass": "second"}, **values))
    assert "VSF alpha" in second[0][1]
    assert not same(second, plain(model, host, **values))
    with pytest.raises(PromptError, match="first pass of hires fix has no negative"):
        process_images(job(model, host, {}, **values))
    nothing = job(model, host, {"hires_pass": "first"}, **values)
    assert process_images(nothing)[0][1] == {}
    assert "both negative prompts are empty" in nothing.comments[0]


@pytest.mark.parametrize("text", ["<lora:x:1>", "BREAK", " <lora:a:0.5>  BREAK "])
def test_a_negative_without_words_is_no_negative(model, host, text):
    with pytest.raises(SettingsError, match="has no word in it"):
        process_images(job(model, host, {"negative_prompt": text}))
    p = job(model, host, {}, negative_prompt=text)
    assert process_images(p)[0][1] == {}
    assert "empty" in p.comments[0]


def test_what_another_extension_put_in_place_of_sampling_is_there_again(model, host):
    p = job(model, host, {"negative_prompt": "wheels"})
    theirs = p.sample

    def replaced(*args: Any) -> Any:
        return theirs(*args)

    p.sample = replaced
    process_images(p)
    assert vars(p)["sample"] is replaced


def test_a_copy_made_while_pictures_are_finished_samples_by_itself(model, host):
    p = job(model, host, {"negative_prompt": "wheels"})
    copies = []
    p.on_step = lambda step: copies.append(copy.copy(p))
    process_images(p)
    assert all("sample" not in vars(other) for other in copies)


def test_another_model_or_form_is_encoded_again(host):
    network = small_mmdit.SmallMMDiT().double().eval()
    callbacks = Callbacks(host)
    for arguments in ({}, {"negative_tokens": "words"}, {"method": "nag"}, {}):
        one = Model(network)
        process_images(Processing(one, callbacks, host, arguments=({"negative_prompt": "hat", **arguments},)))
        assert one.encoded == ["hat", "hat"], "another model, even with the same name"
    process_images(Processing(one, callbacks, host, arguments=({"negative_prompt": "hat", "method": "nag"},)))
    assert one.encoded == ["hat"] * 4, "another form"
    host.t5 = False
    process_images(Processing(one, callbacks, host, arguments=({"negative_prompt": "hat", "method": "nag"},)))
    assert one.encoded == ["hat"] * 6, "without T5, as the host's option has it"


def test_another_kind_of_model_in_the_second_pass(model, host):
    host.second = Checkpoint("schnell.safetensors", "Flux")
    p = job(model, host, {"negative_prompt": "wheels"}, enable_hr=True)
    p.on_step = lambda step: pytest.fail("nothing may be sampled")
    with pytest.raises(SettingsError, match="another kind of model"):
        process_images(p)
    first = process_images(job(model, host, {"negative_prompt": "x", "hires_pass": "first"}, enable_hr=True))
    assert "VSF alpha" in first[0][1]
    host.second = Checkpoint("other_sd3.5_turbo.safetensors", "SD3.5")
    both = process_images(job(model, host, {"negative_prompt": "x"}, enable_hr=True))
    assert "VSF alpha" in both[0][1]


def test_dev_after_schnell_is_another_kind_too(host):
    """Both are Flux, and their presets far apart."""
    flux = Model(weighted(small_flux.SmallFlux()))
    host.second = Checkpoint("dev.safetensors", "Flux", guidance_embedding=True)
    with pytest.raises(SettingsError, match="another kind of model"):
        process_images(job(flux, host, {"negative_prompt": "x"}, enable_hr=True))
    host.second = Checkpoint("other schnell.safetensors", "Flux")
    both = process_images(job(flux, host, {"negative_prompt": "x"}, enable_hr=True))
    assert "VSF alpha" in both[0][1]


def test_no_model_is_kept_alive(host):
    """What is kept of it, for the next job, goes with it: a checkpoint is many gigabytes."""
    callbacks = Callbacks(host)
    model = Model(network_of("sd35"))
    process_images(Processing(model, callbacks, host, arguments=({"negative_prompt": "x"},)))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_what_means_nothing_here_is_not_written(model, host):
    """No hires fix and one kind of block: such choices stay out of the infotext."""
    p = job(model, host, {"negative_prompt": "x", "hires_pass": "second", "blocks": "double"})
    pictures = process_images(p)
    assert not same(pictures, plain(model, host))
    assert set(pictures[0][1]) == {"VSF negative prompt", "VSF alpha", "VSF beta"}


@pytest.mark.parametrize("hires_pass", ["second", "both", "first"])
def test_an_interrupt_in_the_first_pass(model, host, hires_pass):
    p = job(model, host, {"negative_prompt": "x", "hires_pass": hires_pass}, enable_hr=True)
    p.on_step = lambda step: setattr(host, "stopped", step == 1)
    guided = "VSF alpha" in process_images(p)[0][1]
    assert guided == (hires_pass != "second")


def test_an_error_says_whose_it_is(model, host):
    with pytest.raises(SettingsError, match=r"^VSF: alpha is -1"):
        process_images(job(model, host, {"negative_prompt": "x", "alpha": -1}))


def test_padding_is_encoded_anew_with_another_lora(host):
    model, negatives = Model(weighted(small_flux.SmallFlux())), Negatives()
    settings = Settings(negative_prompt="roof", negative_scale=3.0)

    def schedule(networks, hires=False):
        p = SimpleNamespace(sd_model=model, extra_network_data=networks, hr_extra_network_data={})
        negatives.schedule(p, ["roof"], settings, host, hires=hires, network=forge_flux.NETWORK)
        return model.paddings

    one = {"lora": [["style", "0.5"]]}
    assert [schedule({}), schedule({}), schedule({}, hires=True)] == [1, 1, 1]
    assert [schedule(one), schedule({"lora": [["style", "0.5"]]})] == [2, 2]
    assert schedule({"lora": [["style", "0.7"]]}) == 3
    assert schedule({}) == 4
