"""Describe the provenance of a build for the page: data, code, seed, libraries and durations.

The page shows the commit, times and durations. The bundle contains none of these, so they do not change the bundle.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stages.report.libraries import libraries
from stages.report.units import format_duration

SHORT = 12  # characters of a digest that are shown


@dataclass(frozen=True)
class Build:
    """The code, seed and libraries of a build."""

    seed: int
    commit: str | None  # None outside a git repository
    modified: bool  # whether tracked files differ from the commit, except dvc.lock, which a build writes
    libraries: Mapping[str, str]  # version by name


def read_build(seed: int, root: Path = Path()) -> Build:
    """Describe a build by its seed, the state of the Git repository `root`, and the installed libraries."""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return Build(seed, commit, bool(changed), libraries())


def _git(root: Path, *arguments: str) -> str | None:
    """Run git in the folder `root` and return its output; None if git is not installed or the command failed."""
    try:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def describe_build(
    build: Build,
    provenance: Mapping[str, Any] | None,
    durations: Mapping[str, Mapping[str, Any] | None],
    gate: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values for the page's section on the provenance of a build.

    Args:
        build: The build's seed, code and libraries.
        provenance: Content of data/provenance.json; None if the file is unreadable.
        durations: Content of reports/durations/<stage>.json, by stage; None for a stage whose file is unreadable.
        gate: Content of reports/gate.json.
    """
    sources = provenance["sources"] if provenance else {}
    return {
        "commit": build.commit,
        "modified": build.modified,
        "seed": build.seed,
        "parameters": gate["parameters"][:SHORT],
        "snapshot": _time(provenance["snapshot"]) if provenance else None,
        "sources": [_source(name, own) for name, own in sources.items()],
        "durations": {stage: format_duration(own["seconds"]) for stage, own in durations.items() if own},
        "libraries": build.libraries,
    }


def _source(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row for the data source `name` in the page's table of data sources."""
    first = source["origins"][0] if source["origins"] else None
    return {
        "name": name,
        "type": source["type"],
        "rows": source["rows"],
        "time": _time(source["time"]),
        "origins": len(source["origins"]),
        "url": first["url"] if first else None,
        "sha256": first["sha256"][:SHORT] if first else None,
        "left_out": source["left_out"],
    }


def _time(text: str) -> str:
    """Format an ISO 8601 time to the minute, with its time zone. Return a text that is not a time unchanged."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = "" if time.tzinfo is None else " UTC" if not time.utcoffset() else f" {time:%z}"
    return f"{time:%Y-%m-%d %H:%M}{zone}"
