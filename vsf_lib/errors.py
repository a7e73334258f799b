"""The errors that vsf_lib raises. Each message names what was wrong, with its value, and what to do.

Everything a user can cause derives from VSFError, so that a front end (command line, WebUI, studio) turns it
into one line; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations


class VSFError(Exception):
    """Base of all errors that a user can cause or mend."""


class SettingsError(VSFError):
    """A setting is out of its bounds, unreadable or contradicts another one."""


class PromptError(VSFError):
    """A prompt is empty, or has words that the model cannot know."""


class ModelError(VSFError):
    """A model is missing, damaged or of a kind that is not supported."""


class GuidanceError(VSFError):
    """Guidance could not be applied as claimed; the generation must not be labelled as guided."""


class OutputError(VSFError):
    """A result could not be written."""


_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, however the library at hand says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def is_unreadable(error: Exception) -> bool:
    """Whether a library says by it that the files of a model are not what it reads.

    Rust's libraries are hard to catch by class: safetensors has one of its own, and tokenizers raises a bare
    Exception, which transformers passes on where protobuf is installed.
    """
    known = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
    return isinstance(error, known) or type(error) is Exception or type(error).__name__ == "SafetensorError"
