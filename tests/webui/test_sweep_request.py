"""What the script "VSF sweep" takes, and what it refuses before a picture."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_sweep import BASE, job, panel

from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.webui.request import Checkpoint
from vsf_lib.webui.sweep_host import ForgeSweeps
from vsf_lib.webui.sweep_request import ARGUMENTS, DEFAULTS, read
from vsf_lib.webui.sweep_script import run


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
    assert read([{"values": [0.1 + 0.2, 1 / 3]}]).sweep.values == (0.1 + 0.2, 1 / 3)
    assert read([{"values": "1,2,1"}]).cells == (None, 1, 2)
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
