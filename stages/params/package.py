"""Parameters of the stage `package`: what the bundle promises, and what a device must have to run it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, Text


class Tolerance(Block):
    """Largest difference of a probability when a device replays the golden samples, by the target's precision.

    Float kernels differ in the last bits between processors. Int8 kernels occasionally differ by one quantisation step.
    """

    fp32: Share = Field(description="Largest difference of a probability for float targets.")
    int8: Share = Field(description="Largest difference of a probability for int8 targets.")


class Requirements(Block):
    """Requirements that a device must meet to install the bundle."""

    device_types: list[Text] | None = Field(min_length=1, description="Types of device that may run it; null: any.")
    architectures: list[Literal["x86_64", "aarch64", "armv7l"]] | None = Field(
        min_length=1, description="Processor architectures that may run it; null: any."
    )
    memory_mb: Positive | None = Field(
        description="Smallest amount of memory of the device, in units of 1e6 bytes; null: any."
    )
    disk_mb: Positive | None = Field(
        description="Smallest free disk space in addition to the bundle, in units of 1e6 bytes; null: any."
    )
    runtimes: dict[Literal["onnxruntime", "litert"], Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]] = Field(
        description="Oldest version of each runtime that can read the files."
    )


class DeviceBudget(Block):
    """Limits of the self-test on a device, at batch size 1 on one thread.

    They are separate from the gate's because a device is slower than the machine that builds the bundle.
    """

    latency_p95_ms: Positive | None = Field(
        description="Largest 95th percentile of the latency of one prediction, in milliseconds; null: not judged."
    )
    memory_mb: Positive | None = Field(
        description=(
            "Largest amount of memory that the loaded model adds to a process, in units of 1e6 bytes; null: not judged."
        )
    )


class Package(Block):
    """The contents of the bundle and of its model card."""

    golden_samples: int = Field(
        gt=0, le=10_000, description="Number of golden samples, which a device replays in its self-test."
    )
    golden_tolerance: Tolerance = Field(
        description="Largest difference of a probability between a device and the bundle's golden outputs."
    )
    requirements: Requirements = Field(description="What a device must have to install the bundle.")
    device_budget: DeviceBudget = Field(description="Limits of the self-test on a device.")
    description: Text = Field(description="What the model does, for its model card.")
    licence: Text = Field(description="Licence of the model, for its model card.")
    limitations: Text = Field(description="Known limits of the model, for its model card.")
