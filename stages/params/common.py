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
# Spark reserves 300 MB and refuses to start with less than 1.5 times this amount, although the JVM would start.
SPARK_MIN_MB = 512


def _check_slug(value: str) -> str:
    """Check that a name can be used in the names of folders and files."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value):
        raise ValueError("a name of at most 64 lowercase letters, digits and -, which begins with a letter or a digit")
    return value


def megabytes(size: str) -> int:
    """Convert a size such as "2GB" to units of 1e6 bytes. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,4})\s*(MB|GB)", size, re.ASCII)
    if not match:
        raise ValueError('a size such as "512MB" or "2GB", with at most five digits')
    return int(match[1]) * (1000 if match[2] == "GB" else 1)


def _check_size(value: str) -> str:
    megabytes(value)
    return value


def _check_master(value: str) -> str:
    if not SPARK_MASTER.fullmatch(value):
        raise ValueError("a Spark master: local[2], local[*], spark://host:7077, k8s://https://host:443 or yarn")
    return value


# Sizes are limited by the integer types of the libraries, or by the memory that machines have.
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
    """Base class of all parameter blocks. Unknown names, values of the wrong type, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Target(Block):
    """A file format and a precision in which the model is exported.

    The name of the block consists of the format and the precision, such as `onnx-fp32` or `tflite-int8`.
    """

    runtime: Literal["onnxruntime", "litert"] = Field(
        description="Library that runs the exported file: `onnxruntime` for ONNX, `litert` for TFLite."
    )
    precision: Literal["fp32", "int8"] = Field(
        description="Number format of the weights: 32-bit floating point (fp32) or 8-bit integers (int8)."
    )


class Compute(Block):
    """Parameters of the engine that processes tables in the stages `validate` and `prepare`."""

    backend: Literal["duckdb", "pyspark"] = Field(
        description="Engine: `duckdb` runs inside the stage's own process; `pyspark` uses Apache Spark."
    )
    memory_limit: Annotated[str, AfterValidator(_check_size)] = Field(
        description="Maximum amount of memory that the engine may use, such as 512MB or 2GB (1 MB is 1e6 bytes)."
    )
    spark_master: Annotated[str, AfterValidator(_check_master)] = Field(
        description="Address of the Spark master; used only if `backend` is `pyspark`."
    )

    @model_validator(mode="after")
    def _spark_starts(self) -> Compute:
        if self.backend == "pyspark" and megabytes(self.memory_limit) < SPARK_MIN_MB:
            raise ValueError(
                f"a memory_limit of at least {SPARK_MIN_MB}MB for backend pyspark, not {self.memory_limit}"
            )
        return self


class Shared(Block):
    """The file `params.yaml`: the name of the task to build, and the parameters that all tasks share."""

    task: Slug = Field(description="Name of the task to build, which is a folder in `tasks/`.")
    seed: Seed = Field(description="Seed of all random choices, except those of a source of type `synthetic`.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        description="Processor that trains the network; `auto` selects a GPU if there is one."
    )
    compute: Compute = Field(description="The engine that processes tables in the stages `validate` and `prepare`.")
    targets: dict[TargetName, Target] = Field(
        min_length=1, description="File formats and precisions in which the model is exported, by name."
    )

    @field_validator("targets")
    @classmethod
    def _match_their_names(cls, value: dict[TargetName, Target]) -> dict[TargetName, Target]:
        for name, target in value.items():
            form, precision = name.split("-")
            if (target.runtime, target.precision) != (RUNTIMES[form], precision):
                raise ValueError(
                    f"{name} with runtime {RUNTIMES[form]} and precision {precision}, "
                    f"not {target.runtime} and {target.precision}"
                )
        return value


class ChannelSpec(Block):
    """A channel of every sample, such as one sensor or one colour."""

    unit: str = Field(description="Unit of the channel's values, as it appears in reports.")


class Image(Block):
    """Size of every image. Images are resized to this size when they are collected."""

    height: Width = Field(description="Height in pixels.")
    width: Width = Field(description="Width in pixels.")


class Audio(Block):
    """Sampling rate and length of every audio clip. A file with a different rate is refused, not resampled."""

    sample_rate_hz: Count = Field(description="Sampling rate of every file, in Hz.")
    samples: Count = Field(
        description=(
            "Length of every clip, in samples. A longer clip is cut at its end. Silence is appended to a shorter clip."
        )
    )


class Data(Block):
    """Description of the data: the kind of its samples, its columns and its classes.

    If `kind` is `series`, each row holds the values of one point in time, and every channel is a column. If `kind` is
    `image` or `audio`, each row holds one sample as a list of numbers in the column `values`. The list of an image is
    ordered by channel, then by pixel row, then by pixel column.
    """

    kind: Literal["series", "image", "audio"] = Field(
        description="Kind of the samples: windows of a time series, images or audio clips."
    )
    group: Text = Field(
        description=(
            "Column that holds the group of each row, such as its machine or speaker; `prepare.split` can keep each "
            "group in one split."
        )
    )
    time: Text | None = Field(description="Column that holds the time of each row; null unless `kind` is `series`.")
    label: Text = Field(description="Column that holds the label of each row.")
    classes: dict[Text, Text] = Field(min_length=2, description="Name of the class for each value of the label column.")
    channels: dict[Text, ChannelSpec] = Field(
        min_length=1, description="Channels of a sample, by name; if `kind` is `series`, the names are columns."
    )
    image: Image | None = Field(description="Size of the images; null unless `kind` is `image`.")
    audio: Audio | None = Field(description="Sampling rate and length of the clips; null unless `kind` is `audio`.")

    @model_validator(mode="after")
    def _one_kind(self) -> Data:
        for kind, block in (("image", self.image), ("audio", self.audio)):
            if (self.kind == kind) != (block is not None):
                raise ValueError(f"`{kind}:` other than null if and only if kind is {kind}")
        if (self.kind == "series") != (self.time is not None):
            raise ValueError("`time:` other than null if and only if kind is series")
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
        """The names of the columns that hold the values of a sample."""
        return list(self.channels) if self.kind == "series" else ["values"]
