"""Parameters of the stage `gate`: the thresholds that a model must meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Count, Positive, Share, TargetName

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

    If a required target does not pass, the whole gate fails. A target that is not required is left out of the bundle.
    """

    required: bool = Field(description="Whether the whole gate fails if this target fails.")
    size_kb: Positive | None = Field(
        description="Largest allowed size of the exported file, in units of 1000 bytes; null: not judged."
    )
    compression: Positive | None = Field(
        description=(
            "Smallest allowed value of this ratio: size of the trained float32 network divided by size of the exported "
            "file; null: not judged."
        )
    )
    latency_p95_ms: Positive | None = Field(
        description=(
            "Largest allowed 95th percentile of the latency of one prediction, in milliseconds; null: not judged."
        )
    )
    memory_mb: Positive | None = Field(
        description=(
            "Maximum increase of a process's memory when the process loads and runs the model, in units of 1e6 "
            "bytes; null: not judged."
        )
    )


class Gate(Block):
    """Thresholds that apply to all targets, and limits for each single target."""

    support: Count | None = Field(
        description=(
            "Smallest allowed number of samples of each class in the validation split and in the test split. Null: not "
            "judged; if a class has no test sample, the means over classes, such as `f1_macro`, are then judged over "
            "the other classes."
        )
    )
    metrics: dict[MetricName, Share] = Field(
        description="Mapping from each metric's name, such as `accuracy` or `f1_macro`, to its smallest allowed value."
    )
    retention: dict[RetainedName, Retained] = Field(
        description=(
            "Mapping from each metric's name to the smallest allowed retention: the target's metric divided by the "
            "same metric of the trained float model."
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
    targets: dict[TargetName, Budget] = Field(
        min_length=1, description="Mapping from each target's name to the limits for this target."
    )
