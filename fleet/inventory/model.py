"""The fleet as declared: an Ansible inventory, read as Ansible reads it, checked, as typed objects.

Devices are the hosts of the group `devices`. What this project reads of them, from any place where Ansible takes
variables from (docs/reference/inventory.md):

    fleet         {name: NAME, development: true or false}
    device_type   what a release names under `requirements.device_types`
    wave          0 is the canaries; a rollout goes up from there
    release       NAME@VERSION that the device shall run; absent: none is declared
    rollout_*_s   seconds that a rollout waits for the device (LIMITS); absent: the role's own
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.core.release import EXPECTED, parse_release

from fleet.errors import InventoryError
from fleet.inventory import duplicates, provenance, rollout_policy, ssh_checks
from fleet.inventory.rollout_policy import RolloutPolicy

GROUP = "devices"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN = "rollout_"  # groups that playbooks make begin with it
LOCAL = ("localhost", "127.0.0.1")  # what Ansible takes for the machine that it runs on, where playbooks keep a rollout
TIMEOUT_S = 120
LIMITS = ("rollout_answer_s", "rollout_back_s", "rollout_deploy_s")  # seconds that a device has, in the rollout role
LONGEST_S = 604_800  # 7 days


@dataclass(frozen=True)
class Device:
    """One declared device. `variables`: all of Ansible's for it, merged, templates as they are written."""

    name: str
    address: str
    type: str
    wave: int
    release: str | None
    groups: tuple[str, ...]
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Fleet:
    """`development`: releases signed with development keys are accepted. Devices are sorted by wave and name."""

    path: Path
    name: str
    development: bool
    devices: tuple[Device, ...]

    def waves(self) -> dict[int, tuple[Device, ...]]:
        """Devices by wave, the canaries first."""
        numbers = sorted({device.wave for device in self.devices})
        return {number: tuple(each for each in self.devices if each.wave == number) for number in numbers}

    def device(self, name: str) -> Device:
        for device in self.devices:
            if device.name == name:
                return device
        raise InventoryError(str(self.path), f"no device {name!r}", f"a host of the group {GROUP}", "see hosts.yml")


def load(path: Path, listed: Mapping[str, Any] | None = None) -> Fleet:
    """The fleet that an inventory declares. Raises InventoryError, which lists every fault by file, host and field.

    `listed`: what `listing` said of it, where that is known already.
    """
    listed = listing(path) if listed is None else listed
    names = hosts(listed, GROUP)
    variables = listed.get("_meta", {}).get("hostvars", {})
    groups = _groups(listed)
    check = _Check(path, {"all", "ungrouped", *listed}, _depths(listed))
    if not names:
        check.fault("", "", f"no host in the group {GROUP}", f"at least one below {GROUP}: in hosts.yml")
    devices = [check.device(host, groups.get(host, ()), variables.get(host, {})) for host in names]
    fleets = [(host, variables.get(host, {}).get("fleet")) for host in names]
    name, development = check.fleet(fleets, groups)
    check.whole(devices)
    if check.faults:
        lines = [f"  {line}" for line in dict.fromkeys(check.faults)]
        raise InventoryError(
            str(path),
            "\n".join([f"{len(lines)} fault(s)", *lines]),
            "what docs/reference/inventory.md says",
            "mend them",
        )
    known = sorted((each for each in devices if each), key=lambda device: (device.wave, device.name))
    return Fleet(path, name, development, tuple(known))


def listing(path: Path, limit: str | None = None) -> dict[str, Any]:
    """What `ansible-inventory --list` says; `limit`: of hosts, as Ansible names them. Raises InventoryError."""
    if not path.exists():
        raise InventoryError(str(path), "not there", "an inventory's folder or file", "name one below inventory/")
    duplicates.check(path)
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--inventory", str(path), "--list"]
    command += ["--limit", limit] if limit else []
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "true"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **strict}, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InventoryError(
            str(path),
            f"ansible-inventory has not read it within {TIMEOUT_S} s",
            "an inventory that is read at once",
            f"see what its programs and plugins wait for: ansible-inventory -i {path} --list -vvv",
        ) from None
    if done.returncode:
        found = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InventoryError(str(path), found, "an inventory that Ansible can read", "mend it")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def hosts(listed: Mapping[str, Any], group: str) -> list[str]:
    """Of a group and of all groups below it."""
    entry = listed.get(group, {})
    below = [host for child in entry.get("children", ()) for host in hosts(listed, child)]
    return list(dict.fromkeys([*entry.get("hosts", ()), *below]))


def _groups(listed: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group in sorted(name for name in listed if name not in ("_meta", "all", "ungrouped")):
        for host in hosts(listed, group):
            found[host] = (*found.get(host, ()), group)
    return found


def _depths(listed: Mapping[str, Any]) -> dict[str, int]:
    """How far each group is below `all`, on the longest way: the deeper one wins."""
    depths = {"all": 0}
    left = ["all"]
    while left:
        above = left.pop()
        for group in listed.get(above, {}).get("children", ()):
            if depths.get(group, 0) <= depths[above]:
                depths[group] = depths[above] + 1
                left.append(group)
    return depths


class _Check:
    """Collects every fault, each with the file that says the value."""

    def __init__(self, path: Path, groups: Collection[str], depths: Mapping[str, int]) -> None:
        self.path, self.groups, self.depths, self.declared = path, groups, depths, provenance.Declared(path)
        self.faults: list[str] = []
        for name in sorted(name for name in groups if name.startswith(OWN)):
            self.fault("", "", f"the group {name!r}", f"names of groups that do not begin with {OWN}")

    def fault(
        self,
        host: str,
        field: str,
        found: str,
        expected: str,
        groups: tuple[str, ...] = (),
        value: Any = provenance.SOME,
    ) -> None:
        place = self.declared.origin(host, field, groups, value) if field else str(self.path)
        where = ": ".join(part for part in (place, host, field) if part)
        self.faults.append(f"{where}: found {found}, expected {expected}")

    def device(self, host: str, groups: tuple[str, ...], values: Mapping[str, Any]) -> Device | None:
        before = len(self.faults)

        def want(field: str, good: bool, expected: str) -> None:
            if not good:
                found = repr(values[field]) if field in values else "nothing"
                self.fault(host, field, found, expected, groups, values.get(field))

        wave, release, kind = values.get("wave"), values.get("release"), values.get("device_type")
        self._name(host)
        want("wave", type(wave) is int and wave >= 0, "a whole number from 0")
        want("device_type", isinstance(kind, str) and bool(NAME.fullmatch(kind)), "a name such as raspberry-pi-4")
        want("release", release is None or bool(parse_release(str(release))), EXPECTED)
        for field in LIMITS:
            limit = values.get(field, 1)
            good = type(limit) in (int, float) and 0 < limit <= LONGEST_S
            want(field, good, f"seconds: a number above 0, {LONGEST_S} at most")
        for field in ("wave", "release"):
            self._rivals(host, field, groups, values.get(field))
        for field, expected in ssh_checks.faults(values):
            want(field, False, expected)
        if len(self.faults) > before:
            return None
        assert isinstance(wave, int) and isinstance(kind, str)
        address = str(values.get("ansible_host", host))
        return Device(host, address, kind, wave, release, groups, values)

    def _name(self, host: str) -> None:
        if not NAME.fullmatch(host):
            self.fault(host, "", repr(host), "letters, digits, '.', '_' and '-' in a device's name")
        if host in LOCAL or host in self.groups or host.startswith(OWN):
            taken = f"neither {' nor '.join(LOCAL)} nor a group's, and no {OWN} in front"
            self.fault(host, "", "a name that means something else to Ansible or to the playbooks", taken)

    def _rivals(self, host: str, field: str, groups: tuple[str, ...], value: Any) -> None:
        """Two groups that contradict each other. `value`: the one that Ansible takes."""
        depths = {group: self.depths[group] for group in groups}
        if said := self.declared.rivals(host, field, depths):
            found = ", ".join(f"{each!r} of the group {group} ({at})" for group, (at, each) in said.items())
            self.fault(host, field, found, "one: Ansible takes the last group's by name", groups, value)

    def fleet(self, said: list[tuple[str, Any]], groups: Mapping[str, tuple[str, ...]]) -> tuple[str, bool]:
        """All devices must say the same."""
        expected = "{name: NAME, development: true or false}, the same for all devices (group_vars/all.yml)"
        for host, value in said:
            good = (
                isinstance(value, dict)
                and set(value) == {"name", "development"}
                and isinstance(value["name"], str)
                and NAME.fullmatch(value["name"])
                and isinstance(value["development"], bool)
            )
            if not good or value != said[0][1]:
                found = repr(value) if value is not None else "nothing"
                self.fault(host, "fleet", found, expected, groups.get(host, ()), value)
                return "", False
        return (said[0][1]["name"], said[0][1]["development"]) if said else ("", False)

    def whole(self, devices: list[Device | None]) -> None:
        known = [device for device in devices if device]
        if len(known) == len(devices) and known and not any(device.wave == 0 for device in known):
            self.fault("", "wave", "no device in wave 0", "at least one canary")
        seen: dict[tuple[str, str], str] = {}
        for device in known:
            if device.variables.get("ansible_connection") == "local":
                continue
            place = (device.address, str(device.variables.get("ansible_port", 22)))
            if place in seen:
                found = f"{device.address!r}, the address of {seen[place]}"
                said = device.variables.get("ansible_host", device.name)
                self.fault(device.name, "ansible_host", found, "an address of its own", device.groups, said)
            seen[place] = device.name


def origin(path: Path, host: str, field: str, groups: tuple[str, ...], value: Any = provenance.SOME) -> str:
    """The file that says a host's variable, as far as one can see it; the inventory where that is not clear."""
    return provenance.Declared(path).origin(host, field, groups, value)


def rollout_policy_of(fleet: Fleet) -> RolloutPolicy:
    """The rules of its rollouts: one `rollout:`, the same for all devices. Raises InventoryError."""
    first = fleet.devices[0]
    value = first.variables.get("rollout")
    for device in fleet.devices:
        if (other := device.variables.get("rollout")) != value:
            raise InventoryError(
                origin(fleet.path, device.name, "rollout", device.groups, other),
                f"{device.name}: another rollout: than {first.name}",
                "one for the fleet",
                "group_vars/all.yml",
            )
    return rollout_policy.parse(value, origin(fleet.path, first.name, "rollout", first.groups, value))
