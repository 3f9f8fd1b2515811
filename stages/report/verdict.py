"""reports/gate.json: the gate's verdict, as it is written and as the stages after it read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from stages.core.errors import StageError
from stages.core.files import read_model, rerun_hint

GATE = Path("reports/gate.json")
PIPELINE = "pipeline"  # the target of checks that are of no single exported file


class Check(BaseModel):
    """One comparison. `value` is None where there is no number; `reason` says why a check failed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    target: str
    value: float | str | None
    operator: str
    threshold: float | str
    passed: bool
    reason: str


class TargetVerdict(BaseModel):
    """The verdict on one exported file: `failed` names the checks that it did not pass."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    passed: bool
    required: bool
    sha256: str | None
    failed: list[str]

    @model_validator(mode="after")
    def _fails_by_a_check(self) -> Self:
        if self.passed == bool(self.failed):
            raise ValueError("`passed` is true exactly where `failed` names no check")
        return self


class Verdict(BaseModel):
    """The verdict on all targets.

    `notes`: what fails nothing and is to be kept in mind. `inputs`: path -> SHA-256 of what was judged or judged by.
    `parameters`: `parameters_digest` at that time.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    passed: bool
    checks: list[Check]
    targets: dict[str, TargetVerdict]
    notes: list[str] = []
    inputs: dict[str, str] = {}
    parameters: str = ""

    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


class GateReport(Verdict):
    """What reports/gate.json holds: the verdict, all of it, and the name of the task that was judged."""

    name: str
    notes: list[str]
    inputs: dict[str, str]
    parameters: str


def as_json(name: str, verdict: Verdict) -> dict[str, Any]:
    """What reports/gate.json holds."""
    return {"name": name, **verdict.model_dump()}


def read_verdict(path: Path = GATE) -> tuple[str, Verdict]:
    """The name of the task that was judged, and the verdict. Raises StageError where it does not hold together."""
    report = read_model(path, GateReport, "gate")
    failed = [check.name for check in report.failures() if check.target == PIPELINE]
    failed += [target for target, own in report.targets.items() if own.required and not own.passed]
    if report.passed and failed:
        raise StageError(
            f"{path}: passed", f"found true, though {', '.join(failed)} failed", "false", rerun_hint("gate")
        )
    return report.name, report
