"""The schemas of the reports on the data: its origin, its quality, its splits, and the reference data for drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.report.schemas.base import Bins, ReportModel, Share


class Origin(ReportModel):
    """The origin of rows of a data source: a file, a message log or an archive."""

    url: str = Field(description="URL that was read, with secret parts masked.")
    sha256: str = Field(description="SHA-256 of the bytes that were read.")


class LeftOut(ReportModel):
    """The files or samples of a data source that were not read for one reason."""

    reason: str = Field(description="Why they were not read, such as `hidden`.")
    count: PositiveInt = Field(description="Their number.")
    first: list[str] = Field(min_length=1, description="Their names, at most 20.")


class SourceOrigin(ReportModel):
    """One data source of the snapshot, with the files, logs or archives that its rows come from."""

    type: str = Field(description="Type of the source, as in `collect.sources`.")
    rows: NonNegativeInt = Field(description="Number of the source's rows in the snapshot.")
    time: str = Field(description="Time at which the source was read: ISO 8601, UTC.")
    origins: list[Origin] = Field(description="The files, message logs or archives that the rows come from.")
    left_out: list[LeftOut] = Field(description="The files or samples that were not read, by reason.")


class Provenance(ReportModel):
    """The content of data/provenance.json: the sources from which the rows of the snapshot were collected."""

    snapshot: str = Field(description="The snapshot's time, `collect.snapshot`: ISO 8601.")
    sources: dict[str, SourceOrigin] = Field(description="The data sources, by name.")


class QualityMetric(ReportModel):
    """A metric of a data set's quality, and its threshold."""

    value: Share
    threshold: Share
    passed: bool
    measured: bool = Field(description="Whether the data contract has a rule that measures the metric.")


class QualityMetrics(ReportModel):
    """The five metrics of a data set's quality."""

    completeness: QualityMetric
    consistency: QualityMetric
    accuracy: QualityMetric
    timeliness: QualityMetric
    validity: QualityMetric


class SourceQuality(QualityMetrics):
    """The quality metrics of one data source, and the numbers of its rows."""

    rows: PositiveInt = Field(description="Number of the source's rows in the snapshot.")
    quarantined: NonNegativeInt = Field(description="Number of rows that violate the data contract.")


class Quarantine(ReportModel):
    """The numbers of rows that are in quarantine, in total and by the rule of the data contract that they violate."""

    rows: NonNegativeInt
    share: Share = Field(description="Fraction of the snapshot's rows that are in quarantine.")
    reasons: dict[str, PositiveInt] = Field(description="Number of quarantined rows, by the rule that they violate.")


class QualityReport(ReportModel):
    """The content of reports/quality.json: the quality of the snapshot."""

    overall: QualityMetrics
    sources: dict[str, SourceQuality] = Field(min_length=1)
    quarantine: Quarantine


class SplitCounts(ReportModel):
    """The size of one split."""

    samples: PositiveInt
    groups: PositiveInt = Field(description="Number of distinct values that the group column has in the split.")
    classes: dict[str, NonNegativeInt] = Field(description="Number of samples of each class.")


class Splits(ReportModel):
    """The size of each split."""

    train: SplitCounts
    validation: SplitCounts
    test: SplitCounts

    def counts(self, split: str) -> SplitCounts:
        """Return the size of the split with this name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


class MissingValues(ReportModel):
    """The number of rows that were dropped because of missing values."""

    rows_dropped: NonNegativeInt


class BalanceReport(ReportModel):
    """The content of reports/balance.json: the size of each split, and the number of dropped rows."""

    splits: Splits
    missing: MissingValues
    warnings: list[str] = Field([], description="For each class without a sample in a split: a sentence, and a remedy.")


class Feature(Bins):
    """The histogram of one statistic of a channel (for example, its mean) over the samples of the training split."""

    name: str
    channel: NonNegativeInt = Field(description="Index of the channel.")
    statistic: str


class DriftReference(ReportModel):
    """The content of data/drift_reference.json: the training data's distributions, for comparison with live data."""

    schema_version: Annotated[int, Field(ge=1, le=1)]
    samples: PositiveInt
    features: list[Feature] = Field(min_length=1)
    labels: dict[str, Share] = Field(description="Fraction of the training samples in each class.")
