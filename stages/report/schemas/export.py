"""models/exported/<target>/export.json: a model file, and how a runtime feeds and reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from stages.report.schemas.base import ReportModel, Sha256


class Tensor(ReportModel):
    """An input or output of the file, without the batch."""

    name: str
    shape: list[PositiveInt] = Field(min_length=1)
    dtype: str


class Output(Tensor):
    """The output that holds the classes."""

    activation: Literal["logits", "probabilities"]


class State(ReportModel):
    """A state that a recurrent file takes in and returns with every step."""

    input: str
    output: str
    shape: list[PositiveInt]


class Recurrent(ReportModel):
    """The steps of a recurrent file along the time axis."""

    frame: PositiveInt = Field(description="Samples that one step reads.")
    hop: PositiveInt = Field(description="Samples from one step to the next.")
    states: list[State] = Field(min_length=1)


class Io(ReportModel):
    """The description by which the agent's runtime feeds and reads a file (device/edge_agent/inference/runtime.py)."""

    runtime: str
    input: Tensor
    output: Output
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _has_time(self) -> Io:
        if self.recurrent and len(self.input.shape) < 2:
            raise ValueError("a recurrent model reads channels and time")
        return self


class ExportedFile(ReportModel):
    """models/exported/<target>/export.json"""

    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    sha256: Sha256
    size_bytes: PositiveInt
    io: Io
