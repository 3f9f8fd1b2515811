"""playbooks/bootstrap.yml, status.yml and decommission.yml on booted devices with systemd, sshd and power cuts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Device, Lab, agents
from tests.support.agent.bundles import bundle
from tests.support.agent.tuf_repository import TufRepository
from tests.support.fleet.bootstrapped import Fleet, play, recap
from tests.support.fleet.publishing import SCHEMA
from tests.support.labs import need_lab
from tests.support.paths import REPOSITORY

RELEASE = "digits@1.0.0"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    need_lab()
    folder = tmp_path_factory.mktemp("releases")
    repository = TufRepository(folder / "repository")
    repository.publish(RELEASE, bundle(folder, name="digits", targets=("onnx-fp32", "tflite-fp32")).archive)
    with Lab(2, layer=agents.layer()) as lab:
        fleet = Fleet(lab, repository)
        fleet.play("bootstrap")
        yield fleet


def agent(device: Device, *arguments: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(device.exec("edge-agent", "--json", *arguments).stdout)
    return result


def copy_repository(fleet: Fleet, device: Device) -> None:
    """Copy the repository's files onto a device, as a playbook or a USB stick does."""
    source, state = fleet.repository.folder, "/var/lib/edge-agent/repository"
    for file in [path for path in source.rglob("*") if path.is_file()]:
        target = f"{state}/{file.relative_to(source)}"
        device.exec("install", "-D", "-m", "0644", "/dev/stdin", target, stdin=file.read_bytes())
    device.exec("chown", "-R", "edge-agent:edge-agent", state)


def test_a_second_bootstrap_changes_nothing(fleet: Fleet) -> None:
    started = "systemctl show edge-agent --property=ExecMainStartTimestampMonotonic"
    before = [device.exec(*started.split()).stdout for device in fleet.lab.devices]

    counts = recap(fleet.play("bootstrap"))

    assert {counts[name]["changed"] for name in ("device-01", "device-02", "localhost")} == {0}
    assert [device.exec(*started.split()).stdout for device in fleet.lab.devices] == before


def test_the_log_of_an_agent_is_read_from_its_journal(fleet: Fleet) -> None:
    program = [sys.executable, "-m", "fleet", "--json", "logs", "device-01", "-i", str(fleet.lab.inventory)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, cwd=REPOSITORY, check=False)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    SCHEMA.validate(result)
    assert "edge-agent.service" in result["text"] and "edge-agent[" in result["text"]
    first, *_, last = result["text"].splitlines()
    from_playbook = " ".join(fleet.play("logs", "--limit", "device-01", log_lines=1).split())
    assert last in from_playbook and first not in from_playbook


@pytest.fixture(scope="module")
def serving(fleet: Fleet) -> Device:
    """The first device, with an active release."""
    device = fleet.lab.devices[0]
    copy_repository(fleet, device)
    agent(device, "install", RELEASE)
    activated = agent(device, "activate", RELEASE)
    assert activated["service"]["loaded"]["release"] == RELEASE
    return device


def test_the_systemd_unit_is_confined_and_serves(serving: Device) -> None:
    """Check the user, the hardening and the watchdog of the unit."""
    device = serving
    show = device.exec("systemctl", "show", "edge-agent", "--property=User,MainPID,WatchdogUSec,NRestarts").stdout
    facts = dict(line.split("=", 1) for line in show.splitlines())
    assert (facts["User"], facts["WatchdogUSec"], facts["NRestarts"]) == ("edge-agent", "1min", "0")
    owner = device.exec("stat", "--format=%U", f"/proc/{facts['MainPID']}").stdout.strip()
    assert owner == "edge-agent"
    analysis = device.exec("systemd-analyze", "security", "--no-pager", "edge-agent").stdout
    exposure = re.search(r"exposure level for edge-agent.service: ([0-9.]+)", analysis)
    assert exposure and float(exposure[1]) <= 2.0, analysis[-200:]
    ready = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8650/readyz').status, "
        "r.urlopen('http://127.0.0.1:8650/info').status)"
    )
    assert device.exec("python3", "-c", ready).stdout.split() == ["200", "200"]


def test_the_agent_serves_again_after_a_power_cut(serving: Device) -> None:
    loaded = agent(serving, "status")["service"]["loaded"]

    serving.unplug()
    serving.plug()

    assert loaded["release"] == RELEASE
    assert agent(serving, "status")["service"]["loaded"] == loaded


def test_status_compares_declared_and_running_releases(fleet: Fleet, serving: Device, tmp_path: Path) -> None:
    """The play lists devices that are off or run another release, and fails."""
    first, second = serving, fleet.lab.devices[1]
    agent(first, "confirm", "--force")
    hosts = declare(fleet, tmp_path, {first.name: RELEASE, second.name: RELEASE})
    second.unplug()
    try:
        output = play(hosts, "status", code=2, status_json=str(tmp_path / "status.json"))
    finally:
        second.plug()

    assert "1 of 2 devices are not as declared: device-02" in output
    assert re.search(r"device-01 +0 +digits@1.0.0 +digits@1.0.0 +as declared", output), output
    assert re.search(r"device-02 +1 +digits@1.0.0 +- +unreachable", output), output
    rows = {row["device"]: row for row in json.loads((tmp_path / "status.json").read_text())["devices"]}
    assert (rows["device-01"]["as_declared"], rows["device-02"]["as_declared"]) == (True, False)

    output = play(hosts, "status", code=2)
    assert re.search(r"device-02 +1 +digits@1.0.0 +- +not the declared release", output), output

    second.exec("systemctl", "stop", "edge-agent")
    output = play(hosts, "status", code=2)
    second.exec("systemctl", "start", "edge-agent")
    assert re.search(r"device-02 +1 +digits@1.0.0 +- +no service is running", output), output

    as_is = declare(fleet, tmp_path / "as-is", {first.name: RELEASE})
    assert play(as_is, "status").count("as declared") == 2


def declare(fleet: Fleet, folder: Path, releases: dict[str, str]) -> Path:
    """Copy the lab's inventory and declare a release for each of these devices."""
    inventory = folder / "inventory"
    shutil.copytree(fleet.lab.inventory, inventory)
    (inventory / "host_vars").mkdir()
    for name, release in releases.items():
        (inventory / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump({"release": release}))
    return inventory


@pytest.mark.exhaustive
def test_check_mode_shows_changes_and_makes_none(fleet: Fleet) -> None:
    changed = {"edge_agent_config": {"serve": {"listen": "127.0.0.1:8777"}}}

    output = fleet.play("bootstrap", "--check", "--diff", "--limit", "device-02", **changed)

    assert '+listen = "127.0.0.1:8777"' in output
    assert "8777" not in fleet.lab.devices[1].exec("cat", "/etc/edge-agent/config.toml").stdout
    assert recap(fleet.play("bootstrap", "--limit", "device-02"))["device-02"]["changed"] == 0


def test_a_changed_configuration_restarts_the_agent_once_and_a_wrong_one_is_refused(fleet: Fleet) -> None:
    device = fleet.lab.devices[1]
    before = device.exec("cat", "/etc/edge-agent/config.toml").stdout

    refused = fleet.play(
        "bootstrap", "--limit", "device-02", code=2, edge_agent_config={"serve": {"listen": "0.0.0.0:80"}}
    )
    assert "serve.listen" in refused
    assert device.exec("cat", "/etc/edge-agent/config.toml").stdout == before

    output = fleet.play("bootstrap", "--limit", "device-02", edge_agent_config={"trial": {"seconds": 5}})
    assert output.count("RUNNING HANDLER") == 1
    assert "seconds = 5" in device.exec("cat", "/etc/edge-agent/config.toml").stdout
    assert agent(device, "status")["service"]["running"]


def test_another_root_of_trust_is_refused_unless_requested(fleet: Fleet, tmp_path: Path) -> None:
    device = fleet.lab.devices[1]
    other = tmp_path / "other.json"
    other.write_text('{"signed": {}}')
    variables = {**fleet.variables, "edge_agent_root": str(other)}

    output = play(fleet.lab.inventory, "bootstrap", "--limit", "device-02", code=2, **variables)

    assert "edge_agent_repin=true" in " ".join(output.split())
    assert device.exec("cat", "/etc/edge-agent/root.json").stdout != other.read_text()


def test_missing_material_is_refused_before_anything_changes(fleet: Fleet, tmp_path: Path) -> None:
    limit = ("--limit", "device-02")
    variables = {**fleet.variables, "edge_agent_wheelhouses": str(tmp_path)}
    assert "make wheelhouse" in play(fleet.lab.inventory, "bootstrap", *limit, code=2, **variables)

    variables = {**fleet.variables, "edge_agent_root": str(tmp_path / "root.json")}
    assert "expected the repository's root metadata" in " ".join(
        play(fleet.lab.inventory, "bootstrap", *limit, code=2, **variables).split()
    )


def test_a_device_is_decommissioned_only_with_confirmation(fleet: Fleet) -> None:
    device = fleet.lab.devices[1]
    limit = ("--limit", "device-02")

    assert "confirm=yes" in fleet.play("decommission", *limit, code=2)
    assert "--limit" in fleet.play("decommission", code=2, confirm="yes")
    assert agent(device, "status")["service"]["running"]

    fleet.play("decommission", *limit, confirm="yes")

    removed_paths = (
        "/opt/edge-agent /etc/edge-agent /var/lib/edge-agent /run/edge-agent /etc/systemd/system/edge-agent.service"
    )
    for path in removed_paths.split():
        assert device.exec("test", "-e", path, check=False).returncode == 1, path
    assert device.exec("id", "edge-agent", check=False).returncode == 1
    assert device.exec("systemctl", "is-system-running").stdout.strip() == "running"
    assert recap(fleet.play("decommission", *limit, confirm="yes"))["device-02"]["changed"] == 0


def test_bootstrap_installs_the_agent_on_a_bare_device(fleet: Fleet) -> None:
    """The lab has no network beyond this machine. After a check run, only the first run changes the device."""
    with Lab(1) as lab:
        device = lab.devices[0]
        checked = play(lab.inventory, "bootstrap", "--check", "--diff", **fleet.variables)
        assert '+id = "device-01"' in checked
        assert device.exec("sh", "-c", "ls /opt; ls -d /etc/edge-agent", check=False).stdout == ""

        first = play(lab.inventory, "bootstrap", **fleet.variables)
        again = play(lab.inventory, "bootstrap", **fleet.variables)

        assert recap(first)["device-01"]["changed"] > 10
        assert recap(again)["device-01"]["changed"] == 0
        assert device.exec("systemctl", "is-enabled", "edge-agent").stdout.strip() == "enabled"
        status = agent(device, "status")
        assert (status["device"]["id"], status["device"]["type"]) == ("device-01", "generic")
        assert status["service"]["running"] and status["service"]["fault"] is None
        pinned = device.exec("cat", "/etc/edge-agent/root.json").stdout
        assert pinned == Path(fleet.variables["edge_agent_root"]).read_text()


@pytest.mark.exhaustive
def test_a_simulated_device_needs_no_root_and_no_systemd(fleet: Fleet, tmp_path: Path) -> None:
    """inventory/embedded: the same playbooks over the local connection, with an agent in a folder."""
    inventory, limit = REPOSITORY / "inventory" / "embedded", ("--limit", "embedded-01,localhost")
    prefix = tmp_path / "d"
    variables = {
        **fleet.variables,
        "edge_agent_prefix": str(prefix),
        "edge_agent_config": {"serve": {"listen": "", "socket": f"{prefix}/run/edge-agent/predict.sock"}},
    }
    try:
        play(inventory, "bootstrap", *limit, **variables)
        assert recap(play(inventory, "bootstrap", *limit, **variables))["embedded-01"]["changed"] == 0
        process = int((prefix / "run/edge-agent/pid").read_text())
        assert Path(f"/proc/{process}").exists()
    finally:
        play(inventory, "decommission", *limit, confirm="yes", **variables)

    assert not prefix.exists() and not Path(f"/proc/{process}").exists()
