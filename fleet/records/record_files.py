"""Read and validate the files of a rollout's record. Callers can rely on the declared types.

A later version of this program may write more fields into a plan, a report or a verdict. Such unknown fields are kept.
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fleet.devices.messages import Count, IdleReport, ServingReport
from fleet.documents import Document
from fleet.errors import ConfigurationError
from fleet.records.rollout_plan import RolloutPlan
from fleet.records.state import RolloutState

SCHEMA_VERSION: Literal[1] = 1
T = TypeVar("T")
Reports = dict[str, ServingReport | IdleReport | None]


class Process(Document):
    """The process that controls a rollout, as state.json records it."""

    pid: Count = Field(description="Process id.")


class PlanFile(RolloutPlan):
    """The content of plan.json."""

    schema_version: Literal[1] = Field(description="Version of the format.")


class StateFile(Document):
    """The fields of state.json that RolloutState does not check strictly enough."""

    schema_version: Literal[1] = Field(description="Version of the format.")
    owner: Process = Field(description="Process that controls the rollout.")


PLAN, STATE_FILE, STATE = TypeAdapter(PlanFile), TypeAdapter(StateFile), TypeAdapter(RolloutState)
REPORTS: TypeAdapter[Reports] = TypeAdapter(Reports)


def read_plan(path: Path) -> RolloutPlan:
    """Read a plan.json file and check its content. Raises ConfigurationError if the file is not valid."""
    plan = _validated(path, _read_json(path), PLAN)
    missing = sorted({device.release for device in plan.devices.values()} - set(plan.releases))
    if missing:
        raise damaged(path, f"releases: no entry for {', '.join(missing[:3])}, which a device is to run")
    return plan


def read_state(path: Path) -> RolloutState:
    """Read a state.json file and check its content. Raises ConfigurationError if the file is not valid."""
    content = _read_json(path)
    _validated(path, content, STATE_FILE)
    state = _validated(path, content, STATE)
    if missing := sorted({name for wave in state.waves for name in wave.devices} - set(state.devices)):
        raise damaged(path, f"devices: no entry for {', '.join(missing[:3])}, which a wave lists")
    touched = {device.wave for device in state.devices.values() if device.touched}
    if missing := sorted(touched - {wave.name for wave in state.waves}):
        raise damaged(path, f"devices: the wave {missing[0]!r} of a device with `touched: true` is not in `waves`")
    return state


def read_reports(path: Path) -> Reports:
    """Read a file with the reports of devices. Raises ConfigurationError if the file is not valid.

    The keys are device names. The value is None for a device that had no report.
    """
    return _validated(path, _read_json(path), REPORTS)


def _read_json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    return content


def _validated(path: Path, content: object, adapter: TypeAdapter[T]) -> T:
    try:
        return adapter.validate_python(content)  # validate_json would refuse invalid Unicode from a device
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        value = "nothing" if first["type"] == "missing" else reprlib.repr(first["input"])
        where = "".join(f"{each}." for each in first["loc"])[:-1]
        raise damaged(path, f"{where or 'the whole file'}: found {value}; {first['msg']}") from None


def damaged(path: Path, reason: str) -> ConfigurationError:
    """Return the error for a file that is not a valid part of a record."""
    remedy = "correct the file; or move its folder away, then begin a new rollout"
    return ConfigurationError(
        str(path), f"not a rollout's record ({reason})", "the content that this program wrote", remedy
    )
