"""Metrics of a classifier, each with its confidence interval.

If every group has one sample, the samples are treated as independent. If groups have several samples, the bootstrap
draws whole groups (bootstrap.py). An interval is then never narrower than the interval for independent samples. Without
this lower limit, the bootstrap over a few groups without a wrong prediction would give an interval of width 0.

A class without a test sample has no scores, and the averages are over the other classes. Every bootstrap replicate is
averaged over the same classes; a replicate in which one of them has no sample does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from stages.metrics.bootstrap import Clusters, portions
from stages.metrics.confusion import averages, per_class, supported

BINS = 15  # bins of confidence for the calibration error, as in Guo et al. 2017


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval, low <= value <= high."""

    value: float
    low: float
    high: float


def wilson(hits: int, samples: int, confidence: float) -> Estimate:
    """Return the proportion hits / samples with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001).

    Unlike the normal approximation, the interval is also valid for proportions near 0 and 1.

    Args:
        hits: Number of hits, for example of correct predictions.
        samples: Number of samples, more than 0.
        confidence: Confidence level of the interval, 0 to 1.
    """
    share = hits / samples
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return Estimate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share))


def hit_share(hits: np.ndarray, confidence: float, clusters: Clusters) -> Estimate:
    """Return the proportion of hits with its interval: Wilson's interval, widened for groups with several samples.

    Args:
        hits: Whether each sample is a hit: bool [N].
        confidence: Confidence level of the interval, 0 to 1.
        clusters: The groups of the samples, from which the bootstrap draws.
    """
    estimate = wilson(int(hits.sum()), len(hits), confidence)
    if clusters.single:
        return estimate
    drawn = np.concatenate(list(clusters.totals(hits, 2)))
    return _widen(estimate, drawn[:, 1] / drawn.sum(axis=1), confidence)


def estimates(
    actual: np.ndarray, predicted: np.ndarray, classes: int, confidence: float, seed: int, clusters: Clusters
) -> tuple[dict[str, Estimate], dict[str, list[Estimate | None]]]:
    """Return precision, recall and F1 as averages and for each class, with their confidence intervals.

    The averages are over the classes that have a sample; if a class has none, the caller must say so.

    Averages and F1 have percentile bootstrap intervals (Efron & Tibshirani 1993, chapter 13). Precision and recall of a
    class are proportions and have Wilson's intervals. Drawing samples with replacement is equivalent to drawing the
    cells of the confusion matrix from a multinomial distribution. So the computing time does not depend on the
    number of samples.

    Args:
        actual: Index of each sample's actual class [N].
        predicted: Index of each sample's predicted class [N].
        classes: Number of classes.
        confidence: Confidence level of the intervals, 0 to 1.
        seed: Seed of the bootstrap.
        clusters: The groups of the samples.

    Returns:
        The averages by name, as in `confusion.averages`; and the scores "precision", "recall" and "f1" of each class:
        None if the class has no sample.
    """
    cells = actual * classes + predicted
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    draw = np.random.default_rng(seed).multinomial
    shares = (confusion / len(cells)).ravel()
    over = supported(confusion)
    drawn = _scores((draw(len(cells), shares, size=size) for size in portions(confusion.size)), over)
    means = {name: _enclose(value, drawn[name], confidence) for name, value in averages(confusion, over).items()}

    scores, named = per_class(confusion), confusion.sum(axis=0)
    each: dict[str, list[Estimate | None]] = {
        "precision": [_share(confusion[k, k], named[k], confidence) for k in range(classes)],
        "recall": [_share(confusion[k, k], scores["support"][k], confidence) for k in range(classes)],
        "f1": [_enclose(scores["f1"][k], drawn["f1"][:, k], confidence) for k in range(classes)],
    }
    each = {name: [value if over[k] else None for k, value in enumerate(own)] for name, own in each.items()}
    if clusters.single:
        return means, each
    drawn = _scores(clusters.totals(cells, classes**2), over)
    means = {name: _widen(mean, drawn[name], confidence) for name, mean in means.items()}
    each = {
        name: [value and _widen(value, drawn[name][:, k], confidence) for k, value in enumerate(values)]
        for name, values in each.items()
    }
    return means, each


def _scores(replicates: Iterable[np.ndarray], over: np.ndarray) -> dict[str, np.ndarray]:
    """Return the averages [R] and the scores per class [R, classes] of R bootstrap replicates of a confusion matrix.

    A score is NaN in the replicates in which it is undefined. The replicates are given in several arrays [*, classes *
    classes]. The averages are over the classes for which `over` [classes] is true.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for portion in replicates:
        classes = math.isqrt(portion.shape[1])
        counts = portion.reshape(-1, classes, classes)
        each = per_class(counts)
        each["precision"] = np.where(counts.sum(axis=-2) > 0, each["precision"], np.nan)  # never predicted: 0 of 0
        for name, value in {**averages(counts, over), **each}.items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _widen(estimate: Estimate, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return the estimate, with its interval widened to include the percentile interval of the replicates `drawn`.

    Replicates in which the score is undefined (NaN) do not count. If none remains, the interval is 0 to 1.
    """
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, _ends(confidence)) if len(defined) else (0.0, 1.0)
    return Estimate(estimate.value, min(float(low), estimate.low), max(float(high), estimate.high))


def _enclose(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return a value with the percentile interval of its replicates `drawn`, widened if it excludes the value."""
    return _widen(Estimate(float(value), float(value), float(value)), drawn, confidence)


def _share(hits: int, samples: int, confidence: float) -> Estimate:
    """Return hits / samples with Wilson's interval; if there are no samples, return 0 with the interval 0 to 1."""
    return wilson(int(hits), int(samples), confidence) if samples else Estimate(0.0, 0.0, 1.0)


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error, where 0 is best.

    It is the mean absolute difference between confidence and accuracy over 15 bins of equal width, weighted by the
    number of samples in each bin (Naeini et al. 2015; Guo et al. 2017, equation 3).

    Args:
        confidences: Probability of the predicted class of each sample [N].
        correct: Whether each prediction is correct: bool [N].
    """
    gaps = np.bincount(_bins(confidences), weights=confidences - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration_estimate(
    confidences: np.ndarray, correct: np.ndarray, confidence: float, seed: int, clusters: Clusters
) -> Estimate:
    """Return `calibration_error` with a bootstrap interval.

    The error is a mean of absolute values. Random variation increases this mean, so the estimate is too high, and the
    replicates are even higher. The low end of the interval is from the basic bootstrap, which corrects this bias. The
    high end is a percentile of the replicates without this correction. So the interval is too wide rather than too
    narrow.

    Args:
        confidences: Probability of the predicted class of each sample [N].
        correct: Whether each prediction is correct: bool [N].
        confidence: Confidence level of the interval, 0 to 1.
        seed: Seed of the bootstrap.
        clusters: The groups of the samples.
    """
    samples = len(confidences)
    # A gap is confidence minus correctness (0 or 1). Samples in the same bin with the same gap are counted together.
    # Gaps are rounded to three decimals to limit the number of different gaps. The estimate itself is not rounded.
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
    """Return the index of each confidence's bin: (0, 1/15] is bin 0, ... (14/15, 1] is bin 14."""
    numbers: np.ndarray = np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return numbers


def _ends(confidence: float) -> list[float]:
    """Return the probabilities of the lower and the upper quantile that are the ends of a confidence interval."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def percentile(sorted_values: np.ndarray, share: float, confidence: float) -> Estimate:
    """Return a quantile of the values with a distribution-free confidence interval, whose ends are two of the values.

    The number of values below the true quantile has a binomial distribution (David & Nagaraja 2003, section 7.1).

    Args:
        sorted_values: The values, in ascending order.
        share: The quantile as a fraction, 0 to 1; for example 0.95 for p95.
        confidence: Confidence level of the interval, 0 to 1.

    Raises:
        ValueError: There are fewer values than `values_needed` returns.
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
        probability: The probability to reach, 0 to 1.
        count: Number of trials.
        share: Probability of a success, more than 0 and less than 1.
    """
    steps = np.arange(count)
    ratios = np.log((count - steps) / (steps + 1) * share / (1 - share))  # logarithms of the ratios of successive terms
    terms = np.exp(count * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)]))
    return int(np.searchsorted(np.cumsum(terms), probability))


def values_needed(share: float, confidence: float) -> int:
    """Return the minimum number of values from which `percentile` can compute both ends of the interval."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(share, 1 - share)))


def by_group(groups: np.ndarray, correct: np.ndarray, confidence: float) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each group of samples with Wilson's interval, by the group's name.

    If every group has exactly one sample, the result is empty. The interval assumes that the samples of a group
    are independent. If samples overlap in time, the interval is too narrow.

    Args:
        groups: Name of each sample's group [N].
        correct: Whether each prediction is correct: bool [N].
        confidence: Confidence level of the intervals, 0 to 1.
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
    """Return the fraction of samples in each class, by the name of the class.

    `values` has the class index of each sample [N]. `names` has the name of each class, in the order of the indices.
    """
    counts = np.bincount(values, minlength=len(names))
    return {name: float(count / len(values)) for name, count in zip(names, counts, strict=True)}
