"""A rollout for people: report.md for a pull request, report.html for a browser, from the record alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
from edge_agent.core import durable

from fleet.records.rollout_folder import Record
from fleet.records.state import RolloutState

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(record: Record, state: RolloutState) -> None:
    """Both files, each whole or not there. Raises OSError."""
    told = summary(record, state)
    durable.write_file(record.folder / "report.md", markdown(told).encode())
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**told)
    durable.write_file(record.folder / "report.html", html.encode())


def table(state: RolloutState) -> list[str]:
    """For a terminal: one line per wave, and per device; of a large wave only those that are not simply well."""
    rows = []
    for wave in state.waves:
        reason = f": {wave.verdict['reason']}" if wave.verdict else ""
        rows.append(f"wave {wave.name}: {wave.status}{reason}")
        for name in wave.devices:
            device = state.devices[name]
            if device.outcome != "ok" or len(wave.devices) <= 20:
                why = f" ({device.reason})" if device.reason else ""
                rows.append(f"  {name}: {device.release}: {device.outcome}{why}")
    return rows + [
        f"  {name}: {device.outcome} ({device.reason})"
        for name, device in state.devices.items()
        if device.outcome in ("unfit", "unreachable") and not device.touched
    ]


def summary(record: Record, state: RolloutState) -> dict[str, Any]:
    """What both say."""
    outcomes = Counter(device.outcome for device in state.devices.values())
    return {
        "id": record.id,
        "fleet": record.plan["fleet"],
        "commit": record.plan.get("commit"),
        "releases": sorted({device.release for device in state.devices.values()}),
        "status": state.status,
        "reason": state.reason,
        "ended": state.ended,
        "outcomes": dict(sorted(outcomes.items())),
        "waves": [
            {
                "name": wave.name,
                "status": wave.status,
                "opened": wave.opened,
                "approved_by": wave.approved_by,
                "checks": (wave.verdict or {}).get("checks", []),
                "devices": [{"name": name, **vars(state.devices[name])} for name in wave.devices],
            }
            for wave in state.waves
        ],
        "others": [{"name": name, **vars(device)} for name, device in state.devices.items() if not device.wave],
    }


def markdown(told: dict[str, Any]) -> str:
    lines = [
        f"# Rollout {told['id']} of {told['fleet']}: {told['status']}",
        "",
        f"{', '.join(told['releases'])}; {', '.join(f'{count} {name}' for name, count in told['outcomes'].items())}",
    ]
    if told["reason"]:
        lines += ["", _cell(told["reason"])]
    for wave in told["waves"]:
        lines += ["", f"## Wave {wave['name']}: {wave['status']}", "", "| check | | |", "|---|---|---|"]
        lines += [f"| {each['name']} | {each['status']} | {_cell(each['reason'])} |" for each in wave["checks"]]
        lines += ["", "| device | from | to | outcome | |", "|---|---|---|---|---|"]
        lines += [_row(device) for device in wave["devices"]]
    if told["others"]:
        lines += ["", "## In no wave", "", "| device | from | to | outcome | |", "|---|---|---|---|---|"]
        lines += [_row(device) for device in told["others"]]
    return "\n".join(lines) + "\n"


def _row(device: dict[str, Any]) -> str:
    was, release = device["was"] or "nothing", device["release"]
    return f"| {device['name']} | {was} | {release} | {device['outcome']} | {_cell(device['reason'])} |"


def _cell(text: str) -> str:
    """One line that is no markup."""
    plain = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
