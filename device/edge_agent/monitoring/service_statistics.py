"""Everything counted since the switch to the loaded release. Cheap where requests pass; figured out when asked for.

All of it belongs to the event loop's thread; `save` alone may run beside it on what `snapshot` gave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import psutil

from edge_agent.core import durable
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, NotLoadedError, PredictionResult, TimedOutError
from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.model import InferenceError, ModelError, OutputError
from edge_agent.monitoring.release_statistics import ReleaseStatistics

log = logging.getLogger("edge_agent.counts")  # the event of its records

SCHEMA_VERSION = 2
# A power cut costs at most the counts of this time; each save is one small file and two flushes of a worn card.
SAVE_EVERY_S = 30.0
REASONS = {OutputError: "output", ModelError: "model", TimedOutError: "timeout"}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class UnknownPredictionError(Exception):
    """No prediction of this id is remembered."""


class UnknownClassError(Exception):
    """The label is none of the model's classes."""


@dataclass
class _Prediction:
    tally: ReleaseStatistics
    predicted: str
    label: str | None = None


class ServiceStatistics:
    """One per service. `trial`, `starts`: what the service says of itself."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trial = False
        self.starts = 0
        self.http: dict[tuple[str, str, int], int] = {}
        self.current: ReleaseStatistics | None = None
        self._previous: ReleaseStatistics | None = None
        self._window: OrderedDict[str, _Prediction] = OrderedDict()
        self._prefix = secrets.token_hex(4)
        self._predictions = 0
        self._started = time.monotonic()
        self._process = psutil.Process()
        self._memory_at_start = self._process.memory_info().rss
        self._saved: dict[str, Any] | None = None
        self._keeper: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def attach(self, engine: Engine) -> ServiceStatistics:
        """Count what `engine` answers and fails, from its next `swap` on."""
        engine.observers.append(self._answered)
        engine.failure_observers.append(self._failed)
        engine.swap_observers.append(self.start_release)
        return self

    def start_release(self, loaded: LoadedRelease) -> None:
        """`loaded` answers from now on: count from zero, or on from counts.json where that is of the same bytes."""
        first = self.current is None
        self._previous, self.current = self.current, ReleaseStatistics(loaded, _now())
        # What the model itself takes is no growth: it is loaded by now, perhaps with the one before still beside it.
        self._memory_at_start = self._process.memory_info().rss
        if first:
            self._resume(self.current)
        if self._keeper is not None:
            loop, begun = self._keeper
            loop.call_soon_threadsafe(begun.set)

    def _resume(self, tally: ReleaseStatistics) -> None:
        path = self.config.layout.counts
        try:
            value = json.loads(path.read_bytes())
            if value["schema_version"] == SCHEMA_VERSION:
                tally.resume(value)
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever is in that file: no release is refused for it
            log.warning("%s: no counts that this agent wrote (%.200r); counting from zero", path, error)

    def _of(self, loaded: LoadedRelease) -> ReleaseStatistics | None:
        """The tally that an answer of `loaded` belongs to: the release before answers what it had accepted."""
        for tally in (self.current, self._previous):
            if tally is not None and tally.loaded is loaded:
                return tally
        return None

    def _answered(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float, loaded: LoadedRelease) -> None:
        tally = self._of(loaded)
        if tally is not None:
            tally.add(x, probabilities, latency_s)

    def _failed(self, error: InferenceError, loaded: LoadedRelease, samples: int) -> None:
        tally = self._of(loaded)
        if tally is not None:
            tally.fail(REASONS.get(type(error), "model"), samples)

    def remember(self, answer: PredictionResult) -> list[str]:
        """Remember the predictions of an answer until their labels come; their ids, one per sample.

        At most `serve.feedback_window` are remembered, the latest.
        """
        tally = self._of(answer.loaded)
        if tally is not None:
            tally.queue.add(answer.queue_s)
        first = self._predictions
        self._predictions += len(answer.probabilities)
        ids = [f"{self._prefix}-{number}" for number in range(first, self._predictions)]
        most = self.config.serve.feedback_window
        if tally is not None and most:
            rows = answer.probabilities[-most:]
            for own, row in zip(ids[-most:], rows.argmax(axis=1).tolist(), strict=True):
                self._window[own] = _Prediction(tally, tally.classes[row])
            while len(self._window) > most:
                self._window.popitem(last=False)
        return ids

    def feedback(self, number: str, label: str) -> dict[str, Any]:
        """The true class of a prediction; a second one corrects the first. Raises UnknownPredictionError,
        UnknownClassError.
        """
        if self.current is None:
            raise NotLoadedError("no release is loaded")
        prediction = self._window.get(number)
        if prediction is None:
            raise UnknownPredictionError(number)
        tally = prediction.tally
        if label not in tally.classes:
            raise UnknownClassError(label)
        if prediction.label is not None:
            tally.judge(prediction.label, correct=prediction.label == prediction.predicted, count=-1)
        correct = label == prediction.predicted
        tally.judge(label, correct=correct)
        prediction.label = label
        return {"id": number, "release": tally.release, "predicted": prediction.predicted, "correct": correct}

    def count_request(self, path: str, method: str, code: int) -> None:
        """One HTTP request; `path` is that of a route, or `other`."""
        key = (path, method if method in METHODS else "other", code)
        self.http[key] = self.http.get(key, 0) + 1

    def report(self) -> dict[str, Any]:
        """What was counted since the switch, for the command line and the judge of a rollout."""
        memory = self._process.memory_info().rss
        service = {
            "uptime_s": round(time.monotonic() - self._started, 3),
            "trial": self.trial,
            "starts": self.starts,
            "memory_bytes": memory,
            "memory_at_start_bytes": self._memory_at_start,
            "http": [
                {"path": path, "method": method, "code": code, "count": count}
                for (path, method, code), count in sorted(self.http.items())
            ],
        }
        tally = self.current
        if tally is None:
            return {"release": None, "target": None, "model_sha256": None, **service}
        errors = sum(tally.errors.values())
        results = {name: sum(own[name] for own in tally.feedback.values()) for name in ("correct", "wrong")}
        judged = sum(results.values())
        return {
            "release": tally.release,
            "target": tally.target,
            "model_sha256": tally.sha256,
            "since": tally.since,
            "restarts": tally.restarts,
            **service,
            "inferences": tally.inferences,
            "errors": errors,
            "error_reasons": dict(tally.errors),
            "error_share": errors / (tally.inferences + errors) if tally.inferences + errors else 0.0,
            "latency_s": {name: tally.latency.quantile(share) for name, share in _QUANTILES.items()},
            "queue_s": {name: tally.queue.quantile(share) for name, share in _QUANTILES.items()},
            "predictions": dict(zip(tally.classes, tally.per_class, strict=True)),
            "confidence_mean": tally.confidence_sum / tally.inferences if tally.inferences else None,
            "drift": tally.drift(),
            "feedback": {**results, "n": judged, "accuracy": results["correct"] / judged if judged else None},
        }

    def snapshot(self) -> dict[str, Any] | None:
        """What `save` writes; None where nothing has changed since."""
        value = self.current.as_json() if self.current else None
        return None if value == self._saved else value

    def save(self, value: dict[str, Any] | None) -> None:
        """Replace counts.json, durably. Raises OSError."""
        if value is not None:
            self.config.layout.state.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"schema_version": SCHEMA_VERSION, **value}, separators=(",", ":")).encode()
            durable.write_file(self.config.layout.counts, content)
            self._saved = value

    async def save_periodically(self, every_s: float = SAVE_EVERY_S) -> None:
        """Save again and again, and once more when cancelled. A disk that refuses costs the counts, not the service.

        At once after a start and after a switch: a process that is killed then has restarted since the switch.
        """
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        begun.set()
        self._keeper = (loop, begun)
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                later = loop.call_later(every_s, begun.set)  # NOTE: wait_for of Python 3.11 swallows a cancellation
                await begun.wait()
                later.cancel()
                begun.clear()
                value = self.snapshot()
                try:
                    await asyncio.to_thread(self.save, value)
                except OSError as error:
                    log.warning("%s: not saved (%s)", self.config.layout.counts, error.strerror or error)
        self._keeper = None
        try:
            self.save(self.snapshot())
        except OSError as error:
            log.warning("%s: not saved (%s)", self.config.layout.counts, os.strerror(error.errno or 0))


_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
