"""Spreads work over a Ray cluster: one task per prompt and seed, done again where a worker is lost.

Owns Ray, an optional package that is imported here alone. Knows neither pictures nor judges; what is to be
kept stays with the caller, so that workers need no disk in common.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

import vsf_lib
from vsf_lib.errors import ModelError, SettingsError

LOCAL = "local"
"""The address that starts a cluster of this machine alone."""
RETRIES = 5
"""How often a task is done again whose worker was lost."""


class Cluster:
    """A connection to a cluster while it is used; `workers` is the most tasks at once, None for what fits."""

    def __init__(self, address: str, workers: int | None, *, gpu: bool) -> None:
        self._address = address
        self._workers = workers
        self._wants_gpu = gpu
        self._ray: Any = None
        # It tells of lost workers by printing; standard output is for results.
        self._aside = redirect_stdout(sys.stderr)

    def __enter__(self) -> Cluster:
        # Ray tells its makers how it is used, unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "--ray needs the package ray: pip install ray, or leave --ray out, which needs none"
            ) from error
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # The same code on every machine, whatever is installed there.
                runtime_env={"py_modules": [str(Path(vsf_lib.__file__).parent)]},
                include_dashboard=False,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SettingsError(f"--ray {self._address}: no cluster can be used there ({reason})") from error
        self._ray = ray
        self._aside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ray.shutdown()
        finally:
            self._aside.__exit__(kind, error, trace)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of one call, made by a worker."""
        return next(self.each(function, [arguments]))[1]

    def each(
        self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """The number and the result of each task, in the order in which they are done.

        A task is its function's arguments, taken from `tasks` only when a worker is free.
        """
        ray, running = self._ray, {}
        has_gpu = self._wants_gpu and ray.cluster_resources().get("GPU", 0) > 0
        needs = {"num_gpus": 1} if has_gpu else {"num_cpus": 1}
        resources = ray.cluster_resources().get("GPU" if has_gpu else "CPU", 1)
        most = self._workers or max(1, int(resources))
        remote = ray.remote(max_retries=RETRIES, **needs)(function)
        try:
            for number, arguments in enumerate(tasks):
                running[remote.remote(*arguments)] = number
                if len(running) < most:
                    continue
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), self._result(done)
            while running:
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), self._result(done)
        finally:
            for left in running:
                ray.cancel(left, force=True)

    def _result(self, done: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:  # what the task itself raised
            raise error.cause from None
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"a task was lost with its worker {RETRIES + 1} times ({reason}): what is done is kept; give "
                "the same command again, perhaps with fewer --ray-workers"
            ) from error
