"""A fleet of simulated devices for tests: real agents in folders of this machine, the real playbooks, real releases.

`bootstrap` sets the fleet up as an operator would. Tests cause faults on the devices themselves: a lost configuration,
a stopped agent, a signed archive with a fault.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from edge_agent.core import config as configuration
from edge_agent.core import state
from edge_agent.core.agent_state import State

from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from tests.support.agent.bundles import SHAPE, bundle
from tests.support.fleet.publishing import SCHEMA
from tests.support.paths import REPOSITORY

NAMES = ("canary-1", "early-1", "early-2", "rest-1", "rest-2")
WAVES = [{"name": "canary", "group": "canaries"}, {"name": "early", "count": 1}, {"name": "rest", "rest": True}]
JUDGE = {"min_inferences": 0, "latency_factor": 1000.0}
TIMEOUT_S = 300
WAIT_S = 60.0
CANARY, EARLY, REST = "canary-1", "early-1", "rest-1"
UNREACHABLE = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_retries": 0,
}
FAST = {"seconds": 0.0, "inferences": 2, "probe_interval_s": 0.05}


class EmbeddedFleet:
    """A simulated fleet. Everything is below `base`, a short path because sockets are below it; `remove` deletes it."""

    repository: Repository

    def __init__(self, names: tuple[str, ...] = NAMES, repository: bool = True) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.names = names
        self.inventory, self.rollouts = self.base / "inventory", self.base / "rollouts"
        self.keys = Keys(self.base / "keys")
        if repository:
            self.repository = Repository.create(self.base / "releases", self.keys, development=True)
        self._bundles_built = 0
        self.first: Any = None  # the result of the first rollout, if a fixture ran one
        (self.base / "bundles").mkdir()
        self.set_policy(bake_s=0.5)
        groups: dict[str, Any] = {}
        for name in names:
            groups.setdefault({"c": "canaries"}.get(name[0], "rest"), {})[name] = {}
        tree = {"all": {"children": {"devices": {"children": {g: {"hosts": h} for g, h in groups.items()}}}}}
        self.write("hosts.yml", tree)
        self.write("group_vars/canaries.yml", {"wave": 0})
        self.write("group_vars/rest.yml", {"wave": 1})

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        file = self.inventory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(dict(content)))

    def set_policy(self, **changes: Any) -> None:
        """Write the fleet's variables, with these changes to the rollout policy."""
        rules = {"waves": WAVES, "bake_s": 0.5, "judge": JUDGE, **changes}
        bare = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        self.write(
            "group_vars/all.yml",
            {
                "fleet": {"name": "farm", "development": True},
                "device_type": "generic",
                **bare,
                "edge_agent_supervisor": "process",
                "edge_agent_prefix": f"{self.base}/{{{{ inventory_hostname }}}}",
                "edge_agent_binary": str(Path(sys.executable).with_name("edge-agent")),
                "edge_agent_root": str(self.base / "releases/metadata/1.root.json"),
                "edge_agent_config": {
                    "device": {"targets": ["onnx-int8", "onnx-fp32"]},
                    "trial": FAST,
                    "selftest": {"repeats": 3},
                    "install": {"reserve_mb": 0.0, "keep": 9},
                    "serve": {"listen": "", "socket": f"{self.base}/{{{{ inventory_hostname }}}}/run/p.sock"},
                },
                "rollout": rules,
            },
        )

    def declare(self, release: str, **overrides: str) -> None:
        """Declare the release of all devices, and other releases for single devices (`rest_1` for rest-1)."""
        self.write("group_vars/devices.yml", {"release": release})
        for file in (self.inventory / "host_vars").glob("*.yml"):
            file.unlink()
        for name, requested in overrides.items():
            self.write(f"host_vars/{name.replace('_', '-')}.yml", {"release": requested})

    def publish(self, release: str, **faults: Any) -> Path:
        """Publish a bundle, each time with other weights; `faults` as in tests.support.agent.bundles."""
        self._bundles_built += 1
        name, _, version = release.partition("@")
        archive = bundle(self.base / "bundles", name=name, seed=self._bundles_built, **faults).archive
        self.repository.add(target_path(name, version), archive, {"version": version})
        self.repository.write("targets", "snapshot", "timestamp")
        return archive

    # --- actions of an operator

    def playbook(self, name: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments, **variables),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=REPOSITORY,
            env=self.environment(),
        )

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m fleet COMMAND` on this fleet and check its JSON output against the schema."""
        options = ["-i", str(self.inventory), "--rollouts", str(self.rollouts)]
        options += ["--repository", str(self.base / "releases")] if command == "rollout" else []
        done = subprocess.run(
            [sys.executable, "-m", "fleet", "--json", command, *options, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=REPOSITORY,
            env=self.environment(),
        )
        SCHEMA.validate(json.loads(done.stdout))
        return done

    def command(self, name: str, *arguments: str, **variables: Any) -> list[str]:
        extra = {"rollout_repository": str(self.base / "releases"), "rollout_records": str(self.rollouts), **variables}
        playbook = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory)]
        return [*playbook, f"playbooks/{name}.yml", "-e", json.dumps(extra), *arguments]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FLEET_KEYS": str(self.keys.folder),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self.base / "tmp"),
        }

    def bootstrap(self, serial: str = "100%") -> None:
        """Bootstrap the devices, all at once by default."""
        done = self.playbook("bootstrap", bootstrap_serial=serial)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

    # --- the devices

    def agent(self, device: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        file = self.base / device / "etc/edge-agent/config.toml"
        command = [sys.executable, "-m", "edge_agent", "--config", str(file), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == code, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def running(self) -> dict[str, str | None]:
        """Return the release that each device has loaded."""
        releases = {}
        for name in self.names:
            loaded = self.agent(name, "status")["service"]["loaded"]
            releases[name] = loaded["release"] if loaded else None
        return releases

    def state_of(self, device: str) -> State:
        return state.load(configuration.load(self.base / device / "etc/edge-agent/config.toml").layout)

    def reset_to(self, release: str) -> None:
        """Roll every device back to `release`, which it has installed, and clear its list of bad releases."""
        for name in self.names:
            device_state = self.state_of(name)
            if device_state.current != release:
                self.agent(name, "rollback", "--to", release)
            for bad in self.state_of(name).bad:
                self.agent(name, "forget", bad)

    def wait_for(self, device: str, release: str) -> None:
        """Wait until the device has loaded the release."""
        deadline = time.monotonic() + WAIT_S
        while ((self.agent(device, "status")["service"]["loaded"] or {}).get("release")) != release:
            assert time.monotonic() < deadline, f"{device} does not run {release}"

    def break_install(self, device: str) -> Path:
        """Make the device's next install fail: replace its download folder with a file. Return its path."""
        folder = configuration.load(self.base / device / "etc/edge-agent/config.toml").layout.incoming
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("not a folder")
        return folder

    def process(self, device: str, action: str) -> None:
        """Start or stop a device's agent, as its supervisor does."""
        subprocess.run([self.base / device / "agent-process", action], check=True, capture_output=True, timeout=60)

    def predict(self, device: str, number: int) -> None:
        """Send this many prediction requests and require an answer to each."""
        rng = np.random.default_rng(0)
        for _ in range(number):
            _post(self.base / device / "run/p.sock", {"inputs": rng.normal(size=(1, *SHAPE)).tolist()})

    def record(self, number: int = -1) -> dict[str, Any]:
        """Return the state of a rollout, by default the latest, with its folder under the key `folder`."""
        files = sorted(self.rollouts.glob("farm/*/state.json"))
        return {**json.loads(files[number].read_text()), "folder": files[number].parent}

    def remove(self) -> None:
        for name in self.names:
            if (self.base / name / "agent-process").exists():
                self.process(name, "stop")
        shutil.rmtree(self.base, ignore_errors=True)


def _post(socket_path: Path, body: Any) -> None:
    import http.client
    import socket

    connection = http.client.HTTPConnection("device", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(socket_path))
    connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """Return the number of changed tasks in ansible-playbook's recap, over all devices."""
    recap = done.stdout.partition("PLAY RECAP")[2]
    return sum(int(part.partition("=")[2]) for part in recap.split() if part.startswith("changed="))


def rolled_out() -> Iterator[EmbeddedFleet]:
    """Yield a fleet of three devices that run pump@1.0.0 after a first rollout. For use in fixtures."""
    fleet = EmbeddedFleet((CANARY, EARLY, REST))
    try:
        fleet.publish("pump@1.0.0")
        fleet.declare("pump@1.0.0")
        fleet.bootstrap()
        fleet.first = fleet.playbook("rollout")
        yield fleet
    finally:
        fleet.remove()


def as_rolled_out(fleet: EmbeddedFleet) -> EmbeddedFleet:
    """Reset a `rolled_out` fleet: all devices run pump@1.0.0, no release is marked as bad, the policy is default."""
    fleet.set_policy()
    (fleet.inventory / "workers.yml").unlink(missing_ok=True)
    fleet.reset_to("pump@1.0.0")
    return fleet


def all_run(fleet: EmbeddedFleet, release: str) -> bool:
    return set(fleet.running().values()) == {release}
