"""Measure where the pipeline spends its time (`make bench`).

Run the default task three times in a fresh clone, one after the other on this machine:
  cold    `dvc repro` with an empty cache
  warm    `dvc repro` without any change
  script  one Python process that calls the main() of the same stages in order, without DVC
Then run every stage alone, and measure which fraction of its time the imports take (with PYTHONPROFILEIMPORTTIME, which
also covers a converter's process). Ratios can be compared between machines; seconds cannot.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.stages.clone import ENVIRONMENT, bundle_digest, call, fresh_clone

SCRIPT = """
import importlib, sys
for module, *arguments in {commands!r}:
    sys.argv = [module, *arguments]
    importlib.import_module(module + ".stage").main()
"""


@dataclass(frozen=True)
class StageTime:
    name: str
    seconds: float
    imports: float


def timed(root: Path, *command: str) -> float:
    """Run a command in `root` and return its duration in seconds."""
    started = time.perf_counter()
    call(root, *command)
    return time.perf_counter() - started


def stage_commands(root: Path) -> dict[str, list[str]]:
    """Return the arguments of `python -m` for each stage, in the order in which DVC runs the stages."""
    import yaml

    lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    order = call(root, "dvc", "repro", "--dry", "--force").stdout
    names = re.findall(r"Running stage '([^']+)'", order)
    return {name: lock[name]["cmd"].split()[2:] for name in names}


def time_stage(root: Path, name: str, arguments: list[str]) -> StageTime:
    """Measure one stage alone, without DVC.

    Args:
        root: The clone.
        name: Name of the stage.
        arguments: Arguments of `python -m`.

    Returns:
        The stage's duration and the sum of the import times of all modules, in seconds.
    """
    environment = {**ENVIRONMENT, "PYTHONPROFILEIMPORTTIME": "1"}
    started = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - started
    output = process.stderr
    if arguments[0] == "stages.export":  # the converter is a separate process with a log file
        output += "".join(log.read_text() for log in (root / ".work" / "export" / arguments[-1]).glob("*.log"))
    imports_us = [int(value) for value in re.findall(r"^import time:\s+(\d+) \|", output, flags=re.MULTILINE)]
    return StageTime(name, seconds, sum(imports_us) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=1, help="number of cold and script runs; the fastest of each is printed"
    )
    arguments = parser.parse_args()
    cold, script = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = fresh_clone(Path(folder))
        for _ in range(arguments.repeats):
            clean(root)
            cold.append(timed(root, "dvc", "repro"))
            commands = stage_commands(root)
            warm = timed(root, "dvc", "repro")
            clean(root)
            # The script is a file, because pyspark ends a process that was started with `python -c`.
            program = root / "without_dvc.py"
            program.write_text(SCRIPT.format(commands=list(commands.values())))
            script.append(timed(root, sys.executable, program.name))
            bundle_digest(root)  # fails if the script created no bundle
        stages = [time_stage(root, name, command) for name, command in commands.items()]
    show(stages, min(cold), warm, min(script))


def clean(root: Path) -> None:
    """Remove all results and caches of the pipeline."""
    for name in ("data", "models", "reports", ".work", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)


def show(stages: list[StageTime], cold: float, warm: float, script: float) -> None:
    """Print the results.

    Args:
        stages: The durations of the single stages.
        cold: Duration of `dvc repro` with an empty cache, in seconds.
        warm: Duration of `dvc repro` without any change, in seconds.
        script: Duration of the script without DVC, in seconds.
    """
    table = Table(title="stages, each alone")
    for column in ("stage", "seconds", "imports s", "imports %"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        share = f"{100 * stage.imports / stage.seconds:.0f}"
        table.add_row(stage.name, f"{stage.seconds:.2f}", f"{stage.imports:.2f}", share)
    alone, imports = sum(s.seconds for s in stages), sum(s.imports for s in stages)
    table.add_row("all", f"{alone:.2f}", f"{imports:.2f}", f"{100 * imports / alone:.0f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"dvc repro, cold          {cold:8.2f} s   imports {100 * imports / cold:.0f}%")
    console.print(f"  of it DVC itself       {cold - alone:8.2f} s   {100 * (cold - alone) / cold:.0f}%")
    console.print(f"dvc repro, nothing to do {warm:8.2f} s")
    console.print(f"one script without DVC   {script:8.2f} s")
    console.print(f"cold / script            {cold / script:8.2f} x   (aim: at most 1.15)")
    console.print(f"{os.cpu_count()} cores; ratios compare, seconds do not carry to another machine")


if __name__ == "__main__":
    main()
