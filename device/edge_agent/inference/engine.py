"""Serves one loaded release: requests wait in a bounded queue for the one thread that runs the model.

The event loop checks, counts and answers; the thread only infers. `swap` puts another release in place between two
requests: what was accepted before is answered by the old one, what comes after by the new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.core.config import Serve
from edge_agent.inference.loading import LoadedRelease, load
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

# An input this many times the largest of the golden samples is none that the model was built for.
FAR = 1000

log = logging.getLogger("edge_agent.engine")  # the event of its records


class NotLoadedError(InferenceError):
    """No release is loaded: there is nothing to ask."""


class OverloadedError(InferenceError):
    """More is asked than the model answers: too many samples wait, or one has waited too long."""


class TooManySamplesError(InferenceError):
    """One request has more samples than may wait at all."""


class TimedOutError(ModelError):
    """The model was given the samples and did not answer in time."""


@dataclass(frozen=True)
class ProbeResult:
    """A golden sample, answered by the loaded model. `difference`: largest absolute one of a probability."""

    latency_s: float
    difference: float
    tolerance: float
    release: str

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


class Engine:
    """One per service; all methods belong to the event loop's thread.

    `observers` see every answer before its requester does: hook(x [B, *shape], probabilities [B, classes], latency_s,
    loaded). `failure_observers`: hook(error, loaded, samples). `swap_observers`: hook(loaded), when a release takes
    over. Probes are shown to none of them.
    """

    def __init__(self, config: Serve) -> None:
        self.observers: list[Callable[[np.ndarray, np.ndarray, float, LoadedRelease], None]] = []
        self.failure_observers: list[Callable[[InferenceError, LoadedRelease, int], None]] = []
        self.swap_observers: list[Callable[[LoadedRelease], None]] = []
        self._config = config
        self._worker: Worker | None = None
        self._probes = 0

    @property
    def loaded(self) -> LoadedRelease | None:
        return self._worker.loaded if self._worker else None

    @property
    def waiting(self) -> int:
        """Samples of requests that are accepted and not yet answered."""
        return self._worker.waiting if self._worker else 0

    async def predict(self, x: np.ndarray) -> PredictionResult:
        """Probabilities of samples in raw units, float32 [B, *shape].

        Raises InputError before anything is queued, and where the model has no finite answer to values far from all
        that it was built for; NotLoadedError, OverloadedError, TooManySamplesError; ModelError and OutputError are the
        model's fault. Takes at most `serve.request_timeout_s`, and as long again for a golden sample.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        worker.loaded.model.check_input(x)
        most = self._config.queue
        if len(x) > most:
            raise TooManySamplesError(f"found {len(x)} samples, expected at most {most} in one request")
        if worker.waiting + len(x) > most:
            raise OverloadedError(f"{worker.waiting} samples wait; at most {most} may")
        try:
            return await self._ask(worker, x, probe=False)
        except OutputError as error:
            if _far(worker.loaded, x) is None:
                raise
            await self._blame(worker, x, error)
            raise

    async def _blame(self, worker: Worker, x: np.ndarray, error: OutputError) -> None:
        """Raises InputError where the model still answers a golden sample as it should: the input is at fault, and
        one client's value must not stand against the release. Else it is the model's failure.
        """
        try:
            sound = (
                worker is not self._worker
                or (await asyncio.wait_for(self._probe(worker), self._config.request_timeout_s)).passed
            )
        except (InferenceError, asyncio.TimeoutError):
            sound = False
        if sound:
            raise InputError(f"the model has no finite answer to this input: {_far(worker.loaded, x)}") from None
        for hook in self.failure_observers:
            _call(hook, error, worker.loaded, len(x))

    async def probe(self) -> ProbeResult:
        """The next golden sample, through the same queue and thread as requests, for as long as that takes. Raises
        NotLoadedError, ModelError, OutputError; never OverloadedError: a busy model is not a dead one.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        return await self._probe(worker)

    async def _probe(self, worker: Worker) -> ProbeResult:
        loaded = worker.loaded
        row = self._probes % len(loaded.golden_inputs)
        self._probes += 1
        answer = await self._ask(worker, np.ascontiguousarray(loaded.golden_inputs[row : row + 1]), probe=True)
        difference = float(np.abs(answer.probabilities[0] - loaded.golden_outputs[row]).max())
        return ProbeResult(answer.latency_s, difference, loaded.tolerance, loaded.release)

    async def swap(self, loaded: LoadedRelease | None) -> None:
        """`loaded` answers from now on (None: nothing does); returns when the one before has answered what it had
        accepted, or has not within `serve.request_timeout_s`: then what it left fails with ModelError.
        """
        old = self._worker
        self._worker = Worker(loaded, self._config.batch, self._delivered) if loaded else None
        if loaded:
            for hook in self.swap_observers:
                _call(hook, loaded)
        if old is None:
            return
        old.end()
        try:
            await asyncio.wait_for(asyncio.shield(old.drained), self._config.request_timeout_s)
        except asyncio.TimeoutError:
            log.error("release %s hangs; it is left behind", old.loaded.release)
            failure = ModelError("the model hangs")
            self._delivered(old, [(job, failure) for job in list(old.jobs.values())])

    async def close(self) -> None:
        await self.swap(None)

    async def _ask(self, worker: Worker, x: np.ndarray, *, probe: bool) -> PredictionResult:
        loop = asyncio.get_running_loop()
        job = Job(x, loop.create_future(), probe, time.perf_counter())
        worker.put(job)
        if not worker.watched:
            worker.watched = True
            loop.call_later(self._config.request_timeout_s, self._end_late, worker)
        return await job.future

    def _end_late(self, worker: Worker) -> None:
        """End what has waited too long, and look again when the next one has: one timer for all costs least."""
        limit_s, now = self._config.request_timeout_s, time.perf_counter()
        waiting = [job for job in worker.jobs.values() if not job.probe and not job.future.done()]
        late = [job for job in waiting if now - job.waiting_since >= limit_s]
        for job in late:
            self._end(worker, job)
        worker.watched = len(waiting) > len(late)
        if worker.watched:
            left_s = limit_s - (now - waiting[len(late)].waiting_since)  # in the order in which they came
            asyncio.get_running_loop().call_later(left_s, self._end_late, worker)

    def _end(self, worker: Worker, job: Job) -> None:
        limit_s = self._config.request_timeout_s
        error: InferenceError = OverloadedError(
            f"the model was busy with others for {limit_s:g} s"
            if job.started is None
            else f"{job.rows} of {len(job.x)} samples were answered within {limit_s:g} s; ask for fewer at once"
        )
        # Busy is a model that finishes turns, if too few of them: it fails where one turn takes most of the time.
        running = worker.running_since
        if job.started is not None and running is not None and time.perf_counter() - running > limit_s / 2:
            error = TimedOutError(f"no answer within {limit_s:g} s")
            for hook in self.failure_observers:
                _call(hook, error, worker.loaded, len(job.x))
        job.future.set_exception(error)

    def _delivered(self, worker: Worker, outcomes: list[Outcome]) -> None:
        for job, result in outcomes:
            if worker.jobs.pop(id(job), None) is None:
                continue  # it was given up
            worker.waiting -= 0 if job.probe else len(job.x)
            if job.future.done():
                continue  # whoever asked has gone
            if isinstance(result, InferenceError):
                # Whose fault it is where the input is far from all that is known, `predict` finds out.
                undecided = isinstance(result, OutputError) and _far(worker.loaded, job.x) is not None
                for hook in [] if job.probe or undecided else self.failure_observers:
                    _call(hook, result, worker.loaded, len(job.x))
                job.future.set_exception(result)
            else:
                for seen in [] if job.probe else self.observers:
                    _call(seen, job.x, result, job.latency_s, worker.loaded)
                job.future.set_result(PredictionResult(result, worker.loaded, job.latency_s, job.queue_s))


def _far(loaded: LoadedRelease, x: np.ndarray) -> str | None:
    """What is found and expected, where values of `x` are far from those of the golden samples."""
    found, known = (float(np.abs(values).max()) for values in (x, loaded.golden_inputs))
    return f"found a value of {found:.3g}, expected at most about {known:.3g}" if found > FAR * known else None


def _call(hook: Callable[..., None], *values: Any) -> None:
    """An observer that fails costs nobody an answer, and no release its turn."""
    try:
        hook(*values)
    except Exception:  # whatever it raises
        log.exception("an observer of the engine failed")
