"""Runs of playbooks on a lab's devices, and waiting for a moment of one."""

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
class Done:
    """One run of a playbook. `changed`: how much it changed, by device."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        recap = self.output.partition("PLAY RECAP")[2]
        return sum(int(part.partition("=")[2]) for part in recap.split() if part.startswith("changed="))


@dataclass(frozen=True)
class Playing:
    """A playbook that runs. `log`: what it prints."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def finish(self) -> Done:
        code = self.process.wait(TIMEOUT_S)
        return Done(code, self.log.read_text(errors="replace"), time.monotonic() - self.began)


def begin(
    name: str,
    inventory: Path,
    variables: Mapping[str, Any],
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
) -> Playing:
    """Start a playbook as a person does, with these extra variables and further arguments."""
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
    return Playing(process, log, time.monotonic())


def until(condition: Callable[[], bool], what: str, limit_s: float = 120.0) -> None:
    """Raises AssertionError where it does not come true in time. Nothing announces what is waited for here."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.002)
