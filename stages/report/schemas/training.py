"""The schemas of the reports on the training and the compression of the network."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stages.report.schemas.base import ReportModel, Sha256, Share


class PartialScores(ReportModel):
    """The mean over the classes that have a sample in a split, if a class has none."""

    classes: list[str] = Field(min_length=1, description="The classes that the mean is over.")
    absent: list[str] = Field(min_length=1, description="The classes without a sample.")
    f1_macro: Share


class SplitScores(ReportModel):
    """The scores of a network on one split."""

    accuracy: Share
    f1_macro: Share | None = Field(description="Mean F1 score of all classes; null if a class has no sample.")
    partial: PartialScores | None = Field(None, description="Mean over the other classes; null if every class has one.")

    @model_validator(mode="after")
    def _has_one_mean(self) -> Self:
        if (self.f1_macro is None) != (self.partial is not None):
            raise ValueError("`f1_macro` must be null exactly when `partial` has the mean over a part of the classes")
        return self


class TrainingReport(ReportModel):
    """The content of reports/train/summary.json: the results of training."""

    model_sha256: Sha256 = Field(description="SHA-256 of models/trained/model.pt.")
    network: str = Field(description="Type of network, as in `train.network`.")
    parameters: PositiveInt
    size_bytes: PositiveInt = Field(description="Size of the weights as float32.")
    best_epoch: NonNegativeInt = Field(description="Number of the epoch whose weights were kept, counted from 0.")
    epochs: PositiveInt
    train: SplitScores = Field(description="Scores on the training samples, without augmentation.")
    validation: SplitScores
    test: SplitScores


class CompressionStep(SplitScores):
    """The network after one step of compression, with its scores on the test split."""

    name: str
    parameters: PositiveInt
    size_bytes: PositiveInt = Field(description="Size of the weights as float32.")


class CompressionReport(ReportModel):
    """The content of reports/compress.json: the results of compression."""

    trained_sha256: Sha256 = Field(description="SHA-256 of the network that was compressed.")
    model_sha256: Sha256 = Field(description="SHA-256 of the compressed network.")
    steps: list[CompressionStep] = Field(
        min_length=1, description="The trained network, then the network after each step."
    )
    ratio: Annotated[float, Field(gt=0)] = Field(description="Size before compression divided by the size after it.")
    drop: float = Field(description="Accuracy before compression minus the accuracy after it.")
    retention: Annotated[float, Field(ge=0)] = Field(
        description="Accuracy after compression divided by the accuracy before it."
    )


class Duration(ReportModel):
    """The content of reports/durations/train.json or reports/durations/compress.json: the duration of the stage."""

    seconds: NonNegativeFloat = Field(
        description="Wall time of the training run, including the time of killed runs that the run resumed."
    )
