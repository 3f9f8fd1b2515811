"""The course of a rollout: a wave is opened, judged; what failed is sent back; the rollout is closed.

Each step reads the record, decides, and writes the record before its answer makes anything happen on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.core import durable

from fleet import audit_log
from fleet.devices import eligibility
from fleet.errors import BusyError, ConfigurationError
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.records import report, rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import NOBODY, DeviceState, RolloutState, Spent, WaveState, owner
from fleet.rollout import decisions, verdict
from fleet.rollout.verdict import Seen

Json = dict[str, Any]


class Course:
    """One rollout, by its folder. Raises BusyError where it became another process' meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.record = Record(folder)
        self.state: RolloutState = self.record.load()
        if self.state.owner != owner() and self.state.owner.is_alive():
            raise BusyError(
                str(folder),
                f"process {self.state.owner.pid} on {self.state.owner.host} conducts it",
                "nobody else",
                "wait until that ends",
            )
        self.plan = self.record.plan
        self.rules = RolloutPolicy.model_validate(self.plan["rules"])

    def save(self, state: RolloutState) -> None:
        self.state = state
        self.record.save(state)

    def say(
        self,
        action: str,
        result: str,
        device: str | None = None,
        detail: str = "",
        since: str | None = None,
        wave: WaveState | None = None,
    ) -> None:
        """`since`: when began what has ended now. `wave`: what is about all of its devices."""
        rollout_audit.append(
            self.record,
            action,
            result=result,
            device=device,
            release=self.state.devices[device].release if device else None,
            seconds=rollout_audit.since(since),
            detail=detail,
            devices=wave.devices if wave else (),
        )

    # --- a wave

    def open(
        self,
        devices: list[str],
        approved_by: str | None = None,
        renew: Callable[[set[str]], tuple[bool, str]] = lambda _: (False, ""),
    ) -> Json:
        """Whether the wave of these devices may begin. From here on they count as touched.

        `renew`: has these releases ready as they are offered now; whether that was packed anew, why it cannot be had.
        """
        wave = self.wave_of(devices)
        packed, now = False, datetime.now(UTC)
        refused = decisions.refusal(self.state, self.rules, wave, approved_by, self.plan.get("by"), now)
        if not refused:
            packed, wrong = renew({self.state.devices[name].release for name in devices})
            refused = wrong and f"wave {wave.name} waits: {wrong}"
        if refused:
            if self.state.status == "running" and wave.status != "pass" and not self.state.has_failed:
                self.say("pause", "paused", detail=refused, wave=wave)
                self.save(replace(self.state, status="paused", reason=refused))
            return {"go": False, "wave": wave.name, "reason": refused, "rest": [], "packed": packed}
        by = (wave.approved_by or approved_by) if wave.approve else None
        if by and not wave.approved_by:
            self.say("approve", "go", detail=f"wave {wave.name}: {by}", wave=wave)
        state = self.state.with_wave(wave.name, status="open", opened=audit_log.now(), approved_by=by, lost=None)
        for name in devices:
            state = state.with_device(name, touched=True)
        self.say("open", "go", detail=f"wave {wave.name}: {', '.join(devices)}", wave=wave)
        self.save(state)
        rest = decisions.control_group(state, self.rules, wave)
        told = {"wave": wave.name, "reason": "", "rest": rest, "bake_s": self.rules.bake_s}
        return {"go": True, **told, "packed": packed}

    def wave_of(self, devices: list[str]) -> WaveState:
        for wave in self.state.waves:
            if set(devices) == set(wave.devices):
                return wave
        raise ConfigurationError(
            str(self.record.folder),
            f"{', '.join(devices)} are no wave of it",
            "; ".join(f"{wave.name}: {', '.join(wave.devices)}" for wave in self.state.waves),
            "begin anew: do not run single plays of rollout.yml",
        )

    def judge(self, devices: Mapping[str, Json], rest: Mapping[str, Json | None]) -> Json:
        """The verdict on a wave after its bake.

        `devices`: name -> {"outcome", "reason", "status"}; `rest`: name -> status, of some that did not change.
        """
        wave = self.wave_of(list(devices))
        lost = wave.lost or {"reason": "", "devices": {}}
        seen = self._observed(devices, lost["devices"])
        left = self.left(wave)
        judged = verdict.judge(
            self.rules.judge,
            {name: self.state.devices[name].release for name in wave.devices},
            seen,
            self._control(rest),
            failed_left=left["failed"],
            unreachable_left=left["unreachable"],
            lost=lost["reason"],
        )
        state = decisions.with_verdict(self.state, wave, seen, judged, audit_log.now())
        reports = self.record.folder / "reports" / f"{wave.name}.json"
        durable.write_file(reports, rollout_folder.content({**{n: d["status"] for n, d in devices.items()}, **rest}))
        for name in devices:
            self.say("deploy", state.devices[name].outcome, name, state.devices[name].reason)
        self.say("judge", judged.status, detail=f"wave {wave.name}: {judged.reason()}", since=wave.opened, wave=wave)
        self.save(state)
        return {"wave": wave.name, "status": judged.status, "reason": judged.reason()}

    def _observed(self, devices: Mapping[str, Json], lost: Mapping[str, str]) -> list[Seen]:
        """The devices of a wave. `lost`: name -> why it failed while the wave was watched."""
        before = self.record.before
        return [
            self.seen(name, {**told, "outcome": "failed", "reason": lost[name]} if name in lost else told, before)
            for name, told in devices.items()
        ]

    def _control(self, rest: Mapping[str, Json | None]) -> list[Seen]:
        before = self.record.before
        return [Seen(name, "ok", "", before.get(name), (status or {}).get("report")) for name, status in rest.items()]

    def seen(self, name: str, told: Json, before: Json) -> Seen:
        device, status = self.state.devices[name], told["status"]
        outcome, reason = told["outcome"], told["reason"]
        if outcome == "ok" and status is not None:
            found = eligibility.loaded(status)
            if found.get("release") == device.release:
                expected = self.plan["releases"][device.release]["targets"].get(found["target"])
                if found["sha256"] != expected:
                    outcome, reason = "failed", f"has loaded sha256 {found['sha256'][:12]}, not {str(expected)[:12]}"
            elif device.release in status["bad"]:
                outcome, reason = "failed", f"it went back by itself: {status['bad'][device.release]}"
        return Seen(name, outcome, reason, before.get(name), (status or {}).get("report"))

    def left(self, wave: WaveState) -> dict[str, int]:
        """What is left of the budget for a wave: failed, unreachable."""
        return decisions.budget_of_wave(self.state, self.rules, self.plan["size"], wave)

    # --- the end

    def settle(self, statuses: Mapping[str, Json | None]) -> Json:
        """Who has to go back, and to which release, after every device that was touched was asked once more."""
        failures: dict[str, tuple[Spent, str]] = {}
        for name, device in self.state.devices.items():
            asked = device.touched and device.outcome == "ok" and name in statuses
            if asked and (wrong := self._late(device, statuses[name])):
                failures[name] = ("unreachable" if statuses[name] is None else "failed", wrong)
        state = decisions.with_late_failures(self.state, failures, self.rules, self.plan["size"], audit_log.now())
        back, kept = decisions.rollbacks(state, self.record.id)
        for name, why in kept.items():
            since = decisions.verdict_time(state, state.devices[name])
            state = state.with_device(name, outcome="failed", reason=why)
            self.say("back", "kept", name, decisions.NOWHERE, since=since)
        self.save(state)
        return {"back": back, "failed": state.has_failed}

    def _late(self, device: DeviceState, status: Json | None) -> str:
        """What is wrong with a device that was well when its wave was judged, or nothing."""
        if status is None:
            return "does not answer any more"
        if not self._runs(device, status):
            why = status["bad"].get(device.release)
            return f"runs {eligibility.loaded(status).get('release', 'nothing')} now" + (f": {why}" if why else "")
        return ""

    def is_well(self, name: str, status: Json | None) -> bool:
        """Whether a device runs its release, confirmed: by what it said just now, nothing is left to settle."""
        return self._runs(self.state.devices[name], status)

    def _runs(self, device: DeviceState, status: Json | None) -> bool:
        return eligibility.runs(status, device.release, self.plan["releases"][device.release])

    def close(self, back: Mapping[str, Json]) -> Json:
        """The end. `back`: name -> {"status", "reason"} of those that were sent back."""
        state = self.state
        for name, told in back.items():
            device, status = state.devices[name], told["status"]
            since = decisions.verdict_time(state, device)
            if status is not None and eligibility.loaded(status).get("release") == device.was:
                # Why it failed is kept where it did; those that only were called back say so.
                state = state.with_device(name, outcome="back", reason=device.reason or "the rollout failed")
                self.say("back", "back", name, f"runs {device.was}", since=since)
            else:
                why = told["reason"] or f"runs {eligibility.loaded(status).get('release')}"
                state = state.with_device(name, outcome="pending", reason=f"not back at {device.was}: {why}")
                self.say("back", "pending", name, why, since=since)
        state = decisions.ended(state, audit_log.now())
        self.say("close", state.status, detail=state.reason, since=self.record.began)
        self.save(replace(state, owner=NOBODY))  # a paused one may be taken up from here on
        report.write(self.record, state)
        if state.ended:
            (self.record.folder / rollout_folder.PUSH).unlink(missing_ok=True)
        return {
            "id": self.record.id,
            "status": state.status,
            "reason": state.reason,
            "table": report.table(state),
            "record": str(self.record.folder),
        }
