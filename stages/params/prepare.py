"""Parameters of `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.core.dataset import AudioFeatures
from stages.params.common import Block, Count, Span


class Features(AudioFeatures):
    """`hop` at most `frame`, so that no sample is passed over; `coefficients` (of mfcc) at most `bands`."""

    model_config = Block.model_config

    frame: int = Field(gt=1, le=2**16)
    hop: int = Field(gt=0, le=2**16)
    bands: int = Field(gt=0, le=1024)
    coefficients: int | None = Field(default=None, gt=0, le=1024)

    @model_validator(mode="after")
    def _fit(self) -> Features:
        if self.hop > self.frame:
            raise ValueError(f"hop at most frame, {self.frame}; found {self.hop}")
        if self.coefficients is not None and (self.type != "mfcc" or self.coefficients > self.bands):
            raise ValueError(f"coefficients for type mfcc, at most bands, {self.bands}; found {self.coefficients}")
        return self


class Window(Block):
    """Windows over the rows of one group; a window never spans a gap in time longer than `max_gap_s`.

    `label` says which class a window of several has: that of its `last` row; `any` = the most frequent class other
    than the first of `data.classes` (the normal state) if any row has one; `majority` = the most frequent class.
    """

    length: int = Field(gt=1, le=2**31 - 1)
    stride: Count
    max_gap_s: Span
    label: Literal["last", "any", "majority"]


class SplitBy(Block):
    """How samples are divided. `validation` and `test` are shares of all samples.

    group:  whole groups, so that none is in two splits; class shares as equal as groups allow.
    column: rows whose `column` has one of `test_values` are the test split (an official split). `validation_by`
            says how validation is drawn from the rest, as a share of it: `group`, or `row` where the official
            split itself divides groups (images and audio only: neighbouring rows of a series are too alike).
    """

    method: Literal["group", "column"]
    validation: float = Field(gt=0, lt=1)
    test: float | None = Field(default=None, gt=0, lt=1)
    column: str | None = None
    test_values: list[str] | None = Field(default=None, min_length=1)
    validation_by: Literal["group", "row"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> SplitBy:
        of_column = (self.column, self.test_values, self.validation_by)
        if self.method == "group" and (self.test is None or any(value is not None for value in of_column)):
            raise ValueError("method group takes `validation` and `test`, and nothing else")
        if self.method == "column" and (self.test is not None or any(value is None for value in of_column)):
            raise ValueError("method column takes `validation`, `column`, `test_values` and `validation_by`")
        if self.test is not None and self.validation + self.test >= 1:
            raise ValueError("validation + test leave nothing to train on")
        return self


class Drift(Block):
    """The drift reference: bins per feature, cut at equal shares of at most `samples` training samples."""

    bins: int = Field(ge=2, le=1000)
    samples: int = Field(ge=100, le=2**31 - 1)

    @model_validator(mode="after")
    def _filled(self) -> Drift:
        if self.bins > self.samples:
            raise ValueError(f"at most one bin per sample; found {self.bins} bins of {self.samples} samples")
        return self


class Prepare(Block):
    """`missing` fills holes in a series; images and audio are whole or dropped."""

    missing: Literal["mean", "median", "interpolate", "drop"]
    scaling: Literal["none", "normalise", "standardise"]
    features: Features | None
    window: Window | None
    split: SplitBy
    drift: Drift
