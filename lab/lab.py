"""A lab: a bridge, its devices, and the inventory that Ansible finds them by. Leaves nothing behind.

Who cleans up: the lab itself in order; a watcher (lab/cleanup.py) when the lab's process has ended without that; the
next lab when the watcher was killed too.
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
from lab.errors import LabError, lacking
from lab.network import Bridge

# Not below /tmp, which may be memory. Short: a control socket of ssh lies in it, and 108 bytes are all a name has.
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
    """What this machine lacks for a lab, and how to get it; empty where nothing. `arm64`: for one with such devices."""
    if os.geteuid() != 0:
        return "a lab boots devices with systemd-nspawn, which takes root: sudo --preserve-env=PATH make ..."
    if arm64:
        return emulation.unfit() or lacking({**PROGRAMS, **emulation.PROGRAMS})
    return lacking(PROGRAMS)


class Lab:
    """`with Lab(devices=3) as lab:` boots them; leaving it removes all of it, also after an error or ^C.

    arm64          how many of them, the last ones, are emulated aarch64 machines; device_type lab-aarch64
    layer          a folder that lies over the root of those of this machine's architecture (lab.agents)
    arm64_layer    one that lies over the root of the others
    variables      for group_vars/all.yml of the lab's inventory
    plugged        False: nothing is booted yet

    lab.devices    Device by index, in the order of their names
    lab.inventory  folder for `ansible-playbook -i`; waves: about a tenth, a third, the rest
    lab.ssh_options  for `ssh`, with the lab's key and known_hosts
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
        if not 1 <= devices <= LIMIT:
            raise LabError("devices", str(devices), f"1 to {LIMIT}", "ask for fewer")
        if not 0 <= arm64 <= devices:
            raise LabError("arm64", str(arm64), f"0 to {devices}, the number of devices", "ask for fewer")
        self.emulated = [index >= devices - arm64 for index in range(devices)]
        self.plugged = plugged
        self.layers = {False: layer, True: arm64_layer}
        self.variables = dict(variables or {})
        self.devices: list[Device] = []

    def __enter__(self) -> Lab:
        if reason := missing(any(self.emulated)):
            raise LabError("this machine", reason, "root and the programs of a lab", "see docs/how-to/run-a-lab.md")
        bases = {arm64: root.ensure(arm64) for arm64 in set(self.emulated)}
        reap()
        self.id = secrets.token_hex(2)
        self.folder = FOLDER / f"{PREFIX}{self.id}"
        made = self.folder.with_name(f".{self.folder.name}")
        made.mkdir(mode=0o755)
        self._lock = _hold(made)
        made.rename(self.folder)  # locked before `reap` of another lab can see it
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
        """This machine's address, as devices see it."""
        return self.bridge.address

    def ssh(self, device: Device, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as the user that Ansible logs in as, over the network."""
        return subprocess.run(
            ["ssh", *self.ssh_options, "-oConnectTimeout=5", f"{root.USER}@{device.address}", command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    def write_inventory(self) -> None:
        """Write hosts.yml and group_vars as a team would (docs/reference/inventory.md), and the lab's connection."""
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
        """Again and again does no harm."""
        for device in self.devices:
            device.unplug()
        _clean(self.folder)
        self._watcher.cancel()
        with contextlib.suppress(OSError):
            os.close(self._lock)


def waves(devices: list[Device]) -> list[list[Device]]:
    """About a tenth as canaries, then about a third, then the rest; empty ones left out."""
    first = max(1, len(devices) // 10)
    second = max(first + 1, first + len(devices) // 3)
    return [part for part in (devices[:first], devices[first:second], devices[second:]) if part]


def reap() -> None:
    """Removes what labs left whose process was killed: they hold no lock any more."""
    for folder in FOLDER.glob(f"{PREFIX}*"):
        try:
            lock = _hold(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        _clean(folder)
        os.close(lock)


def _hold(folder: Path) -> int:
    """Locks the folder for as long as this process lives. Raises BlockingIOError."""
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
            break  # a device that was about to boot enters no group any more, and ends
    for file in folder.glob("device-*/handler"):
        emulation.forget(file.read_text())
    Bridge(f"lab{identity}", network.POOL).remove()
    shutil.rmtree(folder, ignore_errors=True)
