"""Parameters of `gate`: the thresholds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, TargetName

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
