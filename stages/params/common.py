"""Types that several parameter blocks share, and the blocks that describe the data and the machine."""

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
# Spark reserves 300 MB and does not start with less than 1.5 times that, although the JVM would.
SPARK_MIN_MB = 512


def _check_slug(value: str) -> str:
    """Check a name that becomes the name of a folder and of a file."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value):
        raise ValueError("a name of at most 64 small letters, digits and -, the first a letter or a digit")
    return value


def megabytes(size: str) -> int:
    """Return a size such as "2GB" in units of 1e6 bytes. Raises ValueError."""
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


# Upper limits of sizes are those of the libraries' integers, or of any machine's memory.
Slug = Annotated[str, AfterValidator(_check_slug)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
Width = Annotated[int, Field(gt=0, le=2**16)]
Depth = Annotated[int, Field(gt=0, le=64)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # the range that numpy and torch both accept
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # a learning rate; torch computes in float32, whose largest value is 3e38
Wait = Annotated[float, Field(gt=0, le=1e6, description="Time limit of a system call, in seconds.")]
Span = Annotated[
    float, Field(gt=0, le=3.2e9, description="Time between two rows of the data, in seconds; at most a century.")
]


class Block(BaseModel):
    """Base of all parameter blocks. Unknown names, values of another type, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Target(Block):
    """An exported form of the model. Its key in `targets` is its name."""

    runtime: Literal["onnxruntime", "litert"] = Field(description="Runtime that executes the file.")
    precision: Literal["fp32", "int8"] = Field(description="Number format of the weights.")


class Compute(Block):
    """The engine that processes tables."""

    backend: Literal["duckdb", "pyspark"] = Field(
        description="Engine: duckdb runs inside the process; pyspark runs on Spark."
    )
    memory_limit: Annotated[str, AfterValidator(_check_size)] = Field(
        description="Memory that the engine may use, such as 512MB or 2GB (1 MB is 1e6 bytes)."
    )
    spark_master: Annotated[str, AfterValidator(_check_master)] = Field(
        description="Address of the Spark master, used by backend pyspark only."
    )

    @model_validator(mode="after")
    def _spark_starts(self) -> Compute:
        if self.backend == "pyspark" and megabytes(self.memory_limit) < SPARK_MIN_MB:
            raise ValueError(
                f"memory_limit of at least {SPARK_MIN_MB}MB for backend pyspark; found {self.memory_limit}"
            )
        return self


class Shared(Block):
    """The file `params.yaml`: which task is built, and the values that all tasks share."""

    task: Slug = Field(description="Name of the task to build: a folder in `tasks/`.")
    seed: Seed = Field(description="Seed of every random choice.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        description="Processor that trains the network; auto uses a GPU if there is one."
    )
    compute: Compute = Field(description="The engine that processes tables.")
    targets: dict[TargetName, Target] = Field(min_length=1, description="Exported forms of the model, by name.")

    @field_validator("targets")
    @classmethod
    def _match_their_names(cls, value: dict[TargetName, Target]) -> dict[TargetName, Target]:
        for name, target in value.items():
            form, precision = name.split("-")
            if (target.runtime, target.precision) != (RUNTIMES[form], precision):
                raise ValueError(
                    f"{name} with runtime {RUNTIMES[form]} and precision {precision}; "
                    f"found {target.runtime} and {target.precision}"
                )
        return value


class ChannelSpec(Block):
    """A channel of a sample."""

    unit: str = Field(description="Unit of the channel's values, for reports.")


class Image(Block):
    """Size of every image. Images are resized to it when they are collected."""

    height: Width = Field(description="Height in pixels.")
    width: Width = Field(description="Width in pixels.")


class Audio(Block):
    """Rate and length of every audio clip. Clips are not resampled."""

    sample_rate_hz: Count = Field(description="Sampling rate of every file, in Hz.")
    samples: Count = Field(
        description="Length of a clip, in samples; clips are cut, or padded with silence, at the end."
    )


class Data(Block):
    """The meaning of one row: the names of its columns and of its classes.

    A row of kind series is one instant, and its channels are columns. A row of kind image or audio is one sample, and
    its values are a list in the column `values` (images: by channel, then height, then width).
    """

    kind: Literal["series", "image", "audio"] = Field(description="Kind of the samples.")
    group: Text = Field(
        description="Column with the group of a row (a machine, a speaker); a group is never in two splits."
    )
    time: Text | None = Field(description="Column with the time of a row; for kind series only, otherwise null.")
    label: Text = Field(description="Column with the label of a row.")
    classes: dict[Text, Text] = Field(min_length=2, description="Name of the class for each value of the label column.")
    channels: dict[Text, ChannelSpec] = Field(
        min_length=1, description="Channels of a sample; for kind series their names are columns."
    )
    image: Image | None = Field(description="Size of the images; for kind image only, otherwise null.")
    audio: Audio | None = Field(description="Rate and length of the clips; for kind audio only, otherwise null.")

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
            duplicates = {name for name in every if list(every).count(name) > 1}
            if duplicates:
                raise ValueError(f"different {what} ({', '.join(sorted(duplicates))} is a duplicate)")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that hold the values of a sample."""
        return list(self.channels) if self.kind == "series" else ["values"]
