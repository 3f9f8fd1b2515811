"""Print the result of a build: a table of targets, a table of splits, and the paths of the bundle and the report.

The command fails if the gate's last verdict is for a different task than the one in params.yaml. If the parameters or
the files that the gate judged have changed since the verdict, for example because a run was killed, the output says
that the results are from an earlier run. The output says the same about a bundle that does not contain exactly the
files that passed the gate. With --json, the result is printed as JSON.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.errors import StageError, run
from stages.core.files import ModelT, read_model, read_object, rerun_hint, sha256
from stages.report.parameters_digest import parameters_digest, read_parameters
from stages.report.verdict import GATE, PIPELINE, TargetVerdict, Verdict, read_verdict

if TYPE_CHECKING:
    from stages.report.schemas.training import TrainingReport

METRICS = Path("reports/metrics.json")
PAGE = Path("reports/index.html")
BALANCE = Path("reports/balance.json")
TRAINING = Path("reports/train/summary.json")
DURATIONS = {stage: Path(f"reports/durations/{stage}.json") for stage in ("train", "compress")}
BUNDLES = Path("models/bundle")


def summarise() -> dict[str, Any]:
    """Return the result of the build as a dictionary that can be written as JSON.

    Raises StageError if nothing was built, or if the gate's verdict is for a different task.
    """
    name, verdict = read_verdict()
    shared, task = read_parameters()
    if name != task["name"]:
        expected = f"{task['name']!r}, the name of the current task"
        raise StageError(f"{GATE}: name", f"found {name!r}", expected, "run: make repro")
    reasons = outdated(verdict, parameters_digest(shared, task))
    metrics = read_object(METRICS, "gate")
    targets = [
        {"target": target, **_numbers(metrics, target), **own.model_dump()} for target, own in verdict.targets.items()
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
        **_training(),
        "bundle": bundle,
        "report": str(PAGE) if PAGE.is_file() else None,
    }


def outdated(verdict: Verdict, parameters: str) -> list[str]:
    """Return the reasons why the gate's verdict does not apply to the current files and parameters.

    The list is empty if the verdict applies. `parameters` is the digest of the current parameters.
    """
    reasons = [] if verdict.parameters == parameters else ["the parameters have changed since the verdict"]
    for name, digest in verdict.inputs.items():
        if not Path(name).is_file():
            reasons.append(f"{name} is missing")
        elif sha256(Path(name)) != digest:
            reasons.append(f"{name} has changed since the gate judged it")
    return reasons


def _numbers(metrics: dict[str, Any], target: str) -> dict[str, float | str | None]:
    """Return the metrics of `target` in reports/metrics.json. Raises StageError if they are missing or not numbers.

    If a class has no test sample, `classes_with_samples` is a text that names the other classes, and `f1_macro` can be
    null, because it is undefined.
    """
    row = metrics.get(target)
    if not isinstance(row, dict) or not all(
        isinstance(value, int | float)
        or (name == "f1_macro" and value is None and "classes_with_samples" in row)
        or (name == "classes_with_samples" and isinstance(value, str))
        for name, value in row.items()
    ):
        raise StageError(
            f"{METRICS}: {target}", f"found {row!r}", "a JSON object of metric names and numbers", rerun_hint("gate")
        )
    return row


def _training() -> dict[str, Any]:
    """Return the sizes and accuracies of the splits, the trained network, and the durations of train and compress.

    A value that is not recorded is None. A missing or corrupted report is not an error here, because the gate or
    `outdated` already names this report.
    """
    from stages.report.schemas.data import BalanceReport
    from stages.report.schemas.training import Duration, TrainingReport

    balance = _optional(BALANCE, BalanceReport, "prepare")
    trained = _optional(TRAINING, TrainingReport, "train")
    durations = {stage: _optional(path, Duration, stage) for stage, path in DURATIONS.items()}
    return {
        "splits": {
            split: {
                "samples": getattr(balance.splits, split).samples if balance else None,
                "accuracy": getattr(trained, split).accuracy if trained else None,
            }
            for split in ("train", "validation", "test")
        },
        "network": _network(trained) if trained else None,
        "duration_s": {stage: own.seconds if own else None for stage, own in durations.items()},
    }


def _network(trained: TrainingReport) -> dict[str, Any]:
    """Return the kind, the size and the number of epochs of the trained float network, before its compression."""
    return {
        "kind": trained.network,
        "parameters": trained.parameters,
        "float32_bytes": trained.size_bytes,
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
    }


def _optional(path: Path, model: type[ModelT], stage: str) -> ModelT | None:
    try:
        return read_model(path, model, stage)
    except StageError:
        return None


def holds(archive: Path, verdicts: dict[str, TargetVerdict]) -> bool:
    """Check if a bundle contains exactly the model files that passed the gate.

    Raises StageError if the bundle is corrupted.
    """
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
    """Return a text with the path, size and digest of the bundle, and a note if it is from an earlier run."""
    bundle = summary["bundle"]
    if bundle is None:
        return "none: the gate did not pass" if not summary["passed"] else "none yet: run make repro"
    place = f"{bundle['path']} ({bundle['size_bytes'] / 1000:.1f} kB, sha256 {bundle['sha256']})"
    if summary["outdated"]:
        return f"{place}; from an earlier run"
    if not summary["passed"]:
        return f"{place}; from an earlier run, because the gate has now failed"
    return place if bundle["current"] else f"{place}; from an earlier run with different files; run make repro"


def describe_duration(summary: dict[str, Any]) -> str:
    """Return a text that says how long training and compression took."""
    from stages.report.units import format_duration

    seconds, network = summary["duration_s"], summary["network"]
    epochs = f" ({network['epochs']} epochs)" if network else ""
    texts = {stage: "not recorded" if own is None else format_duration(own) for stage, own in seconds.items()}
    return f"training {texts['train']}{epochs}, compression {texts['compress']}"


def main() -> None:
    parser = command.parser("summary", __doc__)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    arguments = parser.parse_args()
    summary = summarise()
    if arguments.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
        return
    from stages.report.terminal import print_summary

    lines = [("gate", f"FAIL: {fault}") for fault in summary["failed"]]
    lines += [("note", note) for note in summary["notes"]]
    if first := next(iter(summary["outdated"]), None):
        more = f" (and {len(summary['outdated']) - 1} more)" if len(summary["outdated"]) > 1 else ""
        lines.insert(0, ("state", f"from an earlier run: {first}{more}; run make repro"))
    lines.append(("time", describe_duration(summary)))
    if summary["network"]:
        size = f"{summary['network']['float32_bytes'] / 1000:.1f} kB"
        lines.append(
            ("float", f"{size}, the trained network's weights; compression = this / size of the exported file")
        )
    lines += [("bundle", describe_bundle(summary)), ("report", summary["report"] or "none")]
    print_summary(summary["name"], summary["targets"], summary["splits"], lines, not summary["outdated"])


if __name__ == "__main__":
    run(main)
