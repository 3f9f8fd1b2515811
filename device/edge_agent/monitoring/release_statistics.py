"""Statistics of one release: counts and sums that are cheap to update and can be saved as JSON."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring.drift import STATISTICS, Bins, features, psi

# Upper bounds of the exported histograms, in seconds.
BUCKETS = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
FINER = 8
MAX_COUNT = 2**53  # the largest count that a float64, and so Prometheus, represents exactly
CONFIDENCE_EDGES = tuple(round(0.1 * step, 1) for step in range(1, 10))
# Features are counted when this many samples or bytes are waiting, because counting many together is much cheaper.
PENDING, PENDING_BYTES = 64, 1 << 20


def _bounds() -> list[float]:
    """Return the bounds of LatencyHistogram: the bounds in BUCKETS, and seven more bounds below each of them.

    The ratio between neighbouring bounds is constant from one bound in BUCKETS to the next. With the additional bounds,
    quantiles are accurate to a few percent.
    """
    bounds, below = [], BUCKETS[0] / 2.5
    for bound in BUCKETS:
        ratio = bound / below
        bounds += [below * ratio ** (step / FINER) for step in range(1, FINER)] + [bound]
        below = bound
    return bounds


BOUNDS = _bounds()


class LatencyHistogram:
    """A histogram of durations.

    `counts[i]` is the number of durations above BOUNDS[i-1] and up to BOUNDS[i] seconds. The last count is the number
    of durations above the last bound.
    """

    def __init__(self, counts: list[int] | None = None, total_s: float = 0.0) -> None:
        self.counts = counts or [0] * (len(BOUNDS) + 1)
        self.total_s = total_s

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """Return Prometheus's buckets: each upper bound in seconds, as text, and the number of durations up to it."""
        sums = np.cumsum(self.counts)
        buckets = [(repr(bound), int(sums[(i + 1) * FINER - 1])) for i, bound in enumerate(BUCKETS)]
        return [*buckets, ("+Inf", int(sums[-1]))]

    def quantile(self, share: float) -> float | None:
        """Return a quantile of the durations in seconds, or None if there are no durations.

        For example, `share` 0.5 is the median. The quantile is interpolated geometrically within its bucket.
        """
        total = sum(self.counts)
        if not total:
            return None
        rank, cumulative = share * total, 0
        for i, count in enumerate(self.counts):
            if count and cumulative + count >= rank:
                high = BOUNDS[min(i, len(BOUNDS) - 1)]
                low = BOUNDS[i - 1] if i else high / 2
                return float(low * (high / low) ** ((rank - cumulative) / count)) if i < len(BOUNDS) else high
            cumulative += count
        return BOUNDS[-1]


class ReleaseStatistics:
    """Counts of the predictions, errors and labels of one loaded release. Only one thread may call `add`."""

    def __init__(self, loaded: LoadedRelease, since: str) -> None:
        self.loaded, self.since = loaded, since
        self.release, self.target, self.sha256 = loaded.release, loaded.target, loaded.sha256
        self.classes = loaded.classes
        reference = loaded.reference or {}
        evaluated = reference.get("targets", {}).get(loaded.target, {})
        self.prediction_reference: Mapping[str, float] = evaluated.get("prediction_ratios") or reference.get(
            "labels", {}
        )
        self.features: list[Mapping[str, Any]] = list(reference.get("features", []))
        self.reference_samples = int(reference.get("samples", 0))
        self.confidence_edges = list(evaluated.get("confidence_bins", {}).get("edges", CONFIDENCE_EDGES))
        self.bins = Bins([feature["edges"] for feature in self.features])
        axes = list(loaded.manifest["input"]["axes"])
        self._channel = axes.index("channel") + 1 if "channel" in axes else None
        self._columns = [
            len(STATISTICS) * feature["channel"] + STATISTICS.index(feature["statistic"]) for feature in self.features
        ]
        self.restarts = 0
        self.inferences = 0
        self.errors: dict[str, int] = {}
        self.latency, self.queue = LatencyHistogram(), LatencyHistogram()
        self.per_class = [0] * len(self.classes)
        self.confidence = [0] * (len(self.confidence_edges) + 1)
        self.confidence_sum = 0.0
        self.feature_counts = np.zeros((len(self.features), self.bins.edges.shape[1] + 1), np.int64)
        self.feedback: dict[str, dict[str, int]] = {}
        self._pending: list[np.ndarray] = []
        self._pending_samples = self._pending_bytes = 0

    def add(self, x: np.ndarray, probabilities: np.ndarray, latency_s: float) -> None:
        """Count one request for which the model returned a result.

        Args:
            x: The inputs of the request, float32 [B, *shape].
            probabilities: The probabilities that the model returned, float32 [B, classes].
            latency_s: Time in seconds for which the model ran to compute the request.
        """
        self.inferences += len(x)
        self.latency.add(latency_s)
        for row in probabilities.tolist():
            confidence = max(row)
            self.per_class[row.index(confidence)] += 1
            self.confidence[bisect_right(self.confidence_edges, confidence)] += 1
            self.confidence_sum += confidence
        if self.features:
            self._pending.append(x)
            self._pending_samples += len(x)
            self._pending_bytes += x.nbytes
            if self._pending_samples >= PENDING or self._pending_bytes >= PENDING_BYTES:
                self.flush()

    def flush(self) -> np.ndarray | None:
        """Count the samples that `add` has collected since the last flush, in the bins of each drift feature.

        Returns the bin index of each drift feature for each of these samples, int64 [N, F], or None if there are none.
        """
        if not self._pending:
            return None
        pending, self._pending = self._pending, []  # also if counting fails, so that the samples do not fill the memory
        self._pending_samples = self._pending_bytes = 0
        bins = self.locate(np.concatenate(pending))
        self.feature_counts += self.bins.counts(bins)
        return bins

    def locate(self, x: np.ndarray) -> np.ndarray:
        """Return, for each sample of `x` [B, *shape], the bin index of each drift feature, as int64 [B, F]."""
        channels_first = x[:, None] if self._channel is None else np.moveaxis(x, self._channel, 1)
        step = max(PENDING_BYTES // max(x[:1].nbytes, 1), 1)  # `features` needs several copies of its input
        parts = [channels_first[i : i + step] for i in range(0, max(len(x), 1), step)]
        return np.concatenate([self.bins.locate(features(part)[:, self._columns]) for part in parts])

    def add_errors(self, reason: str, samples: int) -> None:
        """Count the samples of a failed request under `reason`, such as `timeout`."""
        self.errors[reason] = self.errors.get(reason, 0) + samples

    def count_label(self, label: str, *, correct: bool, count: int = 1) -> None:
        """Count a label, or remove a label that was counted before.

        Args:
            label: The true class of a prediction.
            correct: Whether the true class is the predicted class.
            count: 1 counts the label; -1 removes it, because a new label replaces it.
        """
        results = self.feedback.setdefault(label, {"correct": 0, "wrong": 0})
        results["correct" if correct else "wrong"] += count

    def drift(self) -> dict[str, dict[str, Any]]:
        """Return the population stability index (PSI) and the number of counted samples for each drift feature.

        All samples since the switch to the release are counted.
        """
        self.flush()
        return {
            feature["name"]: {"psi": psi(feature["ratios"], self.feature_counts[i, :size]), "n": self.counted}
            for i, (feature, size) in enumerate(zip(self.features, self.bins.sizes, strict=True))
        }

    @property
    def counted(self) -> int:
        """Number of samples that have been counted in the bins of the drift features."""
        return int(self.feature_counts[0].sum()) if self.features else 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts and sums that must survive a restart of the service, in types that JSON supports."""
        self.flush()
        return {
            "release": self.release,
            "target": self.target,
            "sha256": self.sha256,
            "since": self.since,
            "restarts": self.restarts,
            "inferences": self.inferences,
            "errors": dict(self.errors),
            "latency": {"counts": list(self.latency.counts), "total_s": self.latency.total_s},
            "queue": {"counts": list(self.queue.counts), "total_s": self.queue.total_s},
            "per_class": list(self.per_class),
            "confidence": list(self.confidence),
            "confidence_sum": self.confidence_sum,
            "feature_counts": self.feature_counts.tolist(),
            "feedback": {label: dict(results) for label, results in self.feedback.items()},
        }

    def resume(self, value: Mapping[str, Any]) -> bool:
        """Continue counting from `value`, a saved result of `as_json`, if it belongs to the same model file.

        Returns False and changes nothing if `value` belongs to another model file. If `value` is invalid, this method
        raises an exception of any type and changes nothing.
        """
        if any(value[name] != getattr(self, name) for name in ("release", "target", "sha256")):
            return False
        latency, queue = (
            LatencyHistogram(_counts(value[name]["counts"], len(BOUNDS) + 1), _sum(value[name]["total_s"]))
            for name in ("latency", "queue")
        )
        per_class = _counts(value["per_class"], len(self.per_class))
        confidence = _counts(value["confidence"], len(self.confidence))
        size = self.feature_counts.shape[1]
        rows = [_counts(row, size) for row in _of_length(value["feature_counts"], len(self.features))]
        feature_counts = np.array(rows, np.int64).reshape(self.feature_counts.shape)
        errors = {str(reason): _count(count) for reason, count in value["errors"].items()}
        feedback = {
            str(label): {name: _count(results[name]) for name in ("correct", "wrong")}
            for label, results in value["feedback"].items()
        }
        confidence_sum = _sum(value["confidence_sum"])
        since, restarts, inferences = str(value["since"]), _count(value["restarts"]) + 1, _count(value["inferences"])
        self.confidence_sum = confidence_sum
        self.since, self.restarts, self.inferences = since, restarts, inferences
        self.latency, self.queue, self.per_class, self.confidence = latency, queue, per_class, confidence
        self.feature_counts, self.errors, self.feedback = feature_counts, errors, feedback
        return True


def _counts(value: Any, length: int) -> list[int]:
    return [_count(count) for count in _of_length(value, length)]


def _of_length(value: Any, length: int) -> Any:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"found {value!r:.40}, expected a list of {length}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise ValueError(f"found a count of {value!r:.40}, expected an integer of at least 0")
    return value


def _sum(value: Any) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value < MAX_COUNT):
        raise ValueError(f"found a sum of {value!r:.40}, expected a finite number of at least 0")
    return float(value)
