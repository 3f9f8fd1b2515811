"""Clone this repository and run its pipeline as a user does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import REPOSITORY

# As a user's shell: Python writes its caches beside the code, inside folders that stages depend on.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHONDONTWRITE", "PYTHONPYCACHE"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


def call(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in `root` with this interpreter's programs first on PATH."""
    done = subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done


def fresh_clone(root: Path) -> Path:
    """Create a git repository in `root` with the files that this one tracks, as they are in the work tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.split("\0")):
        if (origin := REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(origin.read_bytes())
            (root / name).chmod(origin.stat().st_mode)
    call(root, "git", "init", "--quiet", "--initial-branch=main")
    commit(root)
    return root


def commit(root: Path) -> None:
    call(root, "git", "add", "--all")
    call(root, "git", "commit", "--quiet", "--allow-empty", "--message", "state")


def stages_run(output: str) -> list[str]:
    """Return the stages that ran, in order: neither skipped nor restored from the run cache."""
    return re.findall(r"Running stage '([^']+)'", output)


def bundle_digest(root: Path) -> str:
    (bundle,) = (root / "models" / "bundle").glob("*.tar.zst")
    return hashlib.sha256(bundle.read_bytes()).hexdigest()


def report(root: Path, name: str) -> Any:
    return json.loads((root / "reports" / name).read_text())


def change(path: Path, **values: Any) -> None:
    """Set dotted keys (`train__epochs=3` is train.epochs) in a YAML file."""
    content = yaml.safe_load(path.read_text())
    for dotted, value in values.items():
        *parents, last = dotted.split("__")
        block = content
        for parent in parents:
            block = block[parent]
        if last not in block:
            raise KeyError(f"{path}: {dotted}")
        block[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def quick(root: Path, task: str, blocks: dict[str, Any], targets: tuple[str, ...] = ()) -> None:
    """Make `task` the active task, quick to train, with some blocks replaced and no accuracy thresholds."""
    shared = yaml.safe_load((root / "params.yaml").read_text())
    shared["task"] = task
    shared["targets"] = {name: form for name, form in shared["targets"].items() if not targets or name in targets}
    (root / "params.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))
    path = root / "tasks" / task / "params.yaml"
    params = {**yaml.safe_load(path.read_text()), **blocks}
    params["train"] |= {"epochs": 2}
    params["compress"]["prune"] |= {"finetune_epochs": 1}
    params["gate"] |= {"metrics": {}, "retention": {}, "agreement": None, "calibration_error": None}
    free = {"required": True, "size_kb": None, "compression": None, "latency_p95_ms": None, "memory_mb": 500.0}
    params["gate"]["targets"] = dict.fromkeys(params["gate"]["targets"], free)
    path.write_text(yaml.safe_dump(params, sort_keys=False))
