"""Capture samples for retraining: store them on the disk, in a ring of limited size (ring.py).

Capturing is off by default, and the agent sends samples only when a client requests them. A separate thread writes the
samples, so that predictions never wait for the disk. If the disk is too slow, samples are dropped.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from edge_agent.core.config import Config
from edge_agent.inference.engine import PredictionResult
from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring import sample_times
from edge_agent.monitoring.drift_window import DriftWindow
from edge_agent.monitoring.ring import Ring
from edge_agent.monitoring.samples import export, export_lines, parse_since

__all__ = ["Capture", "export", "parse_since"]

log = logging.getLogger("edge_agent.capture")  # the logger's name becomes the event of its log records

WAITING_BYTES = 16_000_000  # maximum total size in bytes of the samples that wait to be written
Record = tuple[dict[str, Any], bytes]


class Capture:
    """Select samples in the event loop's thread, and write them to the disk in a separate thread."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = config.capture
        self.dropped = 0
        self._ring: Ring | None = None
        self._captured_ids: OrderedDict[str, None] = OrderedDict()
        self._queue: queue.SimpleQueue[Record | threading.Event | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._drift_window: DriftWindow | None = None
        self._random = random.Random()  # noqa: S311 - the selection of samples is not a secret
        self._thread = threading.Thread(target=self._write, name="capture", daemon=True)
        self._thread.start()

    def offer(self, ids: list[str], x: np.ndarray, result: PredictionResult) -> None:
        """Select samples by the rules in the configuration's block `capture`, and put them in the queue for writing.

        Args:
            ids: The ids of the predictions, one for each sample.
            x: The inputs of the predictions, float32 [B, *shape].
            result: The results of the predictions.
        """
        confidences = result.probabilities.max(axis=1)
        drifting = self._drifting(x, result.loaded) if self.rules.on_drift else None
        for i, prediction_id in enumerate(ids):
            reason = self._reason(float(confidences[i]), drifting is not None and bool(drifting[i]))
            if reason is None:
                continue
            metadata = {
                "id": prediction_id,
                **sample_times.stamp(),
                "release": result.release,
                "predicted": result.loaded.classes[int(result.probabilities[i].argmax())],
                "confidence": float(confidences[i]),
                "reason": reason,
                "shape": list(x.shape[1:]),
                "input": _input_description(result.loaded),
            }
            self._put((metadata, np.ascontiguousarray(x[i], dtype="<f4").tobytes()))
            self._captured_ids[prediction_id] = None
            while len(self._captured_ids) > self.config.serve.feedback_window:
                self._captured_ids.popitem(last=False)

    def label(self, prediction_id: str, label: str) -> None:
        """Store the true class of a prediction if its sample was captured."""
        if prediction_id in self._captured_ids:
            self._put(({"of": prediction_id, "label": label}, b""))

    def usage(self) -> dict[str, int]:
        """Return the number and size of the samples on the disk, and the number of dropped samples, for the metrics."""
        ring = self._ring
        return {"samples": ring.samples if ring else 0, "bytes": ring.bytes if ring else 0, "dropped": self.dropped}

    def lines(self, since: datetime | None = None) -> Iterator[bytes]:
        """Return the captured samples as JSON lines, including every sample that was selected before this call.

        If `since` is given, samples whose predictions are older than `since` are omitted. Samples with an unknown time
        are not omitted. Blocks.
        """
        self.wait()
        return export_lines(self.config.layout.samples, since, self.rules.max_age_days)

    def wait(self) -> None:
        """Wait until all selected samples are written to the disk. Blocks."""
        written = threading.Event()
        self._queue.put(written)
        written.wait()

    def close(self) -> None:
        """Write the waiting samples, flush them to the disk, and end the writing thread. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _reason(self, confidence: float, drifting: bool) -> str | None:
        if drifting:
            return "drift"
        if confidence < self.rules.below_confidence:
            return "low_confidence"
        return "rate" if self._random.random() < self.rules.rate else None

    def _drifting(self, x: np.ndarray, loaded: LoadedRelease) -> np.ndarray | None:
        if self._drift_window is None or self._drift_window.loaded is not loaded:
            self._drift_window = DriftWindow(loaded)
        return self._drift_window.add(x)

    def _put(self, record: Record) -> None:
        with self._lock:
            if self._waiting_bytes and self._waiting_bytes + len(record[1]) > WAITING_BYTES:
                self.dropped += 1
                return
            self._waiting_bytes += len(record[1]) + 1
        self._queue.put(record)

    def _write(self) -> None:
        warned = False
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            with self._lock:
                self._waiting_bytes -= len(item[1]) + 1
            try:
                if self._ring is None:
                    rules, folder = self.rules, self.config.layout.samples
                    self._ring = Ring(folder, int(rules.limit_mb * 1e6), rules.max_age_days)
                self._ring.append(*item)
            except OSError as error:
                self.dropped += 1
                if not warned:
                    log.warning("%s: a sample was not captured (%s)", self.config.layout.samples, error)
                warned = True
        if self._ring is not None:
            self._ring.close()


def _input_description(loaded: LoadedRelease) -> dict[str, Any]:
    """Describe the axes and channels of a sample, so that its values can be understood without the release."""
    spec = loaded.manifest["input"]
    names = [channel["name"] for channel in spec["channels"]]
    return {"kind": spec["kind"], "axes": spec["axes"], "channels": names, "rate_hz": spec["rate_hz"]}
