"""What a guided sampling asks the small host to keep free, and that nothing of it is left afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import small_mmdit
import torch
from small_host import Host, Model, Processing, letters, process_images

from vsf_lib.adapters import forge_sd35
from vsf_lib.adapters.forge_memory import Call, extra_bytes
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.encoding import Schedule
from vsf_lib.webui.memory import largest_call

ON = ({"negative_prompt": "wheels", "alpha": 1.2, "beta": 0.1},)


@pytest.fixture
def model() -> Model:
    return Model(small_mmdit.SmallMMDiT().double().eval())


def job(model: Model, arguments: Any = ON, **values: Any) -> Processing:
    host = Host()
    return Processing(model, Callbacks(host), host, arguments=arguments, **values)


def expected(rows: int, latent: tuple[int, int] = (6, 4), method: str = "vsf") -> int:
    """In a host that does not say what it computes in: float32. A letter is a token, a prompt has 7."""
    call = Call(rows, latent, 7, len("wheels"), 16, torch.float32)
    return extra_bytes(forge_sd35.NETWORK, small_mmdit.SmallMMDiT(), method, call)


def declared(p: Processing) -> list[int]:
    process_images(p)
    return p.preserved


def test_on_declares_and_off_does_not(model: Model) -> None:
    off = ({"enabled": False, "negative_prompt": "wheels"},)
    assert declared(job(model, off)) == [0]
    assert declared(job(model)) == [expected(2)]
    assert declared(job(model, off)) == [0]
    assert model.original.extra_preserved_memory_during_sampling == 0


def test_every_batch_and_pass_declares_its_own(model: Model) -> None:
    assert declared(job(model, n_iter=3)) == [expected(2)] * 3
    assert declared(job(model, enable_hr=True)) == [expected(2), expected(2, (12, 8))]
    second = ({**ON[0], "hires_pass": "second"},)
    assert declared(job(model, second, enable_hr=True)) == [0, expected(2, (12, 8))]
    assert declared(job(model, cfg_scale=3.0)) == [expected(4)]
    assert declared(job(model, ({**ON[0], "method": "nag"},))) != [expected(2)]


def test_is_added_to_what_another_extension_asks_for(model: Model) -> None:
    model.original.extra_preserved_memory_during_sampling = 1000
    assert declared(job(model)) == [1000 + expected(2)]
    assert declared(job(model, ())) == [1000]


def test_nothing_is_left_after_an_error(model: Model) -> None:
    p = job(model)

    def fail(step: int) -> None:
        if step == 1:
            raise RuntimeError("forced by a test")

    p.on_step = fail
    with pytest.raises(RuntimeError, match="forced by a test"):
        process_images(p)
    assert p.preserved == [expected(2)]
    assert declared(job(model, ())) == [0]


def test_a_pass_that_cannot_be_guided_declares_nothing(model: Model) -> None:
    model.original.model.diffusion_model = torch.nn.Linear(2, 2)
    p = job(model)
    with pytest.raises(Exception, match="VSF guides"):
        process_images(p)
    assert model.forge_objects.unet.extra_preserved_memory_during_sampling == 0


def test_the_largest_call_is_read_from_what_the_host_hands_over() -> None:
    def entry(text: str) -> Any:
        return SimpleNamespace(end_at_step=9, cond={"crossattn": letters(text)})

    schedule = Schedule(
        [[SimpleNamespace(end_at_step=9, cond=letters(text)) for text in ("roof", "wheels")]], 0, None
    )
    rows = [[entry("a"), entry("a long prompt")], [entry("bee")]]
    c = SimpleNamespace(batch=[[SimpleNamespace(schedules=row)] for row in rows])
    c.batch[1].append(SimpleNamespace(schedules=[entry("b")]))  # the second picture's prompt has an AND
    unet = SimpleNamespace(model=SimpleNamespace(computation_dtype=torch.bfloat16))
    x = torch.zeros(2, 16, 9, 12)
    assert largest_call(unet, x, c, None, schedule) == Call(4, (9, 12), 13, 6, 16, torch.bfloat16)
    uc = [[entry("an even longer one")]] * 2
    assert largest_call(unet, x, c, uc, schedule) == Call(6, (9, 12), 18, 6, 16, torch.bfloat16)
    assert largest_call(unet, None, c, None, schedule) is None
    unknown = SimpleNamespace(batch=[[object()], [SimpleNamespace(schedules=[object()])]])
    assert largest_call(unet, x, unknown, None, schedule) == Call(2, (9, 12), 0, 6, 16, torch.bfloat16)
    assert largest_call(unet, x, None, None, schedule) == Call(2, (9, 12), 0, 6, 16, torch.bfloat16)
