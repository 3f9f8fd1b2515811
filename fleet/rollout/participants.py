"""What devices answer before a rollout: who can take part, in which waves, and what its record begins with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.devices import eligibility
from fleet.inventory import rollout_policy
from fleet.inventory.model import Device
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.records.state import DeviceState, Outcome, RolloutState, Spent, WaveState, owner
from fleet.rollout.waves import plan_limited_waves

Json = dict[str, Any]


class Found:
    """What the devices' answers mean for a plan."""

    def __init__(self, planned: Json, answers: Mapping[str, Json], rows: list[str], still: Mapping[str, str]) -> None:
        self.planned, self.answers, self.rows = planned, answers, rows
        self.rules = RolloutPolicy.model_validate(planned["rules"])
        asked, now = datetime.fromisoformat(planned["asked"]), datetime.now(UTC)
        self.unreachable: list[str] = []
        self.unfit: dict[str, str] = {}
        self.current: list[str] = []
        for name, told in planned["devices"].items():
            answer = answers.get(name, {"status": None, "reason": "it was not asked"})
            status, offer = answer["status"], planned["releases"][told["release"]]
            if status is None:
                self.unreachable.append(name)
            elif name in still:
                self.unfit[name] = f"has to go back to {planned['pending'][name]['to']} first: {still[name]}"
            elif eligibility.runs(status, told["release"], offer):
                self.current.append(name)
            elif why := eligibility.reasons(status, told["release"], offer, asked, now, self.rules.clock_skew_s):
                self.unfit[name] = "; ".join(why)
        # Those that a limit leaves out are not asked, and keep their places in the waves.
        declared = [
            Device(name, "", told["type"], told["wave"], told["release"], tuple(told["groups"]), {})
            for name, told in {**planned["devices"], **planned["others"]}.items()
        ]
        declared.sort(key=lambda device: (device.wave, device.name))
        only, out = planned["devices"], {*self.unreachable, *self.unfit}
        waves = plan_limited_waves(
            declared, self.rules, planned["size"], only, out, current=self.current, proven=planned["proven"]
        )
        self.absent = [name for wave in waves for name in wave.absent]
        self.waves = [wave for wave in waves if wave.devices]
        self.changing = [name for wave in self.waves for name in wave.devices]

    def refusal(self) -> str:
        """Why the rollout does not begin, or nothing."""
        allowed = rollout_policy.device_count(self.rules.budget.unreachable, self.planned["size"])
        if self.unfit and self.rules.unfit == "stop":
            return f"{len(self.unfit)} device(s) cannot take it (rollout.unfit: stop): {', '.join(self.unfit)}"
        if len(self.unreachable) > allowed:
            return f"{len(self.unreachable)} device(s) do not answer, {allowed} allowed: {', '.join(self.unreachable)}"
        if self.changing and self.absent:
            return f"of the first wave, {', '.join(self.absent)} cannot take part: all have to with a new release"
        return ""

    def was(self, name: str) -> str | None:
        status = self.answers[name]["status"] if name in self.answers else None
        return status["current"] if status else None

    def state(self) -> RolloutState:
        wave_of = {name: wave.name for wave in self.waves for name in wave.devices}
        devices = {}
        for name, told in self.planned["devices"].items():
            outcome: Outcome = "planned" if name in wave_of else "ok"
            reason = "runs it already" if name in self.current else ""
            if name in self.unfit:
                outcome, reason = "unfit", self.unfit[name]
            elif name in self.unreachable:
                outcome, reason = "unreachable", self.answers.get(name, {}).get("reason", "it was not asked")
            spent: Spent = "unreachable" if name in self.unreachable else ""
            release, was = told["release"], self.was(name)
            devices[name] = DeviceState(wave_of.get(name, ""), release, was, outcome, reason, spent=spent)
        waves = tuple(
            WaveState(wave.name, wave.devices, wave.approve, why=wave.why, canary=wave.canary) for wave in self.waves
        )
        window = self.planned["outside_window"]
        return RolloutState("running", owner(), waves, devices, outside_window=window)

    def as_json(self) -> Json:
        refused = self.refusal()
        return {
            "go": not refused and bool(self.changing),
            "status": "refused" if refused else "ready" if self.changing else "unchanged",
            "reason": refused or ("" if self.changing else "every device that answers runs what is declared"),
            "unfit": self.unfit,
            "record": None,
            "order": self.changing,
            "serial": [len(wave.devices) for wave in self.waves] or [1],
            "touched": [],
            "push": None,
            "table": self.table(),
        }

    def table(self) -> list[str]:
        rows = list(self.rows)
        for wave in self.waves:
            asks = f", asks for approval{': ' * bool(wave.why)}{wave.why}" if wave.approve else ""
            rows.append(f"wave {wave.name}: {len(wave.devices)} device(s){asks}")
            for name in wave.devices[:20]:
                rows.append(f"  {name}: {self.was(name) or 'nothing'} -> {self.planned['devices'][name]['release']}")
            if len(wave.devices) > 20:
                rows.append(f"  and {len(wave.devices) - 20} more")
        rows += [f"cannot: {name}: {why}" for name, why in self.unfit.items()]
        rows += [f"no answer: {name}: {self.answers.get(name, {}).get('reason', '')}" for name in self.unreachable]
        budget, size = self.rules.budget, self.planned["size"]
        failed, gone = (
            rollout_policy.device_count(budget.failed, size),
            rollout_policy.device_count(budget.unreachable, size),
        )
        rows.append(f"runs it already: {len(self.current)} device(s)")
        return [*rows, f"budget: of {size} devices {failed} may fail, {gone} be out of reach"]
