"""Which errors of libraries are of a model's files, and which are defects that keep their traceback."""

from __future__ import annotations

import pytest

from vsf_lib.errors import SettingsError, is_unreadable


def test_what_the_libraries_raise_at_broken_files_is_known() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    safetensors = pytest.importorskip("safetensors.torch")
    for read in (lambda: tokenizers.Tokenizer.from_str("{"), lambda: safetensors.load(b"x" * 20)):
        with pytest.raises(Exception) as caught:
            read()
        assert is_unreadable(caught.value), type(caught.value)


@pytest.mark.parametrize(
    "error", [AssertionError("x"), ZeroDivisionError("x"), SettingsError("x"), StopIteration()]
)
def test_defects_and_our_own_errors_are_not(error: Exception) -> None:
    assert not is_unreadable(error)
