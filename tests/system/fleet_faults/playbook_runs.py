"""Run playbooks on a lab's devices, and wait for a moment during a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import REPOSITORY

TIMEOUT_S = 400


@dataclass(frozen=True)
class PlaybookResult:
    """The result of a playbook. `changed` is the number of changed tasks, over all devices."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        recap = self.output.partition("PLAY RECAP")[2]
        return sum(int(part.partition("=")[2]) for part in recap.split() if part.startswith("changed="))


@dataclass(frozen=True)
class PlaybookRun:
    """A running playbook. `log` is the file with its output."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def finish(self) -> PlaybookResult:
        code = self.process.wait(TIMEOUT_S)
        return PlaybookResult(code, self.log.read_text(errors="replace"), time.monotonic() - self.began)


def start_playbook(
    name: str,
    inventory: Path,
    variables: Mapping[str, Any],
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
) -> PlaybookRun:
    """Start a playbook as an operator does, with these extra variables and further arguments."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(inventory), f"playbooks/{name}.yml", "-e", json.dumps(variables), *arguments]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **environment},
        )
    return PlaybookRun(process, log, time.monotonic())


def wait_until(condition: Callable[[], bool], description: str, limit_s: float = 120.0) -> None:
    """Poll until the condition holds. Raises AssertionError after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {description}"
        time.sleep(0.002)
