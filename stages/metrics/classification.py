"""What a classifier's answers are worth, each number with its confidence interval.

Where every sample is a group of its own, samples are independent draws. Where groups hold more than one, whole groups
are drawn (bootstrap.py); an interval is then never narrower than the one that takes the samples as independent:
seven groups without a mistake would leave none.
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
    """The share hits / samples with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001).

    Right also near 0 and 1, where the normal approximation is not. `samples` > 0.
    """
    share = hits / samples
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return Estimate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share))


def hit_share(hits: np.ndarray, confidence: float, clusters: Clusters) -> Estimate:
    """How many of the samples are hits, bool [N]: with Wilson's interval, and by group where groups are drawn."""
    found = wilson(int(hits.sum()), len(hits), confidence)
    if clusters.single:
        return found
    drawn = np.concatenate(list(clusters.totals(hits, 2)))
    return _widened(found, drawn[:, 1] / drawn.sum(axis=1), confidence)


def estimates(
    actual: np.ndarray, predicted: np.ndarray, classes: int, confidence: float, seed: int, clusters: Clusters
) -> tuple[dict[str, Estimate], dict[str, list[Estimate]]]:
    """`averages` and the f1 of each class, with percentile bootstrap intervals (Efron & Tibshirani 1993, chapter 13);
    precision and recall of each class, which are shares, with Wilson's. `actual`, `predicted`: class indices [N].

    Drawing samples again with replacement is drawing the counts from a multinomial: all replicates at once,
    whatever the number of samples.
    """
    cells = actual * classes + predicted
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    draw = np.random.default_rng(seed).multinomial
    shares = (confusion / len(cells)).ravel()
    drawn = _scores(draw(len(cells), shares, size=size) for size in portions(confusion.size))
    means = {name: _enclosing(value, drawn[name], confidence) for name, value in averages(confusion).items()}

    scores, named = per_class(confusion), confusion.sum(axis=0)
    each = {
        "precision": [_share(confusion[k, k], named[k], confidence) for k in range(classes)],
        "recall": [_share(confusion[k, k], scores["support"][k], confidence) for k in range(classes)],
        "f1": [_enclosing(scores["f1"][k], drawn["f1"][:, k], confidence) for k in range(classes)],
    }
    if clusters.single:
        return means, each
    drawn = _scores(clusters.totals(cells, classes**2))
    means = {name: _widened(own, drawn[name], confidence) for name, own in means.items()}
    each = {
        name: [_widened(own, drawn[name][drawn[f"{name}_there"][:, k], k], confidence) for k, own in enumerate(values)]
        for name, values in each.items()
    }
    return means, each


def _scores(replicates: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Of counts in portions [*, classes * classes]: `averages` [R], and `per_class` [R, classes]; `<name>_there`: where
    the replicate has anything to tell it from.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for portion in replicates:
        classes = math.isqrt(portion.shape[1])
        counts = portion.reshape(-1, classes, classes)
        each, named = per_class(counts), counts.sum(axis=-2)
        there = {"precision": named, "recall": each["support"], "f1": named + each["support"]}
        for name, value in {**averages(counts), **each}.items():
            parts.setdefault(name, []).append(value)
        for name, value in there.items():
            parts.setdefault(f"{name}_there", []).append(value > 0)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _widened(found: Estimate, drawn: np.ndarray, confidence: float) -> Estimate:
    """The estimate with an interval that reaches as far as that of the replicates; of none, nothing is known."""
    low, high = np.quantile(drawn, _ends(confidence)) if len(drawn) else (0.0, 1.0)
    return Estimate(found.value, min(float(low), found.low), max(float(high), found.high))


def _enclosing(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(drawn, _ends(confidence))
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def _share(hits: int, of: int, confidence: float) -> Estimate:
    """Of nothing, nothing is known: 0 to 1."""
    return wilson(int(hits), int(of), confidence) if of else Estimate(0.0, 0.0, 1.0)


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over 15 equal bins of
    confidence, weighted by how many samples are in each (Naeini et al. 2015; Guo et al. 2017, equation 3).

    `confidences`: probability of the predicted class [N]; `correct`: bool [N]. 0 is best.
    """
    gaps = np.bincount(_bins(confidences), weights=confidences - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration_estimate(
    confidences: np.ndarray, correct: np.ndarray, confidence: float, seed: int, clusters: Clusters
) -> Estimate:
    """`calibration_error` with a bootstrap interval.

    The error is a mean of absolute values, so resampling pushes it up, as sampling did with the estimate
    itself. The low end is the basic bootstrap's, which takes that off, the high end is the percentile one,
    which does not: the interval errs on the wide side.
    """
    samples = len(confidences)
    # Samples of one bin with the same gap are alike. To the third digit there are few kinds of them, however
    # many samples; the estimate itself is not rounded.
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
    """(0, 1/15] is bin 0, ... (14/15, 1] is bin 14."""
    numbers: np.ndarray = np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return numbers


def _ends(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def percentile(sorted_values: np.ndarray, share: float, confidence: float) -> Estimate:
    """The `share` quantile of ascending values with its distribution-free interval from order statistics
    (David & Nagaraja 2003, section 7.1): the number of values below the quantile is binomial.

    Raises ValueError for fewer values than `values_needed`.
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
    """The least k with P(B <= k) >= probability, B ~ binomial(count, share), 0 < share < 1."""
    steps = np.arange(count)
    ratios = np.log((count - steps) / (steps + 1) * share / (1 - share))  # of successive terms
    terms = np.exp(count * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)]))
    return int(np.searchsorted(np.cumsum(terms), probability))


def values_needed(share: float, confidence: float) -> int:
    """The least number of values for which the extremes enclose the quantile's interval on both sides."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(share, 1 - share)))


def by_group(groups: np.ndarray, correct: np.ndarray, confidence: float) -> dict[str, dict[str, Any]]:
    """Accuracy of each group; nothing where every sample is a group of its own. Its Wilson interval takes the samples
    of this very group as independent: where they overlap in time it is too narrow.
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
    """How often each class index occurs in `values`, by name."""
    counts = np.bincount(values, minlength=len(names))
    return {name: float(count / len(values)) for name, count in zip(names, counts, strict=True)}
