"""An untrained model of the built-in one's structure on disk, and the command line called in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from vsf_lib.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *words: str) -> Outcome: ...


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls the command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def call(*words: str) -> Outcome:
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as the built-in model's, with random weights."""
    from vsf_lib.scenes.training import autoencoder
    from vsf_lib.scenes.training.networks import Networks

    folder = tmp_path_factory.mktemp("model")
    Networks.build(autoencoder.build(), 3).pipeline(2.0).save_pretrained(folder)
    return str(folder)
