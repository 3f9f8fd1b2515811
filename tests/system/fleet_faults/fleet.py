"""A lab whose devices serve a release under traffic, with an inventory in git, a repository and the playbooks."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from edge_agent.storage.archive import unpack
from edge_agent.storage.manifest import read as read_manifest

from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from lab import Device, Lab, agents
from tests.support.agent.bundles import CLASSES, bundle
from tests.system.fleet_faults.playbook_runs import PlaybookResult, PlaybookRun, start_playbook, wait_until

TRAFFIC = Path(__file__).with_name("traffic.py")
BASE = "pump@1.0.0"
STATE = "var/lib/edge-agent"
UNIT = """\
[Unit]
After=edge-agent.service
[Service]
ExecStart=/usr/bin/python3 /etc/lab/traffic.py
Restart=always
"""
AGENT = {
    "trial": {"seconds": 3.0, "inferences": 3, "probe_interval_s": 0.3},
    "selftest": {"repeats": 10},
    "install": {"reserve_mb": 0.0},
}
# Two cores run the whole fleet: a p95 of some milliseconds is due to the machine, not to the model.
JUDGE = {
    "min_inferences": 10,
    "latency_factor": 8.0,
    "latency_floor_ms": 5.0,
    "feedback_min": 20,
    "prediction_min": 30,
}
POLICY = {"bake_s": 6.0, "judge": JUDGE, "budget": {"failed": 0, "unreachable": 0}}
# Detect a disconnected device within seconds instead of 15 s.
SSH = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=2 -o ServerAliveCountMax=2"


class LabFleet:
    """A fleet of booted devices. In `with LabFleet(4) as fleet:`, every device runs BASE, confirmed.

    `fleet[1]` is the second device. The waves are about a tenth, a third and the remaining devices. `arm64` of the
    devices are emulated aarch64 machines.
    """

    def __init__(self, devices: int, arm64: int = 0) -> None:
        arm64_layer = agents.layer(arm64=True) if arm64 else None
        self.lab = Lab(devices, arm64=arm64, layer=agents.layer(), arm64_layer=arm64_layer, plugged=False)
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LabFleet:
        self.base = Path(tempfile.mkdtemp(prefix="faults-"))
        self.lab.__enter__()
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        return self

    def _set_up(self) -> None:
        self.keys = Keys(self.base / "keys")
        self.repository = Repository.create(self.base / "releases", self.keys, development=True)
        self.digests: dict[str, set[str]] = {}
        self._bundles_built = 0
        self.records = self.base / "rollouts"
        self.publish(BASE)
        for device in self.devices:
            self._equip(device)
        self._each(lambda device: device.plug(), self.devices)
        self.inventory = self.lab.inventory
        self._git("init", "--quiet")
        self.set_policy()
        self.declare(BASE)
        done = self.play("bootstrap", bootstrap_serial="100%")
        assert done.code == 0, done.output[-5000:]
        self.set_policy(waves=[{"name": "all", "rest": True}], judge={"min_inferences": 0})
        first = self.rollout()
        assert first.code == 0, first.output[-5000:]
        self.wait_settled({device.name: BASE for device in self.devices})

    def _equip(self, device: Device) -> None:
        device.write("etc/lab/traffic.py", TRAFFIC.read_text())
        device.write("etc/lab/samples.json", json.dumps(self.samples))
        device.write("etc/systemd/system/lab-traffic.service", UNIT)
        wants = device.files / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "lab-traffic.service").symlink_to("/etc/systemd/system/lab-traffic.service")

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._end_playbooks()
        self.lab.close()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def devices(self) -> list[Device]:
        return self.lab.devices

    @property
    def names(self) -> list[str]:
        return [device.name for device in self.devices]

    def __getitem__(self, place: int) -> Device:
        return self.devices[place]

    def _each(self, action: Callable[[Device], Any], devices: Iterable[Device]) -> list[Any]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(action, devices))

    # --- actions of an operator

    def publish(self, release: str, **faults: Any) -> str:
        """Publish a bundle with BASE's outputs from another file, or with `faults` (tests.support.agent)."""
        self._bundles_built += 1
        name, _, version = release.partition("@")
        folder = self.base / "bundles" / version
        built = bundle(folder, name=name, **{"variant": self._bundles_built, "seed": 1, **faults})
        if release == BASE:
            (outputs,) = built.outputs.values()
            self.samples = [
                {"input": sample.tolist(), "label": CLASSES[int(answer.argmax())]}
                for sample, answer in zip(built.inputs, outputs, strict=True)
            ]
        unpack(built.archive, folder / "unpacked")
        targets = read_manifest(folder / "unpacked")["targets"].values()
        self.digests[release] = {
            hashlib.sha256((folder / "unpacked" / target["file"]).read_bytes()).hexdigest() for target in targets
        }
        self.repository.add(target_path(name, version), built.archive, {"version": version})
        self.repository.write("targets", "snapshot", "timestamp")
        return release

    def set_policy(self, **changes: Any) -> None:
        self.lab.variables = {
            "edge_agent_root": str(self.base / "releases/metadata/1.root.json"),
            "edge_agent_wheelhouses": str(agents.wheelhouses()),
            "edge_agent_config": AGENT,
            "rollout": {**POLICY, **changes},
        }
        self.lab.write_inventory()

    def declare(self, release: str) -> None:
        (self.inventory / "group_vars/devices.yml").write_text(yaml.safe_dump({"release": release}))

    def set_host_variables(self, device: Device, **variables: Any) -> None:
        """Write the variables of one device."""
        file = self.inventory / "host_vars" / f"{device.name}.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(variables))

    def commit(self, message: str) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)

    def revert(self) -> None:
        self._git("revert", "--no-edit", "HEAD")

    def _git(self, *arguments: str) -> None:
        who = ("-c", "user.name=Operator", "-c", "user.email=operator@example.org")
        subprocess.run(["git", "-C", str(self.inventory), *who, *arguments], check=True, capture_output=True)

    def rollout(self, *arguments: str, **variables: Any) -> PlaybookResult:
        return self.play("rollout", *arguments, **variables)

    def play(self, name: str, *arguments: str, **variables: Any) -> PlaybookResult:
        return self.finish(self.start(name, *arguments, **variables))

    def start(self, name: str, *arguments: str, **variables: Any) -> PlaybookRun:
        extra = {
            "rollout_repository": str(self.base / "releases"),
            "rollout_records": str(self.records),
            **variables,
        }
        environment = {
            "FLEET_KEYS": str(self.keys.folder),
            "ANSIBLE_LOCAL_TEMP": str(self.base / "tmp"),
            "ANSIBLE_SSH_ARGS": SSH,
            "ANSIBLE_TIMEOUT": "5",
            "ANSIBLE_SSH_RETRIES": "1",
        }
        run = start_playbook(
            name, self.inventory, extra, arguments, self.base / f"{time.monotonic_ns()}.log", environment
        )
        self._started.append(run.process)
        return run

    def finish(self, run: PlaybookRun) -> PlaybookResult:
        return run.finish()

    # --- the state as seen from outside, during a run

    def state(self, device: Device) -> dict[str, Any]:
        """Return state.json from a device's disk, also while its agent does not run; {} without one."""
        file = device.files / STATE / "state.json"
        try:
            return dict(json.loads(file.read_text()))
        except FileNotFoundError:
            return {}

    def record(self) -> dict[str, Any]:
        """Return the state of the latest rollout with its `folder`, or {} before the first."""
        files = sorted(self.records.glob("*/*/state.json"))
        return {**json.loads(files[-1].read_text()), "folder": files[-1].parent} if files else {}

    def wave_is(self, place: int, status: str) -> bool:
        waves = self.record().get("waves", [])
        return place < len(waves) and waves[place]["status"] == status

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit events of the latest rollout."""
        file = self.record()["folder"] / "audit.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    # --- the devices

    def agent(self, device: Device, *arguments: str, check: bool = True) -> dict[str, Any]:
        done = device.exec("edge-agent", "--json", *arguments, check=check, timeout_s=120)
        return dict(json.loads(done.stdout))

    def wait_settled(self, expected: Mapping[str, str]) -> None:
        """Wait until these devices run these releases: loaded by digest, verified on disk, healthy, not on trial."""

        def check(device: Device) -> None:
            release = expected[device.name]
            wait_until(lambda: self._is(device, release), f"{device.name} runs {release}", 90)
            self.agent(device, "verify")

        self._each(check, [device for device in self.devices if device.name in expected])

    def _is(self, device: Device, release: str) -> bool:
        status = self.agent(device, "status", check=False)
        service = status.get("service", {})
        loaded = service.get("loaded") or {}
        good = loaded.get("release") == release and loaded["sha256"] in self.digests[release]
        return bool(good and service["healthy"] and status["trial"] is None and status["current"] == release)

    def states(self) -> dict[str, dict[str, Any]]:
        return {device.name: self.state(device) for device in self.devices}

    def _end_playbooks(self) -> None:
        """End the playbooks that a failed test left running."""
        for process in self._started:
            process.kill()
            process.wait()
        self._started.clear()

    def reset(self) -> None:
        """Reset the devices to BASE and the inventory to its common variables, and remove all records."""
        self._end_playbooks()
        for control in (self.lab.folder / "cp").glob("*"):
            subprocess.run(["ssh", f"-oControlPath={control}", "-Oexit", "lab"], capture_output=True, check=False)
        for device in self.devices:
            if device.on:
                device.connect()
        changed = [device for device in self.devices if not self._is_reset(device)]
        self._each(self._reset_device, changed)
        shutil.rmtree(self.records, ignore_errors=True)
        shutil.rmtree(self.inventory / "host_vars", ignore_errors=True)
        self.set_policy()
        self.declare(BASE)
        self.wait_settled({device.name: BASE for device in changed})

    def _is_reset(self, device: Device) -> bool:
        state = self.state(device)
        return device.on and state["current"] == BASE and not state["trial"] and not state["bad"]

    def _reset_device(self, device: Device) -> None:
        if not device.on:
            device.plug()
        self.agent(device, "rollback", "--to", BASE)
        for release in self.state(device)["bad"]:
            self.agent(device, "forget", release)
