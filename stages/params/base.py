"""What the parameter blocks share, and the two blocks that every stage reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TargetName = Literal["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"]


class Block(BaseModel):
    """Strict: an unknown name or a value of another type is an error, never a guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Target(Block):
    """One exported form of the model. Its name is its key in `targets`."""

    runtime: Literal["onnxruntime", "litert"]
    precision: Literal["fp32", "int8"]


class Compute(Block):
    """Where tables are worked on. `memory_limit` is the engine's own (DuckDB: "2GB"; Spark: "2g")."""

    backend: Literal["duckdb", "pyspark"]
    memory_limit: str
    spark_master: str


class Shared(Block):
    """`params.yaml`."""

    task: str
    seed: int
    device: Literal["auto", "cpu", "cuda", "mps"]
    compute: Compute
    targets: dict[TargetName, Target] = Field(min_length=1)


class ChannelSpec(Block):
    unit: str


class Image(Block):
    """Images are resized to this when they are collected."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Audio(Block):
    """Clips are cut or padded with silence at the end to `samples`; no resampling is done."""

    sample_rate_hz: int = Field(gt=0)
    samples: int = Field(gt=0)


class Data(Block):
    """What one row is: the names of its columns and the meaning of its label.

    A row of `kind: series` is one instant (its channels are columns); a row of `image` or `audio` is one
    sample, whose values are a list in the column `values` (images: channel, then height, then width).
    """

    kind: Literal["series", "image", "audio"]
    group: str
    time: str | None
    label: str
    classes: dict[str, str] = Field(min_length=2, description="value of the label column: name of the class")
    channels: dict[str, ChannelSpec] = Field(min_length=1)
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

    @property
    def columns(self) -> list[str]:
        """The columns that carry the sample's values."""
        return list(self.channels) if self.kind == "series" else ["values"]
