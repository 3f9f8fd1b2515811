"""The service with systemd and journald: the unit, sd_notify, the watchdog, the native journal protocol."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import edge_agent
import numpy as np
import pytest
from edge_agent.core import logs, systemd
from edge_agent.core.config import Serve, TrialRules
from edge_agent.inference.engine import Engine
from edge_agent.lifecycle import trial_rules
from edge_agent.monitoring.health import Health

from tests.support.agent.serving import Backend, behaving, device, installed, run

UNIT = Path(edge_agent.__file__).parent / "systemd" / "edge-agent.service"


def listen(address: str) -> socket.socket:
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifications.settimeout(30)
    notifications.bind(address)
    return notifications


def waiting(notifications: socket.socket) -> list[str]:
    """Return the messages that have arrived and were not read."""
    notifications.setblocking(False)
    messages = []
    try:
        while True:
            messages.append(notifications.recv(65536).decode())
    except BlockingIOError:
        notifications.settimeout(30)
        return messages


# --- the unit


def test_the_unit_is_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", "--threshold=20", str(UNIT)]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    exposed = {line["name"]: float(line["exposure"]) for line in json.loads(done.stdout) if line["exposure"]}
    # The service uses the network: an address filter would block Prometheus and MQTT.
    assert {name for name, exposure in exposed.items() if exposure >= 0.3} == {
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "PrivateNetwork=",
    }


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    """Verify the unit with a program and a user of this machine."""
    text = UNIT.read_text()
    command = "/opt/edge-agent/bin/edge-agent"
    assert f"ExecStart={command} serve\n" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(command, sys.executable))

    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_restarts_more_often_than_the_boot_counter_allows() -> None:
    lines = UNIT.read_text().splitlines()

    assert {"Type=notify", "Restart=always", "StartLimitIntervalSec=0"} <= set(lines)
    watchdog_s = next(int(line.partition("=")[2]) for line in lines if line.startswith("WatchdogSec="))
    assert watchdog_s > 3 * Serve().request_timeout_s  # a release that hangs on trial is rolled back first


def test_runtimes_work_under_the_units_restrictions(tmp_path: Path) -> None:
    """Both runtimes work under MemoryDenyWriteExecute, set by the kernel's prctl 65 (Linux 6.3)."""
    settings = device(tmp_path, device={"id": "pi-1", "targets": ["onnx-fp32", "tflite-int8"]})
    installed(settings, targets=["onnx-fp32", "tflite-int8"])
    script = f"""
import ctypes
from edge_agent.core import config
from edge_agent.inference import loading
assert ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) == 0, "no PR_SET_MDWE"
settings = config.parse({{"paths": {{"state": {str(settings.layout.state)!r}, "run": "/run"}}}})
for target in ("onnx-fp32", "tflite-int8"):
    loaded = loading.load(settings, "pump@1.0.0", target)
    assert abs(loaded.model.predict(loaded.golden_inputs[:1]) - loaded.golden_outputs[:1]).max() <= loaded.tolerance
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


# --- sd_notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"edge-agent-test-{os.getpid()}"
    address = f"\0{name}" if abstract else str(tmp_path / "notify")
    with listen(address) as notifications:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else address)

        assert systemd.ready("pump@1.0.0")
        assert systemd.alive()
        assert systemd.stopping()

        assert waiting(notifications) == ["READY=1\nSTATUS=pump@1.0.0", "WATCHDOG=1", "STOPPING=1"]


def test_a_missing_notification_socket_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.alive()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not systemd.alive()


def test_a_reader_that_hangs_does_not_block_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel queues a limited number of datagrams; then a sender blocks, forever if the reader hangs."""
    address = str(tmp_path / "notify")
    with listen(address) as notifications:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        sent = 0
        while systemd.status(f"{sent}"):
            sent += 1

        assert waiting(notifications) == [f"STATUS={number}" for number in range(sent)]
        assert systemd.status("read again")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),  # for another process
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_asked_for(
    environment: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert systemd.watchdog_s() == seconds


def test_a_model_that_hangs_is_not_pinged_for_and_is_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "90000")
    good = installed(device(tmp_path))
    held = Backend(lambda x: np.zeros((len(x), 3), np.float32), held=True)

    async def main() -> None:
        engine = Engine(Serve(request_timeout_s=0.2))
        health = Health(engine, hang_s=0.2, error_share=0.01)
        await engine.swap(good)
        tasks = [
            asyncio.create_task(part) for part in (health.probe_periodically(lambda: 0.01), health.ping_watchdog(0.09))
        ]
        assert await asyncio.to_thread(notifications.recv, 4096) == b"WATCHDOG=1"
        assert await asyncio.to_thread(notifications.recv, 4096) == b"WATCHDOG=1"
        assert health.condition().healthy

        await engine.swap(behaving(good, held))
        await asyncio.to_thread(held.entered.wait, 30)
        waiting(notifications)
        while not health.observation().failure:
            await asyncio.sleep(0)

        assert waiting(notifications) == []  # during twice the watchdog's time
        decision = trial_rules.decide(TrialRules(), health.observation())
        assert decision.action == "back"
        assert decision.reason.startswith("the model has not answered for")
        for task in tasks:
            task.cancel()
        await engine.swap(good)  # the model that hangs is abandoned
        await health.probe()
        assert health.condition().healthy
        held.go.set()
        await engine.close()

    with listen(str(tmp_path / "notify")) as notifications:
        run(main)


# --- the journal


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Restore the root logger afterwards."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level, logs.log.level
    yield logger
    logger.handlers[:], logger.level = before[0], before[1]
    logs.log.setLevel(before[2])


def fields(datagram: bytes) -> dict[str, str]:
    """Parse the protocol: lines `NAME=value`, or a name, a length of 8 bytes and so many bytes."""
    values = {}
    stream = io.BytesIO(datagram)
    while line := stream.readline():
        name, equals, value = line[:-1].partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", stream.read(8))
            value = stream.read(length + 1)[:-1]
        values[name.decode()] = value.decode()
    return values


def test_events_go_to_the_journal_with_their_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: logging.Logger
) -> None:
    address = str(tmp_path / "journal")
    with listen(address) as notifications, (tmp_path / "err").open("w") as err:
        file = os.fstat(err.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{file.st_dev}:{file.st_ino}")
        monkeypatch.setattr(sys, "stderr", err)
        handler = logs.setup(journal=address)
        logs.event("rollback", "went back:\nthe model\nhangs", logging.WARNING, release="pump@1.1.0", now=None)

        assert fields(notifications.recv(65536)) == {
            "MESSAGE": "went back:\nthe model\nhangs",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "edge-agent",
            "EVENT": "rollback",
            "RELEASE": "pump@1.1.0",
        }
        handler.close()


def test_events_that_the_journal_refuses_go_to_stderr(
    tmp_path: Path, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logs.Journal(str(tmp_path / "gone"))
    root.handlers[:] = [handler]
    logs.log.setLevel(logging.INFO)

    logs.event("loaded", "answering", release="pump@1.0.0")

    output = capsys.readouterr().err
    assert output.endswith(" level=info event=loaded message=answering release=pump@1.0.0\n")
    handler.close()


def test_without_a_journal_events_are_lines(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup()

    logs.event("rollback", 'said "no"\nand more', logging.ERROR, release="pump@1.0.0")

    line = ' level=error event=rollback message="said \\"no\\"\\nand more" release=pump@1.0.0\n'
    when, _, message = capsys.readouterr().err.partition(" ")
    assert " " + message == line
    assert datetime.fromisoformat(when.removeprefix("time=")).tzinfo is not None
