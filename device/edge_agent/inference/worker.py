"""The one thread that runs the model of a loaded release.

It works in turns of at most `serve.batch` samples: what waits is run together, and a request that is larger gives way
to the others after each turn. So a large request costs those behind it one turn, not all of its own.
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
from edge_agent.inference.model import InferenceError, ModelError

__all__ = ["Job", "Outcome", "PredictionResult", "Worker"]


@dataclass(frozen=True)
class PredictionResult:
    """probabilities: float32 [B, classes]. `latency_s`: the model's runs, shared by what was run together;
    `queue_s`: the wait before the first of them.
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
    """x: float32 [B, *shape]. `rows` of it are answered, in `parts`."""

    x: np.ndarray
    future: asyncio.Future[PredictionResult]
    probe: bool
    waiting_since: float
    started: float | None = None
    rows: int = 0
    latency_s: float = 0.0
    parts: list[np.ndarray] = field(default_factory=list)

    def next(self, samples: int) -> np.ndarray:
        return self.x[self.rows : self.rows + samples]

    @property
    def queue_s(self) -> float:
        return self.started - self.waiting_since if self.started is not None else 0.0


# A job, and its probabilities or why there are none.
Outcome = tuple[Job, "np.ndarray | InferenceError"]


class Worker:
    """`waiting`: samples of requests that are accepted and not yet answered; only the loop touches it."""

    def __init__(self, loaded: LoadedRelease, batch: int, deliver: Callable[[Worker, list[Outcome]], None]) -> None:
        self.loaded = loaded
        self.waiting = 0
        self.watched = False  # a timer runs that ends what waits too long
        self.jobs: dict[int, Job] = {}
        self.running_since: float | None = None  # when the turn began that the model is in
        self._batch = batch if loaded.model.batch is None else 1
        self._deliver = deliver
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self.drained: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a model that hangs must not keep the process from ending.
        threading.Thread(target=self._run, name=f"inference {loaded.release}", daemon=True).start()

    def put(self, job: Job) -> None:
        self.waiting += 0 if job.probe else len(job.x)
        self.jobs[id(job)] = job
        self._queue.put(job)

    def end(self) -> None:
        """Take no more; `drained` is set when all that was put before is answered."""
        self._queue.put(None)

    # --- in the thread ---

    def _run(self) -> None:
        line: deque[Job] = deque()
        while True:
            self._collect(line)
            if not line:
                break
            together, samples = [line.popleft()], 0
            samples = min(len(together[0].x) - together[0].rows, self._batch)
            # What waits is taken along, up to the batch; nothing waits for more to come.
            while line and samples + len(line[0].x) - line[0].rows <= self._batch:
                together.append(line.popleft())
                samples += len(together[-1].x) - together[-1].rows
            outcomes = self._turn(together)
            if outcomes:
                self._hand_over(self._deliver, self, outcomes)
            done = {id(job) for job, _ in outcomes}
            self._collect(line, wait=False)  # what came meanwhile goes before the rest of a large request
            line.extend(job for job in together if id(job) not in done)
        self._hand_over(self._set_drained)

    def _collect(self, line: deque[Job], wait: bool = True) -> None:
        """What was put, in its order; waits for the first where there is nothing to do."""
        while not self._ended:
            try:
                job = self._queue.get(block=wait and not line)
            except queue.Empty:
                return
            if job is None:
                self._ended = True
            else:
                line.append(job)

    def _hand_over(self, call: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answer any more
            self._loop.call_soon_threadsafe(call, *values)

    def _set_drained(self) -> None:
        if not self.drained.done():
            self.drained.set_result(None)

    def _turn(self, together: list[Job]) -> list[Outcome]:
        """Run one turn; those that are answered by it, that failed in it, or that nobody waits for any more."""
        # The loop alone ends a future, here it is only looked at.
        outcomes: list[Outcome] = [(job, InferenceError("given up")) for job in together if job.future.done()]
        jobs = [job for job in together if not job.future.done()] if outcomes else together
        return outcomes + self._infer(jobs) if jobs else outcomes

    def _infer(self, jobs: list[Job]) -> list[Outcome]:
        own = [job.next(self._batch) for job in jobs]
        self.running_since = started = time.perf_counter()
        for job in jobs:
            job.started = job.started or started
        try:
            probabilities = self.loaded.model.predict(own[0] if len(own) == 1 else np.concatenate(own))
        except Exception as error:  # whatever a model does, its thread goes on
            if len(jobs) > 1:  # only the request that the model fails for shall fail
                return [outcome for job in jobs for outcome in self._infer([job])]
            jobs[0].latency_s += time.perf_counter() - started
            failure = error if isinstance(error, InferenceError) else ModelError(f"{type(error).__name__}: {error}")
            return [(jobs[0], failure)]
        finally:
            self.running_since = None
        latency_s = time.perf_counter() - started
        outcomes: list[Outcome] = []
        row = 0
        for job, part in zip(jobs, own, strict=True):
            answered = probabilities[row : row + len(part)]
            row += len(part)
            job.latency_s += latency_s
            job.rows += len(part)
            job.parts.append(answered)
            if job.rows == len(job.x):
                outcomes.append((job, answered if len(job.parts) == 1 else np.concatenate(job.parts)))
        return outcomes
