"""Parameters of the stage `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.core.dataset import AudioFeatures
from stages.params.common import Block, Count, Span


class Features(AudioFeatures):
    """Spectral features of audio clips, computed inside the exported graph."""

    model_config = Block.model_config

    type: Literal["log-mel", "mfcc"] = Field(
        description="Kind of features: logarithmic mel spectrum, or cepstral coefficients of it."
    )
    frame: int = Field(gt=1, le=2**16, description="Length of one frame, in samples.")
    hop: int = Field(
        gt=0,
        le=2**16,
        description="Distance between the starts of two frames, in samples; at most `frame`, so that none is skipped.",
    )
    bands: int = Field(gt=0, le=1024, description="Number of mel bands.")
    coefficients: int | None = Field(
        default=None, gt=0, le=1024, description="Number of cepstral coefficients, at most `bands`; for mfcc only."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Features:
        if self.hop > self.frame:
            raise ValueError(f"hop at most frame, {self.frame}; found {self.hop}")
        if self.coefficients is not None and (self.type != "mfcc" or self.coefficients > self.bands):
            raise ValueError(f"coefficients for type mfcc, at most bands, {self.bands}; found {self.coefficients}")
        return self


class Window(Block):
    """Windows over the rows of one group of a series. Each window is one sample."""

    length: int = Field(gt=1, le=2**31 - 1, description="Number of rows in one window.")
    stride: Count = Field(description="Number of rows from the start of one window to the start of the next.")
    max_gap_s: Span = Field(
        description="Longest time between two consecutive rows of one window, in seconds; a longer gap ends the window."
    )
    label: Literal["last", "any", "majority"] = Field(
        description=(
            "Class of a window: that of its last row (last); the most frequent class other than the first of "
            "data.classes if there is one (any); the most frequent class (majority)."
        )
    )


class SplitBy(Block):
    """Division of the samples into training, validation and test.

    group:  whole groups stay together, and class shares are as equal as the groups allow.
    column: an official split defines the test samples; the validation samples are drawn from the remaining ones.
    """

    method: Literal["group", "column"] = Field(
        description="How the test samples are chosen: by whole groups, or by the values of a column (official split)."
    )
    validation: float = Field(
        gt=0,
        lt=1,
        description="Share of the validation split: of all samples (method group), or of the non-test ones (column).",
    )
    test: float | None = Field(
        default=None, gt=0, lt=1, description="Share of all samples in the test split; for method group only."
    )
    column: str | None = Field(
        default=None, description="Column that holds the official split; for method column only."
    )
    test_values: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Values of `column` that mark a row of the test split; for method column only.",
    )
    validation_by: Literal["group", "row"] | None = Field(
        default=None,
        description=(
            "How validation is drawn, for method column only: by whole groups, or by row where the official split "
            "divides groups (images and audio only: neighbouring rows of a series are too similar)."
        ),
    )

    @model_validator(mode="after")
    def _complete(self) -> SplitBy:
        column_fields = (self.column, self.test_values, self.validation_by)
        if self.method == "group" and (self.test is None or any(value is not None for value in column_fields)):
            raise ValueError("method group takes `validation` and `test`, and nothing else")
        if self.method == "column" and (self.test is not None or any(value is None for value in column_fields)):
            raise ValueError("method column takes `validation`, `column`, `test_values` and `validation_by`")
        if self.test is not None and self.validation + self.test >= 1:
            raise ValueError("validation + test below 1, so that some samples remain for training")
        return self


class Drift(Block):
    """The drift reference, which a device compares its inputs with."""

    bins: int = Field(ge=2, le=1000, description="Number of bins per feature, each with the same share of samples.")
    samples: int = Field(
        ge=100, le=2**31 - 1, description="Largest number of training samples that the bins are computed from."
    )

    @model_validator(mode="after")
    def _enough_samples(self) -> Drift:
        if self.bins > self.samples:
            raise ValueError(f"at most one bin per sample; found {self.bins} bins of {self.samples} samples")
        return self


class Prepare(Block):
    """Conversion of validated rows to samples in three splits."""

    missing: Literal["mean", "median", "interpolate", "drop"] = Field(
        description=(
            "How missing values of a series are filled, or `drop` to remove their rows; "
            "images and audio allow only `drop`."
        )
    )
    scaling: Literal["none", "normalise", "standardise"] = Field(
        description=(
            "Scaling of each channel by the training split: none, to the range 0 to 1 (normalise), "
            "or to mean 0 and standard deviation 1 (standardise)."
        )
    )
    features: Features | None = Field(description="Spectral features of audio; null: the network reads the samples.")
    window: Window | None = Field(description="Windows over a series; null for images and audio.")
    split: SplitBy = Field(description="How samples are divided into training, validation and test.")
    drift: Drift = Field(description="How the drift reference is computed.")
