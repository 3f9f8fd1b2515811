"""What a device's agent said, checked where it comes in: nothing behind this has to expect anything else.

Fields that no decision reads are kept as they are, so that a newer agent may say more.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Json = dict[str, Any]
Count = Annotated[int, Field(ge=0, le=2**53)]


def _zoned(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time with its zone")
    return text


class Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Machine(Part):
    type: str
    architecture: str
    memory_bytes: Count
    targets: list[str]


class Loaded(Part):
    release: str
    target: str
    sha256: str


class Service(Part):
    running: bool
    fault: Json | None
    loaded: Loaded | None


class Disk(Part):
    free_bytes: Count


class Latency(Part):
    p95: Annotated[float, Field(ge=0)] | None


class Feedback(Part):
    n: Count
    wrong: Count

    @model_validator(mode="after")
    def _of_all(self) -> Self:
        if self.wrong > self.n:
            raise ValueError("more wrong ones than there are")
        return self


class Counted(Part):
    """What is counted since the switch to `release`."""

    release: str
    trial: bool
    restarts: Count
    memory_bytes: Count
    memory_at_start_bytes: Count
    inferences: Count
    errors: Count
    latency_s: Latency
    predictions: dict[str, Count]
    feedback: Feedback


class Nothing(Part):
    """The report of a service that has no release."""

    release: None


class Status(Part):
    """Of `edge-agent status --report`, what is read here."""

    time: Annotated[str, AfterValidator(_zoned)]
    device: Machine
    current: str | None
    trial: Json | None
    bad: dict[str, str]
    installed: list[str | None]
    service: Service
    disk: Disk | None
    report: Counted | Nothing | None = None


class Done(Part):
    """Of `edge-agent deploy` and `edge-agent rollback`."""

    release: str | None


def read(text: Any, shape: type[Part]) -> Json:
    """The JSON object that an agent printed. Raises ValueError, which says what is wrong with it."""
    if not isinstance(text, str):
        raise ValueError("it said nothing")
    try:
        said = json.loads(text, parse_constant=_refuse, parse_float=_number)
        json.dumps(said, ensure_ascii=False).encode()  # half a surrogate is no text that could be written anywhere
    except RecursionError:
        raise ValueError("JSON that is too deep") from None
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    if "error" in said:
        if not all(isinstance(said.get(name), str) for name in ("where", "found")):
            raise ValueError("an error without where and found")
        return said
    try:
        shape.model_validate(said)
    except ValidationError as error:
        faults = error.errors()
        told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults[:3]]
        raise ValueError("; ".join(told) + (f"; {len(faults) - 3} more" if len(faults) > 3 else "")) from None
    return said


def answer(result: Json, shape: type[Part] = Done) -> Json:
    """The answer of a device's agent, from what Ansible registered: {"status": its JSON or None, "reason": why None}.

    Whatever else the agent printed costs this device alone: it has no status.
    """
    if result.get("unreachable"):
        return {"status": None, "reason": str(result.get("msg", "unreachable"))}
    stdout = result.get("stdout")
    try:
        message = read(stdout, shape)
    except ValueError as error:
        if isinstance(stdout, str) and stdout.lstrip()[:1] in ("{", "["):
            return {"status": None, "reason": f"what it said is not what an agent says: {error}"[:500]}
        reason = result.get("stderr") or stdout or result.get("msg") or "it said nothing"
        return {"status": None, "reason": str(reason).strip()[:500]}
    if "error" in message:
        return {"status": None, "reason": f"{message['where']}: {message['found']}"}
    return {"status": message, "reason": ""}


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:40]}")
    return value


def _refuse(text: str) -> float:
    raise ValueError(f"the number {text}")
