"""Fixtures of the fault tests, and their summary, which is in docs/explanation/faults.md."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.support.labs import need_lab
from tests.system.fleet_faults.fleet import BASE, LabFleet
from tests.system.fleet_faults.playbook_runs import PlaybookResult

Row = dict[str, Any]


class Case:
    """A fault test. `survived` checks what must be true after every fault and adds a row to the summary."""

    def __init__(self, fleet: LabFleet, row: Row) -> None:
        self.fleet, self.row = fleet, row
        self.before = fleet.states()
        self.began = time.monotonic()

    def survived(
        self,
        done: PlaybookResult,
        *,
        code: int,
        ends: Mapping[str, str] | str = BASE,
        touched: Iterable[str] = (),
        audit: Iterable[str] = (),
        message: str = "",
    ) -> None:
        """Check the fleet after a run of a playbook.

        Args:
            done: The result of the run.
            code: The expected exit code.
            ends: The expected release of all devices, or of each device by name.
            touched: The devices that may have changed.
            audit: Expected audit events, as "action result" or "action result device".
            message: A text that the output must contain.
        """
        fleet = self.fleet
        assert done.code == code, done.output[-6000:]
        assert message in " ".join(done.output.split()), done.output[-6000:]
        assert "Traceback" not in done.output, done.output[-6000:]
        expected = dict.fromkeys(fleet.names, ends) if isinstance(ends, str) else dict(ends)
        fleet.wait_settled(expected)
        allowed = set(touched)
        after = fleet.states()
        changed = {name for name in fleet.names if after[name] != self.before[name]}
        assert changed <= allowed, f"changed: {changed}, touched by opened waves: {allowed}"
        if audit:
            lines = fleet.audit()
            events = {event_of(line) for line in lines} | {f"{event_of(line)} {line['device']}" for line in lines}
            assert set(audit) <= events, lines
        self.row |= {
            "code": code,
            "back": rollback_seconds(fleet.audit()) if audit else None,
            "touched": sorted(allowed),
            "ends": sorted(set(expected.values())),
            "seconds": time.monotonic() - self.began,
        }


def rollback_seconds(lines: list[dict[str, Any]]) -> float | None:
    """Return the seconds from the verdict to the last completed rollback, or None if no device was rolled back."""
    times = [
        [datetime.fromisoformat(line["time"].replace("Z", "+00:00")) for line in lines if event_of(line) == event]
        for event in ("judge fail", "back back")
    ]
    return (max(times[1]) - min(times[0])).total_seconds() if all(times) else None


def event_of(line: Mapping[str, Any]) -> str:
    return f"{line['action']} {line['result']}"


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """A fleet of three devices, each in a separate wave."""
    need_lab()
    with LabFleet(3) as lab_fleet:
        yield lab_fleet


@pytest.fixture
def case(request: pytest.FixtureRequest, fleet: LabFleet) -> Case:
    """A fault test on a reset fleet."""
    fleet.reset()
    sentence = (request.function.__doc__ or request.node.name).strip().splitlines()[0].rstrip(".")
    parameters = getattr(request.node, "callspec", None)
    description = f"{sentence}: {parameters.id}" if parameters else sentence
    row: Row = {"what": description}
    request.node.user_properties.append(("fault", row))
    return Case(fleet, row)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the rows of the table and the line `N faults, N survived`."""
    reports = [
        (kind, report)
        for kind in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(kind, ())
        if any(name == "fault" for name, _ in getattr(report, "user_properties", ()))
    ]
    measured = [
        text
        for report in terminalreporter.stats.get("passed", ())
        for name, text in report.user_properties
        if name == "measured"
    ]
    for text in measured:
        terminalreporter.write_line(text)
    if not reports:
        return
    terminalreporter.section("faults")
    for _, report in reports:
        for _, row in report.user_properties:
            if "code" not in row:
                terminalreporter.write_line(f"| {row['what']} | NOT SURVIVED | | | | |")
                continue
            touched = ", ".join(row["touched"]) or "none"
            ends = " or ".join(row["ends"])
            duration = "" if row["back"] is None else f"{row['back']:.0f} s"
            line = f"| {row['what']} | {row['code']} | {touched} | {ends} | {duration} | {row['seconds']:.0f} s |"
            terminalreporter.write_line(line)
    survived = sum(kind == "passed" for kind, _ in reports)
    terminalreporter.write_line(f"{len(reports)} faults, {survived} survived")
