"""Run playbooks as an operator does, over a lab whose devices have been bootstrapped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab, agents
from tests.support.agent.tuf_repository import TufRepository
from tests.support.paths import REPOSITORY


@dataclass
class Fleet:
    """A lab with bootstrapped devices, and the repository of releases that they trust."""

    lab: Lab
    repository: TufRepository

    def play(self, name: str, *arguments: str, code: int = 0, **variables: Any) -> str:
        return play(self.lab.inventory, name, *arguments, code=code, **self.variables, **variables)

    @property
    def variables(self) -> dict[str, Any]:
        return {
            "edge_agent_root": str(self.repository.folder / "metadata" / "1.root.json"),
            "edge_agent_wheelhouses": str(agents.wheelhouses()),
        }


def play(inventory: Path, name: str, *arguments: str, code: int = 0, **variables: Any) -> str:
    """Run a playbook as an operator does and return its output."""
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [str(program), "-i", str(inventory), f"playbooks/{name}.yml", *arguments, "-e", json.dumps(variables)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        check=False,
    )
    assert done.returncode == code, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return the counts of the play's recap, by device."""
    lines = re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE)
    return {name: {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", counts)} for name, counts in lines}
