"""What a browser keeps of the studio beside its forms: which tab is open, and the picture's job that runs.

Owns the names and the small scripts. Each tab of the browser keeps its own job's key; the last one's is there
for one that comes after another was closed.
"""

from __future__ import annotations

_JOB, _TAB = "vsf-image-job", "vsf-tab"
# A browser may be told to keep nothing, and then throws.
KEEP_JOB = f"""(job) => {{
    try {{
        if (job) for (const place of [sessionStorage, localStorage]) place.setItem('{_JOB}', job);
    }} catch {{}}
    return job;
}}"""
KEPT_JOBS = f"""() => {{
    try {{ return [sessionStorage, localStorage].map((place) => place.getItem('{_JOB}') ?? ''); }} catch {{}}
    return ['', ''];
}}"""
KEPT_TAB = f"""() => {{
    try {{ return sessionStorage.getItem('{_TAB}') ?? ''; }} catch {{ return ''; }}
}}"""


def keep_tab(name: str) -> str:
    """A script that keeps which tab this page of the browser shows."""
    return f"() => {{ try {{ sessionStorage.setItem('{_TAB}', '{name}'); }} catch {{}} }}"
