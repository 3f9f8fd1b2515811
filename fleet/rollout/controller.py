"""Control a rollout: open a wave, judge it, decide which devices roll back, close the rollout.

Each step reads the rollout's record, makes a decision and saves the decision in the record. Only then are devices
updated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.core import durable

from fleet import audit_log
from fleet.devices import eligibility
from fleet.devices.messages import AgentStatus, StatusResponse
from fleet.errors import BusyError, ConfigurationError
from fleet.records import report, rollout_audit, rollout_folder
from fleet.records.record_files import Reports
from fleet.records.rollout_folder import Record
from fleet.records.state import NOBODY, BudgetCharge, DeviceState, RolloutState, WaveState, owner
from fleet.rollout import decisions, verdict
from fleet.rollout.step_results import ClosedRollout, RollbackDecision, WaveOpening, WaveVerdict
from fleet.rollout.verdict_checks import DeviceObservation, SwitchOutcome

RefreshPayload = Callable[[set[str]], tuple[bool, str]]


@dataclass(frozen=True)
class DeployOutcome:
    """The outcome of a device's switch to the new release, the reason for the outcome, and the device's latest status.

    The status is None if the device did not respond to the last query.
    """

    outcome: SwitchOutcome
    reason: str
    status: AgentStatus | None


class RolloutController:
    """Controls one rollout, and saves every decision in the rollout's record.

    The constructor raises BusyError if another process controls the rollout.
    """

    def __init__(self, folder: Path) -> None:
        self.record = Record(folder)
        self.state: RolloutState = self.record.load()
        if self.state.owner != owner() and self.state.owner.is_alive():
            raise BusyError(
                str(folder),
                f"process {self.state.owner.pid} on host {self.state.owner.host} is running this rollout",
                "a single process that runs the rollout",
                "wait until that process ends, or stop it",
            )
        self.plan = self.record.plan
        self.policy = self.plan.rules

    def save(self, state: RolloutState) -> None:
        """Replace the rollout's state, in memory and on disk. Raises OSError."""
        self.state = state
        self.record.save(state)

    def log(
        self,
        action: str,
        result: str,
        device: str | None = None,
        detail: str = "",
        since: str | None = None,
        wave: WaveState | None = None,
    ) -> None:
        """Append a line to the rollout's audit trail.

        Args:
            action: What was done.
            result: The result of the action.
            device: The device that the action concerns; None if it does not concern a single device.
            detail: A human-readable explanation.
            since: The time at which the action began; the line records the time since then. None records no duration.
            wave: The wave whose devices the action concerns.
        """
        rollout_audit.append(
            self.record,
            action,
            result=result,
            device=device,
            release=self.state.devices[device].release if device else None,
            seconds=rollout_audit.seconds_since(since),
            detail=detail,
            devices=wave.devices if wave else (),
        )

    # --- a wave

    def open_wave(
        self,
        devices: Sequence[str],
        approved_by: str | None = None,
        refresh_payload: RefreshPayload = lambda _: (False, ""),
    ) -> WaveOpening:
        """Decide whether a wave may begin. If so, record that its devices could be running the new release from now on.

        Args:
            devices: The devices of the wave.
            approved_by: The user who approves the wave in this run; None if no user approves it.
            refresh_payload: A function that ensures that the payload contains the given releases and the current
                metadata. It returns whether it packed the payload again, and an error text (empty if it succeeded).
        """
        wave = self.wave_of(devices)
        packed, now = False, datetime.now(UTC)
        reason = decisions.refusal(
            self.state, self.policy, wave, approved_by=approved_by, began_by=self.plan.by, now=now
        )
        if not reason:
            packed, problem = refresh_payload({self.state.devices[name].release for name in devices})
            reason = problem and f"wave {wave.name} waits: {problem}"
        if reason:
            if self.state.status == "running" and wave.status != "pass" and not self.state.has_failed:
                self.log("pause", "paused", detail=reason, wave=wave)
                self.save(replace(self.state, status="paused", reason=reason))
            return WaveOpening(go=False, wave=wave.name, reason=reason, rest=[], bake_s=None, packed=packed)
        approver = (wave.approved_by or approved_by) if wave.approve else None
        if approver and not wave.approved_by:
            self.log("approve", "go", detail=f"wave {wave.name}: {approver}", wave=wave)
        state = self.state.with_wave(wave.name, status="open", opened=audit_log.now(), approved_by=approver, lost=None)
        for name in devices:
            state = state.with_device(name, touched=True)
        self.log("open", "go", detail=f"wave {wave.name}: {', '.join(devices)}", wave=wave)
        self.save(state)
        group = decisions.control_group(state, self.policy, wave)
        bake_s = self.policy.bake_s
        return WaveOpening(go=True, wave=wave.name, reason="", rest=group, bake_s=bake_s, packed=packed)

    def wave_of(self, devices: Sequence[str]) -> WaveState:
        """Return the wave that consists of exactly these devices. Raises ConfigurationError if there is none."""
        for wave in self.state.waves:
            if set(devices) == set(wave.devices):
                return wave
        raise ConfigurationError(
            str(self.record.folder),
            f"no wave of this rollout has the devices {', '.join(devices)}",
            f"all devices of one wave ({' / '.join(f'{w.name}: ' + ', '.join(w.devices) for w in self.state.waves)})",
            "run all plays of rollout.yml, not only some of them",
        )

    def judge_wave(
        self, devices: Mapping[str, DeployOutcome], control_group: Mapping[str, AgentStatus | None]
    ) -> WaveVerdict:
        """Judge a wave after its bake, and record the verdict.

        Args:
            devices: For each device of the wave, the outcome of its switch to the new release, and its latest status.
            control_group: The latest status of each device of the control group, by device name.
        """
        wave, before = self.wave_of(list(devices)), self.record.before
        failures = wave.lost.devices if wave.lost else {}
        observed = [
            self.observe(
                name, replace(each, outcome="failed", reason=failures[name]) if name in failures else each, before
            )
            for name, each in devices.items()
        ]
        control = [
            DeviceObservation(name, "ok", "", before.get(name), status.report if status else None)
            for name, status in control_group.items()
        ]
        budget = self.wave_budget(wave)
        result = verdict.judge(
            self.policy.judge,
            {name: self.state.devices[name].release for name in wave.devices},
            observed,
            control,
            failed_budget=budget["failed"],
            unreachable_budget=budget["unreachable"],
            early_failure=wave.lost.reason if wave.lost else "",
        )
        state = decisions.with_verdict(self.state, wave, observed, result, audit_log.now())
        statuses = {**{name: each.status for name, each in devices.items()}, **control_group}
        durable.write_file(self.record.folder / "reports" / f"{wave.name}.json", rollout_folder.encode(statuses))
        for name in devices:
            self.log("deploy", state.devices[name].outcome, name, state.devices[name].reason)
        self.log("judge", result.status, detail=f"wave {wave.name}: {result.reason()}", since=wave.opened, wave=wave)
        self.save(state)
        return WaveVerdict(wave.name, result.status, result.reason())

    def observe(self, name: str, deployed: DeployOutcome, before: Reports) -> DeviceObservation:
        """Return the outcome of a device's switch, the device's report from before the rollout, and its latest report.

        The outcome is `failed` if the device has loaded a different model file than the published one, or if it has
        rolled back automatically.

        Args:
            name: The device's name.
            deployed: The outcome of the device's switch to the new release, and its latest status.
            before: The reports of all devices from before the rollout, by device name.
        """
        device, status = self.state.devices[name], deployed.status
        outcome, reason = deployed.outcome, deployed.reason
        if outcome == "ok" and status is not None:
            loaded = eligibility.loaded_model(status)
            if loaded and loaded.release == device.release:
                published = self.plan.releases[device.release].targets.get(loaded.target)
                if loaded.sha256 != published:
                    outcome = "failed"
                    reason = f"has loaded a model file with sha256 {loaded.sha256[:12]}, not {str(published)[:12]}"
            elif device.release in status.bad:
                outcome, reason = "failed", f"it rolled back automatically: {status.bad[device.release]}"
        return DeviceObservation(name, outcome, reason, before.get(name), status.report if status else None)

    def wave_budget(self, wave: WaveState) -> dict[str, int]:
        """Return how many devices of a wave may fail and how many may be unreachable."""
        return decisions.wave_budget(self.state, self.policy, self.plan.size, wave)

    # --- the end

    def decide_rollbacks(self, statuses: Mapping[str, AgentStatus | None]) -> RollbackDecision:
        """Decide which devices roll back, and record the decision.

        `statuses` has the latest status of each device that the rollout may have updated, by device name.
        """
        failures: dict[str, tuple[BudgetCharge, str]] = {}
        for name, device in self.state.devices.items():
            passed = device.touched and device.outcome == "ok" and name in statuses
            if passed and (reason := self._late_failure(device, statuses[name])):
                failures[name] = ("unreachable" if statuses[name] is None else "failed", reason)
        state = decisions.with_late_failures(self.state, failures, self.policy, self.plan.size, audit_log.now())
        orders, kept = decisions.rollbacks(state, self.record.id)
        for name, reason in kept.items():
            since = decisions.rollback_decided(state, state.devices[name])
            state = state.with_device(name, outcome="failed", reason=reason)
            self.log("back", "kept", name, decisions.NO_PREVIOUS_RELEASE, since=since)
        self.save(state)
        return RollbackDecision(orders, state.has_failed)

    def _late_failure(self, device: DeviceState, status: AgentStatus | None) -> str:
        """Return why a device has failed since its wave passed, or an empty string if it has not failed."""
        if status is None:
            return "no longer responds"
        if not self._runs_release(device, status):
            reason = status.bad.get(device.release)
            running = eligibility.loaded_release(status) or "nothing"
            return f"runs {running} now" + (f": {reason}" if reason else "")
        return ""

    def is_confirmed(self, name: str, status: AgentStatus | None) -> bool:
        """Return whether a device runs its new release and has confirmed it. If so, it need not be queried again."""
        return self._runs_release(self.state.devices[name], status)

    def _runs_release(self, device: DeviceState, status: AgentStatus | None) -> bool:
        return eligibility.runs(status, device.release, self.plan.releases[device.release])

    def close(self, rolled_back: Mapping[str, StatusResponse]) -> ClosedRollout:
        """Record which rollbacks succeeded, then end or pause the rollout.

        `rolled_back` has the response of each device that had to roll back, by device name.
        """
        state = self.state
        for name, response in rolled_back.items():
            device, status = state.devices[name], response.status
            since = decisions.rollback_decided(state, device)
            running = eligibility.loaded_release(status)
            if status is not None and running == device.was:
                # A device that failed keeps the reason for its own failure.
                state = state.with_device(name, outcome="back", reason=device.reason or "the rollout failed")
                self.log("back", "back", name, f"runs {device.was}", since=since)
            else:
                reason = response.reason or f"runs {running}"
                state = state.with_device(name, outcome="pending", reason=f"not rolled back to {device.was}: {reason}")
                self.log("back", "pending", name, reason, since=since)
        state = decisions.ended(state, audit_log.now())
        self.log("close", state.status, detail=state.reason, since=self.record.began)
        self.save(replace(state, owner=NOBODY))  # from now on, another process may resume a paused rollout
        report.write(self.record, state)
        if state.ended:
            (self.record.folder / rollout_folder.PUSH).unlink(missing_ok=True)
        return ClosedRollout(
            id=self.record.id,
            status=state.status,
            reason=state.reason,
            table=report.table(state),
            record=str(self.record.folder),
        )
