"""The schema of models/exported/<target>/export.json, which describes an exported model file and its tensors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from stages.report.schemas.base import ReportModel, Sha256


class Tensor(ReportModel):
    """An input or output tensor of the model file. Its shape does not include the batch dimension."""

    name: str
    shape: list[PositiveInt] = Field(min_length=1)
    dtype: str


class Output(Tensor):
    """The output tensor, which has one logit or one probability for each class."""

    activation: Literal["logits", "probabilities"]


class State(ReportModel):
    """A state of a recurrent model.

    Each step reads the state from the tensor `input` and writes the new state to the tensor `output`.
    """

    input: str
    output: str
    shape: list[PositiveInt]


class Recurrent(ReportModel):
    """The steps in which a recurrent model reads the time axis, and the states that each step passes to the next."""

    frame: PositiveInt = Field(description="Number of points of the time axis that one step reads.")
    hop: PositiveInt = Field(description="Number of points from the start of one step to the start of the next step.")
    states: list[State] = Field(min_length=1)


class Io(ReportModel):
    """The inputs and outputs of a model file. The agent on a device needs this description to run the file."""

    runtime: str
    input: Tensor
    output: Output
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _has_time(self) -> Io:
        if self.recurrent and len(self.input.shape) < 2:
            raise ValueError("the input of a recurrent model must have a channel axis and a time axis")
        return self


class ExportedFile(ReportModel):
    """The content of models/exported/<target>/export.json: one exported model file."""

    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    sha256: Sha256
    size_bytes: PositiveInt
    io: Io
