"""Every number that steers the pipeline, read once and typed.

`params.yaml` names the task and holds what all tasks share; `tasks/<task>/params.yaml` holds the rest,
one block per stage. There are no defaults in code: what is not written there does not steer anything.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from stages.errors import ParameterError
from stages.params.base import Block, Data, Shared
from stages.params.collect import Collect
from stages.params.compress import Compress
from stages.params.deliver import Evaluate, Export, Gate, Package
from stages.params.prepare import Prepare
from stages.params.train import Train
from stages.params.validate import Validate

SHARED_FILE = Path("params.yaml")

ModelT = TypeVar("ModelT", bound=BaseModel)


class Task(Block):
    """`tasks/<task>/params.yaml`: what one sample is, and a block per stage."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    data: Data
    collect: Collect
    validation: Validate = Field(alias="validate")
    prepare: Prepare
    train: Train
    compress: Compress
    export: Export
    evaluate: Evaluate
    gate: Gate
    package: Package


class Params(Shared, Task):
    """Both files as one object."""


def task_folder(root: Path = Path()) -> Path:
    """The folder of the task that params.yaml names. Raises ParameterError."""
    shared = _parse(Shared, root / SHARED_FILE)
    folder = root / "tasks" / shared.task
    if not folder.is_dir():
        known = sorted(p.parent.name for p in (root / "tasks").glob("*/params.yaml"))
        raise ParameterError(
            f"{root / SHARED_FILE}: task",
            f"found {shared.task!r}, and there is no {folder}/",
            f"one of {', '.join(known)}",
            f"name one of these, or write {folder}/params.yaml (docs/your-own-task.md)",
        )
    return folder


def load(root: Path = Path()) -> Params:
    """Read and check both files below `root`. Raises ParameterError, which lists every fault of a file."""
    path = task_folder(root) / "params.yaml"
    shared = _parse(Shared, root / SHARED_FILE)
    task = _parse(Task, path)
    return Params.model_validate({**shared.model_dump(by_alias=True), **task.model_dump(by_alias=True)})


def _parse(model: type[ModelT], path: Path) -> ModelT:
    try:
        return model.model_validate(_read(path))
    except ValidationError as error:
        lines = [_describe(fault) for fault in error.errors()]
        raise ParameterError(str(path), f"{len(lines)} fault(s)\n" + "\n".join(lines)) from None


def _describe(fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    kind, found = fault["type"], reprlib.repr(fault["input"])
    if kind == "missing":
        return f"  {field}: found nothing, expected a value; remedy: add it (tasks/digits/params.yaml has an example)"
    if kind == "extra_forbidden":
        return f"  {field}: found {found}, expected no such parameter; remedy: remove it or mend its spelling"
    kind = type(fault["input"]).__name__
    return f"  {field}: found {found} ({kind}), expected: {fault['msg']}; remedy: change the value"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(str(path), "there is no such file", "a YAML file of parameters") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(str(path), "not readable as YAML: " + re.sub(r"\s+", " ", str(error))) from None
    if not isinstance(value, dict):
        raise ParameterError(str(path), f"found {type(value).__name__}", "a mapping of blocks to parameters")
    return value
