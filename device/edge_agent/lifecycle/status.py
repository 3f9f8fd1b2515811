"""`edge-agent status`: what is declared, what is installed, and what the service really has loaded."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError
from edge_agent.core.space import disk_space
from edge_agent.lifecycle import control_client


def status(config: Config, report: bool = False) -> dict[str, Any]:
    """Takes no lock and answers also where no service runs: it is the first thing that a person asks for.

    `report`: with what the service counted since the switch, None where it says nothing.
    """
    layout = config.layout
    known = state.load(layout)
    try:
        service = control_client.call(layout, "GET", "/status", timeout_s=5.0)
        fault = None
    except AgentError as error:
        service, fault = None, error.as_json()
    counted = {"report": _report(config) if service else None} if report else {}
    return {
        "time": state.now(),
        "device": _device(config),
        "current": known.current,
        "previous": known.previous,
        "trial": None if known.trial is None else {**asdict(known.trial), "starts_allowed": config.trial.starts},
        "bad": dict(known.bad),
        "trusted_time": known.trusted_time,
        "installed": _installed(config),
        "service": {
            "running": service is not None or fault is not None,
            "fault": fault,
            **{name: (service or {}).get(name) for name in FROM_SERVICE},
        },
        "disk": _disk(config),
        **counted,
    }


def _report(config: Config) -> dict[str, Any] | None:
    try:
        return control_client.call(config.layout, "GET", "/report", timeout_s=5.0)
    except AgentError:
        return None


# What the service's own /status holds; null where it does not run.
FROM_SERVICE = ("loaded", "healthy", "reason", "ready", "trial", "uptime_seconds", "events")


def _installed(config: Config) -> list[str]:
    """Slots by name, the parts of installs left out. Their bytes are `edge-agent verify`'s matter."""
    try:
        names = [path.name for path in config.layout.releases.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def _device(config: Config) -> dict[str, Any]:
    machine = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "id": config.device.id,
        "type": config.device.type,
        "architecture": machine.machine,
        "kernel": machine.release,
        "memory_bytes": memory,
        "cpus": os.cpu_count(),
        "targets": list(config.device.targets),
    }


def _disk(config: Config) -> dict[str, int] | None:
    try:
        disk = disk_space(config.layout.state)
    except FileNotFoundError:
        return None
    return {"total_bytes": disk.total_bytes, "free_bytes": disk.free_bytes}
