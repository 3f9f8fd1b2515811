"""A lab: a bridge, devices, and an inventory for Ansible. All of it is removed at the end.

Normally the lab's process removes everything. If that process was killed, a watcher (lab/cleanup.py) does. If the
watcher was killed too, the next lab does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lab import cgroup, emulation, network, root
from lab.cleanup import Watcher
from lab.device import Device, addresses
from lab.errors import LabError, missing_packages
from lab.network import Bridge

# Not in /tmp, which may be in memory. The path is short, because paths of ssh's control sockets have at most 108 bytes.
FOLDER = Path("/var/tmp")  # noqa: S108
PREFIX = "edge-lab-"
LIMIT = 200
CLEAN_TRIES = 3
ARM64_TYPE = "lab-aarch64"
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}


def missing(arm64: bool = False) -> str:
    """Return what this machine needs for a lab and how to install it; empty if it has everything.

    `arm64` says whether the lab has aarch64 devices.
    """
    if os.geteuid() != 0:
        return "a lab boots devices with systemd-nspawn, which needs root privileges: sudo --preserve-env=PATH make ..."
    if arm64:
        return emulation.unsupported() or missing_packages({**PROGRAMS, **emulation.PROGRAMS})
    return missing_packages(PROGRAMS)


class Lab:
    """A lab: `with Lab(devices=3) as lab:` boots devices and removes them at the end, also after an error or Ctrl-C.

    `devices`: list of Device, in the order of their names. `inventory`: folder for `ansible-playbook -i`; its waves are
    about a tenth, a third, and the remaining devices. `ssh_options`: options of `ssh` with the lab's key and
    known_hosts.
    """

    kind = Device

    def __init__(
        self,
        devices: int = 10,
        *,
        arm64: int = 0,
        layer: Path | None = None,
        arm64_layer: Path | None = None,
        variables: Mapping[str, Any] | None = None,
        plugged: bool = True,
    ) -> None:
        """Describe a lab.

        Args:
            devices: Number of devices.
            arm64: Number of emulated aarch64 devices among them (the last ones); their device_type is lab-aarch64.
            layer: Overlay for the root of the other devices, such as `lab.agents.layer()`.
            arm64_layer: Overlay for the root of the aarch64 devices.
            variables: Variables of the inventory's group_vars/all.yml.
            plugged: Whether to boot the devices when the lab is entered.

        Raises:
            LabError: A number is out of range.
        """
        if not 1 <= devices <= LIMIT:
            raise LabError("devices", str(devices), f"1 to {LIMIT}", "choose another number of devices")
        if not 0 <= arm64 <= devices:
            raise LabError(
                "arm64",
                str(arm64),
                f"0 to {devices}, the number of devices",
                "choose another number of aarch64 devices",
            )
        self.emulated = [index >= devices - arm64 for index in range(devices)]
        self.plugged = plugged
        self.layers = {False: layer, True: arm64_layer}
        self.variables = dict(variables or {})
        self.devices: list[Device] = []

    def __enter__(self) -> Lab:
        if reason := missing(any(self.emulated)):
            raise LabError(
                "this machine", reason, "root privileges and the programs of a lab", "see docs/how-to/run-a-lab.md"
            )
        bases = {arm64: root.ensure(arm64) for arm64 in set(self.emulated)}
        reap()
        self.id = secrets.token_hex(2)
        self.folder = FOLDER / f"{PREFIX}{self.id}"
        partial = self.folder.with_name(f".{self.folder.name}")
        partial.mkdir(mode=0o755)
        self._lock = _hold(partial)
        partial.rename(self.folder)  # locked before another lab's `reap` can see it
        self._watcher = Watcher(sys.executable, "-c", "from lab import lab; lab.reap()")
        try:
            self._create(bases)
        except BaseException:
            self.close()
            raise
        return self

    def _create(self, bases: Mapping[bool, Path]) -> None:
        with (root.cache() / "network.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.bridge = Bridge(f"lab{self.id}", network.free_subnet())
            self.bridge.create()
        self.key = self.folder / "id_ed25519"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.key)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        public = self.key.with_suffix(".pub").read_text().strip()
        for index, arm64 in enumerate(self.emulated):
            lower = [*([layer] if (layer := self.layers[arm64]) else []), bases[arm64]]
            device = self.kind(self.id, index, self.folder / f"device-{index + 1:02d}", lower, self.bridge, arm64)
            device.seed(public)
            self.devices.append(device)
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.write_text(addresses(self.devices))
        self.inventory = self.folder / "inventory"
        self.write_inventory()
        if self.plugged:
            for device in self.devices:
                device.boot()
            for device in self.devices:
                device.wait()

    @property
    def ssh_options(self) -> list[str]:
        return [
            f"-oIdentityFile={self.key}",
            "-oIdentitiesOnly=yes",
            f"-oUserKnownHostsFile={self.known_hosts}",
            "-oStrictHostKeyChecking=yes",
            "-oBatchMode=yes",
        ]

    @property
    def host(self) -> str:
        """This machine's address in the lab's network."""
        return self.bridge.address

    def ssh(self, device: Device, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command over the network as the user that Ansible uses."""
        return subprocess.run(
            ["ssh", *self.ssh_options, "-oConnectTimeout=5", f"{root.USER}@{device.address}", command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    def write_inventory(self) -> None:
        """Write hosts.yml and group_vars (docs/reference/inventory.md), including the connection to the lab."""
        variables = {
            "fleet": {"name": f"lab-{self.id}", "development": True},
            "device_type": "generic",
            "ansible_user": root.USER,
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_control_path_dir": str(self.folder / "cp"),
            "ansible_ssh_common_args": " ".join(self.ssh_options),
            "ansible_python_interpreter": "/usr/bin/python3",
            **self.variables,
        }
        groups: dict[str, Any] = {}
        for wave, devices in enumerate(waves(self.devices)):
            hosts = {
                device.name: {"ansible_host": device.address, **({"device_type": ARM64_TYPE} if device.handler else {})}
                for device in devices
            }
            groups[f"wave_{wave}"] = {"hosts": hosts, "vars": {"wave": wave}}
        (self.inventory / "group_vars").mkdir(parents=True, exist_ok=True)
        tree = {"all": {"children": {"devices": {"children": groups}}}}
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(tree, sort_keys=False))
        (self.inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables, sort_keys=False))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the devices and remove the lab. Further calls have no effect."""
        for device in self.devices:
            device.unplug()
        _clean(self.folder)
        self._watcher.cancel()
        with contextlib.suppress(OSError):
            os.close(self._lock)


def waves(devices: list[Device]) -> list[list[Device]]:
    """Split devices into at most three waves: about a tenth as canaries, about a third, and all others."""
    first = max(1, len(devices) // 10)
    second = max(first + 1, first + len(devices) // 3)
    return [part for part in (devices[:first], devices[first:second], devices[second:]) if part]


def reap() -> None:
    """Remove labs whose process was killed. Such labs hold no lock."""
    for folder in FOLDER.glob(f"{PREFIX}*"):
        try:
            lock = _hold(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        _clean(folder)
        os.close(lock)


def _hold(folder: Path) -> int:
    """Lock the folder until this process ends. Raises BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _clean(folder: Path) -> None:
    identity = folder.name.removeprefix(PREFIX)
    for control in (folder / "cp").glob("*"):
        subprocess.run(["ssh", f"-oControlPath={control}", "-Oexit", "lab"], capture_output=True, check=False)
    group = f"edge-lab-{identity}"
    for _ in range(CLEAN_TRIES):
        cgroup.kill(group)
        if cgroup.remove(group):
            break  # a device that was about to boot cannot enter the removed cgroup
    for file in folder.glob("device-*/handler"):
        emulation.unregister(file.read_text())
    Bridge(f"lab{identity}", network.POOL).remove()
    shutil.rmtree(folder, ignore_errors=True)
