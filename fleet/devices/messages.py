"""Parse and validate the JSON messages that agents on devices print.

Code that receives a parsed message can rely on the declared types. Undeclared fields are kept unchanged, because a
newer agent may report more fields.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleet.documents import Document

Count = Annotated[int, Field(ge=0, le=2**53)]
MAX_REASON = 500  # maximum length of a reason that quotes a device's output, in characters
M = TypeVar("M", bound="Message")


def _require_time_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the time has no time zone")
    return text


class Message(Document):
    """The base class for JSON objects that an agent prints. Undeclared fields are accepted and kept."""


class Machine(Message):
    """The hardware properties of a device that a release can require."""

    type: str = Field(description="Device type. `requirements.device_types` of a release lists allowed types.")
    architecture: str = Field(description="Processor architecture, such as aarch64.")
    memory_bytes: Count = Field(description="Memory of the device in bytes.")
    targets: list[str] = Field(description="Targets that the device can run, such as onnx-int8.")


class LoadedModel(Message):
    """The model that an agent's service has in memory."""

    release: str = Field(description="Release of the model, as NAME@VERSION.")
    target: str = Field(description="Target of the release, such as onnx-int8.")
    sha256: str = Field(description="SHA-256 of the model file, hexadecimal.")


class ServiceFault(Message):
    """The reason why an agent's service does not answer.

    Decisions depend on whether there is a reason, but not on its text.
    """


class Service(Message):
    """The state of the service process of an agent."""

    running: bool = Field(description="Whether a service process exists.")
    fault: ServiceFault | None = Field(description="Why the service does not answer; null if it does.")
    loaded: LoadedModel | None = Field(description="The model in memory, or null.")


class Disk(Message):
    """The disk on which the agent stores releases."""

    free_bytes: Count = Field(description="Free space in bytes.")


class Latency(Message):
    """The duration of inferences since the agent's service switched to its current release."""

    p95: Annotated[float, Field(ge=0)] | None = Field(
        description="95th percentile in seconds; null if there were no inferences."
    )


class Feedback(Message):
    """The true labels that arrived for predictions since the agent's service switched to its current release."""

    n: Count = Field(description="Number of labels that arrived.")
    wrong: Count = Field(description="Number of labels that differ from the prediction.")

    @model_validator(mode="after")
    def _check_total(self) -> Self:
        if self.wrong > self.n:
            raise ValueError("the number of wrong labels exceeds the number of all labels")
        return self


class ServingReport(Message):
    """The statistics that an agent's service has collected since it switched to `release`."""

    release: str = Field(description="Release that is served, as NAME@VERSION.")
    trial: bool = Field(description="Whether the release's trial is still running.")
    restarts: Count = Field(description="Restarts of the service since it switched to the release.")
    memory_bytes: Count = Field(description="Memory that the service uses now, in bytes.")
    memory_at_start_bytes: Count = Field(
        description="Memory that the service used after it loaded the model, in bytes."
    )
    inferences: Count = Field(description="Number of successful inferences since it switched to the release.")
    errors: Count = Field(description="Number of failed inferences since it switched to the release.")
    latency_s: Latency = Field(description="Duration of inferences, in seconds.")
    predictions: dict[str, Count] = Field(description="Number of predictions by class.")
    feedback: Feedback = Field(description="True labels that arrived for predictions.")


class IdleReport(Message):
    """The report of an agent's service that serves no release."""

    release: None = Field(description="Always null, since no release is served.")


Report = ServingReport | IdleReport


class Trial(Message):
    """The trial of a release. Decisions depend only on whether a trial is running."""


class AgentStatus(Message):
    """The output of `edge-agent status --report`, with the fields that decisions depend on."""

    time: Annotated[str, AfterValidator(_require_time_zone)] = Field(
        description="Time of the device's clock, ISO 8601."
    )
    device: Machine = Field(description="Hardware of the device.")
    current: str | None = Field(description="Installed release that the device runs, or null.")
    trial: Trial | None = Field(description="The trial of the current release; null once the release is confirmed.")
    bad: dict[str, str] = Field(description="Releases that failed on the device, each with the reason.")
    installed: list[str | None] = Field(description="Installed releases.")
    service: Service = Field(description="State of the agent's service.")
    disk: Disk | None = Field(description="Free space; null if the agent cannot determine it.")
    report: Report | None = Field(default=None, description="Statistics of the service; null if there is no service.")


class CommandResult(Message):
    """The output of `edge-agent deploy` and `edge-agent rollback`."""

    release: str | None = Field(description="Release that the device runs after the command.")


@dataclass(frozen=True)
class AgentFailure:
    """The error that an agent printed instead of a result.

    Attributes:
        where: The file, field or operation that the error concerns.
        found: The problem that the agent found there.
    """

    where: str
    found: str


@dataclass(frozen=True)
class StatusResponse:
    """The status of a device, or the reason why the status is missing."""

    status: AgentStatus | None
    reason: str = ""


@dataclass(frozen=True)
class CommandResponse:
    """The result of a command on a device, or the reason why the result is missing."""

    result: CommandResult | None
    reason: str = ""


NOT_QUERIED = StatusResponse(None, "the device was not queried")


class TaskResult(BaseModel):
    """The result of one Ansible task on one device, as Ansible registered it.

    A device can forge every value.
    """

    model_config = ConfigDict(frozen=True)

    unreachable: object = Field(default=False, description="Whether Ansible could not reach the device.")
    skipped: object = Field(default=False, description="Whether the task was skipped.")
    rc: object = Field(default=None, description="Exit code of the command.")
    stdout: object = Field(default=None, description="Standard output of the command, a string.")
    stderr: object = Field(default=None, description="Standard error of the command.")
    msg: object = Field(default=None, description="Message from Ansible about the task.")

    @property
    def succeeded(self) -> bool:
        """Return True if the command ended with exit code 0."""
        return self.rc == 0

    def unreachable_reason(self) -> str:
        """Return why Ansible could not reach the device; an empty string if it could."""
        if not self.unreachable:
            return ""
        return str(self.msg) if "msg" in self.model_fields_set else "unreachable"


def parse_status(result: TaskResult) -> StatusResponse:
    """Return the status that an agent printed, or the reason why there is no valid status."""
    message, reason = _parse_result(result, AgentStatus)
    return StatusResponse(message, reason)


def parse_command(result: TaskResult) -> CommandResponse:
    """Return the result of `edge-agent deploy` or `edge-agent rollback`, or the reason why the result is missing."""
    message, reason = _parse_result(result, CommandResult)
    return CommandResponse(message, reason)


def _parse_result(result: TaskResult, message_type: type[M]) -> tuple[M | None, str]:
    """Return the agent's message in a task's output and an empty reason.

    If there is no valid message, return None and the reason.
    """
    if reason := result.unreachable_reason():
        return None, reason
    try:
        message = parse_message(result.stdout, message_type)
    except ValueError as error:
        if isinstance(result.stdout, str) and result.stdout.lstrip()[:1] in ("{", "["):
            return None, f"its response is not an agent's message: {error}"[:MAX_REASON]
        return None, str(result.stderr or result.stdout or result.msg or "no output").strip()[:MAX_REASON]
    if isinstance(message, AgentFailure):
        return None, f"{message.where}: {message.found}"
    return message, ""


def parse_message(text: object, message_type: type[M]) -> M | AgentFailure:
    """Parse the JSON message or error that an agent printed. Raises ValueError if the output is neither."""
    if not isinstance(text, str):
        raise ValueError("no output")
    try:
        content = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_number)
        json.dumps(content, ensure_ascii=False).encode()  # refuses lone surrogates: UTF-8 cannot encode them
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if "error" in content:
        where, found = content.get("where"), content.get("found")
        if not isinstance(where, str) or not isinstance(found, str):
            raise ValueError("the error lacks `where` or `found`")
        return AgentFailure(where, found)
    try:
        return message_type.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:3]]
        raise ValueError("; ".join(lines) + (f"; {len(faults) - 3} more" if len(faults) > 3 else "")) from None


def _finite_number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:40]} is not finite")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")
