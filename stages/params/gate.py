"""Parameters of the stage `gate`: the thresholds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, TargetName

# A compressed model may be slightly better than the trained one; a threshold far above 1 is a typing error.
Retained = Annotated[float, Field(gt=0, le=1.1)]

# What a gate may judge: estimates of the evaluation for which larger is better ...
MetricName = Literal[
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
]
# ... and the ones that were also measured on the trained float model.
RetainedName = Literal["accuracy", "f1_macro"]


class Budget(Block):
    """Limits of one target. A target that fails is left out of the bundle unless it is required."""

    required: bool = Field(description="Whether the gate fails when this target fails.")
    size_kb: Positive | None = Field(description="Largest size of the file, in units of 1000 bytes; null: not judged.")
    compression: Positive | None = Field(
        description=(
            "Smallest ratio of the size of the trained network in float32 to the size of the file; null: not judged."
        )
    )
    latency_p95_ms: Positive | None = Field(
        description="Largest 95th percentile of the latency of one prediction, in milliseconds; null: not judged."
    )
    memory_mb: Positive | None = Field(
        description="Largest amount of memory that the loaded model adds, in units of 1e6 bytes; null: not judged."
    )


class Gate(Block):
    """Thresholds for every target, and the budget of each one."""

    metrics: dict[MetricName, Share] = Field(description="Smallest value of each judged metric, 0 to 1.")
    retention: dict[RetainedName, Retained] = Field(
        description="Smallest ratio of a target's metric to the same metric of the trained float model."
    )
    agreement: Share | None = Field(
        description=(
            "Smallest share of test samples for which a target and the compressed torch model predict the same class; "
            "null: not judged."
        )
    )
    calibration_error: Share | None = Field(
        description="Largest calibration error of the probabilities, 0 to 1; null: not judged."
    )
    targets: dict[TargetName, Budget] = Field(min_length=1, description="Limits of each target, by its name.")
