"""reports/gate.json: the gate's verdict, as it is written and as the stages after it read it."""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.core.errors import ParameterError, StageError
from stages.core.files import again, read_object

GATE = Path("reports/gate.json")
PIPELINE = "pipeline"  # the target of checks that are of no single exported file


@dataclass(frozen=True)
class Check:
    """One comparison. `value` is None where there is no number; `reason` says why a check failed."""

    name: str
    target: str
    value: float | str | None
    operator: str
    threshold: float | str
    passed: bool
    reason: str


@dataclass(frozen=True)
class TargetVerdict:
    passed: bool
    required: bool
    sha256: str | None
    failed: list[str]


@dataclass(frozen=True)
class Verdict:
    """`notes`: what fails nothing and is to be kept in mind. `inputs`: path -> SHA-256 of what was judged or judged by.
    `parameters`: `parameters_digest` at that time.
    """

    passed: bool
    checks: list[Check]
    targets: dict[str, TargetVerdict]
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    parameters: str = ""

    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def read_parameters() -> tuple[dict[str, Any], dict[str, Any]]:
    """params.yaml and the parameters of the task that it names, as they are written. Raises ParameterError.

    Nothing of them is checked but that they name a task: a fault is the stages' to say, and the library that checks
    takes longer to load than all that `summary` does.
    """
    shared = _yaml(Path("params.yaml"), "task")
    return shared, _yaml(Path("tasks") / shared["task"] / "params.yaml", "name")


def _yaml(path: Path, key: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(str(path), f"not readable: {' '.join(str(error).split())}", f"YAML with {key}") from None
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, str):
        raise ParameterError(f"{path}: {key}", f"found {value!r}", "text")
    return dict(values)


def parameters_digest(shared: dict[str, Any], task: dict[str, Any]) -> str:
    """SHA-256 of the parameters that decide what the gate judges, whatever order or comments they are written with. Not
    of `package`, which comes after it, nor of what says only where the work is done.
    """
    steer = {key: shared.get(key) for key in ("task", "seed", "targets")}
    values = [steer, {key: value for key, value in task.items() if key != "package"}]
    return sha256(json.dumps(_sorted(values), default=str).encode()).hexdigest()


def _sorted(value: Any) -> Any:
    """YAML's keys are text and numbers, which do not compare; 1 and 1.0 are one value, for DVC too."""
    if isinstance(value, dict):
        return sorted(([str(key), _sorted(own)] for key, own in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list):
        return [_sorted(own) for own in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_json(name: str, verdict: Verdict) -> dict[str, Any]:
    """What reports/gate.json holds."""
    return {
        "name": name,
        "passed": verdict.passed,
        "checks": [asdict(check) for check in verdict.checks],
        "targets": {target: asdict(own) for target, own in verdict.targets.items()},
        "notes": verdict.notes,
        "inputs": verdict.inputs,
        "parameters": verdict.parameters,
    }


def read_verdict(path: Path = GATE) -> tuple[str, Verdict]:
    """The name of the task that was judged, and the verdict. Raises StageError where it does not hold together.

    Checked by hand: `summary`, which shows it, loads no library for it.
    """
    judged = read_object(path, "gate")
    name, passed = judged.get("name"), judged.get("passed")
    checks, targets = judged.get("checks"), judged.get("targets")
    notes, inputs, parameters = judged.get("notes"), judged.get("inputs"), judged.get("parameters")
    if not (isinstance(name, str) and isinstance(passed, bool)):
        raise _odd(path, "name, passed", judged)
    if not (isinstance(checks, list) and isinstance(targets, dict)):
        raise _odd(path, "checks, targets", judged)
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise _odd(path, "notes", notes)
    if not isinstance(inputs, dict) or not all(isinstance(digest, str) for digest in inputs.values()):
        raise _odd(path, "inputs", inputs)
    if not isinstance(parameters, str):
        raise _odd(path, "parameters", parameters)
    verdict = Verdict(
        passed,
        [_check(path, f"checks.{i}", check) for i, check in enumerate(checks)],
        {target: _target(path, f"targets.{target}", own) for target, own in targets.items()},
        notes,
        inputs,
        parameters,
    )
    wrong = [check.name for check in verdict.failures() if check.target == PIPELINE]
    wrong += [target for target, own in verdict.targets.items() if own.required and not own.passed]
    if passed and wrong:
        raise StageError(f"{path}: passed", f"found true, though {', '.join(wrong)} failed", "false", again("gate"))
    return name, verdict


def _check(path: Path, field: str, found: Any) -> Check:
    texts = ("name", "target", "operator", "reason")
    if (
        not isinstance(found, dict)
        or set(found) != set(Check.__dataclass_fields__)
        or not all(isinstance(found[text], str) for text in texts)
        or not isinstance(found["passed"], bool)
    ):
        raise _odd(path, field, found)
    return Check(**found)


def _target(path: Path, field: str, found: Any) -> TargetVerdict:
    if (
        not isinstance(found, dict)
        or set(found) != set(TargetVerdict.__dataclass_fields__)
        or not all(isinstance(found[flag], bool) for flag in ("passed", "required"))
        or not isinstance(found["sha256"], str | None)
        or not isinstance(found["failed"], list)
        or not all(isinstance(check, str) for check in found["failed"])
        or found["passed"] == bool(found["failed"])
    ):
        raise _odd(path, field, found)
    return TargetVerdict(**found)


def _odd(path: Path, field: str, found: Any) -> StageError:
    return StageError(f"{path}: {field}", f"found {reprlib.repr(found)}", "what the stage gate writes", again("gate"))
