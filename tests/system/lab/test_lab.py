"""lab: devices are machines of their own, lose their power and keep their disk; nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet.inventory import model
from lab import Lab, LabError
from lab.lab import waves
from lab.root import debian_sources
from tests.support.labs import gone, keep_up, left, need_lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def standing() -> Iterator[Lab]:
    need_lab()
    with Lab(3) as made:
        yield made


def test_each_device_is_a_machine_of_its_own(standing: Lab) -> None:
    for device in standing.devices:
        seen = standing.ssh(device, "hostname; cat /etc/machine-id; systemctl is-system-running; sudo id -un")
        name, identity, state, user = seen.stdout.split()
        assert (name, state, user) == (device.name, "running", "root"), seen.stderr
        assert identity == device.exec("cat", "/etc/machine-id").stdout.strip()
    assert len({device.host_key for device in standing.devices}) == 3
    assert len({device.address for device in standing.devices}) == 3


def test_host_keys_are_checked(standing: Lab) -> None:
    """Another device at a known address is refused."""
    first, second = standing.devices[:2]
    known = standing.known_hosts.read_text()
    standing.known_hosts.write_text(known.replace(second.host_key, first.host_key))
    try:
        assert "Host key verification failed" in standing.ssh(second, "true").stderr
    finally:
        standing.known_hosts.write_text(known)


def test_a_device_has_no_way_out(standing: Lab) -> None:
    done = standing.devices[0].exec("ip", "route", "get", "192.0.2.99", check=False)

    assert "unreachable" in done.stderr


def test_the_power_goes_and_comes_back(standing: Lab) -> None:
    device = standing.devices[0]
    device.exec("sh", "-c", "echo kept >/var/lib/kept; echo gone >/run/gone")
    before = device.exec("cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id").stdout.split()

    device.unplug()

    assert standing.ssh(device, "true").returncode == 255
    with pytest.raises(LabError, match="the device is off"):
        device.exec("true")
    device.plug()
    assert device.exec("cat", "/var/lib/kept").stdout == "kept\n"
    assert device.exec("test", "-e", "/run/gone", check=False).returncode == 1
    assert device.exec("cat", "/etc/machine-id").stdout.strip() == before[1]
    assert standing.ssh(device, "true").returncode == 0


def test_the_cable_goes_and_comes_back(standing: Lab) -> None:
    device = standing.devices[1]

    device.disconnect()

    assert standing.ssh(device, "true").returncode == 255
    assert device.exec("hostname").stdout.strip() == device.name
    device.connect()
    assert standing.ssh(device, "true").returncode == 0


def test_ansible_and_the_fleet_find_the_devices(standing: Lab) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "devices", "-i", str(standing.inventory), "-m", "ping"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    fleet = model.load(standing.inventory)

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SUCCESS") == 3
    assert {wave: len(devices) for wave, devices in fleet.waves().items()} == {0: 1, 1: 1, 2: 1}


def test_two_labs_stand_side_by_side(standing: Lab) -> None:
    with Lab(1) as other:
        assert not other.bridge.subnet.overlaps(standing.bridge.subnet)
        assert other.ssh(other.devices[0], "true").returncode == 0
    assert standing.ssh(standing.devices[2], "true").returncode == 0


def test_nothing_is_left_after_an_error(standing: Lab) -> None:
    with pytest.raises(ZeroDivisionError), Lab(1) as made:
        assert left(made.id)
        raise ZeroDivisionError

    assert left(made.id) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interrupt(standing: Lab, number: signal.Signals) -> None:
    """As `make lab` and ^C."""
    process, identity = keep_up()
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert left(identity) == []


def test_what_a_killed_lab_left_goes_by_itself(standing: Lab) -> None:
    process, identity = keep_up()
    process.kill()
    process.communicate(timeout=60)

    assert gone(identity)


def test_what_a_killed_lab_left_is_removed_by_the_next(standing: Lab) -> None:
    """Where its watcher was killed too."""
    process, identity = keep_up()
    (watcher,) = [each for each in psutil.Process(process.pid).children() if "lab.reap()" in " ".join(each.cmdline())]
    watcher.kill()
    process.kill()
    process.communicate(timeout=60)
    assert left(identity)

    with Lab(1, plugged=False):
        assert left(identity) == []


def test_waves_grow(tmp_path: Path) -> None:
    assert [len(part) for part in waves(list(range(10)))] == [1, 3, 6]  # type: ignore[arg-type]
    assert [len(part) for part in waves(list(range(1)))] == [1]  # type: ignore[arg-type]


def test_only_debians_own_sources_go_into_a_device(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        "Types: deb\n# kept from a mirror\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n"
    )
    (folder / "vendor.list").write_text("deb http://vendor.test/apt vendor-bookworm main\n")
    (tmp_path / "sources.list").write_text("deb http://mirror.test/debian bookworm-security main contrib\n")

    found = debian_sources(folder)

    assert [line for stanza in found for line in stanza.splitlines() if line.startswith("Suites")] == [
        "Suites: bookworm bookworm-updates",
        "Suites: bookworm-security",
    ]
