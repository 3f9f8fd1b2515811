"""Group and label become text and times UTC, for all forms of input."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from stages.collect.sources.normalise import to_text, to_utc
from stages.collect.sources.url_secrets import redact


def column(*values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0, 1.0, None], ["0", "1", None]),
        ([0.0, float("nan"), 1.0], ["0", None, "1"]),
        ([1.0, 1.5, -2.0], ["1", "1.5", "-2"]),
        ([float("inf"), 1e300], ["inf", "1e+300"]),
        ([1, 2], ["1", "2"]),
        (["007", "1.0", " a", ""], ["007", "1.0", " a", ""]),
        ([True, False], ["true", "false"]),
        ([None], [None]),
    ],
)
def test_labels_as_text(values: list[Any], text: list[str | None]) -> None:
    assert to_text(column(*values)).to_pylist() == text
    assert to_text(column(*values)).type == pa.string()


def test_nested_columns_are_unchanged() -> None:
    assert to_text(column([1.0])).to_pylist() == [[1.0]]


@pytest.mark.parametrize(
    ("written", "second"),
    [
        ("2026-01-01T10:00:00Z", 0),
        ("2026-01-01T12:00:00+02:00", 0),
        ("2026-01-01 12:00:00+0200", 0),
        ("2026-01-01 05:00:00-05", 0),
        ("2026-01-01T10:00:00", 0),
        ("2026-01-01t10:00:00z", 0),
        ("2026-01-01T10:00", 0),
        ("2026-01-01T10:00:00.123456789Z", 0.123456),
        ("2026-01-01T12:00:00.5+02:00", 0.5),
        (datetime(2026, 1, 1, 10, tzinfo=UTC), 0),
        (datetime(2026, 1, 1, 10), 0),
    ],
)
def test_times_are_utc(written: Any, second: float) -> None:
    expected = datetime(2026, 1, 1, 10) + timedelta(seconds=second)

    assert to_utc(column(written)).to_pylist() == [expected]
    assert to_utc(column(written, None)).type == pa.timestamp("us")


def test_a_typed_time_of_another_zone_is_utc() -> None:
    ten = pa.array([datetime(2026, 1, 1, 10)], pa.timestamp("us", "UTC"))
    east = pa.chunked_array([ten.cast(pa.timestamp("us", "+02:00"))])

    assert to_utc(east).to_pylist() == [datetime(2026, 1, 1, 10)]


def test_one_column_may_mix_zones() -> None:
    mixed = column("2026-01-01T10:00:00Z", "2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00", None, "2026-01-01")

    ten = datetime(2026, 1, 1, 10)
    assert to_utc(mixed).to_pylist() == [ten, ten, ten, None, datetime(2026, 1, 1)]


def test_a_cell_that_is_not_a_time_leaves_the_others_in_one_form() -> None:
    mixed = column("2026-01-01T12:00:00+02:00", "yesterday", None, "2026-01-01 10:00")

    shown = to_utc(mixed).to_pylist()

    assert shown == ["2026-01-01 10:00:00.000000", "yesterday", None, "2026-01-01 10:00:00.000000"]


def test_a_date_is_its_midnight() -> None:
    assert to_utc(column(date(2026, 1, 1))).to_pylist() == [datetime(2026, 1, 1)]


@pytest.mark.parametrize("values", [["yesterday"], [1767225600], ["2026-13-01"]])
def test_values_that_are_not_times_are_unchanged(values: list[Any]) -> None:
    assert to_utc(column(*values)).to_pylist() == values


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:pw@host/x?a=1", "https://host/x?a=1"),
        ("https://host/x?a=1&api_key=k&b=2", "https://host/x?a=1&api_key=***&b=2"),
        ("s3://b/x?X-Amz-Signature=abc: HTTP 403", "s3://b/x?X-Amz-Signature=***: HTTP 403"),
        ("Get 'http://u@h/?token=t' failed", "Get 'http://h/?token=***' failed"),
        ("columns a, b (another separator?)", "columns a, b (another separator?)"),
        ("mqtt://host:1883/hall/#", "mqtt://host:1883/hall/#"),
        ("mail me@host.example", "mail me@host.example"),
    ],
)
def test_secrets_in_urls_are_removed(text: str, kept: str) -> None:
    assert redact(text) == kept
    assert redact(kept) == kept
