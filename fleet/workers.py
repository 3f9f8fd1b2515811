"""The workers that an inventory declares, and which of them works on which device (docs/fleet/scale.md).

Workers are the hosts of the group `workers`; how they are reached is said by Ansible's own variables. A device may say
`worker: NAME`; those that say nothing are spread evenly, so that every wave is.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fleet import hostkeys, inventory
from fleet.errors import InventoryError
from fleet.inventory import Fleet

GROUP = "workers"
VAULT = "__ansible_vault"
# A worker whose power is cut is noticed after 15 s, as a device is (ansible.cfg).
SSH = "-oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=5 -oServerAliveCountMax=3"


class Worker(BaseModel):
    """`worker_home`: the virtual environment on it that has ansible-runner (playbooks/workers.yml)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(pattern=inventory.NAME.pattern)
    ansible_connection: Literal["ssh", "local"] = "ssh"
    ansible_host: str
    ansible_port: int | None = Field(default=None, gt=0, lt=65536)
    ansible_user: str | None = None
    ansible_ssh_private_key_file: str | None = None
    ansible_ssh_common_args: str = ""
    ansible_ssh_extra_args: str = ""
    worker_home: str = Field(default="~/edge-worker", pattern=r"^[~/][A-Za-z0-9._/-]*$")

    @field_validator("*")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Ansible evaluates templates; here nobody does."""
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            raise ValueError("a value without a template")
        return value

    def command(self, *arguments: str) -> list[str]:
        """Runs its ansible-runner with these arguments, in its user's home; what it writes is for that user alone."""
        run = f"umask 077; cd; PATH={self.worker_home}/bin:$PATH; exec ansible-runner {shlex.join(arguments)}"
        if self.ansible_connection == "local":
            return ["sh", "-c", run]
        port = [f"-p{self.ansible_port}"] if self.ansible_port else []
        user = [f"-l{self.ansible_user}"] if self.ansible_user else []
        key = [f"-i{self.ansible_ssh_private_key_file}"] if self.ansible_ssh_private_key_file else []
        own = shlex.split(f"{self.ansible_ssh_common_args} {self.ansible_ssh_extra_args}")
        # The first word that ssh reads of an option counts: what the inventory says stands before what is said here.
        return [
            "ssh",
            "-T",
            *own,
            *SSH.split(),
            *port,
            *user,
            *key,
            "--",
            self.ansible_host,
            f"sh -c {shlex.quote(run)}",
        ]


@dataclass(frozen=True)
class Crew:
    """`of`: device -> its worker. `variables`: device -> what Ansible needs to know of it."""

    workers: tuple[Worker, ...]
    of: Mapping[str, Worker]
    variables: Mapping[str, Mapping[str, Any]]

    def shards(self, devices: Sequence[str]) -> dict[Worker, list[str]]:
        """These devices by worker; workers without one are left out."""
        found: dict[Worker, list[str]] = {}
        for name in devices:
            found.setdefault(self.of[name], []).append(name)
        return found


def are_declared(listed: Mapping[str, Any]) -> bool:
    return bool(listed.get(GROUP, {}).get("hosts") or listed.get(GROUP, {}).get("children"))


def crew(fleet: Fleet, listed: Mapping[str, Any]) -> Crew:
    """Who works on what. `listed`: inventory.listing of that fleet. Raises InventoryError, which lists every fault."""
    faults: list[str] = []
    known: dict[str, Worker] = {}
    variables = listed.get("_meta", {}).get("hostvars", {})
    for name in inventory.hosts(listed, GROUP):
        said = variables.get(name, {})
        for field, expected in hostkeys.faults(said):  # playbooks/workers.yml reaches it as Ansible does
            where = inventory.origin(fleet.path, name, field, (GROUP,), said[field])
            faults.append(f"{where}: {name}: {field}: found {str(said[field])[:80]!r}, expected {expected}")
        try:
            known[name] = Worker.model_validate({"ansible_host": name, **said, "name": name})
        except ValidationError as error:
            for fault in error.errors():
                field = ".".join(map(str, fault["loc"]))
                where = inventory.origin(fleet.path, name, field, (GROUP,))
                faults.append(f"{where}: {name}: {field}: found {str(fault['input'])[:80]!r}; {fault['msg']}")
    of, free, spread = {}, list(known.values()), 0
    for device in fleet.devices:  # by wave, then by name: neighbours here change together
        wanted = device.variables.get("worker")
        if wanted is None and free:
            of[device.name] = free[spread % len(free)]
            spread += 1
        elif wanted in known:
            of[device.name] = known[wanted]
        elif wanted is not None:
            where = inventory.origin(fleet.path, device.name, "worker", device.groups)
            names = ", ".join(known) or "none is right"
            faults.append(f"{where}: {device.name}: worker: found {wanted!r}, expected a host of {GROUP}: {names}")
    if faults:
        raise InventoryError(
            str(fleet.path),
            "\n".join([f"{len(faults)} fault(s)", *(f"  {line}" for line in faults)]),
            "what docs/fleet/scale.md says",
            "mend them",
        )
    return Crew(tuple(known.values()), of, {device.name: _open(device.variables) for device in fleet.devices})


def _open(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is encrypted: a worker has no vault's password."""
    return {name: value for name, value in variables.items() if not (isinstance(value, dict) and VAULT in value)}
