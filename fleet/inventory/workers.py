"""The workers that an inventory declares, and which of them works on which device (docs/how-to/add-workers.md).

Workers are the hosts of the group `workers`; how they are reached is said by Ansible's own variables. A device may say
`worker: NAME`; those that say nothing are spread evenly, so that every wave is.
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
from fleet.inventory.model import Fleet

GROUP = "workers"
VAULT = "__ansible_vault"  # of a single value, as ansible-inventory has it
ENCRYPTED = b"$ANSIBLE_VAULT"  # a file begins with
# A worker whose power is cut is noticed after 15 s, as a device is (ansible.cfg).
SSH = "-oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=5 -oServerAliveCountMax=3"


class Worker(BaseModel):
    """`worker_home`: the virtual environment on it that has ansible-runner (playbooks/workers.yml)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(pattern=model.NAME.pattern)
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
    faults = [
        f"{file}: found a file that is encrypted as a whole: its values would reach workers in plain text; "
        "encrypt single values (!vault) instead, or add --direct"
        for file in _encrypted(fleet)
    ]
    known: dict[str, Worker] = {}
    variables = listed.get("_meta", {}).get("hostvars", {})
    for name in model.hosts(listed, GROUP):
        said = variables.get(name, {})
        for field, expected in ssh_checks.faults(said):  # playbooks/workers.yml reaches it as Ansible does
            where = model.origin(fleet.path, name, field, (GROUP,), said[field])
            faults.append(f"{where}: {name}: {field}: found {str(said[field])[:80]!r}, expected {expected}")
        try:
            known[name] = Worker.model_validate({"ansible_host": name, **_placed(said, fleet.path), "name": name})
        except ValidationError as error:
            for fault in error.errors():
                field = ".".join(map(str, fault["loc"]))
                where = model.origin(fleet.path, name, field, (GROUP,))
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
            where = model.origin(fleet.path, device.name, "worker", device.groups)
            names = ", ".join(known) or "none is right"
            faults.append(f"{where}: {device.name}: worker: found {wanted!r}, expected a host of {GROUP}: {names}")
    if faults:
        raise InventoryError(
            str(fleet.path),
            "\n".join([f"{len(faults)} fault(s)", *(f"  {line}" for line in faults)]),
            "what docs/how-to/add-workers.md says",
            "mend them",
        )
    return Crew(tuple(known.values()), of, {device.name: _open(device.variables) for device in fleet.devices})


def _placed(said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """With the one template that is known here (fleet/inventory/ssh_checks.py) filled in."""
    folder = str((path if path.is_dir() else path.parent).resolve())
    return {
        name: ssh_checks.PLACE.sub(lambda _: folder, value) if isinstance(value, str) else value
        for name, value in said.items()
    }


def _encrypted(fleet: Fleet) -> Iterator[Path]:
    """Files that Ansible has decrypted as it read them, and that say something of devices: what is in them is open."""
    names = {
        "group_vars": {"all", *(group for device in fleet.devices for group in device.groups)},
        "host_vars": {device.name for device in fleet.devices},
    }
    folder = fleet.path if fleet.path.is_dir() else fleet.path.parent
    files = list(provenance.sources(fleet.path))
    for kind, known in names.items():
        for at, _, inside in os.walk(folder / kind, followlinks=True):
            for file in (Path(at, name) for name in sorted(inside)):
                whose = file.relative_to(folder / kind).parts[0]
                files += [file] if {whose, Path(whose).stem} & known else []
    yield from (file for file in files if file.read_bytes().startswith(ENCRYPTED))


def _open(value: Any) -> Any:
    """Without what is encrypted: a worker has no vault's password."""
    if isinstance(value, Mapping):
        return {name: _open(each) for name, each in value.items() if not _is_vault(each)}
    return [_open(each) for each in value if not _is_vault(each)] if isinstance(value, list) else value


def _is_vault(value: Any) -> bool:
    return isinstance(value, dict) and VAULT in value
