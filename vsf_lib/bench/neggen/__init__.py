"""`bench neggen`: the paper's protocol, for any pipeline, list of prompts, method and judge."""

from __future__ import annotations
