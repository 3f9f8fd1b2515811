"""Parameters of `export`, `evaluate`, `gate` and `package`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.params.common import Block, Count, Positive, Share, TargetName, Text

# A compressed model may be a little better than the one it comes from; to ask for much more is a slip.
Retained = Annotated[float, Field(gt=0, le=1.1)]

# What a gate may judge: estimates of the evaluation that are better when they are larger ...
MetricName = Literal[
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
]
# ... and those that were also measured on the trained float model.
RetainedName = Literal["accuracy", "f1_macro"]


class Quantization(Block):
    """Ways to quantise, each tried; what they are stands in stages/converters. Candidates that agree with torch
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


class Evaluate(Block):
    warmup: int = Field(ge=0, le=1_000_000)
    repeats: int = Field(gt=1, le=10_000_000)
    threads: int = Field(gt=0, le=1024)
    confidence: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _enough_repeats(self) -> Evaluate:
        """Fewer calls have no upper end of the 99th percentile's interval: 0.99 ** repeats <= (1 - confidence) / 2."""
        least = math.ceil(math.log((1 - self.confidence) / 2) / math.log(0.99))
        if self.repeats < least:
            raise ValueError(f"repeats must be at least {least} for a p99 with confidence {self.confidence:g}")
        return self


class Budget(Block):
    """What one target may cost; null is not judged. A target that is not required and fails is left out of the bundle.

    `size_kb` is in 1000 bytes. `compression` is how many times smaller than the trained network in float32
    the file is at least.
    """

    required: bool
    size_kb: Positive | None
    compression: Positive | None
    latency_p95_ms: Positive | None
    memory_mb: Positive | None


class Gate(Block):
    """Thresholds. `metrics`, `retention` (share of the trained float model's value) and `agreement` are least
    values, the others largest ones; null is not judged.
    """

    metrics: dict[MetricName, Share]
    retention: dict[RetainedName, Retained]
    agreement: Share | None
    calibration_error: Share | None
    targets: dict[TargetName, Budget] = Field(min_length=1)


class Tolerance(Block):
    """Largest difference of a probability when golden samples are replayed, by the target's precision.

    Float kernels differ in the last bits between processors; int8 kernels by a step of a scale here and there.
    """

    fp32: Share
    int8: Share


class Requirements(Block):
    """What a device must have; null: anything. `memory_mb`, `disk_mb` in 1e6 bytes; disk is free beside the bundle.

    `runtimes`: runtime -> the oldest version of it that reads the files.
    """

    device_types: list[Text] | None = Field(min_length=1)
    architectures: list[Literal["x86_64", "aarch64", "armv7l"]] | None = Field(min_length=1)
    memory_mb: Positive | None
    disk_mb: Positive | None
    runtimes: dict[Literal["onnxruntime", "litert"], Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]]


class DeviceBudget(Block):
    """What a device's self-test allows, at batch 1 on one thread: a device is slower than the machine that builds.
    `memory_mb` (1e6 bytes) is what the loaded model adds to a process. null: not judged.
    """

    latency_p95_ms: Positive | None
    memory_mb: Positive | None


class Package(Block):
    golden_samples: int = Field(gt=0, le=10_000)
    golden_tolerance: Tolerance
    requirements: Requirements
    device_budget: DeviceBudget
    description: Text
    licence: Text
    limitations: Text
