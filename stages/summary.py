"""What came out: a table of the targets, and where the bundle and the report are.

It ends in an error where the last verdict is on another task than params.yaml names now. Results are called those of an
earlier run where the parameters, or the files that were judged, are not the same any more, as after a run that was
ended; a bundle also where it holds other files than the gate let through.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from stages.core import command
from stages.core.errors import StageError, run
from stages.core.files import read_object, rerun_hint, sha256
from stages.report.parameters_digest import parameters_digest, read_parameters
from stages.report.verdict import (
    GATE,
    PIPELINE,
    TargetVerdict,
    Verdict,
    read_verdict,
)

TABLE = Path("reports/metrics.json")
PAGE = Path("reports/index.html")
BUNDLES = Path("models/bundle")


def summarise() -> dict[str, Any]:
    """Name, verdict, targets, bundle and page as one JSON-ready value. Raises StageError when nothing was built."""
    name, verdict = read_verdict()
    shared, task = read_parameters()
    if name != task["name"]:
        expected = f"{task['name']!r}, as params.yaml says now"
        raise StageError(f"{GATE}: name", f"found {name!r}", expected, "run: make repro")
    reasons = outdated(verdict, parameters_digest(shared, task))
    metrics = read_object(TABLE, "gate")
    targets = [
        {"target": target, **_row(metrics, target), **own.model_dump()} for target, own in verdict.targets.items()
    ]
    archive = BUNDLES / f"{name}.tar.zst"
    bundle = None
    if archive.is_file():
        current = verdict.passed and not reasons and holds(archive, verdict.targets)
        bundle = {
            "path": str(archive),
            "size_bytes": archive.stat().st_size,
            "sha256": sha256(archive),
            "current": current,
        }
    return {
        "name": name,
        "passed": verdict.passed,
        "outdated": reasons,
        "notes": verdict.notes,
        "failed": [f"{check.name}: {check.reason}" for check in verdict.failures() if check.target == PIPELINE],
        "targets": targets,
        "bundle": bundle,
        "report": str(PAGE) if PAGE.is_file() else None,
    }


def outdated(verdict: Verdict, parameters: str) -> list[str]:
    """Why the verdict is not on what lies here now; nothing where it is. `parameters`: their digest now."""
    reasons = [] if verdict.parameters == parameters else ["the parameters have changed since"]
    for name, digest in verdict.inputs.items():
        if not Path(name).is_file():
            reasons.append(f"{name} is missing")
        elif sha256(Path(name)) != digest:
            reasons.append(f"{name} is another file than was judged")
    return reasons


def _row(metrics: dict[str, Any], target: str) -> dict[str, float]:
    """The target's numbers in reports/metrics.json. Raises StageError."""
    row = metrics.get(target)
    if not isinstance(row, dict) or not all(isinstance(value, int | float) for value in row.values()):
        raise StageError(f"{TABLE}: {target}", f"found {row!r}", "numbers by name", rerun_hint("gate"))
    return row


def holds(archive: Path, verdicts: dict[str, TargetVerdict]) -> bool:
    """Whether the bundle holds just the files that passed. Raises StageError for one that is damaged."""
    from edge_agent.storage.archive import ArchiveError, unpack

    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(archive, Path(folder) / "bundle")
        except ArchiveError as error:
            raise StageError(error.where, error.found, error.expected, rerun_hint("package")) from None
        targets = read_object(Path(folder) / "bundle" / "manifest.json", "package").get("targets")
    held = {t: own.get("sha256") for t, own in targets.items()} if isinstance(targets, dict) else {}
    return held == {target: own.sha256 for target, own in verdicts.items() if own.passed}


def describe_bundle(summary: dict[str, Any]) -> str:
    """Where the bundle is. One that lies there although the gate failed, or let other files through, is of an earlier
    run, and it is said so.
    """
    bundle = summary["bundle"]
    if bundle is None:
        return "none: the gate did not pass" if not summary["passed"] else "none yet: run make repro"
    place = f"{bundle['path']} ({bundle['size_bytes'] / 1000:.1f} kB, sha256 {bundle['sha256']})"
    if summary["outdated"]:
        return f"{place}; of an earlier run"
    if not summary["passed"]:
        return f"{place}; of an earlier run, since the gate did not pass now"
    return place if bundle["current"] else f"{place}; of an earlier run, with other files: run make repro"


def main() -> None:
    parser = command.parser("summary", __doc__)
    parser.add_argument("--json", action="store_true", help="print the same for machines")
    arguments = parser.parse_args()
    summary = summarise()
    if arguments.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
        return
    from stages.report.terminal import print_summary

    places = [("gate", f"FAIL: {fault}") for fault in summary["failed"]]
    places += [("note", note) for note in summary["notes"]]
    if first := next(iter(summary["outdated"]), None):
        more = f" (and {len(summary['outdated']) - 1} more)" if len(summary["outdated"]) > 1 else ""
        places.insert(0, ("state", f"of an earlier run: {first}{more}; run make repro"))
    places += [("bundle", describe_bundle(summary)), ("report", summary["report"] or "none")]
    print_summary(summary["name"], summary["targets"], places, not summary["outdated"])


if __name__ == "__main__":
    run(main)
