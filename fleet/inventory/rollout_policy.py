"""The rules of a fleet's rollouts: the `rollout:` variable of its inventory, typed. Every value has a default here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleet.errors import InventoryError, PausedError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _amount(value: int | str) -> int | str:
    if isinstance(value, int) and value >= 0:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+)%", value)) and int(match[1]) <= 100:
        return value
    raise ValueError('a number of devices such as 2, or a share of the fleet such as "5%"')


Amount = Annotated[int | str, AfterValidator(_amount)]


def device_count(amount: int | str, devices: int) -> int:
    """How many devices an amount is; a share is rounded down, so that a budget is never larger than written."""
    return amount if isinstance(amount, int) else devices * int(amount[:-1]) // 100


class WaveRule(Block):
    """Which of the devices that are left change next; exactly one of the fields but `name` is written.

    group: those of an inventory group. device_type: those of a type. per_type: so many of each type.
    count: so many. percent: so many of the whole fleet, at least one. rest: all that are left.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    group: str | None = None
    device_type: str | None = None
    per_type: int | None = Field(default=None, gt=0)
    count: int | None = Field(default=None, gt=0)
    percent: int | None = Field(default=None, gt=0, le=100)
    rest: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> WaveRule:
        ways = ("group", "device_type", "per_type", "count", "percent", "rest")
        written = [name for name in ways if getattr(self, name) is not None]
        if len(written) != 1:
            raise ValueError(f"exactly one of {', '.join(ways)}; found {', '.join(written) or 'none'}")
        return self


class Budget(Block):
    """How many devices of the fleet may fail, and how many may be out of reach, before a rollout fails.

    The canary wave has no budget: each of its devices must do well.
    """

    failed: Amount = 0
    unreachable: Amount = "10%"


class VerdictThresholds(Block):
    """What a wave may look like beside the rest of the fleet and beside its own past (fleet/rollout/verdict.py).

    confidence: of every statistical comparison. min_inferences: of the wave together; with fewer the verdict is
    inconclusive. error_share: the largest share of failed inferences, whatever the others do. latency_factor: how
    many times its own past a device's p95 may take; latency_floor_ms: less counts as this. restarts: of the service
    since the switch. feedback_drop: the accuracy by feedback that may be lost; feedback_min: of so many labels at
    least. prediction_psi: PSI of the predicted classes against its own past; prediction_min: of so many predictions at
    least. memory_growth_mb: since the model was loaded, 1e6 bytes.
    """

    confidence: float = Field(default=0.99, gt=0.5, lt=1)
    min_inferences: int = Field(default=20, ge=0)
    error_share: float = Field(default=0.01, ge=0, le=1)
    latency_factor: float = Field(default=2.0, gt=1)
    latency_floor_ms: float = Field(default=1.0, ge=0)
    restarts: int = Field(default=0, ge=0)
    feedback_drop: float = Field(default=0.02, ge=0, le=1)
    feedback_min: int = Field(default=30, gt=0)
    prediction_psi: float = Field(default=0.25, gt=0)
    prediction_min: int = Field(default=100, gt=0)
    memory_growth_mb: float = Field(default=64.0, gt=0)


class Window(Block):
    """When a rollout may change devices: on `days` from `from` to `until`, local time of `timezone`.

    A window that ends before it starts goes over midnight, and belongs to the day on which it starts.
    """

    days: list[Day] = Field(default=list(DAYS), min_length=1)
    start: str = Field(alias="from", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    until: str = Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _known(self) -> Window:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # `Europe` is a folder of it
            raise ValueError(f"a time zone of the IANA database; found {self.timezone!r}") from None
        if self.start == self.until:
            raise ValueError("`from` and `until` are the same")
        return self

    def is_open(self, now: datetime) -> bool:
        """Whether devices may change at `now`, which knows its time zone."""
        local = now.astimezone(ZoneInfo(self.timezone))
        start, until = time.fromisoformat(self.start), time.fromisoformat(self.until)
        today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
        at = local.time()
        if start < until:
            return today in self.days and start <= at < until
        return (today in self.days and at >= start) or (yesterday in self.days and at < until)


class RolloutPolicy(Block):
    """`waves` null: by the `wave` of each device. `unfit`: what becomes of devices that preflight refuses.

    bake_poll_s: how often a wave is looked at while it bakes, at first. approvers: user names that may approve a wave;
    none: anybody. four_eyes: not whoever began the rollout. Names are what `audit.current_user` says, and are no proof.
    """

    waves: list[WaveRule] | None = Field(default=None, min_length=1)
    bake_s: float = Field(default=300.0, ge=0)
    bake_poll_s: float = Field(default=30.0, gt=0)
    budget: Budget = Budget()
    judge: VerdictThresholds = VerdictThresholds()
    control: int = Field(default=20, ge=0)
    unfit: Literal["stop", "skip"] = "stop"
    clock_skew_s: float = Field(default=300.0, gt=0)
    window: Window | None = None
    approve: list[str] = Field(default=[])
    approvers: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    four_eyes: bool = False

    @model_validator(mode="after")
    def _names(self) -> RolloutPolicy:
        if self.waves is not None:
            names = [wave.name for wave in self.waves]
            if len(set(names)) < len(names):
                raise ValueError(f"each wave's name once; found {', '.join(names)}")
            unknown = sorted(set(self.approve) - set(names))
            if unknown:
                raise ValueError(f"approve: names of waves; found {', '.join(unknown)}")
        return self


def parse(value: Any, where: str) -> RolloutPolicy:
    """The rules in an inventory's `rollout:` (None: all defaults). Raises InventoryError, which lists every fault."""
    try:
        return RolloutPolicy.model_validate(value if value is not None else {})
    except ValidationError as error:
        lines = [
            f"  {'.'.join(['rollout', *map(str, fault['loc'])])}: found {str(fault['input'])[:80]!r}; {fault['msg']}"
            for fault in error.errors()
        ]
        raise InventoryError(
            where, "\n".join([f"{len(lines)} fault(s)", *lines]), "what docs/how-to/roll-out.md says", "mend them"
        ) from None


def require_open_window(rules: RolloutPolicy, path: Path) -> None:
    """Raises PausedError where the maintenance window is closed now. `path`: of the inventory."""
    window, now = rules.window, datetime.now(UTC)
    if window and not window.is_open(now):
        raise PausedError(
            f"{path}: rollout.window",
            f"closed now ({now.isoformat(timespec='minutes')})",
            f"{', '.join(window.days)} {window.start} to {window.until} {window.timezone}",
            "wait; or in an emergency: --outside-window, -e rollout_outside_window=true",
        )
