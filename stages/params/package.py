"""Parameters of `package`: what the bundle promises, and what a device must have to run it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.params.common import Block, Positive, Share, Text


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
