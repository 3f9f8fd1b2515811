"""A bridge of the lab's own, in a subnet that nothing here uses."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass

from lab.errors import LabError

POOL = ipaddress.IPv4Network("10.213.0.0/16")


def ip(*arguments: str) -> str:
    """Runs iproute2's `ip`. Raises LabError."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"ip {' '.join(arguments)}", done.stderr.strip(), "exit code 0", "are you root, and may you add links?"
        )
    return done.stdout


@dataclass(frozen=True)
class Bridge:
    """This machine has the first address; devices reach it, each other, and nothing else: nothing is routed."""

    name: str
    subnet: ipaddress.IPv4Network

    @property
    def address(self) -> str:
        return str(self.subnet[1])

    def device_address(self, index: int) -> ipaddress.IPv4Interface:
        """Of the device with this index, from 0; the prefix with it."""
        return ipaddress.IPv4Interface(f"{self.subnet[10 + index]}/{self.subnet.prefixlen}")

    def create(self) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("address", "add", f"{self.address}/{self.subnet.prefixlen}", "dev", self.name)
        ip("link", "set", self.name, "up")

    def remove(self) -> None:
        if exists(self.name):
            ip("link", "delete", self.name)


def free_subnet() -> ipaddress.IPv4Network:
    """A /24 that overlaps no route of this machine; whoever asks holds the lab's lock until the bridge has it."""
    routes = [
        ipaddress.ip_network(entry["dst"], strict=False)
        for entry in json.loads(ip("-json", "-4", "route", "show", "table", "all"))
        if entry["dst"] != "default"
    ]
    for subnet in POOL.subnets(new_prefix=24):
        if not any(subnet.overlaps(route) for route in routes):
            return subnet
    raise LabError("routes", f"every /24 of {POOL} is in use", "a free one", "stop other labs")


def exists(name: str) -> bool:
    return any(link["ifname"] == name for link in json.loads(ip("-json", "link", "show")))
