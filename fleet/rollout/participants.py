"""Decide from the devices' statuses which devices a rollout updates, and in which waves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fleet.devices import eligibility
from fleet.devices.messages import NOT_QUERIED, StatusResponse
from fleet.inventory import rollout_policy
from fleet.inventory.model import Device
from fleet.records.rollout_plan import RolloutPlan
from fleet.records.state import BudgetCharge, DeviceState, Outcome, RolloutState, WaveState, owner
from fleet.rollout.step_results import PreflightResult
from fleet.rollout.waves import plan_limited_waves

SHOWN = 20  # maximum number of devices of a wave that the table lists


class Participants:
    """The devices of a rollout plan, divided into devices to update and devices that cannot or need not be updated."""

    def __init__(
        self,
        plan: RolloutPlan,
        responses: Mapping[str, StatusResponse],
        rows: list[str],
        still_pending: Mapping[str, str],
    ) -> None:
        """Group the devices of a rollout plan by their responses to the status query.

        Args:
            plan: The rollout's plan.
            responses: The devices' responses to the status query, by device name.
            rows: Lines that the terminal shows before the list of waves.
            still_pending: Devices whose pending rollback failed again, each with the reason.
        """
        self.plan, self.responses, self.rows, self.policy = plan, responses, rows, plan.rules
        queried, now = datetime.fromisoformat(plan.asked), datetime.now(UTC)
        self.unreachable: list[str] = []
        self.unfit: dict[str, str] = {}
        self.current: list[str] = []
        for name, device in plan.devices.items():
            status, release_info = self.response(name).status, plan.releases[device.release]
            if status is None:
                self.unreachable.append(name)
            elif name in still_pending:
                self.unfit[name] = f"has to roll back to {plan.pending[name].to} first: {still_pending[name]}"
            elif eligibility.runs(status, device.release, release_info):
                self.current.append(name)
            elif reasons := eligibility.obstacles(
                status, device.release, release_info, queried=queried, now=now, clock_skew_s=self.policy.clock_skew_s
            ):
                self.unfit[name] = "; ".join(reasons)
        # Devices that --limit leaves out are not queried. They keep their places in the waves.
        declared = [
            Device(name, "", device.type, device.wave, device.release, tuple(device.groups), {})
            for name, device in {**plan.devices, **plan.others}.items()
        ]
        declared.sort(key=lambda device: (device.wave, device.name))
        waves = plan_limited_waves(
            declared,
            self.policy,
            plan.size,
            selected=plan.devices,
            excluded={*self.unreachable, *self.unfit},
            current=self.current,
            proven=plan.proven,
        )
        self.absent = [name for wave in waves for name in wave.absent]
        self.waves = [wave for wave in waves if wave.devices]
        self.changing = [name for wave in self.waves for name in wave.devices]

    def response(self, name: str) -> StatusResponse:
        """Return the response of a device."""
        return self.responses.get(name, NOT_QUERIED)

    def refusal(self) -> str:
        """Return why the rollout must not begin, or an empty string if it may begin."""
        allowed = rollout_policy.device_count(self.policy.budget.unreachable, self.plan.size)
        if self.unfit and self.policy.unfit == "stop":
            return (
                f"{len(self.unfit)} device(s) cannot run their release (rollout.unfit: stop): {', '.join(self.unfit)}"
            )
        if len(self.unreachable) > allowed:
            return f"{len(self.unreachable)} device(s) do not respond, {allowed} allowed: {', '.join(self.unreachable)}"
        if self.changing and self.absent:
            return (
                f"{', '.join(self.absent)} of the first wave cannot be updated, but a release that has not yet passed "
                "a wave needs every device of the first wave"
            )
        return ""

    def previous_release(self, name: str) -> str | None:
        """Return the release that a device runs before the rollout, or None if it runs none or did not respond."""
        status = self.response(name).status
        return status.current if status else None

    def state(self) -> RolloutState:
        """Return the initial state of the rollout."""
        wave_of = {name: wave.name for wave in self.waves for name in wave.devices}
        devices = {}
        for name, device in self.plan.devices.items():
            outcome: Outcome = "planned" if name in wave_of else "ok"
            reason = "already runs its release" if name in self.current else ""
            charge: BudgetCharge = ""
            if name in self.unfit:
                outcome, reason = "unfit", self.unfit[name]
            elif name in self.unreachable:
                outcome, reason, charge = "unreachable", self.response(name).reason, "unreachable"
            devices[name] = DeviceState(
                wave_of.get(name, ""), device.release, self.previous_release(name), outcome, reason, spent=charge
            )
        waves = tuple(
            WaveState(wave.name, wave.devices, wave.approve, why=wave.approval_reason, canary=wave.canary)
            for wave in self.waves
        )
        return RolloutState("running", owner(), waves, devices, outside_window=self.plan.outside_window)

    def result(self) -> PreflightResult:
        """Return the result of the preflight: the waves if the new rollout begins, or the reason why it does not."""
        refusal = self.refusal()
        unchanged = "" if self.changing else "every device that responded already runs its declared release"
        return PreflightResult(
            go=not refusal and bool(self.changing),
            status="refused" if refusal else "ready" if self.changing else "unchanged",
            reason=refusal or unchanged,
            unfit=self.unfit,
            record=None,
            order=self.changing,
            serial=[len(wave.devices) for wave in self.waves] or [1],
            touched=[],
            push=None,
            table=self.table(),
        )

    def table(self) -> list[str]:
        """Return lines for the terminal that list the waves, the devices that are not updated, and the budget."""
        rows = list(self.rows)
        for wave in self.waves:
            separator = ": " if wave.approval_reason else ""
            approval = f", needs an approval{separator}{wave.approval_reason}" if wave.approve else ""
            rows.append(f"wave {wave.name}: {len(wave.devices)} device(s){approval}")
            for name in wave.devices[:SHOWN]:
                previous, release = self.previous_release(name), self.plan.devices[name].release
                rows.append(f"  {name}: {previous or 'nothing'} -> {release}")
            if len(wave.devices) > SHOWN:
                rows.append(f"  and {len(wave.devices) - SHOWN} more")
        rows += [f"cannot run its release: {name}: {reason}" for name, reason in self.unfit.items()]
        rows += [f"did not respond: {name}: {self.response(name).reason}" for name in self.unreachable]
        budget, size = self.policy.budget, self.plan.size
        failed = rollout_policy.device_count(budget.failed, size)
        unreachable = rollout_policy.device_count(budget.unreachable, size)
        rows.append(f"already up to date: {len(self.current)} device(s)")
        return [*rows, f"budget: of {size} devices {failed} may fail and {unreachable} may be unreachable"]
