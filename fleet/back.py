"""Devices are called back by hand (playbooks/rollback.yml): what that means for rollouts, and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet import audit, fitness, pending, record

Json = dict[str, Any]


def begin(fleet: str, root: Path) -> Json:
    """Give up the rollout that is unfinished: else the next run would go on with it. Raises BusyError while it runs."""
    with record.locked(fleet, root):
        begun = record.unfinished(fleet, root)
        if begun is None:
            return {"given_up": None}
        state = replace(begun.load(), status="failed", reason="given up: called back by hand", ended=record.now())
        audit.append(root / fleet / audit.FILE, "give up", fleet=fleet, rollout=begun.id, result="failed")
        begun.save(state)
    return {"given_up": begun.id}


def end(fleet: str, root: Path, devices: Mapping[str, Json], reason: str) -> Json:
    """Who is back, by what is loaded. `devices`: name -> {"rc", "said", "status", "reason"} of its rollback."""
    rows, wrong = [], []
    for name, told in devices.items():
        wanted = (told["said"] or {}).get("release")
        loaded = fitness.loaded(told["status"]).get("release")
        good = wanted is not None and loaded == wanted
        detail = "" if good else told["reason"] or f"has loaded {loaded or 'nothing'}, not {wanted}"
        audit.append(
            root / fleet / audit.FILE,
            "rollback",
            fleet=fleet,
            device=name,
            release=wanted,
            result="back" if good else "failed",
            detail=detail or reason,
        )
        rows.append(f"{name}: " + (f"runs {loaded}" if good else f"NOT back: {detail}"))
        wrong += [] if good else [name]
    with record.locked(fleet, root):  # who is off a release that failed, by hand, is not called back once more
        pending.settle(fleet, root, pending.of(fleet, root, devices), devices)
    return {"table": rows, "failed": wrong}
