"""What the parameter blocks share, and the two blocks that every stage reads."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

TargetName = Literal["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"]
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
SPARK_MASTER = re.compile(
    r"local(\[(\*|[1-9]\d{0,3})(, ?[1-9]\d{0,3})?\])?|yarn"
    r"|spark://[A-Za-z0-9.-]+:\d{1,5}(,[A-Za-z0-9.-]+:\d{1,5})*|k8s://(https?://)?[A-Za-z0-9.-]+(:\d{1,5})?"
)
# The JVM starts with less, Spark does not: its own reserve is 300 MB, and it asks for half as much again.
SPARK_MIN_MB = 512


def _check_slug(value: str) -> str:
    """Becomes the name of a folder and of a file."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value):
        raise ValueError("a name of at most 64 small letters, digits and -, the first a letter or a digit")
    return value


def megabytes(size: str) -> int:
    """1e6 bytes in a size such as "2GB". Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,4})\s*(MB|GB)", size, re.ASCII)
    if not match:
        raise ValueError('a size such as "512MB" or "2GB", of at most five digits')
    return int(match[1]) * (1000 if match[2] == "GB" else 1)


def _check_size(value: str) -> str:
    megabytes(value)
    return value


def _check_master(value: str) -> str:
    if not SPARK_MASTER.fullmatch(value):
        raise ValueError("a Spark master: local[2], local[*], spark://host:7077, k8s://https://host:443 or yarn")
    return value


# Sizes have an upper end where a library's own integers, or any machine's memory, would end first.
Slug = Annotated[str, AfterValidator(_check_slug)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
Width = Annotated[int, Field(gt=0, le=2**16)]
Depth = Annotated[int, Field(gt=0, le=64)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what numpy and torch both take
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # a learning rate; torch computes in float32, which ends at 3e38
Wait = Annotated[float, Field(gt=0, le=1e6, description="seconds that a system call takes")]
Span = Annotated[float, Field(gt=0, le=3.2e9, description="seconds between two times in the data; a century")]


class Block(BaseModel):
    """Strict: an unknown name, a value of another type, NaN and infinity are errors, never a guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Target(Block):
    """One exported form of the model. Its name is its key in `targets`."""

    runtime: Literal["onnxruntime", "litert"]
    precision: Literal["fp32", "int8"]


class Compute(Block):
    """Where tables are worked on. `memory_limit`: "512MB" or "2GB", for either engine."""

    backend: Literal["duckdb", "pyspark"]
    memory_limit: Annotated[str, AfterValidator(_check_size)]
    spark_master: Annotated[str, AfterValidator(_check_master)]

    @model_validator(mode="after")
    def _spark_starts(self) -> Compute:
        if self.backend == "pyspark" and megabytes(self.memory_limit) < SPARK_MIN_MB:
            raise ValueError(
                f"memory_limit of at least {SPARK_MIN_MB}MB for backend pyspark; found {self.memory_limit}"
            )
        return self


class Shared(Block):
    """`params.yaml`."""

    task: Slug
    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    compute: Compute
    targets: dict[TargetName, Target] = Field(min_length=1)

    @field_validator("targets")
    @classmethod
    def _are_what_they_are_called(cls, value: dict[TargetName, Target]) -> dict[TargetName, Target]:
        for name, target in value.items():
            form, precision = name.split("-")
            if (target.runtime, target.precision) != (RUNTIMES[form], precision):
                raise ValueError(
                    f"{name} with runtime {RUNTIMES[form]} and precision {precision}; "
                    f"found {target.runtime} and {target.precision}"
                )
        return value


class ChannelSpec(Block):
    unit: str


class Image(Block):
    """Images are resized to this when they are collected."""

    height: Width
    width: Width


class Audio(Block):
    """Clips are cut or padded with silence at the end to `samples`; no resampling is done."""

    sample_rate_hz: Count
    samples: Count


class Data(Block):
    """What one row is: the names of its columns and the meaning of its label.

    A row of `kind: series` is one instant (its channels are columns); a row of `image` or `audio` is one
    sample, whose values are a list in the column `values` (images: channel, then height, then width).
    """

    kind: Literal["series", "image", "audio"]
    group: Text
    time: Text | None
    label: Text
    classes: dict[Text, Text] = Field(min_length=2, description="value of the label column: name of the class")
    channels: dict[Text, ChannelSpec] = Field(min_length=1)
    image: Image | None
    audio: Audio | None

    @model_validator(mode="after")
    def _one_kind(self) -> Data:
        for kind, block in (("image", self.image), ("audio", self.audio)):
            if (self.kind == kind) != (block is not None):
                raise ValueError(f"`{kind}:` is written exactly when kind is {kind}")
        if (self.kind == "series") != (self.time is not None):
            raise ValueError("`time:` is written exactly when kind is series")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Data:
        names = [self.group, self.label, *self.columns, *([self.time] if self.time is not None else [])]
        for what, every in (("columns for group, time, label and channels", names), ("classes", self.classes.values())):
            twice = {name for name in every if list(every).count(name) > 1}
            if twice:
                raise ValueError(f"different {what} ({', '.join(sorted(twice))} is there twice)")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that carry the sample's values."""
        return list(self.channels) if self.kind == "series" else ["values"]
