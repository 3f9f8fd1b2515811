"""fleet.trail: every line is kept, whole or told as cut; a device's history and a spreadsheet come out of it."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet import audit, back, cli, record, trail
from fleet.record import Record, RolloutState


@pytest.fixture
def made(tmp_path: Path) -> Record:
    return record.begin(
        "farm", {"fleet": "farm", "commit": "abc"}, RolloutState("running", record.owner(), ()), tmp_path
    )


def test_lines_are_appended_and_never_changed(made: Record) -> None:
    trail.append(made, "begin", result="running")
    first = (made.folder / audit.FILE).read_bytes()
    trail.append(made, "deploy", device="a", release="digits@1.1.0", result="ok", seconds=1.23456)

    assert (made.folder / audit.FILE).read_bytes().startswith(first)
    line = list(trail.read([made]))[1]
    assert (line["device"], line["release"], line["result"], line["seconds"]) == ("a", "digits@1.1.0", "ok", 1.235)
    assert set(trail.FIELDS) <= set(line)


def test_a_line_that_was_cut_costs_no_other(made: Record) -> None:
    trail.append(made, "begin", result="running")
    with (made.folder / audit.FILE).open("ab") as stream:
        stream.write(b'{"time": "2026-01-0')
    trail.append(made, "close", result="passed")

    assert [line["result"] for line in trail.read([made])] == ["running", "cut short", "passed"]


def test_a_device_and_a_time_select(made: Record) -> None:
    for device in ("a", "b"):
        trail.append(made, "deploy", device=device, result="ok")
    lines = list(trail.read([made]))
    now = datetime.now(UTC)

    assert [line["device"] for line in trail.select(lines, device="b")] == ["b"]
    assert len(list(trail.select(lines, since=now - timedelta(minutes=1)))) == 2
    assert list(trail.select(lines, until=now - timedelta(minutes=1))) == []


def test_a_spreadsheet_runs_nothing_of_it(made: Record) -> None:
    trail.append(made, "rollback", device="a", result="back", detail='=HYPERLINK("http://192.0.2.1")\nsecond, "line"')

    rows = list(csv.DictReader(io.StringIO(trail.as_csv(trail.read([made])))))

    assert rows[0]["detail"] == '\'=HYPERLINK("http://192.0.2.1")\nsecond, "line"'
    assert list(rows[0]) == list(trail.FIELDS)


def test_the_command_gives_a_devices_history(made: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trail.append(made, "deploy", device="a", result="ok")
    back.end("farm", tmp_path, {"a": {"said": None, "status": None, "reason": "no route to host"}}, "noise")
    known = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    assert cli.main([*known, "--device", "a"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["action"], row["result"]) for row in rows] == [("deploy", "ok"), ("rollback", "failed")]
    assert cli.main([*known, "--until", "2020-01-01T00:00:00Z"]) == 0
    assert capsys.readouterr().out.strip() == ",".join(trail.FIELDS)
    assert cli.main(["audit", "--fleet", "other", "--rollouts", str(tmp_path)]) == 6
    assert "a fleet that has some: farm" in capsys.readouterr().err
