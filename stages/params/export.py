"""Parameters of the stage `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stages.params.common import Block, Count, Positive, Share


class Quantization(Block):
    """Quantisation methods for int8 targets. Each one is tried; `stages/export/converters` defines them."""

    methods: list[Literal["min-max", "moving-average", "dynamic"]] = Field(
        min_length=1, description="Quantisation methods to try, in order of preference among equally good results."
    )
    tie: Share = Field(
        description="Difference in agreement with torch, as a share of samples, up to which two results count as equal."
    )

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each method once")
        return value


class Export(Block):
    """Conversion of the model, and the agreement with torch that each exported file must reach."""

    timeout_s: int = Field(gt=0, le=1_000_000, description="Time limit of each converter, in seconds.")
    calibration_samples: Count = Field(
        description="Number of training samples from which the ranges for quantisation are measured."
    )
    comparison_samples: Count = Field(
        description="Largest number of validation samples on which an exported file is compared with torch."
    )
    quantization: Quantization = Field(description="How int8 targets are quantised.")
    max_difference: Positive = Field(
        description="Largest difference between a logit of a float target and the same logit of torch."
    )
    min_agreement: Share = Field(
        description="Smallest share of samples for which an int8 target and torch must predict the same class."
    )
