"""The network bridge of a lab, in a subnet that this machine does not use otherwise."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass

from lab.errors import LabError

POOL = ipaddress.IPv4Network("10.213.0.0/16")


def ip(*arguments: str) -> str:
    """Run iproute2's `ip` and return its output. Raises LabError."""
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise LabError(
            f"ip {' '.join(arguments)}",
            result.stderr.strip(),
            "exit code 0",
            "run as root, and check that this machine (or container) permits adding links",
        )
    return result.stdout


@dataclass(frozen=True)
class Bridge:
    """A bridge whose first address is this machine's. Devices can reach only this machine and each other."""

    name: str
    subnet: ipaddress.IPv4Network

    @property
    def address(self) -> str:
        return str(self.subnet[1])

    def device_address(self, index: int) -> ipaddress.IPv4Interface:
        """Return the address and prefix of the device with this index, from 0."""
        return ipaddress.IPv4Interface(f"{self.subnet[10 + index]}/{self.subnet.prefixlen}")

    def create(self) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("address", "add", f"{self.address}/{self.subnet.prefixlen}", "dev", self.name)
        ip("link", "set", self.name, "up")

    def remove(self) -> None:
        remove_link(self.name)


def free_subnet() -> ipaddress.IPv4Network:
    """Return a /24 subnet that overlaps no route of this machine.

    The caller must hold the labs' lock until its bridge has the subnet.
    """
    routes = [
        ipaddress.ip_network(entry["dst"], strict=False)
        for entry in json.loads(ip("-json", "-4", "route", "show", "table", "all"))
        if entry["dst"] != "default"
    ]
    for subnet in POOL.subnets(new_prefix=24):
        if not any(subnet.overlaps(route) for route in routes):
            return subnet
    raise LabError("routes", f"every /24 of {POOL} is in use", "a free subnet", "stop other labs")


def remove_link(name: str) -> None:
    """Remove a link, unless the kernel has removed it already, together with a network namespace. Raises LabError."""
    try:
        ip("link", "delete", name)
    except LabError:
        if exists(name):
            raise


def exists(name: str) -> bool:
    return any(link["ifname"] == name for link in json.loads(ip("-json", "link", "show")))
