"""What a rollout's files hold, checked when they are read: nothing behind this has to expect anything else.

Of a plan, of what devices said and of a verdict it is what is read again later: a newer program may write more.
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from fleet.devices.messages import Count, Counted, Nothing, Part
from fleet.errors import ConfigurationError
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.records.state import RolloutState

SCHEMA_VERSION: Literal[1] = 1
Json = dict[str, Any]
T = TypeVar("T")


class Versioned(Part):
    schema_version: Literal[1]


class Planned(Part):
    """One device."""

    release: str


class Offer(Part):
    """One release."""

    targets: dict[str, str]
    sha256: str | None = None


class Plan(Versioned):
    fleet: str
    inventory: str | None = None
    only: list[str] | None = None
    commit: str | None = None
    by: str | None = None
    rules: RolloutPolicy
    size: Count
    devices: dict[str, Planned]
    releases: dict[str, Offer]


class Process(Part):
    pid: Count


class Check(Part):
    name: str
    status: str
    reason: str


class Verdict(Part):
    reason: str
    checks: list[Check]


class Lost(Part):
    reason: str
    devices: dict[str, str]


class Wave(Part):
    verdict: Verdict | None = None
    lost: Lost | None = None


class State(Versioned):
    """What the types of RolloutState leave open."""

    owner: Process
    waves: list[Wave]


PLAN, STATE, ROLLOUT_STATE = TypeAdapter(Plan), TypeAdapter(State), TypeAdapter(RolloutState)
REPORTS = TypeAdapter(dict[str, Counted | Nothing | None])


def plan(path: Path) -> Json:
    """plan.json. Raises ConfigurationError, as the others do."""
    value: Json = _read(path)
    _checked(path, value, PLAN)
    if strangers := sorted({each["release"] for each in value["devices"].values()} - set(value["releases"])):
        raise damaged(path, f"releases: {', '.join(strangers[:3])} of a device is not there")
    return value


def state(path: Path) -> RolloutState:
    """state.json."""
    value = _read(path)
    _checked(path, value, STATE)
    found = _checked(path, value, ROLLOUT_STATE)
    if strangers := sorted({name for wave in found.waves for name in wave.devices} - set(found.devices)):
        raise damaged(path, f"devices: {', '.join(strangers[:3])} of a wave is not there")
    touched = {device.wave for device in found.devices.values() if device.touched}
    if strangers := sorted(touched - {wave.name for wave in found.waves}):
        raise damaged(path, f"devices: wave {strangers[0]!r} of one that was touched is not there")
    return found


def reports(path: Path) -> Json:
    """What each device reported, None where it had nothing to."""
    value: Json = _read(path)
    _checked(path, value, REPORTS)
    return value


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None


def _checked(path: Path, value: Any, shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_python(value)  # not as JSON: a reason may hold what a device said that is no text
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        found = "nothing" if first["type"] == "missing" else reprlib.repr(first["input"])
        where = "".join(f"{each}." for each in first["loc"])[:-1]
        raise damaged(path, f"{where or 'all of it'}: found {found}; {first['msg']}") from None


def damaged(path: Path, why: str) -> ConfigurationError:
    remedy = "mend it; or move its folder away, then begin anew"
    return ConfigurationError(str(path), f"not a rollout's record ({why})", "what this program wrote", remedy)
