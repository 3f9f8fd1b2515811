"""The five metrics follow their formulas, for one source and for several together."""

from __future__ import annotations

import pytest

from stages.params.validate import Thresholds
from stages.validate.quality import (
    METRICS,
    Counts,
    Share,
    accuracy,
    completeness,
    consistency,
    judge_metrics,
    timeliness,
    validity,
)

NEEDED = Thresholds(completeness=0.9, consistency=0.9, accuracy=0.9, timeliness=0.9, validity=0.9)


def _counts(**changes: object) -> Counts:
    counts = Counts(
        rows=100,
        cells={"a": Share(100, 100), "b": Share(50, 100)},
        consistent={"unique": Share(99, 100), "order": Share(80, 99)},
        plausible=Share(97, 100),
        fresh=Share(60, 100),
        valid=Share(91, 100),
        violations={metric: {} for metric in METRICS},
    )
    for name, value in changes.items():
        setattr(counts, name, value)
    return counts


def test_formulas() -> None:
    counts = _counts()
    assert completeness(counts) == 0.75
    assert consistency(counts) == 80 / 99
    assert accuracy(counts) == 0.97
    assert timeliness(counts) == 0.6
    assert validity(counts) == 0.91


def test_two_sources_together_are_the_sum_of_their_counts() -> None:
    # given a perfect source of 900 rows and a bad one of 100
    good = Counts(
        900,
        {"a": Share(900, 900), "b": Share(900, 900)},
        {"unique": Share(900, 900), "order": Share(899, 899)},
        Share(900, 900),
        Share(900, 900),
        Share(900, 900),
    )
    # when
    both = _counts() + good
    # then
    assert completeness(both) == pytest.approx(1950 / 2000)
    assert consistency(both) == pytest.approx((80 + 899) / (99 + 899))
    assert validity(both) == pytest.approx(991 / 1000)
    assert both.rows == 1000


def test_an_unmeasured_metric_is_reported_as_unmeasured() -> None:
    # given a contract without plausibility rules and without freshness
    judged = judge_metrics(_counts(plausible=Share(), fresh=Share()), NEEDED)
    # then
    assert judged["accuracy"]["value"] == 1.0
    assert [metric for metric in METRICS if not judged[metric]["measured"]] == ["accuracy", "timeliness"]


def test_the_worst_columns_come_first_and_a_metric_can_fail() -> None:
    # given
    counts = _counts(violations={"validity": {"a: infinite": 2, "b: outside 0..1": 7, "c: unknown label": 0}})
    # when
    judged = judge_metrics(counts, NEEDED)
    # then
    assert judged["validity"]["worst_columns"] == ["b: outside 0..1 (7.0%)", "a: infinite (2.0%)"]
    assert judged["completeness"]["worst_columns"] == ["b (50.0%)"]
    assert {metric: judged[metric]["passed"] for metric in METRICS} == {
        "completeness": False,
        "consistency": False,
        "accuracy": True,
        "timeliness": False,
        "validity": True,
    }
