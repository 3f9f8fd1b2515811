"""Parameters of the stage `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stages.params.common import Block, Count, Positive, Share


class Quantization(Block):
    """Quantisation methods for int8 targets: all are tried, and the best result is kept.

    `stages/export/converters/protocol.py` describes the methods.
    """

    methods: list[Literal["min-max", "moving-average", "dynamic"]] = Field(
        min_length=1,
        description=(
            "Quantisation methods to try. Among equally good results, the method that is listed first is preferred."
        ),
    )
    tie: Share = Field(
        description=(
            "Largest difference from the best result, 0 to 1, at which a method counts as equally good. The result of "
            "a method is the fraction of samples for which its file and the torch model predict the same class."
        )
    )

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each method once")
        return value


class Export(Block):
    """Parameters of the model's conversion, and how closely each exported file must agree with the torch model."""

    timeout_s: int = Field(gt=0, le=1_000_000, description="Time limit for each converter, in seconds.")
    calibration_samples: Count = Field(
        description="Maximum number of training samples from which the value ranges for quantisation are measured."
    )
    comparison_samples: Count = Field(
        description="Maximum number of validation samples on which an exported file is compared with the torch model."
    )
    quantization: Quantization = Field(description="How int8 targets are quantised.")
    max_difference: Positive = Field(
        description=(
            "Largest allowed difference between a logit of an fp32 target and the same logit of the torch model."
        )
    )
    min_agreement: Share = Field(
        description=(
            "Smallest allowed fraction of samples for which an int8 target and the torch model predict the same class."
        )
    )
