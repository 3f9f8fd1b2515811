"""Write the report of a rollout for people: report.md for a pull request, report.html for a browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from edge_agent.core import durable

from fleet.records.rollout_folder import Record
from fleet.records.state import DeviceState, RecordedCheck, RolloutState, WaveStatus

TEMPLATE = Path(__file__).with_name("report.html.j2")
LARGE_WAVE = 20  # number of devices; for a larger wave, the terminal shows only the devices that did not succeed


@dataclass(frozen=True)
class WaveSummary:
    """A wave in a report, with the states of its devices by name."""

    name: str
    status: WaveStatus
    opened: str | None
    approved_by: str | None
    checks: Sequence[RecordedCheck]
    devices: dict[str, DeviceState]


@dataclass(frozen=True)
class Summary:
    """The content of report.md and report.html.

    Attributes:
        id: The rollout's id.
        fleet: The fleet's name.
        commit: The Git commit of the inventory.
        releases: All releases of the rollout.
        status: The rollout's status.
        reason: An explanation of the status.
        ended: The time at which the rollout ended; None if it has not ended.
        outcomes: The number of devices with each outcome.
        waves: The waves, in their order.
        others: The devices that are in no wave, by name.
    """

    id: str
    fleet: str
    commit: str | None
    releases: list[str]
    status: str
    reason: str
    ended: str | None
    outcomes: dict[str, int]
    waves: list[WaveSummary]
    others: dict[str, DeviceState]


def write(record: Record, state: RolloutState) -> None:
    """Write the files report.md and report.html of a rollout. Raises OSError."""
    summary = summarise(record, state)
    durable.write_file(record.folder / "report.md", markdown(summary).encode())
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(vars(summary))
    durable.write_file(record.folder / "report.html", html.encode())


def table(state: RolloutState) -> list[str]:
    """Return lines that show a rollout's waves and their devices in the terminal.

    For a large wave, only the devices that did not succeed are listed.
    """
    rows = []
    for wave in state.waves:
        reason = f": {wave.verdict.reason}" if wave.verdict else ""
        rows.append(f"wave {wave.name}: {wave.status}{reason}")
        for name in wave.devices:
            device = state.devices[name]
            if device.outcome != "ok" or len(wave.devices) <= LARGE_WAVE:
                reason = f" ({device.reason})" if device.reason else ""
                rows.append(f"  {name}: {device.release}: {device.outcome}{reason}")
    return rows + [
        f"  {name}: {device.outcome} ({device.reason})"
        for name, device in state.devices.items()
        if device.outcome in ("unfit", "unreachable") and not device.touched
    ]


def summarise(record: Record, state: RolloutState) -> Summary:
    """Return the content of a rollout's report.md and report.html."""
    outcomes = Counter(device.outcome for device in state.devices.values())
    return Summary(
        id=record.id,
        fleet=record.plan.fleet,
        commit=record.plan.commit,
        releases=sorted({device.release for device in state.devices.values()}),
        status=state.status,
        reason=state.reason,
        ended=state.ended,
        outcomes=dict(sorted(outcomes.items())),
        waves=[
            WaveSummary(
                name=wave.name,
                status=wave.status,
                opened=wave.opened,
                approved_by=wave.approved_by,
                checks=wave.verdict.checks if wave.verdict else [],
                devices={name: state.devices[name] for name in wave.devices},
            )
            for wave in state.waves
        ],
        others={name: device for name, device in state.devices.items() if not device.wave},
    )


def markdown(summary: Summary) -> str:
    """Return the report of a rollout as Markdown."""
    outcomes = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items())
    lines = [
        f"# Rollout {summary.id} of {summary.fleet}: {summary.status}",
        "",
        f"{', '.join(summary.releases)}; {outcomes}",
    ]
    if summary.reason:
        lines += ["", _cell(summary.reason)]
    for wave in summary.waves:
        lines += ["", f"## Wave {wave.name}: {wave.status}", "", "| check | | |", "|---|---|---|"]
        lines += [f"| {check.name} | {check.status} | {_cell(check.reason)} |" for check in wave.checks]
        lines += _device_table(wave.devices)
    if summary.others:
        lines += ["", "## In no wave", *_device_table(summary.others)]
    return "\n".join(lines) + "\n"


def _device_table(devices: dict[str, DeviceState]) -> list[str]:
    header = ["", "| device | from | to | outcome | |", "|---|---|---|---|---|"]
    return header + [
        f"| {name} | {device.was or 'nothing'} | {device.release} | {device.outcome} | {_cell(device.reason)} |"
        for name, device in devices.items()
    ]


def _cell(text: str) -> str:
    """Return a text for a table cell: on one line, with Markdown markup escaped."""
    plain = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
