"""Publish releases with the real command line from a git repository with keys, and read them as a device does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config, Install, Paths, Source
from edge_agent.update.trust import Repository as DeviceRepository
from jsonschema import Draft202012Validator

from tests.support.agent.bundles import bundle
from tests.support.paths import REPOSITORY

SCHEMA = Draft202012Validator(json.loads((REPOSITORY / "fleet/cli/output.schema.json").read_text()))
# Run commands, each in a fork, so that modules are imported only once. A command with a step number n is killed just
# before its n-th change (rename, removal or new folder) below the folder.
_FORKING = """
import json, os, signal, sys
import fleet.cli.main
fleet.cli.main.parser()
def kill_at(remaining, folder):
    def hook(event, arguments):
        nonlocal remaining
        changes = event in ("os.rename", "os.remove", "os.mkdir")
        if changes and os.path.realpath(os.fsdecode(arguments[0])).startswith(folder):
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        if request["step"]:
            kill_at(request["step"], sys.argv[1])
        code = fleet.cli.main.main(request["arguments"])
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def clean_environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "EDGE_AGENT_"))}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), **more}


@dataclass
class Publisher:
    """A publisher. `folder` is a git repository with one commit, beside the keys; `repository` is a folder or a URL."""

    folder: Path
    repository: str = "releases"

    def __post_init__(self) -> None:
        self.environment = clean_environment(
            FLEET_KEYS=str(self.keys), XDG_CACHE_HOME=str(self.folder.parent / "cache")
        )
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            self.git("init", "--quiet", "--initial-branch", "main")
            self.git("config", "user.name", "Publisher")
            self.git("config", "user.email", "publisher@example.org")
            self.commit()

    @property
    def keys(self) -> Path:
        return self.folder.parent / "keys"

    @property
    def releases(self) -> Path:
        return self.folder / "releases"

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        (self.folder / "recipe").write_bytes(os.urandom(8).hex().encode())
        self.git("add", "recipe")
        self.git("commit", "--quiet", "--message", "a recipe")
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str | Path, code: int = 0, program: list[str] | None = None) -> dict[str, Any]:
        """Run a command and return its result after checking it against the schema; empty if the command was killed."""
        command = [sys.executable, *(program or ["-m", "fleet"]), *map(str, arguments), "--json"]
        if self.repository != "releases":
            command += ["--repository", self.repository]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        if code < 0:
            return {}
        result: dict[str, Any] = json.loads(done.stdout)
        SCHEMA.validate(result)
        return result

    def killed_at_each_step(self, *arguments: str | Path, again: bool = False) -> Iterator[int]:
        """Run a command and kill it at its first step, then at its second, and so on until it succeeds.

        Yield the number of the step after each kill. With `again`, also run the command to its end after each kill, and
        yield the number once more.
        """
        command = [sys.executable, "-c", _FORKING, os.path.realpath(self.folder.parent)]
        with (
            (self.folder.parent / "stderr").open("a+") as stderr,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            ) as forking,
        ):

            def run(step: int) -> int:
                assert forking.stdin and forking.stdout
                forking.stdin.write(json.dumps({"step": step, "arguments": list(map(str, arguments))}) + "\n")
                forking.stdin.flush()
                return int(forking.stdout.readline())

            for step in range(1, 100):
                code = run(step)
                if code == 0:
                    return
                assert code == -9, (self.folder.parent / "stderr").read_text()
                yield step
                if again:
                    assert run(0) == 0, (self.folder.parent / "stderr").read_text()
                    yield step
        raise AssertionError("the command never succeeds")


@dataclass
class Reader:
    """A device's own code: it pins a root, reads a repository and remembers the metadata in `state`."""

    root: Path
    state: Path
    url: str

    def repository(self) -> DeviceRepository:
        config = Config(
            paths=Paths(state=str(self.state), run=str(self.state / "run"), root=str(self.root)),
            source=Source(f"{self.url}/metadata", f"{self.url}/targets", attempts=2, backoff_s=0.01, timeout_s=5.0),
            install=Install(reserve_mb=0.0),
        )
        return DeviceRepository(config, State())

    def refresh(self) -> DeviceRepository:
        repository = self.repository()
        repository.refresh()
        return repository

    def fetch(self, release: str) -> bytes:
        repository = self.refresh()
        return repository.download(repository.find(release)).read_bytes()


def three_bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder / str(seed), seed=seed, padding=200_000).archive for seed in (1, 2, 3)]
