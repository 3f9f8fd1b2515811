"""reports/evaluate/<target>/metrics.json: the measurements of one exported file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stages.report.schemas.base import Bins, ReportModel, Sha256, Share


class Estimate(ReportModel):
    """A value in its confidence interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_enclosed(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value:g} must be in its interval, {self.low:g} to {self.high:g}")
        return self


class ShareEstimate(Estimate):
    """An estimate of a share, 0 to 1."""

    value: Share
    low: Share
    high: Share


class Cost(Estimate):
    """An estimate in milliseconds or megabytes."""

    value: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat


class ClassScores(ReportModel):
    """Scores of one class."""

    support: NonNegativeInt = Field(description="Test samples of the class.")
    precision: Share
    recall: Share
    f1: Share


class GroupScores(ReportModel):
    """Accuracy on the test samples of one group."""

    accuracy: Share
    samples: PositiveInt


class Intervals(ReportModel):
    """The sampling that the confidence intervals are based on."""

    unit: Literal["sample", "group"] = Field(description="What was drawn again.")
    units: PositiveInt = Field(description="How many of them the test split has.")
    caveat: str | None = Field(description="What a reader of the intervals has to keep in mind.")


class EvaluationReport(ReportModel):
    """A number that is missing, or null, is a failed check; it does not make the report unreadable."""

    target: str | None = None
    model_sha256: str | None = Field(None, description="SHA-256 of the file that was measured.")
    classes: list[str] | None = Field(None, description="In the order of `confusion`.")
    samples: PositiveInt | None = Field(None, description="Test samples.")
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Of every interval.")
    intervals: Intervals | None = None
    size_bytes: PositiveInt | None = None
    accuracy: ShareEstimate | None = None
    precision_macro: ShareEstimate | None = None
    recall_macro: ShareEstimate | None = None
    f1_macro: ShareEstimate | None = None
    precision_weighted: ShareEstimate | None = None
    recall_weighted: ShareEstimate | None = None
    f1_weighted: ShareEstimate | None = None
    calibration_error: ShareEstimate | None = None
    agreement: ShareEstimate | None = Field(None, description="With the compressed torch model, share of samples.")
    latency_ms: dict[str, Cost] | None = Field(None, description="By percentile: p50, p95, p99.")
    memory_mb: Cost | None = Field(None, description="Peak, in units of 1,000,000 bytes.")
    per_class: dict[str, ClassScores] | None = None
    by_group: dict[str, GroupScores] = Field({}, description="Empty where every sample is its own group.")
    confusion: list[list[NonNegativeInt]] | None = Field(None, description="Rows: actual class; columns: predicted.")
    prediction_ratios: dict[str, Share] | None = Field(None, description="Share of samples predicted as each class.")
    confidence_bins: Bins | None = Field(None, description="Probabilities that the file gives to its predictions.")
    machine: dict[str, str | int] = Field({}, description="Where latency and memory were measured.")

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        latency = self.latency_ms or {}
        values = [latency[name].value for name in ("p50", "p95", "p99") if name in latency]
        if values != sorted(values):
            raise ValueError(f"the percentiles of latency_ms must ascend, found {values}")
        return self


class BundledEvaluation(EvaluationReport):
    """The report on a target that goes into the bundle: the fields that the bundle holds are required."""

    model_sha256: Sha256
    samples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    intervals: Intervals
    per_class: dict[str, ClassScores]
    prediction_ratios: dict[str, Share]
    confidence_bins: Bins
