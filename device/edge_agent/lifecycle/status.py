"""`edge-agent status`: report the current release, the installed releases and the model that the service has loaded."""

from __future__ import annotations

import os
from typing import Any

from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError
from edge_agent.core.space import disk_space
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.control_messages import ServiceStatus
from edge_agent.lifecycle.results import (
    DeviceInfo,
    DiskStatus,
    ServiceSummary,
    StatusReportResult,
    StatusResult,
    TrialStatus,
)
from edge_agent.lifecycle.unwritten import unwritten

RESPONSE_S = 5.0  # if the service takes longer, `status` reports that it does not respond


def status(config: Config, report: bool = False) -> StatusResult:
    """Return the status of the agent. With `report`, return a StatusReportResult, which adds the service's statistics.

    This is the first command that an operator runs when something fails. So it takes no lock. If the service is stopped
    or hangs, the status reports this, and no error is raised. Raises ConfigurationError if state.json is damaged.
    """
    known_state = state.load(config.layout)
    service = _service(config)
    result = StatusResult(
        time=state.now(),
        device=_device(config),
        current=known_state.current,
        previous=known_state.previous,
        trial=_trial(config, known_state),
        bad=dict(known_state.bad),
        trusted_time=known_state.trusted_time,
        installed=_installed(config),
        service=service,
        disk=_disk(config),
        unwritten=unwritten(config),
    )
    if not report:
        return result
    responds = service.running and service.fault is None
    return StatusReportResult(**vars(result), report=_report(config) if responds else None)


def _service(config: Config) -> ServiceSummary:
    fault = None
    try:
        response = control_client.status(config.layout, RESPONSE_S)
    except AgentError as error:
        response, fault = None, error
    running = response is not None or fault is not None
    return ServiceSummary(running=running, fault=fault, **vars(response or ServiceStatus()))


def _report(config: Config) -> dict[str, Any] | None:
    try:
        return control_client.report(config.layout, RESPONSE_S)
    except AgentError:
        return None


def _trial(config: Config, known_state: State) -> TrialStatus | None:
    if known_state.trial is None:
        return None
    return TrialStatus(**vars(known_state.trial), starts_allowed=config.trial.starts)


def _installed(config: Config) -> list[str]:
    """Return the names of the installed releases. Only `edge-agent verify` checks their files."""
    try:
        names = [path.name for path in config.layout.releases.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def _device(config: Config) -> DeviceInfo:
    machine = os.uname()
    return DeviceInfo(
        id=config.device.id,
        type=config.device.type,
        architecture=machine.machine,
        kernel=machine.release,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cpus=os.cpu_count(),
        targets=list(config.device.targets),
    )


def _disk(config: Config) -> DiskStatus | None:
    try:
        disk = disk_space(config.layout.state)
    except FileNotFoundError:
        return None
    return DiskStatus(disk.total_bytes, disk.free_bytes)
