"""The schema of reports/gate.json, in which the gate writes its verdict, and the error for a refused model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.core.errors import GateError, StageError
from stages.core.files import read_model, rerun_hint

GATE = Path("reports/gate.json")
SUPPORT = {"validation": "support.validation", "test": "support.test"}  # the check of a class's samples in a split
PIPELINE = "pipeline"  # the `target` of a check that does not belong to a single exported file


class Check(BaseModel):
    """The result of one check, which compares a measured value with a threshold."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    target: str = Field(
        description='The target that was checked; "pipeline" if the check is for a report that all targets depend on.'
    )
    value: float | str | None = Field(description="The measured value; null if it is missing.")
    operator: str
    threshold: float | str
    passed: bool
    reason: str = Field(description="Why the check failed; empty if it passed.")
    note: str = Field("", description="What the reader must know about the value, such as the classes that it is over.")


class TargetVerdict(BaseModel):
    """The gate's verdict on one exported file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    passed: bool
    required: bool = Field(description="Whether the gate fails if this target fails.")
    sha256: str | None = Field(description="SHA-256 of the file; null if the file is missing.")
    failed: list[str] = Field(description="Names of the checks that the target failed.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.passed == bool(self.failed):
            raise ValueError("`passed` must be true exactly when `failed` names no check")
        return self


class Verdict(BaseModel):
    """The gate's verdict on all targets."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    passed: bool
    checks: list[Check]
    targets: dict[str, TargetVerdict]
    notes: list[str] = Field([], description="Warnings for the reader, which do not make a check fail.")
    inputs: dict[str, str] = Field({}, description="SHA-256 of each file that the gate judged or read, by path.")
    parameters: str = Field(
        "", description="Digest of the parameters that affect the verdict, from `parameters_digest`."
    )

    def failures(self) -> list[Check]:
        """Return the checks that failed."""
        return [check for check in self.checks if not check.passed]


class GateReport(Verdict):
    """The content of reports/gate.json: the name of the task, and a verdict whose fields are all required."""

    name: str
    notes: list[str]
    inputs: dict[str, str]
    parameters: str


def as_json(name: str, verdict: Verdict) -> dict[str, Any]:
    """Return the content of reports/gate.json for the task `name` and its verdict."""
    return {"name": name, **verdict.model_dump()}


def read_verdict(path: Path = GATE) -> tuple[str, Verdict]:
    """Read the gate's report, and return the name of the judged task and the verdict.

    Raises:
        StageError: The report is not readable, or says that the gate passed although a required check failed.
    """
    report = read_model(path, GateReport, "gate")
    failed = [check.name for check in report.failures() if check.target == PIPELINE]
    failed += [target for target, own in report.targets.items() if own.required and not own.passed]
    if report.passed and failed:
        raise StageError(
            f"{path}: passed", f"found true, although {', '.join(failed)} failed", "false", rerun_hint("gate")
        )
    return report.name, report


def refusal(verdict: Verdict) -> GateError:
    """Return the error for a verdict that did not pass, with a line for each failed check."""
    lines = [f"  {check.target} {check.name}: {check.reason}" for check in verdict.failures()]
    return GateError(
        str(GATE),
        "the gate did not pass; no bundle is made\n" + "\n".join(lines),
        remedy="see reports/index.html, then improve the model, or change the thresholds under `gate` and record why",
    )
