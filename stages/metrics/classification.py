"""Metrics of a classifier, each with its confidence interval.

Without groups, samples are independent draws. With groups of several samples, whole groups are drawn (bootstrap.py).
An interval is then never narrower than the one for independent samples; otherwise seven groups without a mistake would
give an interval of width zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from stages.metrics.bootstrap import Clusters, portions
from stages.metrics.confusion import averages, per_class

BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval, low <= value <= high."""

    value: float
    low: float
    high: float


def wilson(hits: int, samples: int, confidence: float) -> Estimate:
    """Return the share hits / samples with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001).

    Near 0 and 1 it is valid too, unlike the normal approximation.

    Args:
        hits: Number of hits.
        samples: Number of samples, more than 0.
        confidence: Of the interval, 0 to 1.
    """
    share = hits / samples
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return Estimate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share))


def hit_share(hits: np.ndarray, confidence: float, clusters: Clusters) -> Estimate:
    """Return the share of hits with Wilson's interval, widened by the bootstrap where there are groups.

    Args:
        hits: bool [N].
        confidence: Of the interval, 0 to 1.
        clusters: The samples' groups.
    """
    estimate = wilson(int(hits.sum()), len(hits), confidence)
    if clusters.single:
        return estimate
    drawn = np.concatenate(list(clusters.totals(hits, 2)))
    return _widen(estimate, drawn[:, 1] / drawn.sum(axis=1), confidence)


def estimates(
    actual: np.ndarray, predicted: np.ndarray, classes: int, confidence: float, seed: int, clusters: Clusters
) -> tuple[dict[str, Estimate], dict[str, list[Estimate]]]:
    """Return averages and scores per class with their intervals.

    Averages and f1 have percentile bootstrap intervals (Efron & Tibshirani 1993, chapter 13). Precision and recall of a
    class are shares and have Wilson's intervals. To draw samples with replacement is to draw the counts from a
    multinomial distribution, which gives all replicates at once for any number of samples.

    Args:
        actual: Class indices [N].
        predicted: Class indices [N].
        classes: Number of classes.
        confidence: Of the intervals, 0 to 1.
        seed: Of the bootstrap.
        clusters: The samples' groups.

    Returns:
        The averages of `confusion.averages`, and precision, recall and f1 of each class.
    """
    cells = actual * classes + predicted
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    draw = np.random.default_rng(seed).multinomial
    shares = (confusion / len(cells)).ravel()
    drawn = _scores(draw(len(cells), shares, size=size) for size in portions(confusion.size))
    means = {name: _enclose(value, drawn[name], confidence) for name, value in averages(confusion).items()}

    scores, named = per_class(confusion), confusion.sum(axis=0)
    each = {
        "precision": [_share(confusion[k, k], named[k], confidence) for k in range(classes)],
        "recall": [_share(confusion[k, k], scores["support"][k], confidence) for k in range(classes)],
        "f1": [_enclose(scores["f1"][k], drawn["f1"][:, k], confidence) for k in range(classes)],
    }
    if clusters.single:
        return means, each
    drawn = _scores(clusters.totals(cells, classes**2))
    means = {name: _widen(own, drawn[name], confidence) for name, own in means.items()}
    each = {
        name: [_widen(own, drawn[name][drawn[f"{name}_defined"][:, k], k], confidence) for k, own in enumerate(values)]
        for name, values in each.items()
    }
    return means, each


def _scores(replicates: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the averages [R] and the scores per class [R, classes] of replicates in portions [*, classes * classes].

    `<name>_defined` marks the replicates in which a score is defined: its denominator is not 0.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for portion in replicates:
        classes = math.isqrt(portion.shape[1])
        counts = portion.reshape(-1, classes, classes)
        each, named = per_class(counts), counts.sum(axis=-2)
        defined = {"precision": named, "recall": each["support"], "f1": named + each["support"]}
        for name, value in {**averages(counts), **each}.items():
            parts.setdefault(name, []).append(value)
        for name, value in defined.items():
            parts.setdefault(f"{name}_defined", []).append(value > 0)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _widen(estimate: Estimate, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return the estimate with an interval that encloses that of the replicates; without replicates, it is 0 to 1."""
    low, high = np.quantile(drawn, _ends(confidence)) if len(drawn) else (0.0, 1.0)
    return Estimate(estimate.value, min(float(low), estimate.low), max(float(high), estimate.high))


def _enclose(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return a value with the percentile interval of its replicates, extended to the value."""
    low, high = np.quantile(drawn, _ends(confidence))
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def _share(hits: int, samples: int, confidence: float) -> Estimate:
    """Return hits / samples with Wilson's interval; without samples, 0 with the interval 0 to 1."""
    return wilson(int(hits), int(samples), confidence) if samples else Estimate(0.0, 0.0, 1.0)


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error of probabilities of the predicted class [N]; `correct` is bool [N].

    It is the mean distance between confidence and accuracy over 15 equal bins of confidence, weighted by the samples in
    each (Naeini et al. 2015; Guo et al. 2017, equation 3). 0 is best.
    """
    gaps = np.bincount(_bins(confidences), weights=confidences - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration_estimate(
    confidences: np.ndarray, correct: np.ndarray, confidence: float, seed: int, clusters: Clusters
) -> Estimate:
    """Return `calibration_error` with a bootstrap interval.

    The error is a mean of absolute values. Resampling increases it, as sampling increased the estimate. The low end is
    that of the basic bootstrap, which corrects this; the high end is the percentile, which does not: the interval is
    rather too wide.

    Args:
        confidences: Probability of the predicted class [N].
        correct: bool [N].
        confidence: Of the interval, 0 to 1.
        seed: Of the bootstrap.
        clusters: The samples' groups.
    """
    samples = len(confidences)
    # Samples of one bin with the same gap are counted together. Gaps are rounded to three digits, so that there are few
    # kinds for any number of samples; the estimate itself is not rounded.
    kinds, counts = np.unique(
        np.stack([_bins(confidences), np.round((confidences - correct) * 1000)]), axis=1, return_counts=True
    )
    gaps = np.zeros((len(counts), BINS))
    gaps[np.arange(len(counts)), kinds[0].astype(np.int64)] = kinds[1] / 1000
    draw = np.random.default_rng(seed).multinomial
    errors = [
        np.abs(draw(samples, counts / samples, size=size) @ gaps).sum(axis=1) / samples
        for size in portions(len(counts))
    ]
    value = calibration_error(confidences, correct)
    high = float(np.quantile(np.concatenate(errors), (1 + confidence) / 2))
    if not clusters.single:
        drawn = zip(
            clusters.totals(_bins(confidences), BINS, confidences - correct),
            clusters.totals(np.zeros(samples), 1),
            strict=True,
        )
        errors = [np.abs(sums).sum(axis=1) / sizes[:, 0] for sums, sizes in drawn]
        high = max(high, float(np.quantile(np.concatenate(errors), (1 + confidence) / 2)))
    return Estimate(value, min(max(0.0, 2 * value - high), value), max(high, value))


def _bins(confidences: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence: (0, 1/15] is bin 0, ... (14/15, 1] is bin 14."""
    numbers: np.ndarray = np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return numbers


def _ends(confidence: float) -> list[float]:
    """Return the shares below and up to the ends of an interval."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def percentile(sorted_values: np.ndarray, share: float, confidence: float) -> Estimate:
    """Return a quantile with its distribution-free interval from order statistics.

    The number of values below the quantile is binomial (David & Nagaraja 2003, section 7.1).

    Args:
        sorted_values: Values, ascending.
        share: The quantile, 0 to 1.
        confidence: Of the interval, 0 to 1.

    Raises:
        ValueError: There are fewer values than `values_needed`.
    """
    count = len(sorted_values)
    if count < values_needed(share, confidence):
        raise ValueError(f"{count} values are too few for an interval of the {share:g} quantile")
    below, above = _ends(confidence)
    # Ranks from 1: P(B >= low) >= above and P(B < high) >= above, B ~ binomial(count, share).
    low = binomial_quantile(below, count, share)
    high = binomial_quantile(above, count, share) + 1
    value = sorted_values[math.ceil(share * count) - 1]
    return Estimate(float(value), float(sorted_values[max(low, 1) - 1]), float(sorted_values[min(high, count) - 1]))


def binomial_quantile(probability: float, count: int, share: float) -> int:
    """Return the smallest k with P(B <= k) >= probability, where B ~ binomial(count, share).

    Args:
        probability: 0 to 1.
        count: Number of trials.
        share: Probability of a success, more than 0 and less than 1.
    """
    steps = np.arange(count)
    ratios = np.log((count - steps) / (steps + 1) * share / (1 - share))  # of successive terms
    terms = np.exp(count * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)]))
    return int(np.searchsorted(np.cumsum(terms), probability))


def values_needed(share: float, confidence: float) -> int:
    """Return the smallest number of values whose extremes enclose the quantile's interval on both sides."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(share, 1 - share)))


def by_group(groups: np.ndarray, correct: np.ndarray, confidence: float) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each group with Wilson's interval; empty where each sample is the only one of its group.

    The interval assumes that the samples of a group are independent; where they overlap in time it is too narrow.

    Args:
        groups: Name of each sample's group [N].
        correct: bool [N].
        confidence: Of the intervals, 0 to 1.
    """
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) == len(groups):
        return {}
    hits = np.bincount(inverse, weights=correct, minlength=len(names)).astype(int)
    result = {}
    for name, hit, count in zip(names, hits, counts, strict=True):
        accuracy = wilson(int(hit), int(count), confidence)
        result[str(name)] = {
            "accuracy": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "samples": int(count),
        }
    return result


def shares(values: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the share of each class index in `values`, by the class's name."""
    counts = np.bincount(values, minlength=len(names))
    return {name: float(count / len(values)) for name, count in zip(names, counts, strict=True)}
