"""Workers are read from the inventory; a worker's output is validated before it is used. No network."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import InventoryError
from fleet.execution import worker_job
from fleet.execution.live_progress import LiveProgress
from fleet.execution.step_outputs import StepResults
from fleet.execution.worker_job import LostError, WorkerJob
from fleet.inventory import model, workers
from fleet.inventory.listing import Listing, read_listing
from fleet.inventory.model import Fleet
from fleet.inventory.workers import Worker
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-inventory

ALL = {"fleet": {"name": "farm", "development": True}, "device_type": "generic", "ansible_user": "fleet"}


def declared(folder: Path, hosts: dict[str, Any], devices: dict[str, Any] | None = None) -> tuple[Fleet, Listing]:
    """An inventory with these workers and, by default, five devices in two waves."""
    devices = devices or {f"device-{number}": {} for number in range(1, 6)}
    for index, (name, own) in enumerate(devices.items()):
        devices[name] = {"wave": min(index, 1), "ansible_host": f"10.0.0.{index + 1}", **own}
    groups = {"devices": {"hosts": devices}, "workers": {"hosts": hosts}}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": ALL, "children": groups}}))
    return model.load(folder / "inventory.yml"), read_listing(folder / "inventory.yml")


def test_devices_are_spread_evenly_unless_they_name_a_worker(tmp_path: Path) -> None:
    devices = {f"device-{number}": {"worker": "south"} if number == 3 else {} for number in range(1, 8)}

    assignment = workers.assign_workers(
        *declared(tmp_path, {"north": {}, "south": {"ansible_host": "10.1.0.1"}}, devices)
    )

    by_name = {worker.name: names for worker, names in assignment.shards(list(devices)).items()}
    assert by_name == {
        "north": ["device-1", "device-4", "device-6"],
        "south": ["device-2", "device-3", "device-5", "device-7"],
    }
    assert assignment.workers[1].command("worker")[-2] == "10.1.0.1"


def test_an_inventory_without_workers_has_none(tmp_path: Path) -> None:
    _, listing = declared(tmp_path, {})

    assert not workers.are_declared(listing)


@pytest.mark.parametrize(
    ("own", "device", "message"),
    [
        ({"ansible_port": "{{ port }}"}, {}, "worker-1: ansible_port: found '{{ port }}'"),
        ({"ansible_host": "{{ address }}"}, {}, "a value without a template"),
        ({"ansible_connection": "docker"}, {}, "ansible_connection: found 'docker'"),
        ({"ansible_ssh_common_args": "-oStrictHostKeyChecking=no"}, {}, "host keys are checked"),
        (
            {"ansible_ssh_host_key_checking": False},
            {},
            "worker-1: ansible_ssh_host_key_checking: found 'False', expected",
        ),
        ({"worker_home": "edge"}, {}, "worker_home: found 'edge'"),
        ({}, {"worker": "worker-2"}, "device-1: worker: found 'worker-2', expected a host of workers: worker-1"),
    ],
)
def test_a_fault_of_a_worker_is_reported(
    tmp_path: Path, own: dict[str, Any], device: dict[str, Any], message: str
) -> None:
    fleet_and_listing = declared(tmp_path, {"worker-1": own}, {"device-1": device})

    with pytest.raises(InventoryError) as raised:
        workers.assign_workers(*fleet_and_listing)

    assert message in str(raised.value) and "inventory.yml" in str(raised.value)


def test_a_worker_receives_neither_keys_nor_records_nor_encrypted_values(tmp_path: Path) -> None:
    secret = {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256"}
    api = {"user": "pump", "key": secret, "tokens": [secret, {"x": secret}, "open"]}
    own = {"password": secret, "site": "{{ inventory_hostname }}", "api": api}
    assignment = workers.assign_workers(*declared(tmp_path, {"north": {}}, {"device-1": own}))
    (tmp_path / "push.tar").write_bytes(b"signed")

    worker_job.write_input(
        tmp_path / "send", assignment.variables, {"worker_step": "query_status"}, tmp_path / "push.tar"
    )

    sent = {str(path.relative_to(tmp_path / "send")) for path in (tmp_path / "send").rglob("*") if path.is_file()}
    assert {"push.tar", "inventory/hosts.json", "project/ansible.cfg", "project/playbooks/steps.yml"} <= sent
    assert all(name.startswith("project/playbooks/roles/") for name in sent - {"push.tar"} if name.count("/") > 2)
    inventory = json.loads((tmp_path / "send/inventory/hosts.json").read_text())
    assert inventory["all"]["children"]["devices"]["hosts"]["device-1"]["site"] == "{{ inventory_hostname }}"
    assert "VAULT" not in (tmp_path / "send/inventory/hosts.json").read_text()
    assert inventory["all"]["children"]["devices"]["hosts"]["device-1"]["api"] == {
        "user": "pump",
        "tokens": [{}, "open"],
    }
    assert stat.S_IMODE((tmp_path / "send").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["group_vars/all/vault.yml", "group_vars/devices", "host_vars/device-1.yml", "more.yml"]
)
def test_a_file_that_is_encrypted_as_a_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Ansible decrypts it, and its values cannot be distinguished from others afterwards."""
    (tmp_path / "password").write_text("x")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
    (tmp_path / "fleet").mkdir()
    declared(tmp_path / "fleet", {"north": {}})
    for file in (tmp_path / "fleet" / name, tmp_path / "fleet/group_vars/workers.yml"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("all: {vars: {secret: hunter2}}" if name == "more.yml" else "secret: hunter2")
        vault = Path(sys.executable).with_name("ansible-vault")
        subprocess.run([vault, "encrypt", file], check=True, capture_output=True)
    fleet = model.load(tmp_path / "fleet")
    assert fleet.device("device-1").variables["secret"] == "hunter2"  # noqa: S105  (invented; decrypted by Ansible)

    with pytest.raises(InventoryError) as raised:
        workers.assign_workers(fleet, read_listing(tmp_path / "fleet"))

    assert f"{tmp_path / 'fleet' / name}: found a file that is encrypted as a whole" in str(raised.value)
    assert "1 error(s)" in str(raised.value) and "!vault" in str(raised.value) and "--direct" in str(raised.value)


def test_the_example_has_workers_as_the_documentation_says(tmp_path: Path) -> None:
    folder = tmp_path / "my fleet"
    shutil.copytree(REPOSITORY / "inventory/example", folder)
    text = (REPOSITORY / "docs/how-to/add-workers.md").read_text()
    (folder / "workers.yml").write_text(text.partition("```yaml\n")[2].partition("```")[0])

    assignment = workers.assign_workers(model.load(folder), read_listing(folder))

    assert [worker.name for worker in assignment.workers] == ["north", "south"]
    command = assignment.workers[0].command("worker")
    assert f'UserKnownHostsFile="{folder}/known_hosts.txt" ~/.ssh/known_hosts' in command


# --- a faulty worker: another program in the place of its ansible-runner


def job(folder: Path, program: str, silence_s: float = 60.0) -> WorkerJob:
    """A job of a worker on this machine whose ansible-runner is `program`."""
    runner = folder / "home/bin/ansible-runner"
    runner.parent.mkdir(parents=True)
    runner.write_text(f"#!{sys.executable}\n{program}")
    runner.chmod(runner.stat().st_mode | stat.S_IXUSR)
    (folder / "run/send").mkdir(parents=True)
    worker = Worker(name="north", ansible_host="north", ansible_connection="local", worker_home=str(folder / "home"))
    return WorkerJob(worker, "x", folder / "run", "01-query_status", silence_s)


def prints(folder: Path, *lines: bytes) -> str:
    """A program that reads its input, then prints these lines."""
    (folder / "output").write_bytes(b"\n".join(lines))
    return (
        f"import sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write(open({str(folder / 'output')!r}, 'rb').read())\n"
    )


def archived(entries: dict[str, tuple[str, int]]) -> bytes:
    """Artifacts in ansible-runner's stream format, from names with content and mode."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, (content, mode) in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, mode << 16
            archive.writestr(entry, content)
    content = stream.getvalue()
    return json.dumps({"zipfile": len(content)}).encode() + b"\n" + b64encode(content)


def run(worker_job: WorkerJob) -> Any:
    return worker_job.run(("asked",), ("device-1",), lambda event: False)


def test_a_worker_cannot_write_here(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    entries = {
        "results.json": ('{"asked": {"device-1": {"rc": 0}, "device-2": {"rc": 0}}}', stat.S_IFREG | 0o600),
        "../../../mine": (str(tmp_path / "other"), stat.S_IFLNK | 0o777),
        "folder": (str(tmp_path), stat.S_IFLNK | 0o777),
        "folder/mine": ("gone", stat.S_IFREG | 0o600),
    }
    bad = job(tmp_path, prints(tmp_path, archived(entries) + b'{"eof": true}', b""))

    results = run(bad)

    assert results == {"asked": {"device-1": {"rc": 0}}}, "and has no results for other devices"
    assert mine.read_text() == "precious" and not mine.is_symlink()
    assert [path.name for path in (tmp_path / "run/artifacts/01-query_status").iterdir() if path.is_file()] == [
        "results.json"
    ]


def test_a_worker_cannot_decide(tmp_path: Path) -> None:
    output = json.dumps({"command": "wave close", "status": "passed", "id": "1", "reason": "", "table": []})
    event: Any = {
        "event": "runner_on_ok",
        "counter": 1,
        "uuid": "1",
        "event_data": {"task": "Run the fleet step", "host": "device-1"},
    }
    event["event_data"]["res"] = {"stdout": output}
    live = LiveProgress()

    with pytest.raises(LostError):
        job(tmp_path, prints(tmp_path, json.dumps(event).encode())).run(("asked",), (), live.on_device_event)

    assert live.steps == StepResults()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "ended without a result"),
        ((b"no JSON",), "ended without a result"),
        ((b'{"status": {}}', b'{"event": []}', b'{"zipfile": "x"}'), "not the output of ansible-runner"),
        ((json.dumps({"zipfile": 9999}).encode(), b"UEsDBA=="), "not the output of ansible-runner"),
        ((archived({"results.json": ("[]", 0o100600)}) + b'{"eof": true}', b""), "returned no result for"),
        (
            (archived({"results.json": ('{"asked": {}}', 0o100600)}) + b'{"eof": true}', b""),
            "returned no result for 'device-1'",
        ),
    ],
)
def test_a_worker_with_invalid_output_is_lost(tmp_path: Path, lines: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(LostError, match=reason):
        run(job(tmp_path, prints(tmp_path, *lines)))


def test_a_silent_worker_is_lost(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")

    with pytest.raises(LostError, match="sent nothing for"):
        run(job(tmp_path, f"open({str(tmp_path / 'never')!r}).read()", silence_s=0.5))


def test_a_worker_without_ansible_runner_is_lost(tmp_path: Path) -> None:
    failing = job(tmp_path, "")
    (tmp_path / "home/bin/ansible-runner").write_text("#!/bin/sh\necho 'ansible-runner: not found' >&2; exit 127\n")

    with pytest.raises(LostError, match="ansible-runner: not found"):
        run(failing)
