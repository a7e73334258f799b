"""The video page beside a WebUI that is too old to show it itself (gradio 3, pydantic 1, an old torch).

The page runs in a process and an environment of its own, and the WebUI passes it on under its own address.
Nothing here needs more than the standard library, what every WebUI has for its own server (starlette,
httpx), and those modules of ours that load with any pydantic or none.
"""
