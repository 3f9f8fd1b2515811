"""The audit trail keeps every line, marks unreadable ones, and gives a device's history and a safe spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet import audit_log
from fleet.cli import main
from fleet.devices.messages import StatusResponse
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import DeviceState, RolloutState, owner
from fleet.rollout.manual_rollback import ManualRollback, finish_manual_rollback
from tests.support.fleet.publishing import SCHEMA
from tests.support.fleet.rollouts import plan


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return rollout_folder.begin("farm", {**plan(), "commit": "abc"}, RolloutState("running", owner(), ()), tmp_path)


def test_lines_are_appended_and_never_changed(record: Record) -> None:
    rollout_audit.append(record, "begin", result="running")
    first = (record.folder / audit_log.FILE).read_bytes()
    rollout_audit.append(record, "deploy", device="a", release="digits@1.1.0", result="ok", seconds=1.23456)

    assert (record.folder / audit_log.FILE).read_bytes().startswith(first)
    line = list(rollout_audit.read([record]))[1]
    assert (line.device, line.release, line.result, line.seconds) == ("a", "digits@1.1.0", "ok", 1.235)
    assert set(rollout_audit.FIELDS) <= set(line.as_json())


def test_an_incomplete_line_affects_no_other_line(record: Record) -> None:
    rollout_audit.append(record, "begin", result="running")
    with (record.folder / audit_log.FILE).open("ab") as stream:
        stream.write(b'{"time": "2026-01-0')
    rollout_audit.append(record, "close", result="passed")

    assert [line.result for line in rollout_audit.read([record])] == ["running", "cut short", "passed"]


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ('{"time": "2026-01-0', "cut short"),
        ("\0\0\0", "cut short"),
        ("", "cut short"),
        ("[" * 10**5, "cut short"),
        ("[1, 2]", "not readable"),
        ("null", "not readable"),
        ('{"time": 5, "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": null, "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": "yesterday", "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": "2026-01-01T00:00:00", "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": "2026-13-01T00:00:00Z", "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": "2026-01-01T00:00:0\uff15Z", "by": "ann", "action": "deploy"}', "not readable"),
        ('{"time": "2026-01-01T00:00:00Z", "action": "deploy"}', "not readable"),
        ('{"time": "2026-01-01T00:00:00Z", "by": "ann", "action": "deploy", "seconds": NaN}', "not readable"),
        ('{"time": "2026-01-01T00:00:00Z", "by": "ann", "action": "deploy", "device": {}}', "not readable"),
    ],
)
def test_an_unreadable_line_keeps_its_place_in_every_query(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, result: str
) -> None:
    rollout_audit.append(record, "begin", result="running")
    with (record.folder / audit_log.FILE).open("a", encoding="utf-8") as stream:
        stream.write(written + "\n")
    rollout_audit.append(record, "deploy", device="a", result="ok")
    audit_log.append(tmp_path / "farm" / audit_log.FILE, "rollback", device="b", result="back")
    arguments = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    for query, shown in [
        ((), ["running", result, "ok", "back"]),
        (("--device", "a"), [result, "ok"]),
        (("--since", "2020-01-01T00:00:00Z"), ["running", result, "ok", "back"]),
        (("--until", "2020-01-01T00:00:00Z"), [result]),
    ]:
        assert main.main([*arguments, *query]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["result"] for row in rows] == shown
        assert main.main(["--json", *arguments, *query]) == 0
        printed = json.loads(capsys.readouterr().out)
        SCHEMA.validate(printed)
        assert [line["detail"] for line in printed["lines"] if line["result"] == result] == [
            written[: rollout_audit.SHOWN]
        ]


def test_an_unreadable_first_line_stays_first(record: Record) -> None:
    (record.folder / audit_log.FILE).write_text('{"time"\n')
    rollout_audit.append(record, "begin", result="running")

    assert [(line.result, line.rollout) for line in rollout_audit.read([record])] == [
        ("cut short", record.id),
        ("running", record.id),
    ]


def test_a_device_and_a_time_select(record: Record) -> None:
    for device in ("a", "b"):
        rollout_audit.append(record, "deploy", device=device, result="ok")
    lines = list(rollout_audit.read([record]))
    now = datetime.now(UTC)

    assert [line.device for line in rollout_audit.select(lines, device="b")] == ["b"]
    assert len(list(rollout_audit.select(lines, since=now - timedelta(minutes=1)))) == 2
    assert list(rollout_audit.select(lines, until=now - timedelta(minutes=1))) == []


def test_a_spreadsheet_runs_no_formula_of_a_line(record: Record) -> None:
    rollout_audit.append(
        record, "rollback", device="a", result="back", detail='=HYPERLINK("http://192.0.2.1")\nsecond, "line"'
    )

    rows = list(
        csv.DictReader(io.StringIO(rollout_audit.as_csv(line.as_json() for line in rollout_audit.read([record]))))
    )

    assert rows[0]["detail"] == '\'=HYPERLINK("http://192.0.2.1")\nsecond, "line"'
    assert list(rows[0]) == list(rollout_audit.FIELDS)


def test_a_terminal_obeys_no_control_character_of_a_line(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_audit.append(record, "deploy", device="a", result="failed", detail="\x1b]0;owned\x07 \x9b2J \u202e \ud800")

    assert main.main(["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]) == 0

    assert "?]0;owned? ?2J ? ?" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../../etc", "..", ".runs", "a/b", "/etc", ""])
@pytest.mark.parametrize("command", [["audit"], ["wave", "recall"], ["wave", "recalled"], ["wave", "metadata"]])
def test_the_name_of_a_fleet_is_not_a_path(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main.main([*command, "--fleet", name, "--rollouts", str(tmp_path / "rollouts")])

    assert refused.value.code == 2
    assert f"argument --fleet: found {name!r}, expected a fleet's name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_fleet_audit_prints_the_history_of_a_device(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_audit.append(record, "deploy", device="a", result="ok")
    failed = ManualRollback(None, StatusResponse(None, "no route to host"))
    finish_manual_rollback("farm", tmp_path, {"a": failed}, "noise")
    arguments = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    assert main.main([*arguments, "--device", "a"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["action"], row["result"]) for row in rows] == [("deploy", "ok"), ("rollback", "failed")]
    assert main.main([*arguments, "--until", "2020-01-01T00:00:00Z"]) == 0
    assert capsys.readouterr().out.strip() == ",".join(rollout_audit.FIELDS)
    assert main.main(["audit", "--fleet", "other", "--rollouts", str(tmp_path)]) == 6
    assert "a fleet with recorded rollouts: farm" in capsys.readouterr().err


def test_a_device_that_no_record_names_is_an_error(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_audit.append(record, "open", result="go", devices=["a", "b"], detail="wave rest: a, b")
    audit_log.append(tmp_path / "farm" / audit_log.FILE, "rollback", device="c", result="back")
    planned = replace(record.load(), devices={"d": DeviceState("rest", "digits@1.1.0")})
    record.save(planned)
    arguments = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    assert main.main([*arguments, "--device", "x"]) == 6
    printed = capsys.readouterr()
    assert printed.out == "" and "do not mention the device 'x'" in printed.err and "one of: a, b, c, d" in printed.err
    for name, shown in (("b", ["open"]), ("c", ["rollback"]), ("d", [])):
        assert main.main([*arguments, "--device", name]) == 0
        assert [row["action"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == shown
