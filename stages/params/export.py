"""Parameters of `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stages.params.common import Block, Count, Positive, Share


class Quantization(Block):
    """Ways to quantise, each tried; what they are stands in stages/export/converters. Candidates that agree with torch
    within `tie` of the best one count as equal; of these the first in `methods` is kept.
    """

    methods: list[Literal["min-max", "moving-average", "dynamic"]] = Field(min_length=1)
    tie: Share

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each method once")
        return value


class Export(Block):
    timeout_s: int = Field(gt=0, le=1_000_000)
    calibration_samples: Count
    comparison_samples: Count
    quantization: Quantization
    max_difference: Positive
    min_agreement: Share
