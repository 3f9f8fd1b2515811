"""Serves one loaded release: requests wait in a bounded queue for the one thread that runs the model.

The event loop checks, counts and answers; the thread only infers. `swap` puts another release in place between two
requests: what was accepted before is answered by the old one, what comes after by the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.config import Serve
from edge_agent.loading import Loaded, load
from edge_agent.runtime import InferenceError, ModelError

__all__ = ["Answer", "Engine", "Loaded", "NotLoadedError", "OverloadedError", "Probe", "TimedOutError", "load"]

log = logging.getLogger(__name__)


class NotLoadedError(InferenceError):
    """No release is loaded: there is nothing to ask."""


class OverloadedError(InferenceError):
    """More is asked than the model answers: too many samples wait, or one has waited too long."""


class TimedOutError(ModelError):
    """The model was given the samples and did not answer in time."""


@dataclass(frozen=True)
class Answer:
    """probabilities: float32 [B, classes]. `latency_s`: the model's run, shared by what was run together;
    `queue_s`: the wait before it.
    """

    probabilities: np.ndarray
    loaded: Loaded
    latency_s: float
    queue_s: float

    @property
    def release(self) -> str:
        return self.loaded.release

    @property
    def target(self) -> str:
        return self.loaded.target

    @property
    def sha256(self) -> str:
        return self.loaded.sha256


@dataclass(frozen=True)
class Probe:
    """A golden sample, answered by the loaded model. `difference`: largest absolute one of a probability."""

    latency_s: float
    difference: float
    tolerance: float
    release: str

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(eq=False)
class _Job:
    x: np.ndarray
    future: asyncio.Future[Answer]
    probe: bool
    waiting_since: float
    started: bool = False


Outcome = tuple[_Job, "np.ndarray | InferenceError", float, float]


class _Worker:
    """The thread of one loaded release. `waiting`: samples accepted and not yet answered; only the loop touches it."""

    def __init__(self, loaded: Loaded, batch: int, deliver: Callable[[_Worker, list[Outcome]], None]) -> None:
        self.loaded = loaded
        self.waiting = 0
        self.watched = False  # a timer runs that ends what waits too long
        self.jobs: dict[int, _Job] = {}
        self._batch = batch if loaded.model.batch is None else 1
        self._deliver = deliver
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self.drained: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a model that hangs must not keep the process from ending.
        threading.Thread(target=self._run, name=f"inference {loaded.release}", daemon=True).start()

    def put(self, job: _Job) -> None:
        self.waiting += len(job.x)
        self.jobs[id(job)] = job
        self._queue.put(job)

    def end(self) -> None:
        """Take no more; `drained` is set when all that was put before is answered."""
        self._queue.put(None)

    def _run(self) -> None:
        held: _Job | None = None
        going = True
        while going or held:
            job = held or self._queue.get()
            held = None
            if job is None:
                break
            together, samples = [job], len(job.x)
            # What waits is taken along, up to the batch; nothing waits for more to come.
            while going and samples < self._batch:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    going = False
                elif samples + len(following.x) > self._batch:
                    held = following
                    break
                else:
                    together.append(following)
                    samples += len(following.x)
            self._hand_over(self._deliver, self, self._answer(together))
        self._hand_over(self._set_drained)

    def _hand_over(self, call: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answer any more
            self._loop.call_soon_threadsafe(call, *values)

    def _set_drained(self) -> None:
        if not self.drained.done():
            self.drained.set_result(None)

    def _answer(self, together: list[_Job]) -> list[Outcome]:
        # Nobody waits any more for what has waited too long; the loop alone ends a future, here it is only looked at.
        gone = [job for job in together if job.future.done()]
        jobs = [job for job in together if job not in gone] if gone else together
        outcomes: list[Outcome] = [(job, OverloadedError("given up"), 0.0, 0.0) for job in gone]
        if not jobs:
            return outcomes
        for job in jobs:
            job.started = True
        started = time.perf_counter()
        try:
            x = jobs[0].x if len(jobs) == 1 else np.concatenate([job.x for job in jobs])
            probabilities = self.loaded.model.predict(x)
        except Exception as error:  # whatever a model does, its thread goes on
            if len(jobs) > 1:  # only the request that the model fails for shall fail
                return outcomes + [outcome for job in jobs for outcome in self._answer([job])]
            failure = error if isinstance(error, InferenceError) else ModelError(f"{type(error).__name__}: {error}")
            return [*outcomes, (jobs[0], failure, time.perf_counter() - started, started - jobs[0].waiting_since)]
        latency = time.perf_counter() - started
        row = 0
        for job in jobs:
            own = probabilities[row : row + len(job.x)]
            outcomes.append((job, own, latency, started - job.waiting_since))
            row += len(job.x)
        return outcomes


class Engine:
    """One per service; all methods belong to the event loop's thread.

    `observers` see every answer before its requester does: hook(x [B, *shape], probabilities [B, classes], latency_s,
    loaded). `failure_observers`: hook(error, loaded). `swap_observers`: hook(loaded), when a release takes over.
    Probes are shown to none of them.
    """

    def __init__(self, config: Serve) -> None:
        self.observers: list[Callable[[np.ndarray, np.ndarray, float, Loaded], None]] = []
        self.failure_observers: list[Callable[[InferenceError, Loaded], None]] = []
        self.swap_observers: list[Callable[[Loaded], None]] = []
        self._config = config
        self._worker: _Worker | None = None
        self._probes = 0

    @property
    def loaded(self) -> Loaded | None:
        return self._worker.loaded if self._worker else None

    @property
    def waiting(self) -> int:
        """Samples accepted and not yet answered."""
        return self._worker.waiting if self._worker else 0

    async def predict(self, x: np.ndarray) -> Answer:
        """Probabilities of samples in raw units, float32 [B, *shape].

        Raises InputError before anything is queued, NotLoadedError, OverloadedError; ModelError and OutputError are
        the model's fault. Takes at most `serve.request_timeout_s`.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        worker.loaded.model.check_input(x)
        if worker.waiting >= self._config.queue:
            raise OverloadedError(f"{worker.waiting} samples wait; at most {self._config.queue} may")
        return await self._ask(worker, x, probe=False)

    async def probe(self) -> Probe:
        """The next golden sample, through the same queue and thread as requests, for as long as that takes. Raises
        NotLoadedError, ModelError, OutputError; never OverloadedError: a busy model is not a dead one.
        """
        worker = self._worker
        if worker is None:
            raise NotLoadedError("no release is loaded")
        loaded = worker.loaded
        row = self._probes % len(loaded.golden_inputs)
        self._probes += 1
        answer = await self._ask(worker, np.ascontiguousarray(loaded.golden_inputs[row : row + 1]), probe=True)
        difference = float(np.abs(answer.probabilities[0] - loaded.golden_outputs[row]).max())
        return Probe(answer.latency_s, difference, loaded.tolerance, loaded.release)

    async def swap(self, loaded: Loaded | None) -> None:
        """`loaded` answers from now on (None: nothing does); returns when the one before has answered what it had
        accepted, or has not within `serve.request_timeout_s`: then what it left fails with ModelError.
        """
        old = self._worker
        self._worker = _Worker(loaded, self._config.batch, self._delivered) if loaded else None
        if loaded:
            for hook in self.swap_observers:
                hook(loaded)
        if old is None:
            return
        old.end()
        try:
            await asyncio.wait_for(asyncio.shield(old.drained), self._config.request_timeout_s)
        except asyncio.TimeoutError:
            log.error("release %s hangs; it is left behind", old.loaded.release)
            failure = ModelError("the model hangs")
            self._delivered(old, [(job, failure, 0.0, 0.0) for job in list(old.jobs.values())])

    async def close(self) -> None:
        await self.swap(None)

    async def _ask(self, worker: _Worker, x: np.ndarray, *, probe: bool) -> Answer:
        loop = asyncio.get_running_loop()
        job = _Job(x, loop.create_future(), probe, time.perf_counter())
        worker.put(job)
        if not worker.watched:
            worker.watched = True
            loop.call_later(self._config.request_timeout_s, self._end_late, worker)
        return await job.future

    def _end_late(self, worker: _Worker) -> None:
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

    def _end(self, worker: _Worker, job: _Job) -> None:
        limit = f"{self._config.request_timeout_s:g} s"
        error: InferenceError = OverloadedError(f"the model was busy with others for {limit}")
        if job.started:
            error = TimedOutError(f"no answer within {limit}")
            for hook in self.failure_observers:
                _call(hook, error, worker.loaded)
        job.future.set_exception(error)

    def _delivered(self, worker: _Worker, outcomes: list[Outcome]) -> None:
        for job, result, latency, waited in outcomes:
            if worker.jobs.pop(id(job), None) is None:
                continue  # it was given up
            worker.waiting -= len(job.x)
            if job.future.done():
                continue  # whoever asked has gone
            if isinstance(result, InferenceError):
                for hook in [] if job.probe else self.failure_observers:
                    _call(hook, result, worker.loaded)
                job.future.set_exception(result)
            else:
                for seen in [] if job.probe else self.observers:
                    _call(seen, job.x, result, latency, worker.loaded)
                job.future.set_result(Answer(result, worker.loaded, latency, waited))


def _call(hook: Callable[..., None], *values: Any) -> None:
    """An observer that fails costs nobody an answer."""
    try:
        hook(*values)
    except Exception:
        log.exception("an observer of predictions failed")
