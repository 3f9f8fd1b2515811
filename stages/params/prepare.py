"""Parameters of the stage `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.core.dataset import AudioFeatures
from stages.params.common import Block, Count, Span


class Features(AudioFeatures):
    """Spectral features of audio clips. The exported model computes these features, so its input is the raw audio."""

    model_config = Block.model_config

    type: Literal["log-mel", "mfcc"] = Field(
        description="Kind of features: the logarithmic mel spectrum (`log-mel`) or its cepstral coefficients (`mfcc`)."
    )
    frame: int = Field(gt=1, le=2**16, description="Length of one frame, in samples.")
    hop: int = Field(
        gt=0,
        le=2**16,
        description=(
            "Number of samples from the start of one frame to the start of the next; at most `frame`, so that "
            "no sample is skipped."
        ),
    )
    bands: int = Field(gt=0, le=1024, description="Number of mel bands.")
    coefficients: int | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="Number of cepstral coefficients to keep, at most `bands`; null: all. Only for type `mfcc`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Features:
        if self.hop > self.frame:
            raise ValueError(f"a hop of at most {self.frame} (the value of frame), not {self.hop}")
        if self.coefficients is not None and (self.type != "mfcc" or self.coefficients > self.bands):
            raise ValueError(
                f"coefficients for type mfcc only, and at most {self.bands} (the value of bands), "
                f"not {self.coefficients}"
            )
        return self


class Window(Block):
    """Windows that are cut from a series. Each window is one sample, and all of its rows are from one group."""

    length: int = Field(gt=1, le=2**31 - 1, description="Number of rows in one window.")
    stride: Count = Field(description="Number of rows from the start of one window to the start of the next.")
    max_gap_s: Span = Field(
        description=(
            "Maximum time between two consecutive rows of a window, in seconds; no window contains a longer gap."
        )
    )
    label: Literal["last", "any", "majority"] = Field(
        description=(
            "Rule that gives a window its class. `last`: the class of its last row. `majority`: the most frequent "
            "class of its rows. `any`: the most frequent class other than the first class in `data.classes`; if all "
            "rows have the first class, the window also has the first class."
        )
    )


class SplitBy(Block):
    """Division of the samples into the training, validation and test splits.

    With method `group`, every group is in one split only, and the class frequencies of the splits are as similar as the
    groups allow. With method `column`, a column of the data marks the test samples, for example according to the
    official split of a published data set. The validation samples are then chosen from the remaining samples.
    """

    method: Literal["group", "column"] = Field(
        description="How the test samples are chosen: as whole groups (`group`), or by a column's values (`column`)."
    )
    validation: float = Field(
        gt=0,
        lt=1,
        description=(
            "Size of the validation split, as a fraction of all samples (method `group`) or of the samples outside "
            "the test split (method `column`)."
        ),
    )
    test: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Size of the test split, as a fraction of all samples; for method `group` only.",
    )
    column: str | None = Field(
        default=None, description="Column whose values mark the test samples; for method `column` only."
    )
    test_values: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Values of `column` that mark a row as part of the test split; for method `column` only.",
    )
    validation_by: Literal["group", "row"] | None = Field(
        default=None,
        description=(
            "How the validation samples are chosen; for method `column` only. `group`: as whole groups. `row`: as "
            "single rows, for an official split that divides groups. A series must use `group`, because neighbouring "
            "rows of a series are too similar."
        ),
    )

    @model_validator(mode="after")
    def _complete(self) -> SplitBy:
        column_fields = (self.column, self.test_values, self.validation_by)
        if self.method == "group" and (self.test is None or any(value is not None for value in column_fields)):
            raise ValueError("only `validation` and `test` for method group")
        if self.method == "column" and (self.test is not None or any(value is None for value in column_fields)):
            raise ValueError(
                "`validation`, `column`, `test_values` and `validation_by`, but not `test`, for method column"
            )
        if self.test is not None and self.validation + self.test >= 1:
            raise ValueError("validation + test below 1, so that some samples remain for training")
        return self


class Drift(Block):
    """The drift reference: the feature distributions of the training samples, with which a device compares its inputs.

    A feature is the mean or the standard deviation of one channel within one sample.
    """

    bins: int = Field(
        ge=2,
        le=1000,
        description="Number of bins per feature; every bin holds about the same number of training samples.",
    )
    samples: int = Field(
        ge=100, le=2**31 - 1, description="Maximum number of training samples from which the bins are computed."
    )

    @model_validator(mode="after")
    def _enough_samples(self) -> Drift:
        if self.bins > self.samples:
            raise ValueError(f"at most one bin per sample, not {self.bins} bins for {self.samples} samples")
        return self


class Prepare(Block):
    """Conversion of the validated rows to samples, which are divided into three splits."""

    missing: Literal["mean", "median", "interpolate", "drop"] = Field(
        description=(
            "How missing values of a series are filled; `drop` removes the rows with missing values. "
            "Images and audio must use `drop`."
        )
    )
    scaling: Literal["none", "normalise", "standardise"] = Field(
        description=(
            "Scaling of each channel, computed from the training split: `none`, range 0 to 1 (`normalise`), "
            "or mean 0 and standard deviation 1 (`standardise`)."
        )
    )
    features: Features | None = Field(
        description="Spectral features of audio; null: the network reads the audio samples directly."
    )
    window: Window | None = Field(description="How a series is cut into windows; null for images and audio.")
    split: SplitBy = Field(description="How the samples are divided into the training, validation and test splits.")
    drift: Drift = Field(description="How the drift reference is computed.")
