"""Compare an installed release, the candidate, with the current release on live inputs.

The candidate's results are never returned to clients. The event loop puts inputs into a queue of limited size and never
waits. The candidate runs in a separate thread with the lowest priority. If the candidate is so slow that the queue is
full, further inputs are dropped and counted.
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

QUEUE = 64  # requests that may wait for the candidate
WAITING_BYTES = 8_000_000  # maximum total size in bytes of the inputs that wait for the candidate
LATENCIES = 4096  # number of the latest latencies of each release that are kept to compute percentiles
CONFIDENCE = 0.95
NICE = 19


def wilson(hits: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the confidence interval of a proportion, computed with the method of Wilson (1927).

    The interval is also accurate for few samples and for proportions near 1.

    Args:
        hits: Number of successes.
        total: Number of trials.
        confidence: Confidence level of the interval, 0 to 1.

    Returns:
        The lower and upper bound, both in [0, 1].
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(centre - half, 0.0), min(centre + half, 1.0)


class Shadow:
    """A running or finished comparison of a candidate release with the current release.

    The caller must add `observe` to the observers of the engine. All methods except `_run` and `_compare` are called in
    the event loop's thread.
    """

    def __init__(self, candidate: LoadedRelease, current: LoadedRelease, samples: int, seconds: float) -> None:
        """Start the thread that runs the candidate.

        Args:
            candidate: The release to compare with the current one.
            current: The release that serves the requests.
            samples: Number of compared samples after which the comparison ends.
            seconds: Time limit of the comparison in seconds.
        """
        self.candidate, self.current = candidate, current
        self._samples, self._seconds = samples, seconds
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, float] | None] = queue.Queue(QUEUE)
        self._lock = threading.Lock()
        self._processed = self._agreed = self._errors = self._dropped = self._waiting_bytes = 0
        self._latency: dict[str, deque[float]] = {
            "current": deque(maxlen=LATENCIES),
            "candidate": deque(maxlen=LATENCIES),
        }
        self._started = time.monotonic()
        self._duration_s: float | None = None
        self._end_reason: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"shadow {candidate.release}", daemon=True)
        self._thread.start()

    def observe(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float, loaded: LoadedRelease) -> None:
        """Queue the inputs of a request for the candidate. This method never blocks.

        The engine calls this method after the loaded release has computed the results of the request. If this release
        is not the release `current` of the comparison, the comparison ends.

        Args:
            x: Inputs of the request, float32 [B, *shape].
            probabilities: The current release's results, float32 [B, classes].
            latency_s: Time in seconds that the current release's model ran for the request.
            loaded: The release that computed the result.
        """
        if self._end_reason is not None:
            return
        if loaded is not self.current:
            self.end(f"{loaded.release} took over from {self.current.release}")
            return
        with self._lock:
            full = self._waiting_bytes > 0 and self._waiting_bytes + x.nbytes > WAITING_BYTES
            if full or self._queue.full():
                self._dropped += len(x)
                return
            self._waiting_bytes += x.nbytes
        self._queue.put_nowait((x, probabilities, latency_s))  # only this thread puts inputs into the queue

    def end(self, reason: str) -> None:
        """End the comparison without waiting until the candidate's thread has ended."""
        with self._lock:
            if self._end_reason is None:
                self._end_reason, self._duration_s = reason, time.monotonic() - self._started
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # wakes the thread; if the queue is full, the thread is awake

    def summary(self) -> dict[str, Any]:
        """Return the results of the comparison so far. If the time limit is reached, end the comparison first.

        The field `ended` is the reason why the comparison ended, or None while the comparison runs.
        """
        if self._end_reason is None and time.monotonic() - self._started >= self._seconds:
            self.end(f"the time limit of {self._seconds:g} s is reached")
        with self._lock:
            compared = self._processed - self._errors
            low, high = wilson(self._agreed, compared)
            return {
                "release": self.candidate.release,
                "target": self.candidate.target,
                "current": self.current.release,
                "samples": self._processed,
                "dropped": self._dropped,
                "errors": self._errors,
                "agreement": {
                    "share": self._agreed / compared if compared else None,
                    "low": low,
                    "high": high,
                    "confidence": CONFIDENCE,
                },
                "latency_ms": {name: _percentiles(times) for name, times in self._latency.items()},
                "seconds": round(
                    self._duration_s if self._duration_s is not None else time.monotonic() - self._started, 3
                ),
                "ended": self._end_reason,
            }

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while self._end_reason is None:
            job = self._queue.get()
            if job is None:
                break
            self._compare(*job)
            with self._lock:
                self._waiting_bytes -= job[0].nbytes
            if self._processed >= self._samples:
                self.end(f"{self._samples} samples were compared")

    def _compare(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float) -> None:
        start = time.perf_counter()
        try:
            result: np.ndarray | None = self.candidate.model.predict(x)
        except InferenceError:
            result = None
        duration_s = time.perf_counter() - start
        with self._lock:
            self._processed += len(x)
            if result is None:
                self._errors += len(x)
                return
            predicted = [self.candidate.classes[index] for index in result.argmax(axis=1)]
            expected = [self.current.classes[index] for index in probabilities.argmax(axis=1)]
            self._agreed += sum(a == b for a, b in zip(predicted, expected, strict=True))
            self._latency["current"].append(1000 * latency_s)
            self._latency["candidate"].append(1000 * duration_s)


def _percentiles(times: deque[float]) -> dict[str, float | None]:
    """Return the 50th and 95th percentile of durations in milliseconds; both are None if there are no durations."""
    if not times:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.fromiter(times, float), (50, 95))
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4)}
