"""A candidate beside the current release: it sees the same live inputs, and answers nobody.

The event loop only puts inputs into a bounded queue and never waits; the candidate has its own thread, at the lowest
priority. Where it cannot keep up, inputs are dropped and counted.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
from collections import deque
from statistics import NormalDist
from typing import Any

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.model import InferenceError

QUEUE = 64  # requests that wait for the candidate
RECENT = 4096  # latencies of each that percentiles are taken of
CONFIDENCE = 0.95
NICE = 19


def wilson(hits: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share, after Wilson (1927): in [0, 1] and sound for few samples and shares near 1."""
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(centre - half, 0.0), min(centre + half, 1.0)


class Shadow:
    """Compares until `samples` inputs were seen or `seconds` passed. `observe` is an observer of the engine.

    Belongs to the event loop's thread, but for `_run`.
    """

    def __init__(self, candidate: LoadedRelease, current: LoadedRelease, samples: int, seconds: float) -> None:
        self.candidate, self.current = candidate, current
        self._samples, self._seconds = samples, seconds
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, float] | None] = queue.Queue(QUEUE)
        self._lock = threading.Lock()
        self._seen = self._agreed = self._errors = self._dropped = 0
        self._latency: dict[str, deque[float]] = {"current": deque(maxlen=RECENT), "candidate": deque(maxlen=RECENT)}
        self._started = time.monotonic()
        self._took: float | None = None
        self._ended: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"shadow {candidate.release}", daemon=True)
        self._thread.start()

    def observe(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float, loaded: LoadedRelease) -> None:
        """One answered request. Never blocks."""
        if self._ended is not None:
            return
        if loaded is not self.current:
            self.end(f"{loaded.release} took over from {self.current.release}")
            return
        try:
            self._queue.put_nowait((x, probabilities, latency_s))
        except queue.Full:
            with self._lock:
                self._dropped += len(x)

    def end(self, why: str) -> None:
        """Compare no more. Does not wait for the thread."""
        with self._lock:
            if self._ended is None:
                self._ended, self._took = why, time.monotonic() - self._started
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # wakes a thread that waits; a full queue needs no waking

    def summary(self) -> dict[str, Any]:
        """What was found so far; `ended` is why it ended, or null. Looks at the clock."""
        if self._ended is None and time.monotonic() - self._started >= self._seconds:
            self.end(f"{self._seconds:g} s are over")
        with self._lock:
            compared = self._seen - self._errors
            low, high = wilson(self._agreed, compared)
            return {
                "release": self.candidate.release,
                "target": self.candidate.target,
                "current": self.current.release,
                "samples": self._seen,
                "dropped": self._dropped,
                "errors": self._errors,
                "agreement": {
                    "share": self._agreed / compared if compared else None,
                    "low": low,
                    "high": high,
                    "confidence": CONFIDENCE,
                },
                "latency_ms": {name: _percentiles(times) for name, times in self._latency.items()},
                "seconds": round(self._took if self._took is not None else time.monotonic() - self._started, 3),
                "ended": self._ended,
            }

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while self._ended is None:
            job = self._queue.get()
            if job is None:
                break
            self._compare(*job)
            if self._seen >= self._samples:
                self.end(f"{self._samples} samples are compared")

    def _compare(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float) -> None:
        start = time.perf_counter()
        try:
            answer: np.ndarray | None = self.candidate.model.predict(x)
        except InferenceError:
            answer = None
        took = time.perf_counter() - start
        with self._lock:
            self._seen += len(x)
            if answer is None:
                self._errors += len(x)
                return
            named = [self.candidate.classes[index] for index in answer.argmax(axis=1)]
            expected = [self.current.classes[index] for index in probabilities.argmax(axis=1)]
            self._agreed += sum(a == b for a, b in zip(named, expected, strict=True))
            self._latency["current"].append(1000 * latency_s)
            self._latency["candidate"].append(1000 * took)


def _percentiles(times: deque[float]) -> dict[str, float | None]:
    """Milliseconds of one call of the model."""
    if not times:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.fromiter(times, float), (50, 95))
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4)}
