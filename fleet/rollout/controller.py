"""The course of a rollout: a wave is opened, judged; what failed is sent back; the rollout is closed.

Each step reads the record, decides, and writes the record before its answer makes anything happen on a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.core import durable

from fleet import audit
from fleet.devices import eligibility
from fleet.errors import BusyError, ConfigurationError
from fleet.inventory.rollout_policy import Rules, of_fleet
from fleet.records import audit_trail, report, store
from fleet.records.state import NOBODY, DeviceState, RolloutState, WaveState, owner
from fleet.records.store import Record

Json = dict[str, Any]
NOWHERE = "it ran no release before"


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
        self.rules = Rules.model_validate(self.plan["rules"])

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
        audit_trail.append(
            self.record,
            action,
            result=result,
            device=device,
            release=self.state.devices[device].release if device else None,
            seconds=audit_trail.since(since),
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
        packed, refused = False, self._closed(wave, approved_by)
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
        state = self.state.with_wave(wave.name, status="open", opened=audit.now(), approved_by=by, lost=None)
        for name in devices:
            state = state.with_device(name, touched=True)
        self.say("open", "go", detail=f"wave {wave.name}: {', '.join(devices)}", wave=wave)
        self.save(state)
        told = {"wave": wave.name, "reason": "", "rest": self._rest(wave), "bake_s": self.rules.bake_s}
        return {"go": True, **told, "packed": packed}

    def _rest(self, wave: WaveState) -> list[str]:
        """Some devices that do not change meanwhile, spread over the fleet, to compare the wave with."""
        there = [
            name
            for name, device in self.state.devices.items()
            if not device.touched and device.outcome in ("planned", "ok") and name not in wave.devices
        ]
        wanted = min(self.rules.control, len(there))
        return [there[place * len(there) // wanted] for place in range(wanted)]

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

    def _closed(self, wave: WaveState, approved_by: str | None) -> str:
        """Why the wave may not begin, or nothing."""
        for each in self.state.waves:
            if each.name == wave.name:
                break
            if each.status != "pass":
                return f"wave {each.name} before it did not pass ({each.status})"
        if self.state.status != "running":
            return self.state.reason
        if wave.approve and not wave.approved_by:
            if not approved_by:
                why = f" ({wave.why})" if wave.why else ""
                return (
                    f"wave {wave.name} waits for approval{why}: --approve {wave.name}, -e rollout_approve={wave.name}"
                )
            allowed = self.rules.approvers
            if allowed and approved_by not in allowed:
                return f"wave {wave.name} waits: {approved_by} is not one of rollout.approvers: {', '.join(allowed)}"
            if self.rules.four_eyes and approved_by == self.plan.get("by"):
                return f"wave {wave.name} waits: {approved_by} began this rollout, rollout.four_eyes asks another"
        window = self.rules.window
        if window and not self.state.outside_window and not window.is_open(datetime.now(UTC)):
            return f"wave {wave.name} waits: the maintenance window is closed"
        return ""

    def judge(self, devices: Mapping[str, Json], rest: Mapping[str, Json | None]) -> Json:
        """The verdict on a wave after its bake.

        `devices`: name -> {"outcome", "reason", "status"}; `rest`: name -> status, of some that did not change.
        """
        from fleet.rollout import verdict

        wave = self.wave_of(list(devices))
        before = self.record.before
        left = self.left(wave)
        lost = wave.lost or {"reason": "", "devices": {}}
        told_of = {
            name: {**told, "outcome": "failed", "reason": lost["devices"][name]} if name in lost["devices"] else told
            for name, told in devices.items()
        }
        seen = [self.seen(name, told, before) for name, told in told_of.items()]
        others = [
            verdict.Seen(name, "ok", "", before.get(name), (status or {}).get("report"))
            for name, status in rest.items()
        ]
        judged = verdict.judge(
            self.rules.judge,
            {name: self.state.devices[name].release for name in wave.devices},
            seen,
            others,
            failed_left=left["failed"],
            unreachable_left=left["unreachable"],
            lost=lost["reason"],
        )
        state = self.state.with_wave(wave.name, status=judged.status, judged=audit.now(), verdict=judged.as_json())
        for name in devices:
            reason = next((each.reason for each in seen if each.device == name), "")
            spent = "failed" if name in judged.failed else "unreachable" if name in judged.unreachable else ""
            state = state.with_device(name, outcome=spent or "ok", reason=judged.why.get(name) or reason, spent=spent)
        if judged.status == "inconclusive":
            state = replace(state, status="paused", reason=f"wave {wave.name}: {judged.reason()}")
        if judged.status == "fail":
            state = replace(state, reason=f"wave {wave.name}: {judged.reason()}")
        reports = self.record.folder / "reports" / f"{wave.name}.json"
        durable.write_file(reports, store.content({**{n: d["status"] for n, d in devices.items()}, **rest}))
        for name in devices:
            self.say("deploy", state.devices[name].outcome, name, state.devices[name].reason)
        self.say("judge", judged.status, detail=f"wave {wave.name}: {judged.reason()}", since=wave.opened, wave=wave)
        self.save(state)
        return {"wave": wave.name, "status": judged.status, "reason": judged.reason()}

    def seen(self, name: str, told: Json, before: Json) -> Any:
        from fleet.rollout import verdict

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
        return verdict.Seen(name, outcome, reason, before.get(name), (status or {}).get("report"))

    def left(self, but: WaveState) -> dict[str, int]:
        """What earlier waves, and those who could not take part, left of the budget. A canary may not fail."""
        if but.canary:
            return {"failed": 0, "unreachable": 0}
        left = self._left([device for name, device in self.state.devices.items() if name not in but.devices])
        return {name: max(number, 0) for name, number in left.items()}

    def _left(self, devices: Iterable[DeviceState]) -> dict[str, int]:
        """What these left of the fleet's budget; below zero where they took more."""
        spent = Counter(device.spent for device in devices)
        budget, size = self.rules.budget, self.plan["size"]
        return {name: of_fleet(getattr(budget, name), size) - spent[name] for name in ("failed", "unreachable")}

    # --- the end

    def settle(self, statuses: Mapping[str, Json | None]) -> Json:
        """Who has to go back, and to which release, after every device that was touched was asked once more."""
        state = self.state
        for name, device in state.devices.items():
            if device.touched and device.outcome == "ok" and name in statuses:
                wrong = self._late(device, statuses[name])
                if wrong:
                    spent = "unreachable" if statuses[name] is None else "failed"
                    state = state.with_device(name, outcome=spent, reason=wrong, spent=spent)
        late = [name for name, device in state.devices.items() if device != self.state.devices[name]]
        if late and not self.state.has_failed:
            canaries = [name for name in late if state.wave(state.devices[name].wave).canary]
            if canaries or min(self._left(state.devices.values()).values()) < 0:
                told = "; ".join(f"{name}: {state.devices[name].reason}" for name in canaries or late)
                wave = state.devices[(canaries or late)[0]].wave
                state = replace(
                    state.with_wave(wave, status="fail", judged=audit.now()),
                    status="running",
                    reason=f"after wave {wave}, {told}",
                )
        back: Json = {}
        for name, device in state.devices.items():
            if device.touched and (state.has_failed or device.outcome == "failed"):
                if device.was is not None:
                    reason = f"rollout {self.record.id}: {device.reason or state.reason}"[:500]
                    back[name] = {"to": device.was, "reason": reason}
                elif NOWHERE not in device.reason:
                    why = f"{device.reason or state.reason}; it stays on {device.release}: {NOWHERE}"
                    state = state.with_device(name, outcome="failed", reason=why)
                    self.say("back", "kept", name, NOWHERE, since=_verdict(state, device))
        self.save(state)
        return {"back": back, "failed": self.state.has_failed}

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
            if status is not None and eligibility.loaded(status).get("release") == device.was:
                # Why it failed is kept where it did; those that only were called back say so.
                state = state.with_device(name, outcome="back", reason=device.reason or "the rollout failed")
                self.say("back", "back", name, f"runs {device.was}", since=_verdict(state, device))
            else:
                why = told["reason"] or f"runs {eligibility.loaded(status).get('release')}"
                state = state.with_device(name, outcome="pending", reason=f"not back at {device.was}: {why}")
                self.say("back", "pending", name, why, since=_verdict(state, device))
        if self.state.has_failed:
            state = replace(state, status="failed", ended=audit.now())
        elif state.status == "running":
            done = all(wave.status == "pass" for wave in state.waves)
            state = replace(
                state,
                status="passed" if done else "paused",
                reason=state.reason if done else state.reason or "not every wave was judged",
                ended=audit.now() if done else None,
            )
        self.say("close", state.status, detail=state.reason, since=self.record.began)
        self.save(replace(state, owner=NOBODY))  # a paused one may be taken up from here on
        report.write(self.record, state)
        if state.ended:
            (self.record.folder / store.PUSH).unlink(missing_ok=True)
        return {
            "id": self.record.id,
            "status": state.status,
            "reason": state.reason,
            "table": report.table(state),
            "record": str(self.record.folder),
        }


def _verdict(state: RolloutState, device: DeviceState) -> str | None:
    """When it was decided that a device goes back: when the first wave failed, or else its own was judged."""
    failed = [wave.judged for wave in state.waves if wave.status == "fail" and wave.judged]
    return min(failed) if failed else state.wave(device.wave).judged
