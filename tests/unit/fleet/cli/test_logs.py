"""fleet logs DEVICE: what a device's agent logged, through playbooks/logs.yml; whatever is in it steers no terminal.

With real agents: test_rollout_embedded.py; on a device with systemd: test_playbooks_bootstrap.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.cli import main
from tests.support.fleet.embedded import REPOSITORY, TIMEOUT_S, EmbeddedFleet

pytestmark = pytest.mark.slow
LOGGED, SILENT = "canary-1", "rest-1"
HOSTILE = "owned \x1b]0;title\x07 \x9b2J {{ 7 * 7 }} \u202e"


@pytest.fixture(scope="module")
def fleet() -> Iterator[EmbeddedFleet]:
    """Two devices that were never set up; one has a log."""
    made = EmbeddedFleet((LOGGED, SILENT), repository=False)
    log = made.base / LOGGED / "agent.log"
    log.parent.mkdir()
    log.write_bytes(b"oldest\nno UTF-8 \xff\xfe\n" + f"{HOSTILE}\ngr\u00fc\u00dfe\tlast\n".encode())
    try:
        yield made
    finally:
        made.remove()


def told(done: subprocess.CompletedProcess[str], code: int) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_the_newest_lines_come_as_they_were_written(fleet: EmbeddedFleet) -> None:
    whole = told(fleet.run("logs", LOGGED), 0)
    newest = told(fleet.run("logs", LOGGED, "--lines", "2"), 0)

    assert (whole["device"], whole["file"]) == (LOGGED, None)
    assert whole["text"].split("\n") == ["oldest", "no UTF-8 ", HOSTILE, "gr\u00fc\u00dfe\tlast"]
    assert newest["text"] == f"{HOSTILE}\ngr\u00fc\u00dfe\tlast"
    assert not fleet.rollouts.exists(), "what only reads leaves no record"


def test_a_terminal_obeys_nothing_of_it(fleet: EmbeddedFleet) -> None:
    command = [sys.executable, "-m", "fleet", "logs", LOGGED, "-i", str(fleet.inventory)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=REPOSITORY, env=fleet.environment(), check=True
    )
    by_hand = fleet.playbook("logs", "--limit", LOGGED)

    assert done.stdout.splitlines()[2:] == ["owned ?]0;title? ?2J {{ 7 * 7 }} ?", "gr\u00fc\u00dfe\tlast"]
    assert by_hand.returncode == 0 and "{{ 7 * 7 }}" in by_hand.stdout and "49" not in by_hand.stdout
    assert not {"\x1b", "\x07", "\x9b"} & set(by_hand.stdout)


def test_a_device_without_a_log(fleet: EmbeddedFleet) -> None:
    error = told(fleet.run("logs", SILENT), 6)
    by_hand = fleet.playbook("logs", "--limit", SILENT)

    assert error["where"] == SILENT and "no log of edge-agent" in error["found"]
    assert f"{SILENT}/agent.log" in error["found"]
    assert by_hand.returncode == 2 and "found no log of edge-agent" in " ".join(by_hand.stdout.split())


def test_a_device_that_is_not_declared(fleet: EmbeddedFleet) -> None:
    for name in ("nobody", "devices", "canary*", "localhost"):
        assert f"no device {name!r}" in told(fleet.run("logs", name), 12)["found"]


def test_a_device_that_does_not_answer(fleet: EmbeddedFleet) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
    fleet.write(f"host_vars/{SILENT}.yml", away)
    try:
        error = told(fleet.run("logs", SILENT), 8)
    finally:
        fleet.write(f"host_vars/{SILENT}.yml", {})

    assert error["where"] == SILENT and "Connection refused" in error["found"]
    assert f"playbooks/logs.yml --limit {SILENT}" in error["remedy"]


@pytest.mark.parametrize(
    ("answer", "code", "found"),
    [
        ('{"changed": false, "rc": 0, "stdout": 5}', 8, ""),
        ('{"changed": false, "rc": 0, "stdout": 5, "stdout_lines": []}', 6, "no log of edge-agent (nothing)"),
        (
            r'{"changed": false, "rc": 1, "stdout": "", "stderr": "\u001b[2J gone"}',
            6,
            "no log of edge-agent (?[2J gone)",
        ),
        (r'{"failed": true, "msg": "\u001b[2J no"}', 8, "?[2J no"),
        ("nothing of the kind", 8, ""),
    ],
)
def test_a_device_may_answer_anything(fleet: EmbeddedFleet, answer: str, code: int, found: str) -> None:
    """What runs Ansible's modules on the device is the device's own."""
    python = fleet.base / "python"
    python.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'E'\n{answer}\nE\n")
    python.chmod(0o755)
    fleet.write(f"host_vars/{SILENT}.yml", {"ansible_python_interpreter": str(python)})
    try:
        error = told(fleet.run("logs", SILENT), code)
    finally:
        fleet.write(f"host_vars/{SILENT}.yml", {})

    assert found in error["found"] and "\x1b" not in error["found"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "DEVICE and -i/--inventory: expected both, or neither"),
        (["-i", "inventory/embedded"], "DEVICE and -i/--inventory: expected both, or neither"),
        (["a", "-i", "x", "--lines", "0"], "found '0', expected a whole number from 1 to"),
        (["a", "-i", "x", "--lines", "many"], "found 'many', expected a whole number from 1 to"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main.main(["logs", *arguments])

    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_device_it_is_what_ansible_printed_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ".runs/1/artifacts/stdout"
    file.parent.mkdir(parents=True)
    file.write_text("PLAY [Plan]\n\x1b[2J\n")

    assert main.main(["logs", "--rollouts", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "PLAY [Plan]\n?[2J\n"
