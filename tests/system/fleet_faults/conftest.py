"""Fixtures, and the summary that docs/explanation/faults.md holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.support.labs import need_lab
from tests.system.fleet_faults.fleet import BASE, LabFleet
from tests.system.fleet_faults.runs import Done

Row = dict[str, Any]


class Case:
    """One fault. `survived` asserts what has to be true after each, and puts it into the summary."""

    def __init__(self, fleet: LabFleet, row: Row) -> None:
        self.fleet, self.row = fleet, row
        self.before = fleet.states()
        self.began = time.monotonic()

    def survived(
        self,
        done: Done,
        *,
        code: int,
        ends: Mapping[str, str] | str = BASE,
        touched: Iterable[str] = (),
        audit: Iterable[str] = (),
        says: str = "",
    ) -> None:
        """`ends`: the release of every device, by name where they differ. `touched`: nobody else has changed.

        `audit`: lines that are in the trail, as "action result" or "action result device".
        """
        fleet = self.fleet
        assert done.code == code, done.output[-6000:]
        assert says in " ".join(done.output.split()), done.output[-6000:]
        assert "Traceback" not in done.output, done.output[-6000:]
        goal = dict.fromkeys(fleet.names, ends) if isinstance(ends, str) else dict(ends)
        fleet.settled(goal)
        allowed = set(touched)
        after = fleet.states()
        changed = {name for name in fleet.names if after[name] != self.before[name]}
        assert changed <= allowed, f"changed: {changed}, touched by opened waves: {allowed}"
        if audit:
            lines = fleet.audit()
            there = {told(line) for line in lines} | {f"{told(line)} {line['device']}" for line in lines}
            assert set(audit) <= there, lines
        self.row |= {
            "code": code,
            "back": back_after(fleet.audit()) if audit else None,
            "touched": sorted(allowed),
            "ends": sorted(set(goal.values())),
            "seconds": time.monotonic() - self.began,
        }


def back_after(lines: list[dict[str, Any]]) -> float | None:
    """Seconds from the verdict until the last device that went back said so; None where none did."""
    at = [
        [datetime.fromisoformat(line["time"].replace("Z", "+00:00")) for line in lines if told(line) == wanted]
        for wanted in ("judge fail", "back back")
    ]
    return (max(at[1]) - min(at[0])).total_seconds() if all(at) else None


def told(line: Mapping[str, Any]) -> str:
    return f"{line['action']} {line['result']}"


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """Three devices, each a wave."""
    need_lab()
    with LabFleet(3) as made:
        yield made


@pytest.fixture
def case(request: pytest.FixtureRequest, fleet: LabFleet) -> Case:
    """A fleet on which nothing has happened yet."""
    fleet.reset()
    doc = (request.function.__doc__ or request.node.name).strip().splitlines()[0].rstrip(".")
    marks = getattr(request.node, "callspec", None)
    what = f"{doc}: {marks.id}" if marks else doc
    row: Row = {"what": what}
    request.node.user_properties.append(("fault", row))
    return Case(fleet, row)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The rows of the table, and `N faults, N survived`."""
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
            touched = ", ".join(row["touched"]) or "nobody"
            ends = " or ".join(row["ends"])
            back = "" if row["back"] is None else f"{row['back']:.0f} s"
            line = f"| {row['what']} | {row['code']} | {touched} | {ends} | {back} | {row['seconds']:.0f} s |"
            terminalreporter.write_line(line)
    survived = sum(kind == "passed" for kind, _ in reports)
    terminalreporter.write_line(f"{len(reports)} faults, {survived} survived")
