"""The thread that runs the model of one loaded release.

The thread runs the model in turns. One turn computes at most `serve.batch` samples, which can belong to several
requests. If a request needs more than one turn, other requests run between its turns, so that no request has to wait
until a large request is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.memory_budget import HeldBytes
from edge_agent.inference.model import InferenceError, ModelError

__all__ = ["Job", "Outcome", "PredictionResult", "Worker"]


@dataclass(frozen=True)
class PredictionResult:
    """The result of one request: the class probabilities, float32 [B, classes], and the release that computed them.

    `latency_s`: total duration in seconds of the runs of the model that computed samples of this request; such a run
    can also compute samples of other requests. `queue_s`: time in seconds from the arrival
    of the request until the model started on its first sample.
    """

    probabilities: np.ndarray
    loaded: LoadedRelease
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


@dataclass(eq=False)
class Job:
    """A request in the queue of the thread that runs the model.

    `x`: the samples of the request, float32 [B, *shape]. `rows`: number of samples that are already computed; these are
    the first samples in `x`. `parts`: the results of these samples. `held`: the bytes of `x` in the engine's budget.
    """

    x: np.ndarray
    future: asyncio.Future[PredictionResult]
    probe: bool
    waiting_since: float
    held: HeldBytes | None
    started: float | None = None
    rows: int = 0
    latency_s: float = 0.0
    parts: list[np.ndarray] = field(default_factory=list)

    def next_samples(self, count: int) -> np.ndarray:
        return self.x[self.rows : self.rows + count]

    @property
    def remaining(self) -> int:
        """Number of samples of this request that are not computed yet."""
        return len(self.x) - self.rows

    @property
    def queue_s(self) -> float:
        return self.started - self.waiting_since if self.started is not None else 0.0


# A finished job, and either its probabilities or the error with which it failed.
Outcome = tuple[Job, "np.ndarray | InferenceError"]


class Worker:
    """The thread that runs the model of one loaded release, and the queue of requests for this thread.

    `waiting`: number of samples in accepted requests that have no result yet. Only the event loop's thread changes this
    number.
    """

    def __init__(self, loaded: LoadedRelease, batch: int, on_outcomes: Callable[[Worker, list[Outcome]], None]) -> None:
        """Start the thread that runs the model.

        Args:
            loaded: The release whose model the thread runs.
            batch: The maximum number of samples that one run of the model computes.
            on_outcomes: A function that is called in the event loop's thread with this worker and the outcomes of
                finished requests.
        """
        self.loaded = loaded
        self.waiting = 0
        self.timer_running = False  # whether the engine's timer for requests that wait too long is running
        self.jobs: dict[int, Job] = {}
        self.running_since: float | None = None  # time at which the current turn started; None between turns
        self._batch = batch if loaded.model.batch is None else 1
        self._on_outcomes = on_outcomes
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self.drained: asyncio.Future[None] = self._loop.create_future()
        # A daemon thread, so that the process can exit even if the model hangs.
        threading.Thread(target=self._run, name=f"inference {loaded.release}", daemon=True).start()

    def put(self, job: Job) -> None:
        self.waiting += 0 if job.probe else len(job.x)
        self.jobs[id(job)] = job
        self._queue.put(job)

    def end(self) -> None:
        """Tell the thread to end when it has finished the queued jobs. `drained` is set when the thread ends."""
        self._queue.put(None)

    # --- in the thread ---

    def _run(self) -> None:
        line: deque[Job] = deque()
        while True:
            self._collect(line)
            if not line:
                break
            together = [line.popleft()]
            samples = min(together[0].remaining, self._batch)
            # Fill the batch with jobs that are already waiting. Do not wait for more jobs if the batch is not full.
            while line and samples + line[0].remaining <= self._batch:
                together.append(line.popleft())
                samples += together[-1].remaining
            outcomes = self._turn(together)
            if outcomes:
                self._call_in_loop(self._on_outcomes, self, outcomes)
            finished = {id(job) for job, _ in outcomes}
            self._collect(line, wait=False)  # new jobs run before the remaining samples of a large job
            line.extend(job for job in together if id(job) not in finished)
        self._call_in_loop(self._set_drained)

    def _collect(self, line: deque[Job], wait: bool = True) -> None:
        """Move all jobs from the queue to the end of `line`, in order.

        If `wait` is true and there is no job in `line` or in the queue, wait for the next job.
        """
        while not self._ended:
            try:
                job = self._queue.get(block=wait and not line)
            except queue.Empty:
                return
            if job is None:
                self._ended = True
            else:
                line.append(job)

    def _call_in_loop(self, call: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits for the result
            self._loop.call_soon_threadsafe(call, *values)

    def _set_drained(self) -> None:
        if not self.drained.done():
            self.drained.set_result(None)

    def _turn(self, together: list[Job]) -> list[Outcome]:
        """Run the model once on samples of the jobs in `together`.

        Return the outcomes of the jobs that are now finished or failed, and of the jobs whose caller no longer waits.
        """
        # Only the event loop's thread sets futures; this thread only reads them.
        outcomes: list[Outcome] = [(job, InferenceError("expired")) for job in together if job.future.done()]
        jobs = [job for job in together if not job.future.done()] if outcomes else together
        return outcomes + self._infer(jobs) if jobs else outcomes

    def _infer(self, jobs: list[Job]) -> list[Outcome]:
        inputs = [job.next_samples(self._batch) for job in jobs]
        self.running_since = started = time.perf_counter()
        for job in jobs:
            job.started = job.started or started
        try:
            probabilities = self.loaded.model.predict(inputs[0] if len(inputs) == 1 else np.concatenate(inputs))
        except Exception as error:  # the thread survives any failure of a model
            if len(jobs) > 1:  # run each job separately, so that only the request that causes the failure fails
                return [outcome for job in jobs for outcome in self._infer([job])]
            jobs[0].latency_s += time.perf_counter() - started
            failure = error if isinstance(error, InferenceError) else ModelError(f"{type(error).__name__}: {error}")
            return [(jobs[0], failure)]
        finally:
            self.running_since = None
        latency_s = time.perf_counter() - started
        outcomes: list[Outcome] = []
        row = 0
        for job, samples in zip(jobs, inputs, strict=True):
            part = probabilities[row : row + len(samples)]
            row += len(samples)
            job.latency_s += latency_s
            job.rows += len(samples)
            job.parts.append(part)
            if not job.remaining:
                outcomes.append((job, part if len(job.parts) == 1 else np.concatenate(job.parts)))
        return outcomes
