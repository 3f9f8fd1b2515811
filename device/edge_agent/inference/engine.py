"""Serve one loaded release. Requests wait in a queue of limited size for the single thread that runs the model.

The event loop checks and counts requests and sends responses; the thread only runs the model. `swap` replaces the
release between two requests. The old release finishes the requests that it accepted, and the new release serves all
later requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.core.config import Serve
from edge_agent.inference.golden_replay import extreme_value
from edge_agent.inference.loading import LoadedRelease, load
from edge_agent.inference.memory_budget import HeldBytes, MemoryBudget
from edge_agent.inference.model import InferenceError, InputError, ModelError, OutputError
from edge_agent.inference.worker import Job, Outcome, PredictionResult, Worker

__all__ = [
    "Engine",
    "LoadedRelease",
    "NotLoadedError",
    "OverloadedError",
    "PredictionResult",
    "ProbeResult",
    "TimedOutError",
    "TooManySamplesError",
    "load",
]

# The requests in progress may use this many times the memory of the largest body (`serve.body_limit_mb`).
BODIES_AT_ONCE = 3

log = logging.getLogger("edge_agent.engine")  # the logger's name becomes the event of its log records


class NotLoadedError(InferenceError):
    """No release is loaded, so there is no model to run."""


class OverloadedError(InferenceError):
    """Requests arrive faster than the model computes: too many samples wait, or this request has waited too long."""


class TooManySamplesError(InferenceError):
    """The request has more samples than the queue can hold (`serve.queue`)."""


class TimedOutError(ModelError):
    """The model started to compute the samples of a request, but returned no result within the time limit."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe, which runs the loaded model on one golden sample.

    `sample`: index of the golden sample. `difference`: largest absolute difference between a computed and a stored
    probability; NaN if the model failed. `error`: the reason why the model failed, or None. The probe passes if the
    difference is at most `tolerance`.
    """

    release: str
    sample: int
    difference: float
    tolerance: float
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance

    @property
    def fault(self) -> str:
        """The reason why the probe failed, as text for people; empty if the probe passed."""
        if self.passed:
            return ""
        if self.error is not None:
            return f"golden sample {self.sample} failed: {self.error}"
        return f"a golden sample differs by {self.difference:.3g}, allowed {self.tolerance:g} (sample {self.sample})"


class Engine:
    """The part of the service that runs the loaded model. All methods must be called in the event loop's thread.

    Before a caller of `predict` receives a result, the functions in `observers` are called with (x [B, *shape],
    probabilities [B, classes], latency_s, loaded). If the model fails, the functions in `failure_observers` are called
    with (error, loaded, number of samples). When a new release starts to serve, the functions in `swap_observers` are
    called with (loaded). Observers are not called for probes. `memory` limits the bytes of all requests in progress.
    """

    def __init__(self, config: Serve) -> None:
        self.observers: list[Callable[[np.ndarray, np.ndarray, float, LoadedRelease], None]] = []
        self.failure_observers: list[Callable[[InferenceError, LoadedRelease, int], None]] = []
        self.swap_observers: list[Callable[[LoadedRelease], None]] = []
        self.memory = MemoryBudget(int(BODIES_AT_ONCE * config.body_limit_mb * 1e6))
        self._config = config
        self._worker: Worker | None = None
        self._probes = 0

    @property
    def loaded(self) -> LoadedRelease | None:
        return self._worker.loaded if self._worker else None

    @property
    def waiting(self) -> int:
        """Number of samples in accepted requests that have no result yet."""
        return self._worker.waiting if self._worker else 0

    async def predict(self, x: np.ndarray, held: HeldBytes | None = None) -> PredictionResult:
        """Run the model on samples.

        This takes at most `serve.request_timeout_s`, or twice that time if a golden sample must be computed to find out
        whether the model or the input caused a failure.

        Args:
            x: The samples, float32 [B, *shape] in raw units.
            held: The bytes of `x` in the budget `memory`. The engine uses them until it no longer refers to `x`, which
                can be later than the result: for example, if the request waited too long.

        Raises:
            InputError: The input is invalid, or so extreme that the model's result is not finite.
            NotLoadedError, OverloadedError, TooManySamplesError: No release is loaded, the model is overloaded, or the
                request has too many samples.
            ModelError, OutputError: The model failed.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        worker.loaded.model.check_input(x)
        limit = self._config.queue
        if len(x) > limit:
            raise TooManySamplesError(f"found {len(x)} samples, expected at most {limit} in one request")
        if worker.waiting + len(x) > limit:
            raise OverloadedError(
                f"{worker.waiting} samples are waiting; this request would exceed the limit of {limit}"
            )
        try:
            return await self._submit(worker, x, held)
        except OutputError as error:
            if extreme_value(x, worker.loaded.golden_inputs) is None:
                raise
            await self._attribute_failure(worker, x, error)
            raise

    async def _attribute_failure(self, worker: Worker, x: np.ndarray, error: OutputError) -> None:
        """Find out whether the extreme input `x` or the model caused `error`, by running the model on a golden sample.

        If the model passes the golden sample, the input is the cause, and this method raises InputError: a failure that
        the input of one client causes must not count against the release. If the model fails on the golden sample too,
        this method reports the failure of the model to the observers. If the release has been replaced since the
        request, the input is regarded as the cause.
        """
        try:
            healthy = (
                worker is not self._worker
                or (await asyncio.wait_for(self._probe(worker), self._config.request_timeout_s)).passed
            )
        except asyncio.TimeoutError:
            healthy = False
        if healthy:
            value = extreme_value(x, worker.loaded.golden_inputs)
            raise InputError(f"the model has no finite result for this input: {value}") from None
        for observer in self.failure_observers:
            _notify(observer, error, worker.loaded, len(x))

    async def probe(self) -> ProbeResult:
        """Run the model on the next golden sample, in the same queue and thread as requests, without a time limit.

        Raises NotLoadedError. If the model fails, the result has the error. A probe is never refused because the model
        is busy.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        return await self._probe(worker)

    async def _probe(self, worker: Worker) -> ProbeResult:
        loaded = worker.loaded
        row = self._probes % len(loaded.golden_inputs)
        self._probes += 1
        golden_input = np.ascontiguousarray(loaded.golden_inputs[row : row + 1])
        try:
            result = await self._submit(worker, golden_input, None, probe=True)
        except InferenceError as error:
            return ProbeResult(loaded.release, row, math.nan, loaded.tolerance, str(error))
        difference = float(np.abs(result.probabilities[0] - loaded.golden_outputs[row]).max())
        return ProbeResult(loaded.release, row, difference, loaded.tolerance)

    async def swap(self, loaded: LoadedRelease | None) -> None:
        """Serve the release `loaded` from now on, and wait until the old release has finished its requests.

        If `loaded` is None, no release is served. Requests that the old release has not finished within
        `serve.request_timeout_s` fail with ModelError.
        """
        old = self._worker
        self._worker = Worker(loaded, self._config.batch, self._finish_jobs) if loaded else None
        if loaded:
            for observer in self.swap_observers:
                _notify(observer, loaded)
        if old is None:
            return
        old.end()
        try:
            await asyncio.wait_for(asyncio.shield(old.drained), self._config.request_timeout_s)
        except asyncio.TimeoutError:
            log.error("release %s hangs; its thread is abandoned", old.loaded.release)
            failure = ModelError("the model hangs")
            self._finish_jobs(old, [(job, failure) for job in list(old.jobs.values())])

    async def close(self) -> None:
        await self.swap(None)

    async def _submit(
        self, worker: Worker, x: np.ndarray, held: HeldBytes | None, probe: bool = False
    ) -> PredictionResult:
        loop = asyncio.get_running_loop()
        job = Job(x, loop.create_future(), probe, time.perf_counter(), held.share() if held else None)
        worker.put(job)
        if not worker.timer_running:
            worker.timer_running = True
            loop.call_later(self._config.request_timeout_s, self._expire_late_jobs, worker)
        return await job.future

    def _expire_late_jobs(self, worker: Worker) -> None:
        """Fail the requests that have waited for `serve.request_timeout_s`, and schedule the next call of this method.

        The next call is at the time when the next request reaches this limit. One timer for all requests costs less
        than one timer for each request.
        """
        limit_s, now = self._config.request_timeout_s, time.perf_counter()
        waiting = [job for job in worker.jobs.values() if not job.probe and not job.future.done()]
        late = [job for job in waiting if now - job.waiting_since >= limit_s]
        for job in late:
            self._expire(worker, job)
        worker.timer_running = len(waiting) > len(late)
        if worker.timer_running:
            remaining_s = limit_s - (now - waiting[len(late)].waiting_since)  # jobs are in the order of arrival
            asyncio.get_running_loop().call_later(remaining_s, self._expire_late_jobs, worker)

    def _expire(self, worker: Worker, job: Job) -> None:
        limit_s = self._config.request_timeout_s
        error: InferenceError = OverloadedError(
            f"the model was busy with other requests for {limit_s:g} s"
            if job.started is None
            else f"{job.rows} of {len(job.x)} samples were computed within {limit_s:g} s; send fewer in one request"
        )
        # The model computes in turns (see worker.py). A model that still finishes turns is busy. A model whose current
        # turn takes more than half of the limit has failed.
        running = worker.running_since
        if job.started is not None and running is not None and time.perf_counter() - running > limit_s / 2:
            error = TimedOutError(f"no result within {limit_s:g} s")
            for observer in self.failure_observers:
                _notify(observer, error, worker.loaded, len(job.x))
        job.future.set_exception(error)

    def _finish_jobs(self, worker: Worker, outcomes: list[Outcome]) -> None:
        for job, result in outcomes:
            if worker.jobs.pop(id(job), None) is None:
                continue  # `swap` has failed this job already
            worker.waiting -= 0 if job.probe else len(job.x)
            if job.held is not None:
                job.held.release()
            if job.future.done():
                continue  # the job waited too long, or its caller stopped waiting
            if isinstance(result, InferenceError):
                # If the input has extreme values, `predict` decides whether the input or the model is at fault.
                undecided = (
                    isinstance(result, OutputError) and extreme_value(job.x, worker.loaded.golden_inputs) is not None
                )
                for failure_observer in [] if job.probe or undecided else self.failure_observers:
                    _notify(failure_observer, result, worker.loaded, len(job.x))
                job.future.set_exception(result)
            else:
                for observer in [] if job.probe else self.observers:
                    _notify(observer, job.x, result, job.latency_s, worker.loaded)
                job.future.set_result(PredictionResult(result, worker.loaded, job.latency_s, job.queue_s))


def _notify(observer: Callable[..., None], *values: Any) -> None:
    """Call an observer function, and log an exception that it raises.

    A failing observer therefore neither drops a response nor delays the swap of a release.
    """
    try:
        observer(*values)
    except Exception:  # an observer can raise any exception, which must not affect predictions
        log.exception("an observer of the engine failed")
