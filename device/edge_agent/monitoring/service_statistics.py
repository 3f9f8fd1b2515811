"""Statistics of the running service: the loaded release, the HTTP requests, and the labels of the latest predictions.

Counting a request is cheap, and derived figures are computed only when they are requested. All functions run in the
event loop's thread, except `save`, which can run in another thread with the result of `snapshot`.
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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
import psutil

from edge_agent.core import durable
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, NotLoadedError, PredictionResult, TimedOutError
from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.model import InferenceError, ModelError, OutputError
from edge_agent.monitoring.parts import Parts
from edge_agent.monitoring.release_statistics import ReleaseStatistics
from edge_agent.monitoring.report_parts import RELEASE_PARTS, valid_json

log = logging.getLogger("edge_agent.counts")  # the logger's name becomes the event of its log records

SCHEMA_VERSION = 2
# A power cut loses at most the counts of the last SAVE_EVERY_S seconds. Each save writes one small file and flushes the
# disk twice, which wears out a memory card.
SAVE_EVERY_S = 30.0
REASONS = {OutputError: "output", ModelError: "model", TimedOutError: "timeout"}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class UnknownPredictionError(Exception):
    """The service remembers no prediction with this id."""


class UnknownClassError(Exception):
    """The label is not one of the model's classes."""


@dataclass
class _Prediction:
    statistics: ReleaseStatistics
    predicted: str
    label: str | None = None


class ServiceStatistics:
    """All statistics of the service.

    `current` has the statistics of the loaded release, or is None if no release is loaded.
    The service sets `trial` (whether the release is on trial) and `starts` (number of service starts during the trial).
    """

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
        self.report_parts = Parts("report")
        self._measure_start()
        self._saved: dict[str, Any] | None = None
        self._save_request: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def attach(self, engine: Engine) -> ServiceStatistics:
        """Count the results and failures of each release that `engine` starts to serve from now on. Returns `self`."""
        engine.observers.append(self._answered)
        engine.failure_observers.append(self._failed)
        engine.swap_observers.append(self.start_release)
        return self

    def start_release(self, loaded: LoadedRelease) -> None:
        """Start the statistics of the release `loaded`.

        If this is the first release since the service started, and counts.json has the counts of the same model file,
        continue with these counts.
        """
        first = self.current is None
        self._previous, self.current = self.current, ReleaseStatistics(loaded, _now())
        # The new model is already in memory, perhaps together with the previous one, so it does not count as growth.
        self._measure_start()
        if first:
            self._resume(self.current)
        if self._save_request is not None:
            loop, requested = self._save_request
            loop.call_soon_threadsafe(requested.set)

    def _resume(self, statistics: ReleaseStatistics) -> None:
        path = self.config.layout.counts
        try:
            value = json.loads(path.read_bytes())
            if value["schema_version"] == SCHEMA_VERSION:
                statistics.resume(value)
        except FileNotFoundError:
            pass
        except Exception as error:  # an invalid file must not prevent a release from being served
            log.warning("%s: not a valid file of counts (%.200r); counting from zero", path, error)

    def _statistics_of(self, loaded: LoadedRelease) -> ReleaseStatistics | None:
        """Return the statistics of `loaded`, or None if it is neither the current nor the previous release.

        After a swap, the previous release still finishes the requests that it accepted.
        """
        for statistics in (self.current, self._previous):
            if statistics is not None and statistics.loaded is loaded:
                return statistics
        return None

    def _answered(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float, loaded: LoadedRelease) -> None:
        statistics = self._statistics_of(loaded)
        if statistics is not None:
            statistics.add(x, probabilities, latency_s)

    def _failed(self, error: InferenceError, loaded: LoadedRelease, samples: int) -> None:
        statistics = self._statistics_of(loaded)
        if statistics is not None:
            statistics.add_errors(REASONS.get(type(error), "model"), samples)

    def remember(self, result: PredictionResult) -> list[str]:
        """Remember the predictions of a request, so that labels can be compared with them, and return their ids.

        There is one id for each sample. Only the latest `serve.feedback_window` predictions are remembered.
        """
        statistics = self._statistics_of(result.loaded)
        if statistics is not None:
            statistics.queue.add(result.queue_s)
        first = self._predictions
        self._predictions += len(result.probabilities)
        ids = [f"{self._prefix}-{number}" for number in range(first, self._predictions)]
        limit = self.config.serve.feedback_window
        if statistics is not None and limit:
            rows = result.probabilities[-limit:]
            for prediction_id, row in zip(ids[-limit:], rows.argmax(axis=1).tolist(), strict=True):
                self._window[prediction_id] = _Prediction(statistics, statistics.classes[row])
            while len(self._window) > limit:
                self._window.popitem(last=False)
        return ids

    def feedback(self, prediction_id: str, label: str) -> dict[str, Any]:
        """Count `label` as the true class of a prediction. Return the predicted class and whether it was correct.

        A second label for the same prediction replaces the first.

        Raises UnknownPredictionError, UnknownClassError, NotLoadedError.
        """
        if self.current is None:
            raise NotLoadedError("no release is loaded")
        prediction = self._window.get(prediction_id)
        if prediction is None:
            raise UnknownPredictionError(prediction_id)
        statistics = prediction.statistics
        if label not in statistics.classes:
            raise UnknownClassError(label)
        if prediction.label is not None:
            statistics.count_label(prediction.label, correct=prediction.label == prediction.predicted, count=-1)
        correct = label == prediction.predicted
        statistics.count_label(label, correct=correct)
        prediction.label = label
        return {
            "id": prediction_id,
            "release": statistics.release,
            "predicted": prediction.predicted,
            "correct": correct,
        }

    def count_request(self, path: str, method: str, code: int) -> None:
        """Count one HTTP request.

        Args:
            path: Path of the requested route, or `other` if there is no such route.
            method: HTTP method. Methods that are not in METHODS are counted as `other`.
            code: HTTP status code of the response.
        """
        key = (path, method if method in METHODS else "other", code)
        self.http[key] = self.http.get(key, 0) + 1

    def report(self) -> dict[str, Any]:
        """Return the statistics since the switch to the loaded release, for the command line and for rollouts.

        The statistics are computed in parts. The fields of a part that fails are left out, and `failed_parts` names it.
        """
        statistics = self.current
        report: dict[str, Any] = {"release": None, "target": None, "model_sha256": None}
        parts: dict[str, Callable[[], dict[str, Any]]] = {"service": self._service, "memory": self._memory}
        if statistics is not None:
            report = {
                "release": statistics.release,
                "target": statistics.target,
                "model_sha256": statistics.sha256,
                "joining_fault": statistics.loaded.joining_fault,
                "since": statistics.since,
                "restarts": statistics.restarts,
            }
            parts |= {name: partial(compute, statistics) for name, compute in RELEASE_PARTS.items()}
        for name, compute in parts.items():
            report |= self.report_parts.compute(name, partial(valid_json, compute)) or {}
        return {**report, "failed_parts": [name for name in parts if self.report_parts.failed[name]]}

    def _service(self) -> dict[str, Any]:
        return {
            "uptime_s": round(time.monotonic() - self._started, 3),
            "trial": self.trial,
            "starts": self.starts,
            "http": [
                {"path": path, "method": method, "code": code, "count": count}
                for (path, method, code), count in sorted(self.http.items())
            ],
        }

    def _memory(self) -> dict[str, Any]:
        if self._memory_at_start is None:
            raise RuntimeError("the memory at the start was not measured")
        return {
            "memory_bytes": self._process.memory_info().rss,
            "memory_at_start_bytes": self._memory_at_start,
        }

    def _measure_start(self) -> None:
        self._memory_at_start = self.report_parts.compute("memory", lambda: int(self._process.memory_info().rss))

    def snapshot(self) -> dict[str, Any] | None:
        """Return the counts of the loaded release for `save`, or None if no count has changed since the last save."""
        value = self.current.as_json() if self.current else None
        return None if value == self._saved else value

    def save(self, value: dict[str, Any] | None) -> None:
        """Replace the content of counts.json with `value`, the result of `snapshot`. Raises OSError.

        If `value` is None, nothing is written.
        """
        if value is not None:
            self.config.layout.state.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"schema_version": SCHEMA_VERSION, **value}, separators=(",", ":")).encode()
            durable.write_file(self.config.layout.counts, content)
            self._saved = value

    async def save_periodically(self, every_s: float = SAVE_EVERY_S) -> None:
        """Save the counts every `every_s` seconds, and once more when cancelled.

        If the disk fails, counts are lost but the service continues. The counts are also saved immediately after a
        start and after a swap of the model. So if the process is killed soon afterwards, the next start of the service
        is counted as a restart of the new release.
        """
        loop, requested = asyncio.get_running_loop(), asyncio.Event()
        requested.set()
        self._save_request = (loop, requested)
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                # NOTE: a timer is used because `wait_for` of Python 3.11 can swallow a cancellation
                timer = loop.call_later(every_s, requested.set)
                await requested.wait()
                timer.cancel()
                requested.clear()
                value = self.snapshot()
                try:
                    await asyncio.to_thread(self.save, value)
                except OSError as error:
                    log.warning("%s: not saved (%s)", self.config.layout.counts, error.strerror or error)
        self._save_request = None
        try:
            self.save(self.snapshot())
        except OSError as error:
            log.warning("%s: not saved (%s)", self.config.layout.counts, os.strerror(error.errno or 0))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
