"""Reports on the network: its training and its compression."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from stages.report.schemas.base import ReportModel, Sha256, Share


class SplitScores(ReportModel):
    """Scores of a network on one split."""

    accuracy: Share
    f1_macro: Share


class TrainingReport(ReportModel):
    """reports/train/summary.json"""

    model_sha256: Sha256 = Field(description="SHA-256 of models/trained/model.pt.")
    network: str = Field(description="Kind of network, `train.network`.")
    parameters: PositiveInt
    size_bytes: PositiveInt = Field(description="Size of the weights as float32.")
    best_epoch: NonNegativeInt = Field(description="The epoch that was kept, from 0.")
    epochs: PositiveInt
    train: SplitScores = Field(description="Of the trained network on the training samples, without augmentation.")
    validation: SplitScores
    test: SplitScores


class CompressionStep(SplitScores):
    """The network after one step of compression, with its scores on the test split."""

    name: str
    parameters: PositiveInt
    size_bytes: PositiveInt = Field(description="Size of the weights as float32.")


class CompressionReport(ReportModel):
    """reports/compress.json"""

    trained_sha256: Sha256 = Field(description="SHA-256 of the network that was compressed.")
    model_sha256: Sha256 = Field(description="SHA-256 of the compressed network.")
    steps: list[CompressionStep] = Field(min_length=1, description="The trained network, then each step in order.")
    ratio: Annotated[float, Field(gt=0)] = Field(description="Size before over size after.")
    drop: float = Field(description="Accuracy before minus accuracy after.")
    retention: Annotated[float, Field(ge=0)] = Field(description="Accuracy after over accuracy before.")


class Duration(ReportModel):
    """reports/durations/train.json and compress.json"""

    seconds: NonNegativeFloat = Field(description="Wall time of the training, with that of killed runs it resumed.")
