"""Read an inventory with `ansible-inventory --list`: hosts, groups and merged variables as Ansible sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.errors import InventoryError
from fleet.inventory import duplicates

META = "_meta"  # the key of the hosts' variables in the output of ansible-inventory
NOT_GROUPS = (META, "all", "ungrouped")
TIMEOUT_S = 120
Variables = Mapping[str, Any]  # merged variables of a host; templates are not evaluated


@dataclass(frozen=True)
class Group:
    """A group of the inventory: the hosts that it lists directly, and the names of its child groups."""

    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """An inventory as Ansible reads it.

    `groups` holds each group by name, and `variables` holds the merged variables of each host.
    """

    groups: Mapping[str, Group] = field(default_factory=dict)
    variables: Mapping[str, Variables] = field(default_factory=dict)

    def hosts(self, group: str) -> list[str]:
        """Return the hosts of a group and of all groups below it."""
        entry = self.groups.get(group, Group())
        below = [host for child in entry.children for host in self.hosts(child)]
        return list(dict.fromkeys([*entry.hosts, *below]))

    def groups_by_host(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of each host, sorted by name, without `all` and `ungrouped`."""
        memberships: dict[str, tuple[str, ...]] = {}
        for group in sorted(name for name in self.groups if name not in NOT_GROUPS):
            for host in self.hosts(group):
                memberships[host] = (*memberships.get(host, ()), group)
        return memberships

    def depths(self) -> dict[str, int]:
        """Return the depth of each group, which is the length of the longest path from the group `all` to the group.

        If several groups set a variable, Ansible uses the value of the deepest group.
        """
        depths = {"all": 0}
        pending = ["all"]
        while pending:
            parent = pending.pop()
            for group in self.groups.get(parent, Group()).children:
                if depths.get(group, 0) <= depths[parent]:
                    depths[group] = depths[parent] + 1
                    pending.append(group)
        return depths


def read_listing(path: Path, limit: str | None = None) -> Listing:
    """Read an inventory with Ansible. Raises InventoryError.

    `limit` is a pattern that selects hosts or groups, in Ansible's syntax; None selects all hosts.
    """
    if not path.exists():
        raise InventoryError(
            str(path),
            "there is no such path",
            "an inventory: a folder or a file",
            "pass a folder such as inventory/embedded",
        )
    duplicates.require_unique(path)
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--inventory", str(path), "--list"]
    command += ["--limit", limit] if limit else []
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "true"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **strict}, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InventoryError(
            str(path),
            f"ansible-inventory did not read the inventory within {TIMEOUT_S} s",
            "an inventory that Ansible reads in seconds",
            f"find the inventory script or plugin that hangs: ansible-inventory -i {path} --list -vvv",
        ) from None
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise InventoryError(str(path), reason, "an inventory that Ansible can read", "correct the inventory")
    return _parse(json.loads(result.stdout))


def _parse(output: Mapping[str, Any]) -> Listing:
    groups = {
        name: Group(tuple(entry.get("hosts", ())), tuple(entry.get("children", ())))
        for name, entry in output.items()
        if name != META
    }
    return Listing(groups, output.get(META, {}).get("hostvars", {}))
