"""The digest of the parameters that decide what the gate judges: a verdict is outdated where it has changed."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.core.errors import ParameterError


def read_parameters() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return params.yaml and the parameters of the task that it names, as they are written. Raises ParameterError.

    Only the task's name is checked; the stages report any other fault.
    """
    shared = _read_yaml(Path("params.yaml"), "task")
    return shared, _read_yaml(Path("tasks") / shared["task"] / "params.yaml", "name")


def _read_yaml(path: Path, key: str) -> dict[str, Any]:
    """Return the YAML mapping in `path`, which must have a text under `key`. Raises ParameterError."""
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
    """Return the SHA-256 of the parameters that decide what the gate judges, in any order and with any comments.

    `package`, which comes after the gate, is left out, and so are parameters that only decide where the work is done.
    """
    steering = {key: shared.get(key) for key in ("task", "seed", "targets")}
    values = [steering, {key: value for key, value in task.items() if key != "package"}]
    return sha256(json.dumps(_sorted(values), default=str).encode()).hexdigest()


def _sorted(value: Any) -> Any:
    """Return a value with ordered keys and one form for each number.

    YAML's keys are text and numbers, which do not compare; 1 and 1.0 are one value, for DVC too.
    """
    if isinstance(value, dict):
        return sorted(([str(key), _sorted(own)] for key, own in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list):
        return [_sorted(own) for own in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
