"""Parameters of the stage `validate`: the data contract."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.params.common import Block, Share, Span, Text


def _check_order(minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ValueError(f"a minimum that is not above the maximum, but {minimum:g} is above {maximum:g}")


class Thresholds(Block):
    """Smallest allowed value of each quality metric. `stages/validate/quality.py` has the formulas."""

    completeness: Share = Field(description="Smallest allowed fraction of table cells that have a value.")
    consistency: Share = Field(
        description=(
            "Smallest allowed fraction of rows or time steps that pass each check: unique rows, rows without conflict, "
            "ordered and regular time steps, redundant columns with equal values."
        )
    )
    accuracy: Share = Field(description="Smallest allowed fraction of rows that meet every plausibility rule.")
    timeliness: Share = Field(
        description="Smallest allowed fraction of rows that are at most `freshness.max_age_s` old."
    )
    validity: Share = Field(
        description="Smallest allowed fraction of rows in which every value is allowed in its column."
    )


class Column(Block):
    """A column of the contract. The allowed values of the label column are the keys of `data.classes`."""

    type: Literal["float", "integer", "string", "timestamp", "values"] = Field(
        description="Type of the column; `values` is a list of numbers (an image or a clip)."
    )
    nullable: bool = Field(
        description="Whether values may be missing; `prepare.missing` states how missing values are handled."
    )
    minimum: float | None = Field(
        default=None,
        description="Smallest allowed value, inclusive; for type `values`, it applies to each number in the list.",
    )
    maximum: float | None = Field(
        default=None,
        description="Largest allowed value, inclusive; for type `values`, it applies to each number in the list.",
    )
    allowed: list[str] | None = Field(
        default=None, min_length=1, description="Allowed values; for type `string` only; null: any value."
    )
    unique: bool = Field(
        default=False,
        description=(
            "Whether all values of the column must be different; not for type `values`. All rows with a repeated value "
            "are quarantined."
        ),
    )

    @model_validator(mode="after")
    def _matches_type(self) -> Column:
        if (self.minimum is not None or self.maximum is not None) and self.type in ("string", "timestamp"):
            raise ValueError(f"no minimum or maximum for type {self.type}")
        if self.allowed is not None and self.type != "string":
            raise ValueError(f"`allowed` only for type string, not for {self.type}")
        if self.unique and self.type == "values":
            raise ValueError("no `unique` for type values, because duplicate samples are always detected")
        _check_order(self.minimum, self.maximum)
        return self


class Redundant(Block):
    """Two columns whose values must be equal in every row. Numbers may differ by the tolerance."""

    columns: tuple[str, str] = Field(strict=False, description="Names of the two columns.")
    tolerance: float = Field(
        ge=0,
        description="Largest allowed difference between two numbers, in the columns' unit; not used for other types.",
    )


class Plausible(Block):
    """A weighted sum of columns that must stay between two bounds.

    Example: with the terms {Power: 1.0, Reference: -1.0} and the bounds -5 and 5, the columns Power and Reference may
    differ by at most 5.
    """

    name: Text = Field(description="Name of the rule, as it appears in reports.")
    terms: dict[Text, float] = Field(
        min_length=1,
        description=(
            "Factor of each term in the sum. A term is a numeric column, or `<column>.mean`, `.minimum`, `.maximum` or "
            "`.length` of a `values` column."
        ),
    )
    minimum: float | None = Field(description="Smallest allowed sum, inclusive; null: no lower bound.")
    maximum: float | None = Field(description="Largest allowed sum, inclusive; null: no upper bound.")

    @model_validator(mode="after")
    def _bounded(self) -> Plausible:
        if self.minimum is None and self.maximum is None:
            raise ValueError("at least one bound: write a minimum or a maximum")
        _check_order(self.minimum, self.maximum)
        return self


class Sampling(Block):
    """Expected time step from one row of a group to the next."""

    interval_s: Span = Field(description="Expected time step, in seconds.")
    tolerance_s: float = Field(
        ge=0, le=3.2e9, description="Largest allowed deviation from the expected time step, in seconds."
    )


class Freshness(Block):
    """Largest allowed age of a row at the snapshot's time. A row with a time after the snapshot is not fresh."""

    column: str = Field(description="Column that holds the time of a row.")
    max_age_s: Span = Field(description="Largest allowed age of a row at the snapshot's time, in seconds.")


class Validate(Block):
    """The data contract: columns, rules between columns, and quality thresholds."""

    extra_columns: Literal["forbid", "drop"] = Field(
        description=(
            "How columns that the contract does not list are handled: `forbid` refuses the data, `drop` removes "
            "these columns."
        )
    )
    columns: dict[Text, Column] = Field(min_length=1, description="Columns of the contract, by name.")
    redundant: list[Redundant] = Field(description="Pairs of columns whose values must be equal.")
    plausibility: list[Plausible] = Field(description="Rules on weighted sums of columns.")
    sampling: Sampling | None = Field(description="Expected time step of a series; null: not checked.")
    freshness: Freshness | None = Field(description="Largest allowed age of a row; null: not checked.")
    quarantine_share: Share = Field(
        description="Largest allowed fraction of rows that violate the contract and are therefore quarantined."
    )
    thresholds: Thresholds = Field(
        description=(
            "Smallest allowed value of each quality metric; for a metric that no rule of the contract measures, the "
            "value must be 0."
        )
    )

    @model_validator(mode="after")
    def _measured(self) -> Validate:
        """Require threshold 0 for a metric that no rule measures, because such a metric always has the value 1."""
        if self.thresholds.accuracy > 0 and not self.plausibility:
            raise ValueError("a rule in `plausibility` if thresholds.accuracy is above 0")
        if self.thresholds.timeliness > 0 and self.freshness is None:
            raise ValueError("a block `freshness` if thresholds.timeliness is above 0")
        return self
