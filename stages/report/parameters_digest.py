"""Compute a digest of the parameters that affect the gate's verdict. If the digest changes, the verdict is outdated."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.core.errors import ParameterError


def read_parameters() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values in params.yaml and the values in the task's params.yaml, without adding default values.

    The function checks only that each file contains the name of the task. The stages check all other values.

    Raises:
        ParameterError: A file is not readable, or does not contain the name of the task as text.
    """
    shared = _read_yaml(Path("params.yaml"), "task")
    return shared, _read_yaml(Path("tasks") / shared["task"] / "params.yaml", "name")


def _read_yaml(path: Path, key: str) -> dict[str, Any]:
    """Return the YAML mapping in the file `path`.

    Raises:
        ParameterError: The file is not readable, or the value of `key` is missing or not text.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(
            str(path), f"not readable: {' '.join(str(error).split())}", f"a YAML mapping with the key {key}"
        ) from None
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, str):
        raise ParameterError(f"{path}: {key}", f"found {value!r}", "text")
    return dict(values)


def parameters_digest(shared: dict[str, Any], task: dict[str, Any]) -> str:
    """Return the SHA-256 digest of the parameters that affect the gate's verdict.

    `shared` and `task` are the values that `read_parameters` returns. The order of the keys and the comments in the
    files do not affect the digest. The digest does not cover `package`, because that stage runs after the gate, and
    does not cover parameters that only select where the work is done, such as `device`.
    """
    steering = {key: shared.get(key) for key in ("task", "seed", "targets")}
    values = [steering, {key: value for key, value in task.items() if key != "package"}]
    return sha256(json.dumps(_sorted(values), default=str).encode()).hexdigest()


def _sorted(value: Any) -> Any:
    """Return a YAML value with every mapping as a sorted list of pairs, and every whole number as an integer.

    YAML keys can be text or numbers. Python cannot compare text with numbers, so keys are sorted as text. 1 and 1.0 are
    treated as the same value, as in DVC.
    """
    if isinstance(value, dict):
        return sorted(([str(key), _sorted(own)] for key, own in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list):
        return [_sorted(own) for own in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
