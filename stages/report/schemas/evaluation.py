"""The schema of reports/evaluate/<target>/metrics.json: the measurements of one exported file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stages.report.schemas.base import Bins, ReportModel, Sha256, Share


class Estimate(ReportModel):
    """A value and its confidence interval, low <= value <= high."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_enclosed(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value:g} must be in its interval, {self.low:g} to {self.high:g}")
        return self


class ShareEstimate(Estimate):
    """An estimate of a fraction, 0 to 1."""

    value: Share
    low: Share
    high: Share


class Cost(Estimate):
    """An estimate of a latency in milliseconds, or of an amount of memory in megabytes."""

    value: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat


class PartialMeans(ReportModel):
    """The means over the classes that have a test sample, if a class has none."""

    classes: list[str] = Field(min_length=1, description="The classes that the means are over.")
    absent: list[str] = Field(min_length=1, description="The classes without a test sample.")
    precision_macro: ShareEstimate
    recall_macro: ShareEstimate
    f1_macro: ShareEstimate
    precision_weighted: ShareEstimate
    recall_weighted: ShareEstimate
    f1_weighted: ShareEstimate

    def values(self) -> dict[str, Any]:
        """Return the classes, and the means without their intervals."""
        return {name: value.value if isinstance(value, Estimate) else value for name, value in self}


class ClassScores(ReportModel):
    """The scores of one class. They are null if the class has no test sample."""

    support: NonNegativeInt = Field(description="Number of test samples of the class.")
    precision: Share | None
    recall: Share | None
    f1: Share | None


class GroupScores(ReportModel):
    """The accuracy on the test samples of one group."""

    accuracy: Share
    samples: PositiveInt


class Intervals(ReportModel):
    """The units that the confidence intervals treat as independent: single samples or whole groups."""

    unit: Literal["sample", "group"] = Field(description="Kind of unit that was resampled.")
    units: PositiveInt = Field(description="Number of these units in the test split.")
    caveat: str | None = Field(description="Limitation of the intervals that readers should know; null if none.")


class EvaluationReport(ReportModel):
    """The measurements of one exported file. If a number is missing or null, the gate's check of the number fails."""

    target: str | None = None
    model_sha256: str | None = Field(None, description="SHA-256 of the file that was measured.")
    classes: list[str] | None = Field(None, description="Class names, in the order of `confusion`.")
    samples: PositiveInt | None = Field(None, description="Number of test samples.")
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Confidence level of all intervals, between 0 and 1."
    )
    intervals: Intervals | None = None
    size_bytes: PositiveInt | None = None
    accuracy: ShareEstimate | None = None
    precision_macro: ShareEstimate | None = None
    recall_macro: ShareEstimate | None = None
    f1_macro: ShareEstimate | None = None
    precision_weighted: ShareEstimate | None = None
    recall_weighted: ShareEstimate | None = None
    f1_weighted: ShareEstimate | None = None
    partial: PartialMeans | None = Field(
        None,
        description=(
            "Means over the classes that have a test sample. Null if every class has one; otherwise the means over all "
            "classes are null."
        ),
    )
    calibration_error: ShareEstimate | None = None
    agreement: ShareEstimate | None = Field(
        None,
        description="Fraction of test samples for which the file and the compressed torch model agree on the class.",
    )
    latency_ms: dict[str, Cost] | None = Field(
        None, description="Latency of one sample in milliseconds, by percentile (p50, p95, p99)."
    )
    memory_mb: Cost | None = Field(None, description="Peak memory, in units of 1,000,000 bytes.")
    per_class: dict[str, ClassScores] | None = None
    by_group: dict[str, GroupScores] = Field(
        {}, description="Accuracy by group; empty if every sample is its own group."
    )
    confusion: list[list[NonNegativeInt]] | None = Field(
        None, description="Confusion matrix; rows are actual classes, columns are predicted classes."
    )
    prediction_ratios: dict[str, Share] | None = Field(None, description="Fraction of samples predicted as each class.")
    confidence_bins: Bins | None = Field(None, description="Histogram of the predicted class's probability.")
    machine: dict[str, str | int] = Field(
        {}, description="Properties of the machine on which latency and memory were measured."
    )

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        latency = self.latency_ms or {}
        values = [latency[name].value for name in ("p50", "p95", "p99") if name in latency]
        if values != sorted(values):
            raise ValueError(f"p50, p95 and p99 of latency_ms must be in ascending order, found {values}")
        return self


class BundledEvaluation(EvaluationReport):
    """The evaluation report of a target that is in the bundle. The fields that the bundle needs are required."""

    model_sha256: Sha256
    samples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    intervals: Intervals
    per_class: dict[str, ClassScores]
    prediction_ratios: dict[str, Share]
    confidence_bins: Bins
