"""What the reports hold, typed: the fields that a later stage reads. Other fields may stand beside them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Judged(Shape):
    """One metric of a data set's quality."""

    value: Share
    threshold: Share
    passed: bool
    measured: bool


class QualityMetrics(Shape):
    completeness: Judged
    consistency: Judged
    accuracy: Judged
    timeliness: Judged
    validity: Judged


class Source(QualityMetrics):
    rows: PositiveInt
    quarantined: NonNegativeInt


class Quarantine(Shape):
    rows: NonNegativeInt
    share: Share
    reasons: dict[str, PositiveInt]


class Quality(Shape):
    """reports/quality.json"""

    overall: QualityMetrics
    sources: dict[str, Source] = Field(min_length=1)
    quarantine: Quarantine


class Counted(Shape):
    samples: PositiveInt
    groups: PositiveInt
    classes: dict[str, NonNegativeInt]


class Splits(Shape):
    train: Counted
    validation: Counted
    test: Counted


class Missing(Shape):
    rows_dropped: NonNegativeInt


class Balance(Shape):
    """reports/balance.json"""

    splits: Splits
    missing: Missing


class Scores(Shape):
    accuracy: Share
    f1_macro: Share


class Trained(Shape):
    """reports/train/summary.json. `size_bytes` is of the weights as float32, `model_sha256` of the network's file."""

    model_sha256: Sha256
    network: str
    parameters: PositiveInt
    size_bytes: PositiveInt
    best_epoch: NonNegativeInt
    epochs: PositiveInt
    validation: Scores
    test: Scores


class Step(Scores):
    name: str
    parameters: PositiveInt
    size_bytes: PositiveInt


class Compressed(Shape):
    """reports/compress.json: the network after each step, on the test split; from which file to which one."""

    trained_sha256: Sha256
    model_sha256: Sha256
    steps: list[Step] = Field(min_length=1)
    ratio: Annotated[float, Field(gt=0)]
    drop: float
    retention: Annotated[float, Field(ge=0)]


class Estimate(Shape):
    """A value in its confidence interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _enclosed(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value:g} must lie in its interval, {self.low:g} to {self.high:g}")
        return self


class ShareEstimate(Estimate):
    value: Share
    low: Share
    high: Share


class Cost(Estimate):
    """Milliseconds or megabytes."""

    value: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat


class ClassScores(Shape):
    support: NonNegativeInt
    precision: Share
    recall: Share
    f1: Share


class GroupScores(Shape):
    accuracy: Share
    samples: PositiveInt


class Intervals(Shape):
    """What was drawn again for the intervals, of how many, and what to keep in mind."""

    unit: Literal["sample", "group"]
    units: PositiveInt
    caveat: str | None


class Bins(Shape):
    """Shares of values between edges; the outer bins are open."""

    edges: list[float]
    ratios: list[Share] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit(self) -> Bins:
        if len(self.ratios) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} ratios, not {len(self.ratios)}")
        if self.edges != sorted(set(self.edges)):
            raise ValueError("edges must ascend")
        if abs(sum(self.ratios) - 1) > 1e-6:
            raise ValueError("ratios must add up to 1")
        return self


class Evaluated(Shape):
    """reports/evaluate/<target>/metrics.json. A number that is missing is a failed check, not another shape."""

    target: str | None = None
    model_sha256: str | None = None
    classes: list[str] | None = None
    samples: PositiveInt | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
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
    agreement: ShareEstimate | None = None
    latency_ms: dict[str, Cost] | None = None
    memory_mb: Cost | None = None
    per_class: dict[str, ClassScores] | None = None
    by_group: dict[str, GroupScores] = {}
    confusion: list[list[NonNegativeInt]] | None = None
    prediction_ratios: dict[str, Share] | None = None
    confidence_bins: Bins | None = None
    machine: dict[str, str | int] = {}

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        latency = self.latency_ms or {}
        values = [latency[name].value for name in ("p50", "p95", "p99") if name in latency]
        if values != sorted(values):
            raise ValueError(f"the percentiles of latency_ms must ascend, found {values}")
        return self


class Bundled(Evaluated):
    """The same of a target that goes into the bundle: what is written there must be there."""

    model_sha256: Sha256
    samples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    intervals: Intervals
    per_class: dict[str, ClassScores]
    prediction_ratios: dict[str, Share]
    confidence_bins: Bins


class Feature(Bins):
    name: str
    channel: NonNegativeInt
    statistic: str


class DriftReference(Shape):
    """data/drift_reference.json"""

    schema_version: Annotated[int, Field(ge=1, le=1)]
    samples: PositiveInt
    features: list[Feature] = Field(min_length=1)
    labels: dict[str, Share]


class Tensor(Shape):
    name: str
    shape: list[PositiveInt] = Field(min_length=1)
    dtype: str


class Answer(Tensor):
    activation: Literal["logits", "probabilities"]


class State(Shape):
    input: str
    output: str
    shape: list[PositiveInt]


class Recurrent(Shape):
    frame: PositiveInt
    hop: PositiveInt
    states: list[State] = Field(min_length=1)


class Io(Shape):
    """How the agent's runtime feeds and reads a file; device/edge_agent/inference/runtime.py is the reader."""

    runtime: str
    input: Tensor
    output: Answer
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _has_time(self) -> Io:
        if self.recurrent and len(self.input.shape) < 2:
            raise ValueError("a recurrent model reads channels and time")
        return self


class ExportedFile(Shape):
    """models/exported/<target>/export.json"""

    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    sha256: Sha256
    size_bytes: PositiveInt
    io: Io
