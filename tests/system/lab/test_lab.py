"""A lab's devices are separate machines that keep their disk after a power cut, and a lab leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet.inventory import model
from lab import Lab, LabError, network
from lab.lab import waves
from lab.root import debian_sources
from tests.support.labs import is_removed, need_lab, remains_of, start_lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running_lab() -> Iterator[Lab]:
    need_lab()
    with Lab(3) as lab:
        yield lab


def test_each_device_is_a_separate_machine(running_lab: Lab) -> None:
    for device in running_lab.devices:
        result = running_lab.ssh(device, "hostname; cat /etc/machine-id; systemctl is-system-running; sudo id -un")
        name, identity, state, user = result.stdout.split()
        assert (name, state, user) == (device.name, "running", "root"), result.stderr
        assert identity == device.exec("cat", "/etc/machine-id").stdout.strip()
    assert len({device.host_key for device in running_lab.devices}) == 3
    assert len({device.address for device in running_lab.devices}) == 3


def test_host_keys_are_checked(running_lab: Lab) -> None:
    """A connection to another device at a known address is refused."""
    first, second = running_lab.devices[:2]
    host_keys = running_lab.known_hosts.read_text()
    running_lab.known_hosts.write_text(host_keys.replace(second.host_key, first.host_key))
    try:
        assert "Host key verification failed" in running_lab.ssh(second, "true").stderr
    finally:
        running_lab.known_hosts.write_text(host_keys)


def test_a_device_has_no_route_to_other_networks(running_lab: Lab) -> None:
    done = running_lab.devices[0].exec("ip", "route", "get", "192.0.2.99", check=False)

    assert "unreachable" in done.stderr


def test_a_device_keeps_its_disk_and_identity_after_a_power_cut(running_lab: Lab) -> None:
    device = running_lab.devices[0]
    device.exec("sh", "-c", "echo kept >/var/lib/kept; echo gone >/run/gone")
    before = device.exec("cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id").stdout.split()

    device.unplug()

    assert running_lab.ssh(device, "true").returncode == 255
    with pytest.raises(LabError, match="the device is off"):
        device.exec("true")
    device.plug()
    assert device.exec("cat", "/var/lib/kept").stdout == "kept\n"
    assert device.exec("test", "-e", "/run/gone", check=False).returncode == 1
    assert device.exec("cat", "/etc/machine-id").stdout.strip() == before[1]
    assert running_lab.ssh(device, "true").returncode == 0


def test_a_disconnected_device_runs_on_and_can_be_connected_again(running_lab: Lab) -> None:
    device = running_lab.devices[1]

    device.disconnect()

    assert running_lab.ssh(device, "true").returncode == 255
    assert device.exec("hostname").stdout.strip() == device.name
    device.connect()
    assert running_lab.ssh(device, "true").returncode == 0


def test_ansible_and_the_fleet_find_the_devices(running_lab: Lab) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "devices", "-i", str(running_lab.inventory), "-m", "ping"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    fleet = model.load(running_lab.inventory)

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SUCCESS") == 3
    assert {wave: len(devices) for wave, devices in fleet.waves().items()} == {0: 1, 1: 1, 2: 1}


def test_two_labs_run_side_by_side(running_lab: Lab) -> None:
    with Lab(1) as other:
        assert not other.bridge.subnet.overlaps(running_lab.bridge.subnet)
        assert other.ssh(other.devices[0], "true").returncode == 0
    assert running_lab.ssh(running_lab.devices[2], "true").returncode == 0


def test_nothing_is_left_after_an_error(running_lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError), Lab(1) as lab:
        assert remains_of(lab.id)
        raise ZeroDivisionError

    assert remains_of(lab.id) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interrupt(running_lab: Lab, number: signal.Signals) -> None:
    """Interrupt a lab as `make lab` and ^C do."""
    process, identity = start_lab()
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert remains_of(identity) == []


def test_a_killed_lab_is_removed_automatically(running_lab: Lab) -> None:
    process, identity = start_lab()
    process.kill()
    process.communicate(timeout=60)

    assert is_removed(identity)


def test_a_killed_lab_is_removed_by_the_next_lab(running_lab: Lab) -> None:
    """The next lab also cleans up if the watcher was killed."""
    process, identity = start_lab()
    (watcher,) = [each for each in psutil.Process(process.pid).children() if "lab.reap()" in " ".join(each.cmdline())]
    watcher.kill()
    process.kill()
    process.communicate(timeout=60)
    assert remains_of(identity)

    with Lab(1, plugged=False):
        assert remains_of(identity) == []


def test_a_link_that_the_kernel_has_removed_is_no_error(running_lab: Lab) -> None:
    link = running_lab.devices[0].link

    network.remove_link(f"{link}-x")
    with pytest.raises(LabError, match="ip link delete lo"):
        network.remove_link("lo")

    assert network.exists(link)


def test_the_waves_grow_in_size(tmp_path: Path) -> None:
    assert [len(part) for part in waves(list(range(10)))] == [1, 3, 6]  # type: ignore[arg-type]
    assert [len(part) for part in waves(list(range(1)))] == [1]  # type: ignore[arg-type]


def test_only_sources_of_debian_are_copied_into_a_device(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        "Types: deb\n# kept from a mirror\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n"
    )
    (folder / "vendor.list").write_text("deb http://vendor.test/apt vendor-bookworm main\n")
    (tmp_path / "sources.list").write_text("deb http://mirror.test/debian bookworm-security main contrib\n")

    stanzas = debian_sources(folder)

    assert [line for stanza in stanzas for line in stanza.splitlines() if line.startswith("Suites")] == [
        "Suites: bookworm bookworm-updates",
        "Suites: bookworm-security",
    ]
