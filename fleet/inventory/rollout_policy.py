"""The rollout policy of a fleet: typed models of the inventory's `rollout:` variable, with all default values."""

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
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"


class Block(BaseModel):
    """The base class for the blocks of the rollout policy. Unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _amount(value: int | str) -> int | str:
    if isinstance(value, int) and value >= 0:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+)%", value)) and int(match[1]) <= 100:
        return value
    raise ValueError('expected a number of devices such as 2, or a percentage of the fleet such as "5%"')


Amount = Annotated[int | str, AfterValidator(_amount)]


def device_count(amount: int | str, devices: int) -> int:
    """Convert an amount to a number of devices. A percentage is rounded down, so that it is never exceeded.

    Args:
        amount: A number of devices, or a percentage of the fleet such as "5%".
        devices: The number of devices in the fleet.
    """
    return amount if isinstance(amount, int) else devices * int(amount[:-1]) // 100


class WaveRule(Block):
    """A rule that selects the devices of one wave from the devices that are in no earlier wave.

    Set `name` and exactly one other field.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the wave.")
    group: str | None = Field(default=None, description="All devices of this inventory group.")
    device_type: str | None = Field(default=None, description="All devices of this type.")
    per_type: int | None = Field(default=None, gt=0, description="Number of devices to select of each device type.")
    count: int | None = Field(default=None, gt=0, description="Number of devices to select.")
    percent: int | None = Field(
        default=None, gt=0, le=100, description="Percentage of the whole fleet, but at least one device."
    )
    rest: Literal[True] | None = Field(default=None, description="All remaining devices.")

    @model_validator(mode="after")
    def _exactly_one(self) -> WaveRule:
        selectors = ("group", "device_type", "per_type", "count", "percent", "rest")
        present = [name for name in selectors if getattr(self, name) is not None]
        if len(present) != 1:
            raise ValueError(f"expected exactly one of {', '.join(selectors)}; found {', '.join(present) or 'none'}")
        return self


class FailureBudget(Block):
    """Limits on the numbers of failed and unreachable devices; a rollout that exceeds a limit fails.

    Canary waves (see `rollout.waves`) have no such budget: every device of a canary wave must be healthy.
    """

    failed: Amount = Field(
        default=0, description='Devices that may fail: a number, or a percentage of the fleet such as "5%".'
    )
    unreachable: Amount = Field(
        default="10%",
        description='Devices that may be unreachable: a number, or a percentage of the fleet such as "5%".',
    )


class VerdictThresholds(Block):
    """Thresholds of the verdict on a wave, which fleet/rollout/verdict.py computes.

    The statistics of the wave's devices are compared with the statistics of the same devices before the rollout, and
    with the statistics of the control group.
    """

    confidence: float = Field(
        default=0.99, gt=0.5, lt=1, description="Confidence level of each statistical comparison."
    )
    min_inferences: int = Field(
        default=20,
        ge=0,
        description="Minimum number of inferences of the wave after its devices switched to the new release. "
        "With fewer inferences, the verdict is inconclusive.",
    )
    error_share: float = Field(
        default=0.01, ge=0, le=1, description="Largest allowed fraction of failed inferences in the wave."
    )
    latency_factor: float = Field(
        default=2.0,
        gt=1,
        description="Largest allowed ratio: p95 latency after the switch, divided by p95 latency before the switch.",
    )
    latency_floor_ms: float = Field(
        default=1.0,
        ge=0,
        description="Latency in milliseconds; a lower latency counts as this value in the comparison.",
    )
    restarts: int = Field(
        default=0, ge=0, description="Largest allowed number of restarts of a device's service since the switch."
    )
    feedback_drop: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Largest allowed drop in the accuracy, which is measured with feedback labels.",
    )
    feedback_min: int = Field(
        default=30, gt=0, description="Number of feedback labels that a comparison of the accuracy needs."
    )
    prediction_psi: float = Field(
        default=0.25, gt=0, description="Largest allowed population stability index (PSI) of the predicted classes."
    )
    prediction_min: int = Field(
        default=100, gt=0, description="Number of predictions that the PSI needs, both before and after the switch."
    )
    memory_growth_mb: float = Field(
        default=64.0, gt=0, description="Largest allowed memory growth since the model was loaded, in MB (1e6 bytes)."
    )


class MaintenanceWindow(Block):
    """The times at which a rollout may update devices.

    If `until` is earlier than `from`, the window continues past midnight. `days` names the days on which the window
    opens.
    """

    days: list[Day] = Field(default=list(DAYS), min_length=1, description="Days of the week on which the window opens.")
    start: str = Field(alias="from", pattern=TIME_OF_DAY, description="Local time at which the window opens, HH:MM.")
    until: str = Field(pattern=TIME_OF_DAY, description="Local time at which the window closes, HH:MM.")
    timezone: str = Field(default="UTC", description="Time zone from the IANA database, such as Europe/Zurich.")

    @model_validator(mode="after")
    def _valid(self) -> MaintenanceWindow:
        try:
            ZoneInfo(self.timezone)
        # OSError: the name of a folder of the database, such as `Europe`.
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"expected a time zone of the IANA database; found {self.timezone!r}") from None
        if self.start == self.until:
            raise ValueError("`from` and `until` are the same")
        return self

    def is_open(self, now: datetime) -> bool:
        """Return whether devices may be updated at the time `now`, which must have a time zone."""
        local = now.astimezone(ZoneInfo(self.timezone))
        start, until = time.fromisoformat(self.start), time.fromisoformat(self.until)
        today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
        at = local.time()
        if start < until:
            return today in self.days and start <= at < until
        return (today in self.days and at >= start) or (yesterday in self.days and at < until)


class RolloutPolicy(Block):
    """The rules of a fleet's rollouts: waves, bake time, failure budget, verdict, maintenance window and approval."""

    waves: list[WaveRule] | None = Field(
        default=None,
        min_length=1,
        description="Waves in the order of the rollout. If null, devices with the same `wave` number form one wave.",
    )
    bake_s: float = Field(
        default=300.0, ge=0, description="Time for which a wave is observed before its verdict, in seconds."
    )
    bake_poll_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds between two checks of a wave at the start of its bake; later, this time increases.",
    )
    budget: FailureBudget = Field(
        default=FailureBudget(), description="How many devices may fail or be unreachable in a rollout."
    )
    judge: VerdictThresholds = Field(default=VerdictThresholds(), description="Thresholds of the verdict on a wave.")
    control: int = Field(default=20, ge=0, description="Maximum number of devices in the control group of a wave.")
    unfit: Literal["stop", "skip"] = Field(
        default="stop",
        description="If a device cannot run its release, `stop` refuses the rollout, and `skip` leaves out the device.",
    )
    clock_skew_s: float = Field(
        default=300.0,
        gt=0,
        description="Largest allowed difference between a device's clock and the controller's, in seconds.",
    )
    window: MaintenanceWindow | None = Field(
        default=None, description="Maintenance window. If null, devices may be updated at any time."
    )
    approve: list[str] = Field(default=[], description="Names of the waves that need an approval.")
    approvers: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[],
        description="Users who may approve a wave; an empty list allows all users. Names are recorded, not verified.",
    )
    four_eyes: bool = Field(
        default=False, description="If true, the user who began a rollout must not approve its waves."
    )

    @model_validator(mode="after")
    def _wave_names(self) -> RolloutPolicy:
        if self.waves is not None:
            names = [wave.name for wave in self.waves]
            if len(set(names)) < len(names):
                raise ValueError(f"expected a different name for each wave; found {', '.join(names)}")
            unknown = sorted(set(self.approve) - set(names))
            if unknown:
                raise ValueError(f"approve: expected names of waves; found {', '.join(unknown)}")
        return self


def parse(value: Any, where: str) -> RolloutPolicy:
    """Parse the `rollout:` variable of an inventory. Raises InventoryError, which lists every error.

    Args:
        value: The value of the variable; None selects all defaults.
        where: The file that sets the variable, for the error message.
    """
    try:
        return RolloutPolicy.model_validate(value if value is not None else {})
    except ValidationError as error:
        lines = [
            f"  {'.'.join(['rollout', *map(str, fault['loc'])])}: found {str(fault['input'])[:80]!r}; {fault['msg']}"
            for fault in error.errors()
        ]
        raise InventoryError(
            where,
            "\n".join([f"{len(lines)} error(s)", *lines]),
            "a rollout policy as described in docs/reference/rollout-policy.md",
            "correct each of these errors",
        ) from None


def require_open_window(policy: RolloutPolicy, path: Path) -> None:
    """Check that the maintenance window of a rollout policy is open now. Raises PausedError if it is closed.

    `path` is the path of the inventory, which the error message names.
    """
    window, now = policy.window, datetime.now(UTC)
    if window and not window.is_open(now):
        raise PausedError(
            f"{path}: rollout.window",
            f"the maintenance window is closed now ({now.isoformat(timespec='minutes')})",
            f"{', '.join(window.days)} {window.start} to {window.until} {window.timezone}",
            "wait until the window opens; in an emergency, use --outside-window or -e rollout_outside_window=true",
        )
