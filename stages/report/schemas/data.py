"""Reports on the data: its origin, its quality, its splits, and the reference for drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.report.schemas.base import Bins, ReportModel, Share


class Origin(ReportModel):
    """A file, message log or archive that a source was read from."""

    url: str = Field(description="Where it was read; secret parts are masked.")
    sha256: str = Field(description="SHA-256 of the bytes that were read.")


class SourceOrigin(ReportModel):
    """A source of the snapshot."""

    type: str = Field(description="Type of the source, as in `collect.sources`.")
    rows: NonNegativeInt = Field(description="Rows in the snapshot.")
    time: str = Field(description="When it was read: ISO 8601, UTC.")
    origins: list[Origin] = Field(description="Where its rows come from.")


class Provenance(ReportModel):
    """data/provenance.json"""

    snapshot: str = Field(description="The snapshot's time, `collect.snapshot`: ISO 8601.")
    sources: dict[str, SourceOrigin] = Field(description="By the source's name.")


class QualityMetric(ReportModel):
    """A metric of a data set's quality, and its threshold."""

    value: Share
    threshold: Share
    passed: bool
    measured: bool = Field(description="False where the data contract has no rule to measure by.")


class QualityMetrics(ReportModel):
    """The five metrics of a data set's quality."""

    completeness: QualityMetric
    consistency: QualityMetric
    accuracy: QualityMetric
    timeliness: QualityMetric
    validity: QualityMetric


class SourceQuality(QualityMetrics):
    """Quality of one source."""

    rows: PositiveInt = Field(description="Rows in the snapshot.")
    quarantined: NonNegativeInt = Field(description="Rows that broke the data contract.")


class Quarantine(ReportModel):
    """The rows of all sources that broke the data contract."""

    rows: NonNegativeInt
    share: Share = Field(description="Of all rows of the snapshot.")
    reasons: dict[str, PositiveInt] = Field(description="Rows by the rule that they broke.")


class QualityReport(ReportModel):
    """reports/quality.json"""

    overall: QualityMetrics
    sources: dict[str, SourceQuality] = Field(min_length=1)
    quarantine: Quarantine


class SplitCounts(ReportModel):
    """Size of one split."""

    samples: PositiveInt
    groups: PositiveInt = Field(description="Distinct values of the group column.")
    classes: dict[str, NonNegativeInt] = Field(description="Samples by class.")


class Splits(ReportModel):
    """Size of each split."""

    train: SplitCounts
    validation: SplitCounts
    test: SplitCounts


class MissingValues(ReportModel):
    """The treatment of missing values."""

    rows_dropped: NonNegativeInt


class BalanceReport(ReportModel):
    """reports/balance.json"""

    splits: Splits
    missing: MissingValues


class Feature(Bins):
    """Distribution of one statistic of the samples over the training split."""

    name: str
    channel: NonNegativeInt = Field(description="The channel's index.")
    statistic: str


class DriftReference(ReportModel):
    """data/drift_reference.json"""

    schema_version: Annotated[int, Field(ge=1, le=1)]
    samples: PositiveInt
    features: list[Feature] = Field(min_length=1)
    labels: dict[str, Share] = Field(description="Share of each class in the training split.")
