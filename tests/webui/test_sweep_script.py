"""The script "VSF sweep": what it takes, draws, keeps and says, in a host as small as can be."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_flux
import torch
from PIL import Image
from small_host import Host, Model, Processing, process_images

from vsf_lib import strip
from vsf_lib.errors import GuidanceError, OutputError, PromptError, SettingsError
from vsf_lib.infotext import read_pairs, write_pairs
from vsf_lib.settings import Settings, fields
from vsf_lib.strip import TILE, fit
from vsf_lib.sweep import FPS, INFOTEXT, LOOP
from vsf_lib.webui import axes, sweep_panel, sweep_player
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.request import ARGUMENTS as PANEL
from vsf_lib.webui.request import AUTO, Checkpoint
from vsf_lib.webui.sweep_host import ForgeSweeps
from vsf_lib.webui.sweep_request import ARGUMENTS, DEFAULTS, read, settings_to_sweep
from vsf_lib.webui.sweep_script import FILMS, LACKS, STOPPED, UNGUIDED, run

BASE = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0}
HEAD = {"Steps": 3, "Sampler": "Euler", "CFG scale": 1.0}


class WebUI:
    """The few modules of a host that a sweep asks: jobs of `small_host`, results as the host has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opts = SimpleNamespace(
            enable_pnginfo=True, grid_save=True, grid_format="png", grid_extended_filename=False,
            return_mask=False, return_mask_composite=False, sd_model_checkpoint="chosen",
        )  # fmt: skip
        self.state = SimpleNamespace(
            interrupted=False, skipped=False, stopping_generation=False, job_count=-1, job="", textinfo=None
        )
        self.totals: list[int] = []
        self.jobs: list[Any] = []
        self.notes: list[str] = []
        self.before = lambda number, job: None
        """Called with each job before it is drawn."""
        shared = SimpleNamespace(
            opts=self.opts, state=self.state, total_tqdm=SimpleNamespace(updateTotal=self.totals.append)
        )
        processing = SimpleNamespace(fix_seed=self.fix_seed, process_images=self.draw)
        images = SimpleNamespace(save_image=self.save, get_font=strip._font)
        self.checkpoints: dict[str, Any] = {}
        self.modules = SimpleNamespace(
            shared=shared,
            processing=processing,
            images=images,
            sd_models=SimpleNamespace(checkpoint_aliases=self.checkpoints),
        )

    def fix_seed(self, p: Any) -> None:
        p.seed = 7 if p.seed == -1 else p.seed

    def draw(self, job: Any) -> Any:
        self.before(len(self.jobs), job)
        self.jobs.append(job)
        self.notes.append(self.state.textinfo)
        self.state.skipped = False
        count = job.n_iter * job.batch_size
        job.all_seeds = [job.seed + i for i in range(count)]
        job.all_prompts, job.all_subseeds = ["a car"] * count, [0] * count
        made = process_images(job, job.seed)
        texts = [
            "a car\n" + write_pairs({**HEAD, "Seed": str(seed), **pairs})
            for (_, pairs), seed in zip(made, job.all_seeds, strict=False)
        ]
        return SimpleNamespace(
            images=[picture(x) for x, _ in made],
            infotexts=texts or ["nothing was drawn"],
            index_of_first_image=0,
            info="",
            comments="",
            extra_generation_params=job.extra_generation_params,
            **{name: getattr(job, name) for name in ("all_prompts", "all_seeds", "all_subseeds")},
            all_negative_prompts=job.all_negative_prompts,
        )

    def save(self, image: Any, folder: str, basename: str, seed: int, prompt: str, ending: str, **more: Any):
        assert (more["info"], more["grid"]) == (image.info["parameters"], True)
        path = self.folder / f"{basename}-{seed}.{ending}"
        image.save(path)
        return str(path), None


def picture(x: torch.Tensor) -> Image.Image:
    """A latent `[4, h, w]` as pixels that tell every one of its bits."""
    return Image.fromarray(np.ascontiguousarray(x.numpy()).view(np.uint8).reshape(24, 8 * 4), "L").convert(
        "RGB"
    )


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WebUI:
    made = WebUI(tmp_path)
    monkeypatch.setitem(sys.modules, "modules", made.modules)
    return made


@pytest.fixture
def model() -> Model:
    network = small_flux.SmallFlux()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.2 / parameter.shape[-1] ** 0.5))
    return Model(network.double().eval())


def panel(**values: Any) -> list[Any]:
    """What VSF's panel sends: every value."""
    defaults = {"enabled": True, "preset": AUTO, **{field.name: field.default for field in fields()}}
    return [{**defaults, **values}[name] for name in PANEL]


def job(arguments: Any = (BASE,), model: Any = None, **values: Any) -> Processing:
    script = SimpleNamespace(title=lambda: "VSF", args_from=1, args_to=1 + len(arguments))
    host = Host(strict=values.pop("strict", True))
    common = {"batch_size": 1, "seed": 3, "do_not_save_grid": False, "outpath_grids": "grids"}
    common["override_settings"] = {}
    return Processing(
        model,
        Callbacks(host),
        host,
        arguments=list(arguments),
        script_args=(0, *arguments),
        scripts=SimpleNamespace(alwayson_scripts=[script]),
        **{**common, **values},
    )


def sweep(p: Any, values: str, **more: Any) -> Any:
    return run(p, [{"values": values, "film": False, **more}], ForgeSweeps())


def alone(model: Model, settings: Any, seed: int = 3) -> np.ndarray:
    """The picture that one job of its own gives; unguided for False."""
    return np.asarray(picture(process_images(job([settings], model), seed)[0][0]))


def last_line(text: str) -> dict[str, str]:
    return read_pairs(text.split("\n")[-1])


def test_each_picture_is_the_one_drawn_alone(webui, model):
    p = job(model=model)
    before = dict(p.extra_generation_params)
    made = sweep(p, "0:3:1.5")
    wanted = [False, *({**BASE, "alpha": alpha} for alpha in (0.0, 1.5, 3.0))]
    whole, *pictures = made.images
    assert (made.index_of_first_image, len(pictures), len(made.infotexts)) == (1, 4, 5)
    tiles = []
    for image, text, settings in zip(pictures, made.infotexts[1:], wanted, strict=True):
        assert np.array_equal(np.asarray(image), alone(model, settings))
        told = Settings.from_infotext(last_line(text))
        if settings:
            assert (told.alpha, told.beta, told.negative_prompt) == (settings["alpha"], 0.0, "wheels")
        else:
            assert "VSF" not in text
        assert INFOTEXT not in text
        tiles.append(np.asarray(fit(image, TILE)))
    assert len({tile.tobytes() for tile in tiles}) == 4
    height, width, _ = tiles[0].shape
    for i, tile in enumerate(tiles):
        left = 8 + i * (width + 8)
        assert np.array_equal(np.asarray(whole)[8 : 8 + height, left : left + width], tile)
    assert not axes.values_of(p), "the job itself is as it was"
    assert p.extra_generation_params == before
    assert webui.notes == [
        f"VSF sweep: {label} ({i} of 4)"
        for i, label in enumerate(("without", "alpha 0", "alpha 1.5", "alpha 3"), 1)
    ]
    assert (webui.state.job_count, webui.totals, webui.state.textinfo) == (4, [12], None)


def test_the_strip_says_what_it_is_and_brings_it_back(webui, model):
    made = sweep(job(model=model), " 0.50:1:.5, 3")
    told, first = last_line(made.infotexts[0]), last_line(made.infotexts[2])
    assert told == {**first, "Script": "VSF sweep", INFOTEXT: "alpha=0.5:1:0.5,3"}
    assert made.infotexts[0] == made.info == made.images[0].info["parameters"]
    values = [reader(told) for reader in sweep_panel.READERS.values()]
    assert values == ["alpha", "0.5:1:0.5,3", True, None, None, None]
    again = sweep(job(model=model), sweep_panel.READERS["values"](told))
    assert [np.asarray(x).tobytes() for x in again.images] == [np.asarray(x).tobytes() for x in made.images]
    assert (webui.folder / "vsf-sweep-3.png").is_file()
    assert all(reader(first) is None for reader in sweep_panel.READERS.values()), "another picture's"
    for text in ("alpha", "method=1", "pooled_shift=1", "alpha=1:2"):
        assert all(reader({INFOTEXT: text}) is None for reader in sweep_panel.READERS.values()), text


def test_without_the_unguided_picture(webui, model):
    made = sweep(job(model=model), "1,2", unguided=False)
    assert len(made.images) == 3
    assert last_line(made.infotexts[0])[UNGUIDED] == "no"
    assert sweep_panel.READERS["unguided"](last_line(made.infotexts[0])) is False


def test_any_number_of_the_panel_and_its_preset(webui, model):
    panel_arguments = panel(negative_prompt="wheels")
    made = sweep(job(panel_arguments, model), "0,0.5", setting="beta", unguided=False)
    for text, beta in zip(made.infotexts[1:], (0.0, 0.5), strict=True):
        told = Settings.from_infotext(last_line(text))
        assert (told.beta, told.alpha, told.negative_tokens) == (beta, 2.0, "words"), "schnell's preset"
    assert settings_to_sweep() == (
        "alpha", "beta", "negative_scale", "start", "end", "nag_phi", "nag_tau", "nag_alpha", "nasa_alpha",
    )  # fmt: skip
    made = sweep(job([{"method": "nag", **BASE}], model), "1:3:1", setting="nag_phi", unguided=False)
    assert [last_line(text)["VSF NAG phi"] for text in made.infotexts[1:]] == ["1", "2", "3"]


def test_each_seed_has_a_strip(webui, model):
    p = job(model=model, batch_size=2, n_iter=2, seed=-1)
    made = sweep(p, "1,3")
    assert p.seed == 7, "fixed before the first picture"
    assert webui.state.job_count == 6
    assert len(webui.jobs) == 3, "all seeds of a value are one job"
    strips, pictures = made.infotexts[:4], made.infotexts[4:]
    assert made.index_of_first_image == 4
    assert [last_line(text)["Seed"] for text in strips] == ["7", "8", "9", "10"]
    assert [last_line(text)["Seed"] for text in pictures] == [str(s) for s in (7, 8, 9, 10) for _ in range(3)]
    assert [last_line(text).get("VSF alpha") for text in pictures] == [None, "1", "3"] * 4
    assert made.all_seeds == [s for s in (7, 8, 9, 10) for _ in range(3)]
    assert len({np.asarray(image).tobytes() for image in made.images}) == 16


def at_step(p: Any, act: Any, step: int = 1) -> None:
    p.on_step = lambda now: act() if now == step else None


def test_an_interrupt_keeps_what_is_finished(webui, model):
    def before(number: int, cell: Any) -> None:
        if number == 2:
            at_step(cell, stop)

    def stop() -> None:
        cell = webui.jobs[-1]
        webui.state.interrupted = cell.host.stopped = True

    webui.before = before
    p = job(model=model)
    made = sweep(p, "1:4:1")
    assert len(webui.jobs) == 3
    assert [last_line(text).get("VSF alpha") for text in made.infotexts] == ["1", None, "1"]
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1", "what is in it, not what was to be"
    assert np.array_equal(np.asarray(made.images[2]), alone(model, {**BASE, "alpha": 1.0}))


def test_an_interrupt_of_the_first_shows_what_the_host_shows(webui, model):
    def before(number: int, cell: Any) -> None:
        at_step(cell, lambda: stop(cell))

    def stop(cell: Any) -> None:
        webui.state.interrupted = cell.host.stopped = True

    webui.before = before
    made = sweep(job(model=model), "1,2")
    assert (len(webui.jobs), len(made.images), made.index_of_first_image) == (1, 1, 0)
    assert "VSF" not in made.infotexts[0]


def test_stopping_after_the_current_picture_keeps_it(webui, model):
    def before(number: int, cell: Any) -> None:
        webui.state.stopping_generation = number == 2

    webui.before = before
    made = sweep(job(model=model), "1:4:1")
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1,2"


def test_a_skipped_picture_is_left_out(webui, model):
    def before(number: int, cell: Any) -> None:
        cell.host.stopped = False
        if number == 2:
            at_step(cell, lambda: skip(cell))

    def skip(cell: Any) -> None:
        webui.state.skipped = cell.host.stopped = True

    webui.before = before
    made = sweep(job(model=model), "1:3:1")
    assert len(webui.jobs) == 4
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1,3"
    assert [last_line(text).get("VSF alpha") for text in made.infotexts[1:]] == [None, "1", "3"]


def test_only_the_skipped_batch_is_left_out(webui, model):
    def before(number: int, cell: Any) -> None:
        cell.host.stopped = False
        calls = []

        def on_step(step: int) -> None:
            calls.append(step)
            if len(calls) <= cell.steps:
                return
            webui.state.skipped = True

        if number == 1:
            cell.on_step = on_step

    webui.before = before
    made = sweep(job(model=model, n_iter=2, batch_size=2), "1,2")
    swept = [last_line(text).get(INFOTEXT) for text in made.infotexts]
    assert swept[:4] == ["alpha=1,2", "alpha=1,2", "alpha=2", "alpha=2"]
    assert len(made.infotexts) == 4 + 3 + 3 + 2 + 2


def test_an_error_in_the_middle_keeps_what_is_finished(webui, model):
    def fail() -> None:
        raise RuntimeError("forced by a test")

    def before(number: int, cell: Any) -> None:
        if number == 2:
            at_step(cell, fail)

    webui.before = before
    p = job(model=model)
    made = sweep(p, "1:4:1")
    assert len(webui.jobs) == 3
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1"
    says = "the sweep stopped at alpha 2: forced by a test"
    assert made.extra_generation_params[STOPPED] == says
    assert says in made.comments
    assert STOPPED not in "".join(made.infotexts)
    webui.before = lambda number, cell: at_step(cell, fail)
    with pytest.raises(RuntimeError, match="forced by a test"):
        sweep(job(model=model), "1,2")
    webui.before = lambda number, cell: None
    assert np.array_equal(alone(model, False), np.asarray(made.images[1])), "the model is as before"


def test_what_was_not_guided_never_stands_under_a_value(webui, model):
    """With the option "skip" the host goes on without VSF, and so it does where a style has no negative."""
    p = job([{"alpha": 1.0}], model, styles=["no negative"])
    with pytest.raises(GuidanceError, match=r"alpha 1 was not guided so: VSF did nothing"):
        sweep(p, "1,2", unguided=False)
    p = job([{**BASE, "negative_prompt": "<lora:x:1>"}], model, strict=False, styles=["any"])
    made = None
    with pytest.raises(GuidanceError, match=r"alpha 1 was not guided so: VSF is off .*no word"):
        made = sweep(p, "1,2", unguided=False)
    assert made is None
    made = sweep(p, "1,2")
    assert len(made.images) == 1
    assert "VSF" not in made.infotexts[0]
    assert "alpha 1 was not guided so" in made.extra_generation_params[STOPPED]


@pytest.mark.parametrize(
    ("panel_arguments", "arguments", "error", "says"),
    [
        ([False], {}, SettingsError, "the sweep is of alpha, but VSF is off: switch it on"),
        ([], {}, SettingsError, "VSF is off"),
        ([{**BASE, "enabled": False}], {}, SettingsError, "VSF is off"),
        (panel(enabled=False), {}, SettingsError, "VSF is off"),
        ([{"method": "off"}], {}, SettingsError, "method off does not read"),
        ([{"method": "nag"}], {}, SettingsError, "which method nag does not read: choose one of negative_"),
        ([BASE], {"values": "0:200:50"}, SettingsError, "at 150: alpha is 150.0"),
        ([BASE], {"values": "-1,1"}, SettingsError, "at -1: alpha is -1.0"),
        ([BASE], {"values": "0:8"}, SettingsError, "not LOW:HIGH:STEP"),
        ([BASE], {"values": ""}, SettingsError, "must be like alpha=0:8:0.5"),
        ([BASE], {"values": "0:100:0.1"}, SettingsError, "at most 200"),
        ([BASE], {"setting": "end", "values": "0.5,0"}, SettingsError, "at 0: start is 0 and end is 0"),
        ([BASE], {"setting": "start", "values": "0,0.9"}, SettingsError, "at 0.9: none of 3 steps lies"),
        (
            [{"method": "difference"}],
            {"values": "0,1"},
            SettingsError,
            "with which difference guides nothing",
        ),
        ([{"alpha": 1.0}], {}, PromptError, "both negative prompts are empty"),
        ([{**BASE, "beta": "much"}], {}, SettingsError, "beta is 'much'"),
        ([BASE], {"fps": 61}, SettingsError, "fps is 61"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_picture(webui, panel_arguments, arguments, error, says):
    with pytest.raises(error) as raised:
        run(job(panel_arguments), [arguments], ForgeSweeps())
    assert says in str(raised.value)
    assert not webui.jobs


def test_scale_is_refused_on_sd35(webui):
    """Of the checkpoint that will be loaded, not of the one that is."""
    for title, tensor in (("large.safetensors", "joint_blocks.0.x"), ("dev", "double_blocks.0.txt_mod.lin")):
        header = f'{{"model.{tensor}.weight":{{}}}}'.encode()
        path = webui.folder / title
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        webui.checkpoints[title] = SimpleNamespace(filename=str(path))
    sd35, flux, host = "large.safetensors", "dev", ForgeSweeps()
    request = read([{"setting": "negative_scale", "values": "0,8"}])
    for chosen, override, refused in (
        (sd35, None, True),
        (flux, None, False),
        (flux, sd35, True),
        (sd35, flux, False),
    ):
        webui.opts.sd_model_checkpoint = chosen
        p = job(override_settings={} if override is None else {"sd_model_checkpoint": override})
        if refused:
            with pytest.raises(SettingsError, match=r"does nothing on SD3\.5: sweep another"):
                request.check(p, host.checkpoint(p), p.host.options)
        else:
            request.check(p, host.checkpoint(p), p.host.options)
    webui.opts.sd_model_checkpoint = None
    assert host.checkpoint(job()) == Checkpoint("", None)


def test_arguments_in_positions_and_in_words():
    assert read([]) == read([dict(DEFAULTS)]) == read(list(DEFAULTS.values()))
    asked = read(["beta", "1, 0.5", False, False, 12.0, True])
    assert (asked.sweep.name, asked.sweep.values, asked.unguided, asked.film) == (
        "beta",
        (1.0, 0.5),
        False,
        False,
    )
    assert (asked.plan.fps, asked.plan.loop) == (12, True)
    assert read([{"values": [0, 1e-05, 2.5]}, "what the host", "puts behind"]).sweep.values == (0, 1e-05, 2.5)
    assert ARGUMENTS == ("setting", "values", "unguided", "film", "fps", "loop"), "only ever appended to"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([{"alpha": "0:8:1"}], "has no argument 'alpha': choose from setting"),
        (["method", "vsf,nag"], "the setting to sweep is 'method', but must be one of alpha"),
        (["pooled_shift", "0,1"], "must be one of alpha"),
        (["alpha", "1,2", "yes"], "unguided is 'yes', but must be true or false"),
        (["alpha", "1,2", True, 1], "film is '1'"),
        (["alpha", "1,2", True, True, 2.5], "fps is '2.5', but must be a whole number"),
        (["alpha", "1,2", True, True, True], "fps is 'True'"),
        (["alpha", True], "values are 'True', but must be text"),
        (["alpha", ["1", "2"]], "or a list of numbers"),
    ],
)
def test_arguments_of_another_kind(arguments, says):
    with pytest.raises(SettingsError) as raised:
        read(arguments)
    assert says in str(raised.value)


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """vsf_lib.video.files, with this Python's ffmpeg."""
    pytest.importorskip("imageio_ffmpeg")
    from vsf_lib.video import files
    from vsf_lib.webui import video_host

    monkeypatch.setattr(video_host, "data_folder", lambda: tmp_path / "vsf-video")
    return files


def test_a_film_per_seed_beside_its_strip(webui, model, films):
    (webui.folder / "vsf-sweep-4.mp4").write_bytes(b"another")
    p = job(model=model, batch_size=2)
    made = sweep(p, "0:6:3", film=True, fps=6, loop=True)
    paths = [webui.folder / "vsf-sweep-3.mp4", webui.folder / "vsf-sweep-4-2.mp4"]
    assert made.extra_generation_params[FILMS] == [str(path) for path in paths]
    assert (webui.folder / "vsf-sweep-4.mp4").read_bytes() == b"another"
    for path, beside in zip(paths, made.infotexts, strict=False):
        assert len(films.read_frames(path)) == 4, "0, 3, 6 and back over 3"
        text = films.read_infotext(path)
        assert last_line(text) == {**last_line(beside), FPS: "6", LOOP: "there and back"}
        assert f"film of the sweep: {path}" in made.comments
        told = {name: reader(last_line(text)) for name, reader in sweep_panel.READERS.items()}
        assert told == {
            "setting": "alpha", "values": "0:6:3", "unguided": True, "film": True, "fps": 6, "loop": True,
        }  # fmt: skip


@pytest.mark.parametrize("unguided", [True, False])
def test_a_film_shows_each_picture_beside_the_first(webui, model, films, monkeypatch, unguided):
    given = []
    encode = films._encode
    monkeypatch.setattr(
        films, "_encode", lambda part, frames, *more: given.append(frames) or encode(part, frames, *more)
    )
    made = sweep(job(model=model), "0:6:3", film=True, unguided=unguided)
    still, *moving = [np.asarray(fit(image, strip.PANEL)) for image in made.images[1:]]
    moving = moving if unguided else [still, *moving]
    height, width, _ = still.shape
    (frames,) = given
    assert len(frames) == 3
    for frame, tile in zip(frames, moving, strict=True):
        assert np.array_equal(frame[:height, :width], still)
        assert np.array_equal(frame[:height, width + 8 : 2 * width + 8], tile)


def test_the_page_shows_the_films_of_its_job_alone(webui, model, films):
    host = ForgeSweeps()
    made = run(job(model=model), [{"values": "1,2"}], host)
    (film,) = made.extra_generation_params[FILMS]

    def told(*names: str) -> str:
        return json.dumps({"extra_generation_params": {FILMS: names}})

    shown = sweep_player.page(told(film), host.films)
    content = re.search(r'src="data:video/mp4;base64,([^"]*)"', shown)[1]
    assert base64.b64decode(content) == Path(film).read_bytes()
    assert html.escape(film) in shown
    assert sweep_player.page(told(str(webui.folder / "vsf-sweep-3.png")), host.films) == "", (
        "a page's own wish"
    )
    for other in ("", "{}", "[]", '{"extra_generation_params": null}', told(), json.dumps({FILMS: 1})):
        assert sweep_player.page(other, host.films) == ""
    Path(film).unlink()
    assert sweep_player.page(told(film), host.films) == ""


def test_nothing_is_lost_where_a_file_cannot_be_written(webui, model, films, monkeypatch):
    def pictures(made: Any) -> list[bytes]:
        return [np.asarray(image).tobytes() for image in made.images]

    whole = sweep(job(model=model), "1,2", film=True)
    assert LACKS not in whole.extra_generation_params

    p = job(model=model, do_not_save_grid=True)
    unsaved = sweep(p, "1,2", film=True)
    assert "saves no grids" in unsaved.extra_generation_params[LACKS]
    webui.opts.grid_save = False
    assert "saves no grids" in sweep(job(model=model), "1,2", film=True).comments
    assert LACKS not in sweep(job(model=model), "1,2").extra_generation_params, "none was asked for"
    webui.opts.grid_save = True

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OutputError("ffmpeg failed (1): Unknown encoder 'libx264'")

    with monkeypatch.context() as patched:
        patched.setattr(webui.modules.images, "save_image", full)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "No space left on device" in unsaved.extra_generation_params[LACKS]
        assert pictures(unsaved) == pictures(whole)
    with monkeypatch.context() as patched:
        patched.setattr(films, "_encode", refuse)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "there is no film: ffmpeg failed (1): Unknown encoder" in unsaved.comments
        assert pictures(unsaved) == pictures(whole)
    with monkeypatch.context() as patched:
        patched.setattr(films, "find_ffmpeg", lambda packages: None)
        unsaved = sweep(job(model=model), "1,2", film=True)
        assert "Install in the tab VSF Video" in unsaved.extra_generation_params[LACKS]
        assert pictures(unsaved) == pictures(whole)


def test_masks_are_no_pictures(webui, model):
    """The host puts them between."""
    webui.opts.return_mask = webui.opts.return_mask_composite = True
    drawn = SimpleNamespace(images=["grid", *"abcdef"], index_of_first_image=1)
    assert ForgeSweeps().pictures(SimpleNamespace(mask_for_overlay=object()), drawn) == ["a", "d"]
    assert ForgeSweeps().pictures(SimpleNamespace(mask_for_overlay=None), drawn) == list("abcdef")


def test_all_pictures_begin_with_the_same_random_numbers(webui, model):
    seen = []
    webui.before = lambda number, cell: seen.append(torch.rand(1).item())
    torch.manual_seed(5)
    sweep(job(model=model), "1,2")
    assert len(set(seen)) == 1


def test_where_ffmpeg_is_looked_for(monkeypatch, tmp_path):
    from vsf_lib.video import files

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert files.find_ffmpeg() is None
    assert files.find_ffmpeg(tmp_path / "packages") is None
    system = tmp_path / ("ffmpeg.exe" if sys.platform == "win32" else "ffmpeg")
    system.write_bytes(b"")
    system.chmod(0o755)
    assert files.find_ffmpeg(tmp_path / "packages") == str(system)
    brought = tmp_path / "packages" / "imageio_ffmpeg" / "binaries" / "ffmpeg-linux-x86_64-v7.0.2"
    brought.parent.mkdir(parents=True)
    brought.write_bytes(b"")
    assert files.find_ffmpeg(tmp_path / "packages") == str(brought)
