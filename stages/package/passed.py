"""Select the targets that passed the gate, and check that their files and reports are unchanged since the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import GateError, StageError
from stages.core.files import read_model, read_object, rerun_hint, sha256
from stages.export.artifact import read_export
from stages.params.common import TargetName
from stages.report.schemas.evaluation import BundledEvaluation
from stages.report.verdict import GATE, Verdict, read_verdict

EVALUATED = Path("reports/evaluate")


@dataclass(frozen=True)
class Passed:
    """A target that passed the gate: its model file, and the contents of its export.json and metrics.json."""

    file: Path
    export: Mapping[str, Any]
    metrics: Mapping[str, Any]


def read_own_verdict(name: str) -> Verdict:
    """Return the gate's verdict on the task `name`.

    Raises:
        GateError: The verdict is for a different task.
        StageError: The gate's report is missing or not valid.
    """
    judged, verdict = read_verdict()
    if judged != name:
        raise GateError(
            f"{GATE}: name",
            f"the verdict is for the task {judged!r}",
            f"{name!r}, the name of the current task",
            "run the `gate` stage again (make repro)",
        )
    return verdict


def select(
    verdict: Verdict, built: Iterable[TargetName], classes: list[str]
) -> tuple[dict[TargetName, Passed], dict[str, list[str]]]:
    """Return the targets that passed the gate, and the names of the failed checks of each other target.

    Args:
        verdict: The gate's verdict, which passed.
        built: The targets that were built.
        classes: Names of the classes.

    Raises:
        GateError: A target was not judged, or the files have changed since the gate judged them.
        StageError: A report is missing or stale.
    """
    passed: dict[TargetName, Passed] = {}
    left_out: dict[str, list[str]] = {}
    for target in built:
        own = verdict.targets.get(target)
        if own is None:
            raise GateError(
                str(GATE),
                f"{target} was not judged",
                "a verdict for every target",
                "run the `gate` stage again (make repro)",
            )
        if not own.passed:
            left_out[target] = own.failed
            continue
        file, export = read_export(target)
        if export["sha256"] != own.sha256:
            raise GateError(
                str(GATE),
                f"the gate judged a different file than {file}",
                "a verdict on this file",
                "run the `gate` stage again (make repro)",
            )
        passed[target] = Passed(file, export, _metrics(target, export["sha256"], classes, verdict))
    return passed, left_out


def _metrics(target: str, digest: str, classes: list[str], verdict: Verdict) -> dict[str, Any]:
    """Return the evaluation report of the target, whose model file has the SHA-256 `digest`.

    Raises:
        StageError: The report describes a different model file, or it is not the report that the gate judged.
    """
    path = EVALUATED / target / "metrics.json"
    report = read_model(path, BundledEvaluation, "evaluate")
    if report.model_sha256 != digest:
        raise StageError(f"{path}: model_sha256", f"found {report.model_sha256}", digest, rerun_hint("evaluate"))
    for field in ("per_class", "prediction_ratios"):
        names = list(getattr(report, field))
        if set(names) != set(classes):
            raise StageError(f"{path}: {field}", f"found {names}", f"the classes {classes}", rerun_hint("evaluate"))
    judged, present = verdict.inputs.get(path.as_posix()), sha256(path)
    if present != judged:
        raise StageError(
            str(path),
            f"found sha256 {present}",
            f"{judged}, the sha256 of the report that the gate judged",
            rerun_hint("gate"),
        )
    return read_object(path, "evaluate")
