"""Parameters of the stage `validate`: the data contract."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.params.common import Block, Share, Span, Text


def _check_order(minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ValueError(f"a minimum that is not above the maximum; found {minimum:g} and {maximum:g}")


class Thresholds(Block):
    """Smallest value of each quality metric; `stages/validate/quality.py` has the formulas."""

    completeness: Share = Field(description="Smallest share of cells that have a value.")
    consistency: Share = Field(description="Smallest share of rows or time steps that are consistent with each other.")
    accuracy: Share = Field(description="Smallest share of rows that meet every plausibility rule.")
    timeliness: Share = Field(description="Smallest share of rows that are fresh.")
    validity: Share = Field(description="Smallest share of rows whose single values are all allowed.")


class Column(Block):
    """A column of the contract. The allowed values of the label column are the keys of `data.classes`."""

    type: Literal["float", "integer", "string", "timestamp", "values"] = Field(
        description="Type of the column; `values` is a list of numbers (an image or a clip)."
    )
    nullable: bool = Field(
        description="Whether values may be missing; prepare.missing then decides how they are handled."
    )
    minimum: float | None = Field(
        default=None, description="Smallest allowed value, inclusive; applies to each element of `values`."
    )
    maximum: float | None = Field(
        default=None, description="Largest allowed value, inclusive; applies to each element of `values`."
    )
    allowed: list[str] | None = Field(
        default=None, min_length=1, description="Allowed values; for type string only. null: any."
    )
    unique: bool = Field(default=False, description="Whether a value may occur only once; not for type values.")

    @model_validator(mode="after")
    def _matches_type(self) -> Column:
        if (self.minimum is not None or self.maximum is not None) and self.type in ("string", "timestamp"):
            raise ValueError(f"no minimum or maximum for type {self.type}")
        if self.allowed is not None and self.type != "string":
            raise ValueError(f"`allowed` is for type string, not for {self.type}")
        if self.unique and self.type == "values":
            raise ValueError("`unique` is not for type values: equal samples are found as duplicates anyway")
        _check_order(self.minimum, self.maximum)
        return self


class Redundant(Block):
    """Two columns that must agree: equal values, or numbers within a tolerance."""

    columns: tuple[str, str] = Field(strict=False, description="Names of the two columns.")
    tolerance: float = Field(
        ge=0, description="Largest difference of two numbers, in the columns' unit; not used for other types."
    )


class Plausible(Block):
    """A weighted sum of columns that must stay between two bounds.

    Example: {Power: 1.0, Reference: -1.0} between -5 and 5 requires agreement with a reference.
    """

    name: Text = Field(description="Name of the rule, for reports.")
    terms: dict[Text, float] = Field(
        min_length=1,
        description=(
            "Factor of each term; a term is a numeric column, or `<column>.mean`, `.minimum`, `.maximum` or `.length` "
            "of a `values` column."
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
    """The time step from one row of a group to the next."""

    interval_s: Span = Field(description="Expected time step, in seconds.")
    tolerance_s: float = Field(ge=0, le=3.2e9, description="Largest deviation from the expected step, in seconds.")


class Freshness(Block):
    """Largest age of a row at the snapshot's time. A row with a time after the snapshot is not fresh."""

    column: str = Field(description="Column that holds the time of a row.")
    max_age_s: Span = Field(description="Largest age of a row at the snapshot's time, in seconds.")


class Validate(Block):
    """The data contract: columns, rules between columns, and quality thresholds."""

    extra_columns: Literal["forbid", "drop"] = Field(
        description="How columns outside the contract are handled: refused, or dropped."
    )
    columns: dict[Text, Column] = Field(min_length=1, description="Columns of the contract, by name.")
    redundant: list[Redundant] = Field(description="Pairs of columns that must agree.")
    plausibility: list[Plausible] = Field(description="Rules on weighted sums of columns.")
    sampling: Sampling | None = Field(description="Expected time step of a series; null: not checked.")
    freshness: Freshness | None = Field(description="Largest age of a row; null: not checked.")
    quarantine_share: Share = Field(description="Largest share of rows that may be quarantined.")
    thresholds: Thresholds = Field(
        description="Smallest value of each quality metric; 0 for a metric that no rule of the contract measures."
    )

    @model_validator(mode="after")
    def _measured(self) -> Validate:
        """Require threshold 0 for a metric that nothing measures: its value is 1 without any evidence."""
        if self.thresholds.accuracy > 0 and not self.plausibility:
            raise ValueError("thresholds.accuracy above 0 needs a rule in `plausibility`")
        if self.thresholds.timeliness > 0 and self.freshness is None:
            raise ValueError("thresholds.timeliness above 0 needs `freshness`")
        return self
