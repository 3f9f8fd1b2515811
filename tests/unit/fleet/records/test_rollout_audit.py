"""Every line is kept, whole or told as cut; a device's history and a spreadsheet come out of it."""

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
def made(tmp_path: Path) -> Record:
    return rollout_folder.begin("farm", {**plan(), "commit": "abc"}, RolloutState("running", owner(), ()), tmp_path)


def test_lines_are_appended_and_never_changed(made: Record) -> None:
    rollout_audit.append(made, "begin", result="running")
    first = (made.folder / audit_log.FILE).read_bytes()
    rollout_audit.append(made, "deploy", device="a", release="digits@1.1.0", result="ok", seconds=1.23456)

    assert (made.folder / audit_log.FILE).read_bytes().startswith(first)
    line = list(rollout_audit.read([made]))[1]
    assert (line.device, line.release, line.result, line.seconds) == ("a", "digits@1.1.0", "ok", 1.235)
    assert set(rollout_audit.FIELDS) <= set(line.as_json())


def test_a_line_that_was_cut_costs_no_other(made: Record) -> None:
    rollout_audit.append(made, "begin", result="running")
    with (made.folder / audit_log.FILE).open("ab") as stream:
        stream.write(b'{"time": "2026-01-0')
    rollout_audit.append(made, "close", result="passed")

    assert [line.result for line in rollout_audit.read([made])] == ["running", "cut short", "passed"]


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
def test_a_line_that_cannot_be_read_is_shown_where_it_stood_whatever_is_asked_for(
    made: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, result: str
) -> None:
    rollout_audit.append(made, "begin", result="running")
    with (made.folder / audit_log.FILE).open("a", encoding="utf-8") as stream:
        stream.write(written + "\n")
    rollout_audit.append(made, "deploy", device="a", result="ok")
    audit_log.append(tmp_path / "farm" / audit_log.FILE, "rollback", device="b", result="back")
    known = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    for asked, shown in [
        ((), ["running", result, "ok", "back"]),
        (("--device", "a"), [result, "ok"]),
        (("--since", "2020-01-01T00:00:00Z"), ["running", result, "ok", "back"]),
        (("--until", "2020-01-01T00:00:00Z"), [result]),
    ]:
        assert main.main([*known, *asked]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["result"] for row in rows] == shown
        assert main.main(["--json", *known, *asked]) == 0
        told = json.loads(capsys.readouterr().out)
        SCHEMA.validate(told)
        assert [line["detail"] for line in told["lines"] if line["result"] == result] == [
            written[: rollout_audit.SHOWN]
        ]


def test_one_at_the_beginning_stays_there(made: Record) -> None:
    (made.folder / audit_log.FILE).write_text('{"time"\n')
    rollout_audit.append(made, "begin", result="running")

    assert [(line.result, line.rollout) for line in rollout_audit.read([made])] == [
        ("cut short", made.id),
        ("running", made.id),
    ]


def test_a_device_and_a_time_select(made: Record) -> None:
    for device in ("a", "b"):
        rollout_audit.append(made, "deploy", device=device, result="ok")
    lines = list(rollout_audit.read([made]))
    now = datetime.now(UTC)

    assert [line.device for line in rollout_audit.select(lines, device="b")] == ["b"]
    assert len(list(rollout_audit.select(lines, since=now - timedelta(minutes=1)))) == 2
    assert list(rollout_audit.select(lines, until=now - timedelta(minutes=1))) == []


def test_a_spreadsheet_runs_nothing_of_it(made: Record) -> None:
    rollout_audit.append(
        made, "rollback", device="a", result="back", detail='=HYPERLINK("http://192.0.2.1")\nsecond, "line"'
    )

    rows = list(
        csv.DictReader(io.StringIO(rollout_audit.as_csv(line.as_json() for line in rollout_audit.read([made]))))
    )

    assert rows[0]["detail"] == '\'=HYPERLINK("http://192.0.2.1")\nsecond, "line"'
    assert list(rows[0]) == list(rollout_audit.FIELDS)


def test_a_terminal_obeys_nothing_of_it(made: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout_audit.append(made, "deploy", device="a", result="failed", detail="\x1b]0;owned\x07 \x9b2J \u202e \ud800")

    assert main.main(["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]) == 0

    assert "?]0;owned? ?2J ? ?" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../../etc", "..", ".runs", "a/b", "/etc", ""])
@pytest.mark.parametrize("command", [["audit"], ["wave", "recall"], ["wave", "recalled"], ["wave", "metadata"]])
def test_a_fleets_name_is_no_path(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main.main([*command, "--fleet", name, "--rollouts", str(tmp_path / "rollouts")])

    assert refused.value.code == 2
    assert f"argument --fleet: found {name!r}, expected a fleet's name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_gives_a_devices_history(made: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout_audit.append(made, "deploy", device="a", result="ok")
    failed = ManualRollback(None, StatusResponse(None, "no route to host"))
    finish_manual_rollback("farm", tmp_path, {"a": failed}, "noise")
    known = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    assert main.main([*known, "--device", "a"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["action"], row["result"]) for row in rows] == [("deploy", "ok"), ("rollback", "failed")]
    assert main.main([*known, "--until", "2020-01-01T00:00:00Z"]) == 0
    assert capsys.readouterr().out.strip() == ",".join(rollout_audit.FIELDS)
    assert main.main(["audit", "--fleet", "other", "--rollouts", str(tmp_path)]) == 6
    assert "a fleet that has some: farm" in capsys.readouterr().err


def test_a_device_that_no_record_names_is_an_error(
    made: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_audit.append(made, "open", result="go", devices=["a", "b"], detail="wave rest: a, b")
    audit_log.append(tmp_path / "farm" / audit_log.FILE, "rollback", device="c", result="back")
    planned = replace(made.load(), devices={"d": DeviceState("rest", "digits@1.1.0")})
    made.save(planned)
    known = ["audit", "--fleet", "farm", "--rollouts", str(tmp_path)]

    assert main.main([*known, "--device", "x"]) == 6
    said = capsys.readouterr()
    assert said.out == "" and "no device 'x'" in said.err and "one of: a, b, c, d" in said.err
    for name, shown in (("b", ["open"]), ("c", ["rollback"]), ("d", [])):
        assert main.main([*known, "--device", name]) == 0
        assert [row["action"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == shown
