"""Read the workers that an inventory declares, and assign each device to a worker (docs/how-to/add-workers.md).

Workers are the hosts of the group `workers`; Ansible's own variables define how to reach them. A device can declare
`worker: NAME`. The devices of each wave that declare no worker are distributed evenly over all workers.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fleet.errors import InventoryError
from fleet.inventory import model, provenance, ssh_checks
from fleet.inventory.listing import Group, Listing, Variables
from fleet.inventory.model import Fleet

GROUP = "workers"
VAULT = "__ansible_vault"  # key of an encrypted value in the output of ansible-inventory
ENCRYPTED = b"$ANSIBLE_VAULT"  # first bytes of an encrypted file
# With these options, ssh detects after 15 s that a worker has lost power. ansible.cfg has the same limit for devices.
SSH = "-oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=5 -oServerAliveCountMax=3"


class Worker(BaseModel):
    """A worker: how to connect to it, and where ansible-runner is installed on it.

    The fields are variables of the inventory.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(pattern=model.NAME.pattern, description="Name of the worker in the inventory.")
    ansible_connection: Literal["ssh", "local"] = Field(default="ssh", description="Ansible connection to the worker.")
    ansible_host: str = Field(description="Address of the worker; its name if the inventory declares no address.")
    ansible_port: int | None = Field(default=None, gt=0, lt=65536, description="Port of the worker's ssh server.")
    ansible_user: str | None = Field(default=None, description="User name for the login on the worker.")
    ansible_ssh_private_key_file: str | None = Field(default=None, description="File with the private key for ssh.")
    ansible_ssh_common_args: str = Field(default="", description="Options for ssh.")
    ansible_ssh_extra_args: str = Field(default="", description="Further options for ssh.")
    worker_home: str = Field(
        default="~/edge-worker",
        pattern=r"^[~/][A-Za-z0-9._/-]*$",
        description="Virtual environment with ansible-runner on the worker (playbooks/workers.yml).",
    )

    @field_validator("*")
    @classmethod
    def _no_template(cls, value: Any) -> Any:
        """Refuse templates, because this program connects to workers without Ansible and cannot evaluate templates."""
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            raise ValueError("expected a value without a template")
        return value

    def command(self, *arguments: str) -> list[str]:
        """Return the command with which this machine runs ansible-runner on the worker.

        `arguments` are the arguments of ansible-runner, which runs in the home folder of the worker's user. Only this
        user can read the files that ansible-runner writes (umask 077).
        """
        run = f"umask 077; cd; PATH={self.worker_home}/bin:$PATH; exec ansible-runner {shlex.join(arguments)}"
        if self.ansible_connection == "local":
            return ["sh", "-c", run]
        port = [f"-p{self.ansible_port}"] if self.ansible_port else []
        user = [f"-l{self.ansible_user}"] if self.ansible_user else []
        key = [f"-i{self.ansible_ssh_private_key_file}"] if self.ansible_ssh_private_key_file else []
        options = shlex.split(f"{self.ansible_ssh_common_args} {self.ansible_ssh_extra_args}")
        # ssh uses the first value of an option, so the inventory's options come before the ones set here.
        return [
            "ssh",
            "-T",
            *options,
            *SSH.split(),
            *port,
            *user,
            *key,
            "--",
            self.ansible_host,
            f"sh -c {shlex.quote(run)}",
        ]


@dataclass(frozen=True)
class WorkerAssignment:
    """The assignment of the devices of a fleet to workers.

    `worker_of` holds the worker of each device, by device name. `variables` holds the Ansible variables that the worker
    receives for each device.
    """

    workers: tuple[Worker, ...]
    worker_of: Mapping[str, Worker]
    variables: Mapping[str, Variables]

    def shards(self, devices: Sequence[str]) -> dict[Worker, list[str]]:
        """Group devices by the worker that they are assigned to. Workers without any of these devices are left out."""
        shards: dict[Worker, list[str]] = {}
        for name in devices:
            shards.setdefault(self.worker_of[name], []).append(name)
        return shards


def are_declared(listing: Listing) -> bool:
    """Return whether an inventory declares workers."""
    group = listing.groups.get(GROUP, Group())
    return bool(group.hosts or group.children)


def assign_workers(fleet: Fleet, listing: Listing) -> WorkerAssignment:
    """Assign each device to a worker. Raises InventoryError, which lists every error.

    `listing` is the fleet's inventory as Ansible reads it.
    """
    faults = [
        f"{file}: found a file that is encrypted as a whole. Workers would receive its values in plain text; "
        "encrypt single values (!vault) instead, or run without workers (--direct)"
        for file in _encrypted(fleet)
    ]
    files = provenance.InventoryFiles(fleet.path)
    declared: dict[str, Worker] = {}
    for name in listing.hosts(GROUP):
        variables = listing.variables.get(name, {})
        for field, expected in ssh_checks.faults(variables):  # playbooks/workers.yml connects with Ansible
            where = files.declaring_file(name, field, (GROUP,), variables[field])
            faults.append(f"{where}: {name}: {field}: found {str(variables[field])[:80]!r}, expected {expected}")
        try:
            evaluated = _with_inventory_dir(variables, fleet.path)
            declared[name] = Worker.model_validate({"ansible_host": name, **evaluated, "name": name})
        except ValidationError as error:
            for fault in error.errors():
                field = ".".join(map(str, fault["loc"]))
                where = files.declaring_file(name, field, (GROUP,))
                faults.append(f"{where}: {name}: {field}: found {str(fault['input'])[:80]!r}; {fault['msg']}")
    worker_of, pool, distributed = {}, list(declared.values()), 0
    for device in fleet.devices:  # sorted by wave, so that each wave is distributed evenly
        requested = device.variables.get("worker")
        if requested is None and pool:
            worker_of[device.name] = pool[distributed % len(pool)]
            distributed += 1
        elif requested in declared:
            worker_of[device.name] = declared[requested]
        elif requested is not None:
            where = files.declaring_file(device.name, "worker", device.groups)
            names = ", ".join(declared) or "this group has no valid host"
            faults.append(f"{where}: {device.name}: worker: found {requested!r}, expected a host of {GROUP}: {names}")
    if faults:
        raise InventoryError(
            str(fleet.path),
            "\n".join([f"{len(faults)} error(s)", *(f"  {line}" for line in faults)]),
            "workers as described in docs/how-to/add-workers.md",
            "correct each of these errors",
        )
    variables_of = {device.name: _without_vault(device.variables) for device in fleet.devices}
    return WorkerAssignment(tuple(declared.values()), worker_of, variables_of)


def _with_inventory_dir(variables: Variables, path: Path) -> Variables:
    """Replace the template `{{ inventory_dir }}` in the values of variables with the inventory's folder.

    No other template is evaluated here.
    """
    folder = str((path if path.is_dir() else path.parent).resolve())
    return {
        name: ssh_checks.INVENTORY_DIR.sub(lambda _: folder, value) if isinstance(value, str) else value
        for name, value in variables.items()
    }


def _encrypted(fleet: Fleet) -> Iterator[Path]:
    """Yield each file that contains variables of devices and is encrypted as a whole.

    Ansible has already decrypted the values in such a file to plain text.
    """
    names = {
        "group_vars": {"all", *(group for device in fleet.devices for group in device.groups)},
        "host_vars": {device.name for device in fleet.devices},
    }
    folder = fleet.path if fleet.path.is_dir() else fleet.path.parent
    files = list(provenance.inventory_files(fleet.path))
    for kind, owners in names.items():
        for parent, _, entries in os.walk(folder / kind, followlinks=True):
            for file in (Path(parent, name) for name in sorted(entries)):
                owner = file.relative_to(folder / kind).parts[0]
                files += [file] if {owner, Path(owner).stem} & owners else []
    yield from (file for file in files if file.read_bytes().startswith(ENCRYPTED))


def _without_vault(value: Any) -> Any:
    """Return a value without its encrypted parts, because a worker does not have the vault's password."""
    if isinstance(value, Mapping):
        return {name: _without_vault(each) for name, each in value.items() if not _is_vault(each)}
    return [_without_vault(each) for each in value if not _is_vault(each)] if isinstance(value, list) else value


def _is_vault(value: Any) -> bool:
    return isinstance(value, dict) and VAULT in value
