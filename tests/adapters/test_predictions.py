"""The picture that each step expects, from the denoiser's own calls in float64; that watching is unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_flux
import tiny_sd3
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from recorder import Recorder, difference

from vsf_lib.adapters import guided
from vsf_lib.adapters.predictions import check_scheduler, decode, watch_predictions
from vsf_lib.errors import ModelError
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)


@pytest.fixture(scope="module", params=["sd3", "flux"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A pipeline, and the function that draws with it."""
    tiny = {"sd3": tiny_sd3, "flux": tiny_flux}[request.param]
    return tiny.make_pipeline(), tiny.generate


def test_each_step_expects_its_input_less_its_noise(pair: tuple[Any, Any]) -> None:
    pipe, generate = pair
    with Recorder(pipe) as seen, guided(pipe, VSF), watch_predictions(pipe, range(4)) as predictions:
        generate(pipe)
    taken = predictions.taken()
    assert [prediction.step for prediction in taken] == [0, 1, 2, 3]
    for number, prediction in enumerate(taken):
        assert prediction.sigma == pytest.approx(float(pipe.scheduler.sigmas[number]))
        x, v = seen.inputs[number]["hidden_states"].double(), seen.outputs[number].double()
        assert difference(prediction.latents, x - float(pipe.scheduler.sigmas[number]) * v) < 1e-5
        assert difference(prediction.latents, x) > 0.1


def test_guidance_of_the_classifier_free_kind_is_in_it() -> None:
    pipe = tiny_sd3.make_pipeline()
    with Recorder(pipe) as seen, watch_predictions(pipe, range(4)) as predictions:
        tiny_sd3.generate(pipe, guidance_scale=3.0)
    for number, prediction in enumerate(predictions.taken()):
        without, prompted = seen.outputs[number].double()
        x = seen.inputs[number]["hidden_states"][:1].double()
        v = without + 3 * (prompted - without)
        assert difference(prediction.latents, x - float(pipe.scheduler.sigmas[number]) * v) < 1e-4


def test_the_last_steps_is_the_picture_to_the_bit(pair: tuple[Any, Any]) -> None:
    pipe, generate = pair
    with watch_predictions(pipe, (1, 3)) as predictions:
        pixels = generate(pipe, output_type="np")
    first, last = predictions.taken()
    assert (first.step, last.step) == (1, 3)
    image = pipe.image_processor.numpy_to_pil(pixels)[0]
    assert np.array_equal(np.asarray(decode(pipe, last.latents, 8, 8)), np.asarray(image))
    assert not np.array_equal(np.asarray(decode(pipe, first.latents, 8, 8)), np.asarray(image))


def test_watching_and_recording_change_no_bit(pair: tuple[Any, Any]) -> None:
    pipe, generate = pair
    with guided(pipe, VSF):
        alone = generate(pipe)
    for record in (True, "layers"):
        with guided(pipe, VSF, record_share=record), watch_predictions(pipe, range(4)):
            assert torch.equal(generate(pipe), alone)


def test_the_scheduler_is_as_before(pair: tuple[Any, Any]) -> None:
    pipe, generate = pair
    before = set(pipe.scheduler.__dict__)

    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch_predictions(pipe, range(4)):
        leave()
    assert set(pipe.scheduler.__dict__) == before
    generate(pipe)


def test_steps_count_from_a_given_pictures_own_first_one() -> None:
    pipe = tiny_sd3.with_a_picture(tiny_sd3.make_pipeline())
    with watch_predictions(pipe, range(4)) as predictions:
        tiny_sd3.generate_from(pipe, strength=0.5)
    assert [prediction.step for prediction in predictions.taken()] == [0, 1]
    assert predictions.taken()[0].sigma == pytest.approx(float(pipe.scheduler.sigmas[2]))


def test_another_schedulers_steps_are_refused(pair: tuple[Any, Any]) -> None:
    pipe, _ = pair
    own, pipe.scheduler = pipe.scheduler, FlowMatchHeunDiscreteScheduler()
    try:
        with pytest.raises(ModelError, match="FlowMatchHeunDiscreteScheduler, but"):
            check_scheduler(pipe)
    finally:
        pipe.scheduler = own


@pytest.mark.parametrize("network", ["sd3", "flux"])
def test_each_layers_share_is_its_own(network: str) -> None:
    import reference_flux
    import reference_sd3

    tiny, reference = {
        "sd3": (tiny_sd3, reference_sd3),
        "flux": (tiny_flux, reference_flux),
    }[network]
    pipe = tiny.make_pipeline()
    with Recorder(pipe) as seen, guided(pipe, VSF, record_share="layers") as guidance:
        tiny.generate(pipe, ["a red car", "a boat"], num_inference_steps=2)
    report = guidance.report
    assert report is not None
    assert report.share is not None
    assert report.layer_share is not None
    assert report.layer_share.shape == (2, len(report.layers), 2, 16)
    assert difference(report.layer_share.mean(1), report.share) < 1e-6
    for image in range(2):
        run = reference.Reference(pipe.transformer, VSF)
        run(seen.inputs[1], image, reference.negative_embedding(pipe, "wheels"))
        assert len(run.shares) == len(report.layers)
        for layer, expected in enumerate(run.shares):
            assert difference(report.layer_share[1, layer, image], expected) < 1e-5


def test_without_asking_no_layers_share_is_kept() -> None:
    pipe = tiny_sd3.make_pipeline()
    with guided(pipe, VSF, record_share=True) as guidance:
        tiny_sd3.generate(pipe, num_inference_steps=1)
    assert guidance.report is not None
    assert guidance.report.layer_share is None
    # Rows that are not guided have no share.
    with guided(pipe, VSF, record_share="layers") as guidance:
        tiny_sd3.generate(pipe, num_inference_steps=1, guidance_scale=2.0)
    assert guidance.report is not None
    assert guidance.report.layer_share is not None
    assert guidance.report.layer_share.shape == (1, tiny_sd3.LAYERS, 1, 16)
