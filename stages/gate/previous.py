"""Read the metrics of the previous build from DVC's cache, so that the page can show what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.core.errors import StageError
from stages.core.files import read_model, read_object
from stages.report.verdict import GateReport

LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")


def read_previous_metrics(name: str, lock: Path = LOCK, cache: Path = CACHE) -> dict[str, dict[str, float | str]]:
    """Return the values in reports/metrics.json of the previous build: target -> metric -> value.

    DVC removes a stage's reports before it runs the stage, and updates dvc.lock only after the stage has ended. While
    the stage runs, dvc.lock still lists the previous reports, and DVC's cache contains them. The result is empty if
    there are no previous reports (in a first build, or in a clone without a cache) or if they are for a different task.

    Args:
        name: The name of the current task.
        lock: Path of DVC's lock file.
        cache: DVC's cache folder, which stores files by MD5.
    """
    outs = _read_outs(lock)
    try:
        report = read_model(_cached(outs, "reports/gate.json", cache), GateReport, "gate")
        metrics = read_object(_cached(outs, "reports/metrics.json", cache), "gate")
    except (KeyError, StageError):
        return {}
    if report.name != name:
        return {}
    return {
        target: {key: value for key, value in row.items() if isinstance(value, int | float | str)}
        for target, row in metrics.items()
        if isinstance(row, dict)
    }


def _read_outs(lock: Path) -> dict[str, str]:
    """Return the MD5 of each output of the `gate` stage, by the output's path; empty if dvc.lock lists no outputs."""
    import yaml

    try:
        content: Any = yaml.safe_load(lock.read_text(encoding="utf-8"))
        return {str(out["path"]): str(out["md5"]) for out in content["stages"]["gate"]["outs"]}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return {}


def _cached(outs: dict[str, str], path: str, cache: Path) -> Path:
    """Return the path of the copy of the output `path` in DVC's cache. Raises KeyError if `outs` does not list it."""
    digest = outs[path]
    return cache / digest[:2] / digest[2:]
