"""Parameters of the stage `package`: the contents of the bundle, and what a device needs to run the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, Text


class Tolerance(Block):
    """Largest allowed difference between the probabilities that a device computes and those in the bundle.

    Between two processors, the results of float kernels can differ in the last bits. The results of int8 kernels can
    differ by one quantisation step.
    """

    fp32: Share = Field(description="Largest allowed difference for targets with precision fp32.")
    int8: Share = Field(description="Largest allowed difference for targets with precision int8.")


class Requirements(Block):
    """Requirements that a device must meet to install the bundle."""

    device_types: list[Text] | None = Field(
        min_length=1, description="Device types on which the bundle can be installed; null: any type."
    )
    architectures: list[Literal["x86_64", "aarch64", "armv7l"]] | None = Field(
        min_length=1,
        description="Processor architectures on which the bundle can be installed; null: any architecture.",
    )
    memory_mb: Positive | None = Field(
        description="Smallest amount of memory that the device must have, in units of 1e6 bytes; null: any amount."
    )
    disk_mb: Positive | None = Field(
        description=(
            "Free disk space that the device must have in addition to the bundle's size, in units of 1e6 "
            "bytes; null: any amount."
        )
    )
    runtimes: dict[Literal["onnxruntime", "litert"], Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]] = Field(
        description="Mapping from each runtime's name to the oldest version that can read the exported files."
    )


class DeviceBudget(Block):
    """Limits that the self-test on a device applies, with batch size 1 and one thread.

    They are separate from the limits of the gate, because a device is slower than the machine that builds the bundle.
    """

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


class Package(Block):
    """The contents of the bundle and of its model card."""

    golden_samples: int = Field(
        gt=0,
        le=10_000,
        description="Number of golden samples: test samples on which a device runs the model in its self-test.",
    )
    golden_tolerance: Tolerance = Field(
        description=(
            "Largest allowed difference between a probability that a device computes for a golden sample and the "
            "probability recorded in the bundle."
        )
    )
    requirements: Requirements = Field(description="What a device must have to install the bundle.")
    device_budget: DeviceBudget = Field(description="Latency and memory limits of the self-test on a device.")
    description: Text = Field(description="Text for the model card: what the model does.")
    licence: Text = Field(description="Text for the model card: the licence of the model.")
    limitations: Text = Field(description="Text for the model card: known limitations of the model.")
