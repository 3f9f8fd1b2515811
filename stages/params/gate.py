"""Parameters of the stage `gate`: the thresholds that a model must meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, TargetName

# A compressed model can be slightly better than the trained one, but a threshold far above 1 is a typing error.
Retained = Annotated[float, Field(gt=0, le=1.1)]

# The metrics that a gate can judge: estimates from the `evaluate` stage for which a larger value is better.
MetricName = Literal[
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
]
# The metrics that the `train` stage also measured on the trained float model.
RetainedName = Literal["accuracy", "f1_macro"]


class Budget(Block):
    """Limits for one target.

    A target that fails is left out of the bundle. If the target is required, the whole gate fails instead.
    """

    required: bool = Field(description="Whether the whole gate fails if this target fails.")
    size_kb: Positive | None = Field(
        description="Largest allowed size of the exported file, in units of 1000 bytes; null: not judged."
    )
    compression: Positive | None = Field(
        description=(
            "Smallest allowed ratio: size of the trained float32 network divided by size of the exported file; "
            "null: not judged."
        )
    )
    latency_p95_ms: Positive | None = Field(
        description=(
            "Largest allowed 95th percentile of the latency of one prediction, in milliseconds; null: not judged."
        )
    )
    memory_mb: Positive | None = Field(
        description=(
            "Maximum amount of memory that the model may add to a process, in units of 1e6 bytes; null: not judged."
        )
    )


class Gate(Block):
    """Thresholds that apply to all targets, and limits for each single target."""

    metrics: dict[MetricName, Share] = Field(
        description="Smallest allowed value of each metric, by the metric's name, such as `accuracy` or `f1_macro`."
    )
    retention: dict[RetainedName, Retained] = Field(
        description=(
            "Smallest allowed ratio of a target's metric to the same metric of the trained float model, by "
            "the metric's name."
        )
    )
    agreement: Share | None = Field(
        description=(
            "Smallest allowed fraction of test samples for which a target and the compressed torch model predict the "
            "same class; null: not judged."
        )
    )
    calibration_error: Share | None = Field(
        description="Largest allowed calibration error of the probabilities, 0 to 1; null: not judged."
    )
    targets: dict[TargetName, Budget] = Field(min_length=1, description="Limits for each target, by the target's name.")
