"""What this extension has told about a job, for the API, which returns parameters and not comments."""

from __future__ import annotations

from collections.abc import Iterable

NOTICES = "VSF notices"
"""Among the parameters that the API returns for a job: what the page shows as comments. In no infotext."""


def notices(comments: Iterable[str]) -> dict[str, list[str]]:
    """The parameter that holds them; none where nothing was told."""
    found = [text for text in comments if text.startswith("VSF")]
    return {NOTICES: found} if found else {}
