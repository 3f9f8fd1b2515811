"""Write the files of the devices of `make bench-fleet`, and their inventory."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fleet.namespaces import LightLab
from lab import agents

PLAIN = Path(__file__).with_name("plain")
STAND_IN = Path(__file__).with_name("stand_in.sh")
HOME = "home/admin"


def programs() -> str:
    """Return the folder of the agent's programs in the layer."""
    (environment,) = (agents.layer() / "opt/edge-agent/environments").iterdir()
    return f"/opt/edge-agent/environments/{environment.name}/bin"


def plain(folder: Path, release: Path) -> None:
    """Write the service that the plain playbook updates, with its first release."""
    with tarfile.open(release) as tar:
        tar.extractall(folder / "releases", filter="data")
    (folder / "current").symlink_to("releases/1.0.0")
    shutil.copy(PLAIN / "server.py", folder)
    (folder / "service").write_text((PLAIN / "service.sh").read_text().replace("PYTHON", f"{programs()}/python"))
    (folder / "service").chmod(0o755)


def stand_in(folder: Path, status: str, digests: Mapping[str, str], seconds: tuple[float, float]) -> None:
    """Write the stand-in, a program that replaces the agent and returns a recorded status with placeholders.

    Args:
        folder: Folder of the program on the device.
        status: The output of `edge-agent --json status --report` of a real agent.
        digests: Digest of the model file by release.
        seconds: Durations of a response and of a deployment, in seconds.
    """
    recorded = json.loads(status)
    loaded = recorded["service"]["loaded"]
    for value, placeholder in (
        (recorded["time"], "@NOW@"),
        (loaded["release"], "@RELEASE@"),
        (loaded["sha256"], "@DIGEST@"),
    ):
        status = status.replace(value, placeholder)
    (folder / "status.json").write_text(status)
    (folder / "release").write_text("pump@1.0.0\n")
    (folder / "digests").write_text("".join(f"{name} {digest}\n" for name, digest in digests.items()))
    (folder / "seconds").write_text(" ".join(map(str, seconds)) + "\n")
    shutil.copy(STAND_IN, folder / "edge-agent")
    (folder / "edge-agent").chmod(0o755)


def inventory(
    base: Path, lab: LightLab, number: int, waves: list[dict[str, Any]], release: str, stand_in: bool
) -> None:
    """Write `base`/inventory, with rollout rules that do not wait between waves.

    Args:
        base: Folder of the controller.
        lab: The devices.
        number: Number of devices in the inventory, counted from the first device.
        waves: Waves of the rollout.
        release: The release to install.
        stand_in: Whether the devices run the stand-in instead of the agent.
    """
    folder = base / "inventory"
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    devices = {device.name: {"ansible_host": device.address} for device in lab.devices[:number]}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"devices": {"hosts": devices}}}}))
    variables = {
        "fleet": {"name": "bench", "development": True},
        "device_type": "generic",
        "wave": 0,
        "ansible_user": "admin",
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_control_path_dir": str(lab.folder / "cp"),
        "ansible_ssh_common_args": " ".join(lab.ssh_options),
        "ansible_python_interpreter": "/usr/bin/python3",
        "edge_agent_supervisor": "process",
        "edge_agent_prefix": f"/{HOME}/edge",
        "edge_agent_binary": f"/{HOME}/edge/edge-agent" if stand_in else f"{programs()}/edge-agent",
        "edge_agent_root": str(base / "releases/metadata/1.root.json"),
        "edge_agent_config": {
            "trial": {"seconds": 0.0, "inferences": 2, "probe_interval_s": 0.05},
            "selftest": {"repeats": 3},
            "install": {"reserve_mb": 0.0, "keep": 2},
            "serve": {"listen": "", "socket": f"/{HOME}/edge/run/p.sock"},
        },
        "release": release,
        "rollout": {"waves": waves, "bake_s": 0, "judge": {"min_inferences": 0, "latency_factor": 1000.0}},
    }
    (folder / "group_vars/all.yml").write_text(yaml.safe_dump(variables, sort_keys=False))
