"""The reports of a rollout match its record, and text from a device is never markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from fleet import audit_log
from fleet.records import report, rollout_folder
from fleet.records.state import DeviceState, RecordedVerdict, RolloutState, WaveState, owner
from tests.support.fleet.rollouts import plan

NASTY = 'ended | with <script>alert("x")</script> & `code`'


def test_both_reports_match_the_record(tmp_path: Path) -> None:
    check = {"name": "failed", "status": "fail", "reason": f"1 device(s): a ({NASTY})", "devices": ["a"]}
    waves = (
        WaveState(
            "canary", ("a",), status="fail", verdict=RecordedVerdict.model_validate({"reason": "", "checks": [check]})
        ),
        WaveState("rest", ("b",)),
    )
    devices = {
        "a": DeviceState("canary", "digits@1.1.0", "digits@1.0.0", "back", NASTY, True),
        "b": DeviceState("rest", "digits@1.1.0", None),
        "c": DeviceState("", "digits@1.1.0", "digits@1.1.0", "ok", "already runs its release"),
    }
    state = RolloutState("failed", owner(), waves, devices, reason=NASTY, ended=audit_log.now())
    record = rollout_folder.begin("farm", plan(), state, tmp_path)

    report.write(record, state)

    text = (record.folder / "report.md").read_text()
    assert "| a | digits@1.0.0 | digits@1.1.0 | back | ended \\| with \\<script\\>" in text
    assert "| b | nothing | digits@1.1.0 | planned |  |" in text
    page = (record.folder / "report.html").read_text()
    assert "&lt;script&gt;" in page and "<script" not in page
    opened: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            while opened and opened.pop() != tag:
                pass

    Tags().feed(page)
    assert opened == [], "every element is closed"
    assert all(f"<td>{name}</td>" in page for name in devices)
