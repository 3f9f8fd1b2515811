"""Parameters of `validate`: the data contract."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.params.common import Block, Share, Span, Text


def _check_order(minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ValueError(f"a minimum that is not above the maximum; found {minimum:g} and {maximum:g}")


class Thresholds(Block):
    """The least share, 0 to 1, of each quality metric; formulas in stages/validate/quality.py."""

    completeness: Share
    consistency: Share
    accuracy: Share
    timeliness: Share
    validity: Share


class Column(Block):
    """What one column holds. `minimum`, `maximum` are inclusive, and hold for each element of `values`.

    `nullable: true` allows a value to be missing; `prepare` then says what becomes of it. The allowed values of
    the label column are the keys of `data.classes`.
    """

    type: Literal["float", "integer", "string", "timestamp", "values"]
    nullable: bool
    minimum: float | None = None
    maximum: float | None = None
    allowed: list[str] | None = Field(default=None, min_length=1)
    unique: bool = False

    @model_validator(mode="after")
    def _fits_type(self) -> Column:
        if (self.minimum is not None or self.maximum is not None) and self.type in ("string", "timestamp"):
            raise ValueError(f"no minimum or maximum for type {self.type}")
        if self.allowed is not None and self.type != "string":
            raise ValueError(f"`allowed` is for type string, not for {self.type}")
        if self.unique and self.type == "values":
            raise ValueError("`unique` is not for type values: equal samples are found as duplicates anyway")
        _check_order(self.minimum, self.maximum)
        return self


class Redundant(Block):
    """Two columns that say the same: equal, or for numbers no further apart than `tolerance`."""

    columns: tuple[str, str] = Field(strict=False)
    tolerance: float = Field(ge=0)


class Plausible(Block):
    """A sum of columns times factors that must lie between two bounds, both inclusive.

    {Power: 1.0, Reference: -1.0} between -5 and 5 is agreement with a reference. Of a `values` column the terms
    `<column>.mean`, `.minimum`, `.maximum` and `.length` can be used.
    """

    name: Text
    terms: dict[Text, float] = Field(min_length=1)
    minimum: float | None
    maximum: float | None

    @model_validator(mode="after")
    def _bounded(self) -> Plausible:
        if self.minimum is None and self.maximum is None:
            raise ValueError("a rule without a bound says nothing: write a minimum or a maximum")
        _check_order(self.minimum, self.maximum)
        return self


class Sampling(Block):
    """The time from one row of a group to its next: `interval_s`, give or take `tolerance_s`."""

    interval_s: Span
    tolerance_s: float = Field(ge=0, le=3.2e9)


class Freshness(Block):
    """A row is fresh when its time is at most `max_age_s` before the snapshot's, and not after it."""

    column: str
    max_age_s: Span


class Validate(Block):
    """A metric that nothing measures must have threshold 0: a share of nothing is no evidence."""

    extra_columns: Literal["forbid", "drop"]
    columns: dict[Text, Column] = Field(min_length=1)
    redundant: list[Redundant]
    plausibility: list[Plausible]
    sampling: Sampling | None
    freshness: Freshness | None
    quarantine_share: Share = Field(description="the largest share of rows that may be quarantined")
    thresholds: Thresholds

    @model_validator(mode="after")
    def _measured(self) -> Validate:
        if self.thresholds.accuracy > 0 and not self.plausibility:
            raise ValueError("thresholds.accuracy above 0 needs a rule in `plausibility`")
        if self.thresholds.timeliness > 0 and self.freshness is None:
            raise ValueError("thresholds.timeliness above 0 needs `freshness`")
        return self
