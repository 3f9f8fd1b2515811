"""A device in a folder: configuration, state, a real repository of releases, and the real command line.

device = Device(tmp_path, trial={"seconds": 0.1})
device.publish("pump@1.0.0")
assert device.run("install", "pump@1.0.0").returncode == 0
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_agent import config as configuration
from edge_agent.config import Config
from edge_agent.faults import VARIABLE
from edge_agent.layout import Layout
from edge_agent.trust import Offer

from stages.files import sha256
from tests.agent_fixtures import Bundle, bundle
from tests.tuf_repository import TufRepository


class Device:
    """A device with its own folders below `folder`, and a real repository of releases that it trusts."""

    def __init__(self, folder: Path, **blocks: Mapping[str, Any]) -> None:
        self.folder = folder
        self.repository = TufRepository(folder / "repository")
        self.bundles: dict[str, Bundle] = {}
        self.settings: dict[str, dict[str, Any]] = {
            "device": {"id": "bench", "type": "generic"},
            "paths": {
                "state": str(folder / "state"),
                "run": str(folder / "run"),
                "root": str(self.repository.root_file),
            },
            "source": {
                "metadata_url": self.repository.metadata.as_uri(),
                "targets_url": self.repository.targets.as_uri(),
                "attempts": 2,
                "backoff_s": 0.01,
            },
            "install": {"reserve_mb": 0},
            "selftest": {"repeats": 3},
            # No listening port, so that devices can run side by side: requests go through the socket.
            "serve": {"listen": "", "socket": str(folder / "run" / "predict.sock")},
        }
        (folder / "run").mkdir(parents=True)
        self.config_file = folder / "config.toml"
        self.configure(**blocks)

    def configure(self, **blocks: Mapping[str, Any]) -> None:
        """Change blocks of the configuration, and write it."""
        for name, block in blocks.items():
            self.settings.setdefault(name, {}).update(block)
        lines = []
        for name, block in self.settings.items():
            lines.append(f"[{name}]")
            # Text, numbers, truth values and lists of them are written alike in JSON and TOML.
            lines += [f"{key} = {json.dumps(value)}" for key, value in block.items()]
        self.config_file.write_text("\n".join(lines) + "\n")

    @property
    def config(self) -> Config:
        return configuration.load(self.config_file)

    @property
    def layout(self) -> Layout:
        return self.config.layout

    def publish(self, release: str, **changes: Any) -> Bundle:
        """Build a bundle (see `bundle`) and release it. Its weights differ from those of the releases before."""
        name, _, _ = release.partition("@")
        changes.setdefault("name", name)
        changes.setdefault("seed", len(self.bundles) + 1)
        built = bundle(self.folder / "built" / release, **changes)
        self.repository.publish(release, built.archive)
        self.bundles[release] = built
        return built

    def offer(self, release: str, **changes: Any) -> Offer:
        """What the repository would say of a published release, without asking it."""
        name, _, version = release.partition("@")
        content = self.bundles[release].archive
        fields = {
            "release": release,
            "name": name,
            "version": version,
            "path": f"{name}/{version}/{name}.tar.zst",
            "length": content.stat().st_size,
            "sha256": sha256(content),
            "custom": {"version": version, "commit": "0" * 40},
        }
        return Offer(**{**fields, **changes})

    def run(self, *arguments: str, fault: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The real command line in a process of its own."""
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        if fault is not None:
            environment[VARIABLE] = fault
        return subprocess.run(
            [sys.executable, "-m", "edge_agent", "--config", str(self.config_file), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
        )
