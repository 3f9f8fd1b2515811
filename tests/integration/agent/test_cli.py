"""The command line for operators and for programs: texts, JSON, exit codes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edge_agent.cli import main
from edge_agent.core import errors, state
from edge_agent.core.errors import (
    AgentError,
    BusyError,
    ConfigurationError,
    NoReleaseError,
    ServiceError,
    SourceError,
    StorageError,
    TrialError,
    TrustError,
)

from tests.support.agent.cli import OUTPUT, Device
from tests.support.agent.releases import NEW, OLD, Releases, bare_device, two_releases

pytestmark = pytest.mark.slow  # each starts the program

COMMANDS = list(main.parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr]
releases = pytest.fixture(two_releases)
device = pytest.fixture(bare_device)


def test_the_life_of_a_release_without_a_service(device: Device) -> None:
    """Each step reports the state; repeating it is not an error."""
    assert device.json("status")["installed"] == []
    assert device.json("install", OLD)["changed"] is True
    assert device.json("install", OLD)["changed"] is False
    result = device.json("activate", OLD)
    assert (result["changed"], result["trial"], result["service"]["running"]) == (True, True, False)
    assert device.json("activate", OLD)["changed"] is False
    assert device.json("confirm", OLD, "--force")["changed"] is True
    assert device.json("confirm")["changed"] is False
    device.json("install", NEW)
    assert device.json("activate", NEW)["previous"] == OLD

    result = device.json("status")
    assert (result["current"], result["previous"], result["trial"]["starts"]) == (NEW, OLD, 0)
    assert result["service"]["running"] is False

    result = device.json("rollback", "--reason", "noisy")
    assert (result["release"], result["left"]) == (OLD, NEW)
    assert device.state.bad == {NEW: "noisy"}
    assert device.json("install", NEW, code=TrialError.exit_code)["remedy"].endswith(f"edge-agent forget {NEW}")
    assert device.json("forget", NEW)["changed"] is True
    assert device.json("forget", NEW)["changed"] is False
    assert [slot["whole"] for slot in device.json("verify")["slots"]] == [True, True]
    result = device.json("prune", "--keep", "0")
    assert (result["removed"], result["installed"]) == ([NEW], [OLD])


def test_deploy_is_install_and_activate_in_one(device: Device) -> None:
    result = device.json("deploy", OLD)
    assert (result["changed"], result["installed"], result["previous"], result["trial"]) == (True, True, None, True)
    assert result["selftest"]["samples"] > 0
    result = device.json("deploy", OLD)
    assert (result["changed"], result["installed"], result["selftest"]) == (False, False, None)
    device.json("confirm", "--force")

    device.json("install", NEW)
    result = device.json("deploy", NEW)
    assert (result["changed"], result["installed"], result["previous"]) == (True, False, OLD)
    assert device.json("status", "--report")["report"] is None, "no service is running"


def test_an_older_release_by_name(device: Device, releases: Releases) -> None:
    releases.publish("pump@1.2.0")
    for release in (OLD, NEW, "pump@1.2.0"):
        device.json("install", release)
        device.json("activate", release)
        device.json("confirm", "--force")

    device.json("rollback", "--to", OLD)

    assert (device.state.current, device.state.previous, device.state.trial) == (OLD, NEW, None)


def test_output_for_people(device: Device) -> None:
    done = device.call("install", OLD)
    assert done.stdout == f"{OLD} is installed (onnx-fp32)\n  next: edge-agent activate {OLD}\n"
    lines = device.call("activate", OLD).stdout.splitlines()
    assert lines[0] == f"{OLD} is current, on trial; a rollback returns to: nothing"
    assert lines[1].startswith("  self-test: 6 golden samples differ by at most 0")
    assert lines[2] == "  service:   not running; it starts with this release"
    status = dict(line.split(maxsplit=1) for line in device.call("status").stdout.splitlines())
    assert status["current"] == f"{OLD} (on trial)"
    assert status["loaded"] == "nothing: no service is running"
    assert device.call("verify").stdout == f"{OLD}: undamaged, 6 files\n"
    assert device.call("prune").stdout == f"removed:   nothing\ninstalled: {OLD}\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("install", "pump@9.0.0"), TrustError, "withdrawn, or never published"),
        (("activate", OLD), NoReleaseError, "not installed"),
        (("confirm",), NoReleaseError, "the device has no current release"),
        (("rollback",), NoReleaseError, "no previous release to roll back to"),
        (("rollback", "--to", OLD), NoReleaseError, "not installed"),
        (("verify", "--release", OLD), NoReleaseError, "not installed"),
        (("report",), ServiceError, "no service is running"),
    ],
)
def test_refusals_have_their_exit_codes(
    device: Device, arguments: tuple[str, ...], kind: type[AgentError], message: str
) -> None:
    result = device.json(*arguments, code=kind.exit_code)
    assert (result["error"], result["command"]) == (kind.__name__, arguments[0])
    assert message in result["found"]
    assert result["remedy"]

    done = device.call(*arguments)
    assert (done.returncode, done.stdout) == (kind.exit_code, "")
    assert f"edge-agent {arguments[0]}: " in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_source(device: Device, releases: Releases) -> None:
    shutil.rmtree(releases.repository.folder)

    assert device.json("install", OLD, code=SourceError.exit_code)["remedy"]


def test_a_held_lock_is_reported_with_its_holder(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with state.locked(device.config.layout):
        result = device.json("prune", code=BusyError.exit_code)

    assert result["found"] == f"held by process {os.getpid()}"


def test_an_invalid_state_is_reported(device: Device) -> None:
    device.json("install", OLD)
    device.config.layout.state_file.write_text("{}")

    assert "not a state that this agent wrote" in device.json("status", code=ConfigurationError.exit_code)["found"]


@pytest.mark.parametrize("content", [None, "device = 1", "[device", '[serve]\nlisten = "0.0.0.0:80"'])
def test_an_invalid_configuration_is_reported(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_text(content)

    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "--config", str(file), "status"], capture_output=True, text=True
    )

    assert done.returncode == ConfigurationError.exit_code
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("release", ["pump", "../../etc@1.0.0", "pump@1.0.0/..", "Pump@1", "@1", "pump@1.0.0\n"])
def test_an_invalid_release_is_a_usage_error(device: Device, release: str) -> None:
    done = device.call("activate", release)

    assert done.returncode == 2
    assert "expected NAME@VERSION" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "command", "message"),
    [
        (["install", "Bad Name"], "install", "found 'Bad Name', expected NAME@VERSION"),
        (["install", "pump_x@1.0.0"], "install", "expected NAME@VERSION"),
        (["install", "pump@1.0"], "install", "expected NAME@VERSION"),
        (["prune", "--keep", "x"], "prune", "found 'x', expected a whole number of 0 or more"),
        (["shadow", OLD, "--samples", "0"], "shadow", "expected a whole number of 1 or more"),
        (["samples"], "samples", "required: ACTION"),
        ([], "", "required: COMMAND"),
    ],
)
def test_a_usage_error_is_reported_in_json_too(
    capsys: pytest.CaptureFixture[str], arguments: list[str], command: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--json", *arguments])

    result = json.loads(capsys.readouterr().out)
    OUTPUT.validate(result)
    assert (ended.value.code, result["exit_code"], result["error"]) == (2, 2, "UsageError")
    assert result["command"] == command
    assert message in result["found"]


def test_no_disk_space_is_an_error_with_a_remedy(device: Device) -> None:
    device.json("install", OLD)

    result = json.loads(device.call("--json", "activate", OLD, fault="state.before_fsync=nospace").stdout)

    assert (result["error"], result["exit_code"]) == ("StorageError", StorageError.exit_code)
    assert "No space left" in result["found"]
    assert device.state.current is None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])

    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_the_exit_codes_are_in_the_help() -> None:
    text = main.parser().format_help()

    for kind in AgentError.__subclasses__():
        assert f" {kind.exit_code}  " in text
    assert f" {errors.EXIT_INTERRUPTED}  " in text


def test_status_imports_nothing_slow(device: Device) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *device.command("status")[1:]], capture_output=True, text=True
    )

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "edge_agent.lifecycle.status" in imported
    assert imported.isdisjoint({"numpy", "aiohttp", "tuf", "psutil", "asyncio", "prometheus_client"})


def test_a_closed_output_pipe_is_not_an_error(device: Device) -> None:
    command = f"{' '.join(device.command('--json', 'status'))} | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert done.stderr == ""


def test_a_download_has_a_bar_on_a_terminal(device: Device, releases: Releases) -> None:
    releases.publish("pump@3.0.0", padding=3_000_000)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(device.command("install", "pump@3.0.0"), stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while process.poll() is None or not shown.rstrip().endswith(b"unpacking ..."):
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end of the terminal is closed
            break
    os.close(ours)

    assert process.wait(60) == 0
    assert b"[" + b"#" * 30 + b"] 3.0 MB of 3.0 MB" in shown
