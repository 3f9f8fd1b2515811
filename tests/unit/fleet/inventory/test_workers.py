"""What an inventory says of workers, and what this machine believes of what a worker says. No network."""

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
from fleet.inventory.listing import read_listing
from fleet.inventory.model import Fleet
from fleet.inventory.workers import Worker
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-inventory

ALL = {"fleet": {"name": "farm", "development": True}, "device_type": "generic", "ansible_user": "fleet"}


def declared(
    folder: Path, hosts: dict[str, Any], devices: dict[str, Any] | None = None
) -> tuple[Fleet, dict[str, Any]]:
    """An inventory with these workers and, unless others are named, five devices in two waves."""
    devices = devices or {f"device-{number}": {} for number in range(1, 6)}
    for place, (name, own) in enumerate(devices.items()):
        devices[name] = {"wave": min(place, 1), "ansible_host": f"10.0.0.{place + 1}", **own}
    groups = {"devices": {"hosts": devices}, "workers": {"hosts": hosts}}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": ALL, "children": groups}}))
    return model.load(folder / "inventory.yml"), read_listing(folder / "inventory.yml")


def test_devices_are_spread_evenly_unless_they_name_a_worker(tmp_path: Path) -> None:
    devices = {f"device-{number}": {"worker": "south"} if number == 3 else {} for number in range(1, 8)}

    found = workers.assign_workers(*declared(tmp_path, {"north": {}, "south": {"ansible_host": "10.1.0.1"}}, devices))

    by_name = {worker.name: names for worker, names in found.shards(list(devices)).items()}
    assert by_name == {
        "north": ["device-1", "device-4", "device-6"],
        "south": ["device-2", "device-3", "device-5", "device-7"],
    }
    assert found.workers[1].command("worker")[-2] == "10.1.0.1"


def test_an_inventory_without_workers_has_none(tmp_path: Path) -> None:
    _, listed = declared(tmp_path, {})

    assert not workers.are_declared(listed)


@pytest.mark.parametrize(
    ("own", "device", "says"),
    [
        ({"ansible_port": "{{ port }}"}, {}, "worker-1: ansible_port: found '{{ port }}'"),
        ({"ansible_host": "{{ address }}"}, {}, "a value without a template"),
        ({"ansible_connection": "docker"}, {}, "ansible_connection: found 'docker'"),
        ({"ansible_ssh_common_args": "-oStrictHostKeyChecking=no"}, {}, "host keys that are checked"),
        (
            {"ansible_ssh_host_key_checking": False},
            {},
            "worker-1: ansible_ssh_host_key_checking: found 'False', expected",
        ),
        ({"worker_home": "edge"}, {}, "worker_home: found 'edge'"),
        ({}, {"worker": "worker-2"}, "device-1: worker: found 'worker-2', expected a host of workers: worker-1"),
    ],
)
def test_what_is_wrong_with_it_is_told(tmp_path: Path, own: dict[str, Any], device: dict[str, Any], says: str) -> None:
    found = declared(tmp_path, {"worker-1": own}, {"device-1": device})

    with pytest.raises(InventoryError) as raised:
        workers.assign_workers(*found)

    assert says in str(raised.value) and "inventory.yml" in str(raised.value)


def test_a_worker_is_sent_neither_keys_nor_records_nor_what_is_encrypted(tmp_path: Path) -> None:
    secret = {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256"}
    api = {"user": "pump", "key": secret, "tokens": [secret, {"x": secret}, "open"]}
    own = {"password": secret, "site": "{{ inventory_hostname }}", "api": api}
    found = workers.assign_workers(*declared(tmp_path, {"north": {}}, {"device-1": own}))
    (tmp_path / "push.tar").write_bytes(b"signed")

    worker_job.write_input(tmp_path / "send", found.variables, {"worker_step": "query_status"}, tmp_path / "push.tar")

    sent = {str(path.relative_to(tmp_path / "send")) for path in (tmp_path / "send").rglob("*") if path.is_file()}
    assert {"push.tar", "inventory/hosts.json", "project/ansible.cfg", "project/playbooks/steps.yml"} <= sent
    assert all(name.startswith("project/playbooks/roles/") for name in sent - {"push.tar"} if name.count("/") > 2)
    told = json.loads((tmp_path / "send/inventory/hosts.json").read_text())
    assert told["all"]["children"]["devices"]["hosts"]["device-1"]["site"] == "{{ inventory_hostname }}"
    assert "VAULT" not in (tmp_path / "send/inventory/hosts.json").read_text()
    assert told["all"]["children"]["devices"]["hosts"]["device-1"]["api"] == {"user": "pump", "tokens": [{}, "open"]}
    assert stat.S_IMODE((tmp_path / "send").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["group_vars/all/vault.yml", "group_vars/devices", "host_vars/device-1.yml", "more.yml"]
)
def test_a_file_that_is_encrypted_as_a_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Ansible decrypts it as it reads it, and nobody can tell its values from others."""
    (tmp_path / "password").write_text("x")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
    (tmp_path / "fleet").mkdir()
    declared(tmp_path / "fleet", {"north": {}})
    for file in (tmp_path / "fleet" / name, tmp_path / "fleet/group_vars/workers.yml"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("all: {vars: {secret: hunter2}}" if name == "more.yml" else "secret: hunter2")
        vault = Path(sys.executable).with_name("ansible-vault")
        subprocess.run([vault, "encrypt", file], check=True, capture_output=True)
    found = model.load(tmp_path / "fleet")
    assert found.device("device-1").variables["secret"] == "hunter2"  # noqa: S105  (made up: Ansible has decrypted it, which is the fault)

    with pytest.raises(InventoryError) as raised:
        workers.assign_workers(found, read_listing(tmp_path / "fleet"))

    assert f"{tmp_path / 'fleet' / name}: found a file that is encrypted as a whole" in str(raised.value)
    assert "1 fault(s)" in str(raised.value) and "!vault" in str(raised.value) and "--direct" in str(raised.value)


def test_the_example_has_workers_as_the_documentation_says(tmp_path: Path) -> None:
    folder = tmp_path / "my fleet"
    shutil.copytree(REPOSITORY / "inventory/example", folder)
    text = (REPOSITORY / "docs/how-to/add-workers.md").read_text()
    (folder / "workers.yml").write_text(text.partition("```yaml\n")[2].partition("```")[0])

    found = workers.assign_workers(model.load(folder), read_listing(folder))

    assert [worker.name for worker in found.workers] == ["north", "south"]
    command = found.workers[0].command("worker")
    assert f'UserKnownHostsFile="{folder}/known_hosts.txt" ~/.ssh/known_hosts' in command


# --- a worker that is not what it should be: another program where its ansible-runner is


def job(folder: Path, program: str, silence_s: float = 60.0) -> WorkerJob:
    """Of a worker on this machine."""
    runner = folder / "home/bin/ansible-runner"
    runner.parent.mkdir(parents=True)
    runner.write_text(f"#!{sys.executable}\n{program}")
    runner.chmod(runner.stat().st_mode | stat.S_IXUSR)
    (folder / "run/send").mkdir(parents=True)
    worker = Worker(name="north", ansible_host="north", ansible_connection="local", worker_home=str(folder / "home"))
    return WorkerJob(worker, "x", folder / "run", "01-ask", silence_s)


def says(folder: Path, *lines: bytes) -> str:
    """A program that reads what it is sent, then says this."""
    (folder / "says").write_bytes(b"\n".join(lines))
    return (
        f"import sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write(open({str(folder / 'says')!r}, 'rb').read())\n"
    )


def archived(entries: dict[str, tuple[str, int]]) -> bytes:
    """As ansible-runner streams artifacts: name -> content and mode."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, (content, mode) in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, mode << 16
            archive.writestr(entry, content)
    content = stream.getvalue()
    return json.dumps({"zipfile": len(content)}).encode() + b"\n" + b64encode(content)


def run(of: WorkerJob) -> Any:
    return of.run(("asked",), ("device-1",), lambda event: False)


def test_a_worker_cannot_write_here(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    entries = {
        "results.json": ('{"asked": {"device-1": {"rc": 0}, "device-2": {"rc": 0}}}', stat.S_IFREG | 0o600),
        "../../../mine": (str(tmp_path / "other"), stat.S_IFLNK | 0o777),
        "folder": (str(tmp_path), stat.S_IFLNK | 0o777),
        "folder/mine": ("gone", stat.S_IFREG | 0o600),
    }
    bad = job(tmp_path, says(tmp_path, archived(entries) + b'{"eof": true}', b""))

    told = run(bad)

    assert told == {"asked": {"device-1": {"rc": 0}}}, "and speaks for no device but its own"
    assert mine.read_text() == "precious" and not mine.is_symlink()
    assert [path.name for path in (tmp_path / "run/artifacts/01-ask").iterdir() if path.is_file()] == ["results.json"]


def test_a_worker_cannot_decide(tmp_path: Path) -> None:
    told = json.dumps({"command": "wave close", "status": "passed", "id": "1", "reason": "", "table": []})
    event: Any = {
        "event": "runner_on_ok",
        "counter": 1,
        "uuid": "1",
        "event_data": {"task": "Decide", "host": "device-1"},
    }
    event["event_data"]["res"] = {"stdout": told}
    live = LiveProgress()

    with pytest.raises(LostError):
        job(tmp_path, says(tmp_path, json.dumps(event).encode())).run(("asked",), (), live.on_device_event)

    assert live.steps == StepResults()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((), "ended without a result"),
        ((b"no JSON",), "ended without a result"),
        ((b'{"status": {}}', b'{"event": []}', b'{"zipfile": "x"}'), "not a worker's output"),
        ((json.dumps({"zipfile": 9999}).encode(), b"UEsDBA=="), "not a worker's output"),
        ((archived({"results.json": ("[]", 0o100600)}) + b'{"eof": true}', b""), "has no result for"),
        (
            (archived({"results.json": ('{"asked": {}}', 0o100600)}) + b'{"eof": true}', b""),
            "has no result for 'device-1'",
        ),
    ],
)
def test_a_worker_that_says_nonsense_is_lost(tmp_path: Path, lines: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(LostError, match=why):
        run(job(tmp_path, says(tmp_path, *lines)))


def test_a_worker_that_says_nothing_any_more_is_lost(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")

    with pytest.raises(LostError, match="silent for"):
        run(job(tmp_path, f"open({str(tmp_path / 'never')!r}).read()", silence_s=0.5))


def test_a_worker_without_ansible_runner_says_so(tmp_path: Path) -> None:
    of = job(tmp_path, "")
    (tmp_path / "home/bin/ansible-runner").write_text("#!/bin/sh\necho 'ansible-runner: not found' >&2; exit 127\n")

    with pytest.raises(LostError, match="ansible-runner: not found"):
        run(of)
