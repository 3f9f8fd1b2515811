"""Parameters of `export`, `evaluate`, `gate` and `package`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.params.base import Block, TargetName

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Export(Block):
    timeout_s: int = Field(gt=0)
    calibration_samples: int = Field(gt=0)
    max_difference: Positive
    min_agreement: Share


class Evaluate(Block):
    warmup: int = Field(ge=0)
    repeats: int = Field(gt=1)
    threads: int = Field(gt=0)
    confidence: float = Field(gt=0, lt=1)


class Budget(Block):
    """What one target may cost. A target that is not required and fails is left out of the bundle."""

    required: bool
    size_kb: Positive
    latency_p95_ms: Positive
    memory_mb: Positive


class Gate(Block):
    metrics: dict[str, float]
    retention: dict[str, Share]
    agreement: Share
    calibration_error: Share
    targets: dict[TargetName, Budget]


class Package(Block):
    golden_samples: int = Field(gt=0)
    description: str
    licence: str
    limitations: str
