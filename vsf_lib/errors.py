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
