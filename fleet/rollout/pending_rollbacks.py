"""Devices that could not be called back when their rollout failed: the next run of the fleet does that first.

What is pending is what the rollouts' records say, wherever in the past: nothing else is kept. Who is off the release
that failed, by what is loaded, is `back` in the record, however it got there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fleet.devices import eligibility
from fleet.errors import ConfigurationError
from fleet.records import report, rollout_audit, rollout_folder

Json = dict[str, Any]
MARK = b'"outcome": "pending"'  # as Record.save writes it: most records need not be parsed


def of(fleet: str, root: Path, devices: Collection[str], warnings: list[str]) -> dict[str, Json]:
    """Which of `devices` are pending: name -> {"rollout"; "left": the release that failed; "to": the one before}.

    A record that cannot be read is left out, and named in `warnings`.
    """
    found: dict[str, Json] = {}
    for made in rollout_folder.rollouts(fleet, root):
        try:
            known = made.load().devices if MARK in (made.folder / "state.json").read_bytes() else {}
        except (OSError, ConfigurationError) as error:
            warnings.append(f"who was not back after rollout {made.id} is not known: {' '.join(str(error).split())}")
            continue
        for name, device in known.items():
            if device.outcome == "pending" and name in devices:
                found[name] = {"rollout": made.id, "left": device.release, "to": device.was}
    return found


def settle(
    fleet: str, root: Path, pending: Mapping[str, Json], answers: Mapping[str, Json]
) -> tuple[list[str], dict[str, str]]:
    """Write into the records who is back. Lines for people, and who is still pending: name -> why.

    `answers`: device -> {"status", "reason"}, asked after it was sent back. The caller holds the fleet's lock.
    """
    rows, still = [], {}
    for rollout in sorted({told["rollout"] for told in pending.values()}):
        made = rollout_folder.find(fleet, rollout, root)
        state = made.load()
        for name, told in pending.items():
            if told["rollout"] != rollout or state.devices[name].outcome != "pending":
                continue
            answer = answers.get(name, {"status": None, "reason": "it was not asked"})
            loaded = eligibility.loaded(answer["status"]).get("release")
            if loaded in (None, told["left"]):
                why = answer["reason"] or f"runs {loaded or 'nothing'}"
                still[name] = why
                rows.append(f"still pending: {name}: not back at {told['to']} since rollout {rollout}: {why}")
                continue
            reason = f"{state.devices[name].reason}; later: runs {loaded}"
            state = state.with_device(name, outcome="back", reason=reason)
            detail = f"runs {loaded}; was pending"
            rollout_audit.append(made, "back", device=name, release=told["left"], result="back", detail=detail)
            rows.append(f"back: {name}: runs {loaded}; was pending since rollout {rollout}")
        if state != made.load():
            made.save(state)
            report.write(made, state)
    return rows, still
