"""Samples kept for retraining, in a ring on disk (ring.py). Off by default; nothing leaves by itself.

Writing happens in a thread of its own: a slow card makes samples drop, never predictions wait.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_agent.core.config import Config
from edge_agent.inference.engine import PredictionResult
from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring.drift_window import DriftWindow
from edge_agent.monitoring.ring import Ring
from edge_agent.monitoring.samples import export, export_lines, parse_since

__all__ = ["Capture", "export", "parse_since"]

log = logging.getLogger("edge_agent.capture")  # the event of its records

WAITING_BYTES = 16_000_000  # what may wait for the disk
Record = tuple[dict[str, Any], bytes]


class Capture:
    """Decides what is kept (`offer`, in the event loop's thread) and writes it (in its own)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = config.capture
        self.dropped = 0
        self._ring: Ring | None = None
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._queue: queue.SimpleQueue[Record | threading.Event | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._recent: DriftWindow | None = None
        self._random = random.Random()  # noqa: S311 - which samples are kept is no secret
        self._thread = threading.Thread(target=self._write, name="capture", daemon=True)
        self._thread.start()

    def offer(self, ids: list[str], x: np.ndarray, answer: PredictionResult) -> None:
        """Keep those of the answered samples that the rules name."""
        confidences = answer.probabilities.max(axis=1)
        drifting = self._drifting(x, answer.loaded) if self.rules.on_drift else None
        for i, number in enumerate(ids):
            reason = self._reason(float(confidences[i]), drifting is not None and bool(drifting[i]))
            if reason is None:
                continue
            described = {
                "id": number,
                "time": datetime.now(timezone.utc).isoformat(),
                "release": answer.release,
                "predicted": answer.loaded.classes[int(answer.probabilities[i].argmax())],
                "confidence": float(confidences[i]),
                "reason": reason,
                "shape": list(x.shape[1:]),
                "input": _form(answer.loaded),
            }
            self._put((described, np.ascontiguousarray(x[i], dtype="<f4").tobytes()))
            self._kept[number] = None
            while len(self._kept) > self.config.serve.feedback_window:
                self._kept.popitem(last=False)

    def label(self, number: str, label: str) -> None:
        """The true class of a prediction came; if its sample was captured, they go together."""
        if number in self._kept:
            self._put(({"of": number, "label": label}, b""))

    def held(self) -> dict[str, int]:
        """For the metrics."""
        ring = self._ring
        return {"samples": ring.samples if ring else 0, "bytes": ring.bytes if ring else 0, "dropped": self.dropped}

    def lines(self, since: datetime | None = None) -> Iterator[bytes]:
        """What is captured, as `export_lines` gives it, up to what was offered before this call. Blocks."""
        self.wait()
        return export_lines(self.config.layout.samples, since, self.rules.max_age_days)

    def wait(self) -> None:
        """Until what was offered is written. Blocks."""
        written = threading.Event()
        self._queue.put(written)
        written.wait()

    def close(self) -> None:
        """Write what waits and flush it to the disk. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _reason(self, confidence: float, drifting: bool) -> str | None:
        if drifting:
            return "drift"
        if confidence < self.rules.below_confidence:
            return "low_confidence"
        return "rate" if self._random.random() < self.rules.rate else None

    def _drifting(self, x: np.ndarray, loaded: LoadedRelease) -> np.ndarray | None:
        if self._recent is None or self._recent.loaded is not loaded:
            self._recent = DriftWindow(loaded)
        return self._recent.add(x)

    def _put(self, record: Record) -> None:
        with self._lock:
            if self._waiting and self._waiting + len(record[1]) > WAITING_BYTES:
                self.dropped += 1
                return
            self._waiting += len(record[1]) + 1
        self._queue.put(record)

    def _write(self) -> None:
        said = False
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            with self._lock:
                self._waiting -= len(item[1]) + 1
            try:
                if self._ring is None:
                    rules, folder = self.rules, self.config.layout.samples
                    self._ring = Ring(folder, int(rules.limit_mb * 1e6), rules.max_age_days)
                self._ring.append(*item)
            except OSError as error:
                self.dropped += 1
                if not said:
                    log.warning("%s: a sample is not captured (%s)", self.config.layout.samples, error)
                said = True
        if self._ring is not None:
            self._ring.close()


def _form(loaded: LoadedRelease) -> dict[str, Any]:
    """What a sample's numbers are, for whoever reads them years later."""
    described = loaded.manifest["input"]
    names = [channel["name"] for channel in described["channels"]]
    return {"kind": described["kind"], "axes": described["axes"], "channels": names, "rate_hz": described["rate_hz"]}
