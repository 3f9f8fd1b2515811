"""Read an Ansible inventory with Ansible, check it, and return the declared fleet as typed objects.

Devices are the hosts of the group `devices`. The inventory can set these variables of a device wherever Ansible accepts
variables (docs/reference/inventory.md):

    fleet         {name: NAME, development: true or false}
    device_type   the type of the device, which a release may require with `requirements.device_types`
    wave          number of the device's wave: canaries have number 0, and waves are updated in ascending order
    release       NAME@VERSION that the device is to run; if absent, rollouts leave out the device
    rollout_*_s   time limits of a rollout for the device, in seconds (LIMITS); if absent, the role's defaults apply
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.core.release import EXPECTED, parse_release

from fleet.errors import InventoryError
from fleet.inventory import provenance, rollout_policy, ssh_checks
from fleet.inventory.listing import Listing, Variables, read_listing
from fleet.inventory.rollout_policy import RolloutPolicy

GROUP = "devices"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = "rollout_"  # prefix of groups that the playbooks create
LOCAL = ("localhost", "127.0.0.1")  # the machine that runs Ansible; playbooks store facts under these names
LIMITS = ("rollout_answer_s", "rollout_back_s", "rollout_deploy_s")  # role variables that a device can override
LONGEST_S = 604_800  # 7 days


@dataclass(frozen=True)
class Device:
    """A device that the inventory declares.

    `variables` holds its merged Ansible variables. Templates in these variables are not evaluated.
    """

    name: str
    address: str
    type: str
    wave: int
    release: str | None
    groups: tuple[str, ...]
    variables: Variables


@dataclass(frozen=True)
class Fleet:
    """A fleet that an inventory declares, with its devices sorted by wave and name.

    `development` says whether the fleet accepts releases that are signed with development keys.
    """

    path: Path
    name: str
    development: bool
    devices: tuple[Device, ...]

    def waves(self) -> dict[int, tuple[Device, ...]]:
        """Return the devices by wave number, the canaries first."""
        numbers = sorted({device.wave for device in self.devices})
        return {number: tuple(each for each in self.devices if each.wave == number) for number in numbers}

    def device(self, name: str) -> Device:
        """Return a device by name. Raises InventoryError if the fleet has no such device."""
        for device in self.devices:
            if device.name == name:
                return device
        raise InventoryError(
            str(self.path), f"no device {name!r}", f"a host of the group {GROUP}", "use the name of a host in hosts.yml"
        )


def load(path: Path, listing: Listing | None = None) -> Fleet:
    """Load the fleet that an inventory declares. Raises InventoryError, which lists every error with its file.

    `listing` is the result of `read_listing` for this path; if it is None, this function calls `read_listing`.
    """
    listing = read_listing(path) if listing is None else listing
    names = listing.hosts(GROUP)
    groups = listing.groups_by_host()
    check = _Check(path, listing)
    if not names:
        check.fault("", "", f"no host in the group {GROUP}", f"at least one host below `{GROUP}:` in hosts.yml")
    variables = {host: listing.variables.get(host, {}) for host in names}
    devices = [check.device(host, groups.get(host, ()), variables[host]) for host in names]
    name, development = check.fleet([(host, variables[host].get("fleet")) for host in names], groups)
    check.all_devices(devices)
    if check.faults:
        lines = [f"  {line}" for line in dict.fromkeys(check.faults)]
        raise InventoryError(
            str(path),
            "\n".join([f"{len(lines)} error(s)", *lines]),
            "an inventory as described in docs/reference/inventory.md",
            "correct each of these errors",
        )
    valid = sorted((each for each in devices if each), key=lambda device: (device.wave, device.name))
    return Fleet(path, name, development, tuple(valid))


def limited_devices(path: Path, limit: str) -> list[str]:
    """Return the names of the devices that a host pattern (`--limit`) selects in Ansible.

    Raises InventoryError if the pattern selects no device.
    """
    devices = read_listing(path, limit).hosts(GROUP)
    if not devices:
        raise InventoryError(
            str(path),
            f"no device matches {limit!r}",
            "a pattern that matches a device",
            "correct --limit, which takes Ansible's host patterns",
        )
    return devices


class _Check:
    """Checks an inventory and collects every error, each with the file that sets the invalid value."""

    def __init__(self, path: Path, listing: Listing) -> None:
        self.path, self.files = path, provenance.InventoryFiles(path)
        self.groups = {"all", "ungrouped", *listing.groups}
        self.depths = listing.depths()
        self.faults: list[str] = []
        for name in sorted(name for name in self.groups if name.startswith(RESERVED)):
            self.fault("", "", f"the group {name!r}", f"a group name that does not begin with {RESERVED}")

    def fault(
        self,
        host: str,
        field: str,
        actual: str,
        expected: str,
        groups: tuple[str, ...] = (),
        value: Any = provenance.ANY_VALUE,
    ) -> None:
        """Add an error to the list of errors.

        Args:
            host: The host's name; empty if the error concerns the whole inventory.
            field: The name of the variable with the error; empty if the error does not concern a variable.
            actual: A description of what the inventory declares.
            expected: A description of what the inventory should declare.
            groups: The groups of the host.
            value: The value of the variable, which is used to find the file that sets the variable.
        """
        file = self.files.declaring_file(host, field, groups, value) if field else str(self.path)
        where = ": ".join(part for part in (file, host, field) if part)
        self.faults.append(f"{where}: found {actual}, expected {expected}")

    def device(self, host: str, groups: tuple[str, ...], values: Variables) -> Device | None:
        """Check one host and return it as a device; return None if it has errors.

        Args:
            host: The host's name.
            groups: The groups of the host.
            values: The merged variables of the host.
        """
        before = len(self.faults)

        def require(field: str, is_valid: bool, expected: str) -> None:
            if not is_valid:
                actual = repr(values[field]) if field in values else "nothing"
                self.fault(host, field, actual, expected, groups, values.get(field))

        wave, release, kind = values.get("wave"), values.get("release"), values.get("device_type")
        self._name(host)
        require("wave", type(wave) is int and wave >= 0, "a whole number, at least 0")
        require("device_type", isinstance(kind, str) and bool(NAME.fullmatch(kind)), "a name such as raspberry-pi-4")
        require("release", release is None or bool(parse_release(str(release))), EXPECTED)
        for field in LIMITS:
            limit = values.get(field, 1)
            is_valid = type(limit) in (int, float) and 0 < limit <= LONGEST_S
            require(field, is_valid, f"a number of seconds above 0, at most {LONGEST_S} (7 days)")
        for field in ("wave", "release"):
            self._conflicts(host, field, groups, values.get(field))
        for field, expected in ssh_checks.faults(values):
            require(field, False, expected)
        if len(self.faults) > before:
            return None
        assert isinstance(wave, int) and isinstance(kind, str)
        address = str(values.get("ansible_host", host))
        return Device(host, address, kind, wave, release, groups, values)

    def _name(self, host: str) -> None:
        if not NAME.fullmatch(host):
            self.fault(host, "", repr(host), "a device name that consists of letters, digits, '.', '_' and '-'")
        if host in LOCAL or host in self.groups or host.startswith(RESERVED):
            expected = (
                f"a name that is neither {' nor '.join(LOCAL)} nor a group name, and does not begin with {RESERVED}"
            )
            self.fault(host, "", "a name that Ansible or the playbooks use for something else", expected)

    def _conflicts(self, host: str, field: str, groups: tuple[str, ...], value: Any) -> None:
        """Add an error if several groups of a host have the same precedence but set a variable to different values.

        `value` is the value that Ansible chooses.
        """
        depths = {group: self.depths[group] for group in groups}
        if conflicts := self.files.conflicting_groups(host, field, depths):
            actual = ", ".join(f"{each!r} in the group {group} ({file})" for group, (file, each) in conflicts.items())
            expected = "the same value in these groups, because Ansible chooses the group whose name sorts last"
            self.fault(host, field, actual, expected, groups, value)

    def fleet(self, declared: Sequence[tuple[str, Any]], groups: Mapping[str, tuple[str, ...]]) -> tuple[str, bool]:
        """Check that all hosts declare the same value of the variable `fleet`.

        Return the fleet's name and whether the fleet accepts development keys.
        """
        expected = "{name: NAME, development: true or false}, the same for all devices (group_vars/all.yml)"
        for host, value in declared:
            is_valid = (
                isinstance(value, dict)
                and set(value) == {"name", "development"}
                and isinstance(value["name"], str)
                and NAME.fullmatch(value["name"])
                and isinstance(value["development"], bool)
            )
            if not is_valid or value != declared[0][1]:
                actual = repr(value) if value is not None else "nothing"
                self.fault(host, "fleet", actual, expected, groups.get(host, ()), value)
                return "", False
        return (declared[0][1]["name"], declared[0][1]["development"]) if declared else ("", False)

    def all_devices(self, devices: Sequence[Device | None]) -> None:
        """Check that at least one device is a canary, and that no two devices have the same address."""
        valid = [device for device in devices if device]
        if len(valid) == len(devices) and valid and not any(device.wave == 0 for device in valid):
            self.fault("", "wave", "no device in wave 0", "at least one canary: a device with `wave: 0`")
        names: dict[tuple[str, str], str] = {}
        for device in valid:
            if device.variables.get("ansible_connection") == "local":
                continue
            address = (device.address, str(device.variables.get("ansible_port", 22)))
            if address in names:
                actual = f"{device.address!r}, which is also the address of {names[address]}"
                value = device.variables.get("ansible_host", device.name)
                self.fault(device.name, "ansible_host", actual, "a unique address", device.groups, value)
            names[address] = device.name


def rollout_policy_of(fleet: Fleet) -> RolloutPolicy:
    """Return the rollout policy of a fleet. Raises InventoryError if `rollout:` is not the same for all devices."""
    first = fleet.devices[0]
    value = first.variables.get("rollout")
    files = provenance.InventoryFiles(fleet.path)
    for device in fleet.devices:
        if (other := device.variables.get("rollout")) != value:
            raise InventoryError(
                files.declaring_file(device.name, "rollout", device.groups, other),
                f"{device.name}: `rollout` differs from the value for {first.name}",
                "the same rollout policy for all devices",
                "declare `rollout` in group_vars/all.yml only",
            )
    return rollout_policy.parse(value, files.declaring_file(first.name, "rollout", first.groups, value))
