"""Read the parameters of the pipeline into typed objects.

`params.yaml` names the task and holds the values that all tasks share. `tasks/<task>/params.yaml` holds one block per
stage. Parameters have no defaults in code: every value that affects a result is written in one of the two files.

Start reading at `load()`. Each module that has the name of a stage defines the block of that stage; `common` has
shared types. May import only stages.core.
"""

from __future__ import annotations

import math
import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from stages.core.errors import ParameterError
from stages.params.collect import Collect
from stages.params.common import Block, Data, Shared, Slug
from stages.params.compress import Compress
from stages.params.evaluate import Evaluate
from stages.params.export import Export
from stages.params.gate import Gate
from stages.params.package import Package
from stages.params.prepare import Prepare
from stages.params.train import Train
from stages.params.validate import Validate
from stages.params.yaml_file import read_yaml

SHARED_FILE = Path("params.yaml")
EXAMPLES = {"series": "pump", "audio": "spoken-digits"}

ModelT = TypeVar("ModelT", bound=BaseModel)


class Task(Block):
    """The contents of `tasks/<task>/params.yaml`: a description of the data, and one block of parameters per stage."""

    name: Slug = Field(description="Name of the task and of its releases, such as `digits` in `digits@1.2.0`.")
    data: Data = Field(description="Description of the data: the kind of its samples, its columns and its classes.")
    collect: Collect = Field(description="Parameters of the stage `collect`.")
    validation: Validate = Field(alias="validate", description="Parameters of the stage `validate`: the data contract.")
    prepare: Prepare = Field(description="Parameters of the stage `prepare`.")
    train: Train = Field(description="Parameters of the stage `train`.")
    compress: Compress = Field(description="Parameters of the stage `compress`.")
    export: Export = Field(description="Parameters of the stage `export`.")
    evaluate: Evaluate = Field(description="Parameters of the stage `evaluate`.")
    gate: Gate = Field(description="Parameters of the stage `gate`: the thresholds that a model must meet.")
    package: Package = Field(description="Parameters of the stage `package`.")


class Params(Shared, Task):
    """The contents of `params.yaml` and `tasks/<task>/params.yaml` as one object."""


def find_task_folder(root: Path = Path()) -> Path:
    """Return the folder `tasks/<task>`, where <task> is the task's name in params.yaml. Raises ParameterError."""
    return _task_folder(_parse(Shared, root / SHARED_FILE), root)


def _task_folder(shared: Shared, root: Path) -> Path:
    folder = root / "tasks" / shared.task
    if not folder.is_dir():
        tasks = sorted(p.parent.name for p in (root / "tasks").glob("*/params.yaml"))
        raise ParameterError(
            f"{root / SHARED_FILE}: task",
            f"found {shared.task!r}, but {folder}/ does not exist",
            f"one of {', '.join(tasks)}",
            f"use one of these names, or write {folder}/params.yaml (docs/how-to/your-own-task.md)",
        )
    return folder


def load(root: Path = Path()) -> Params:
    """Read and check params.yaml and the task's params.yaml below the folder `root`.

    Raises:
        ParameterError: A file is not valid. The error lists all faults in this file.
    """
    shared = _parse(Shared, root / SHARED_FILE)
    task = _parse(Task, _task_folder(shared, root) / "params.yaml")
    return Params.model_validate({**shared.model_dump(by_alias=True), **task.model_dump(by_alias=True)})


def locate_parameter(field: str, root: Path = Path()) -> str:
    """Return the file and the dotted name of a parameter, such as `tasks/digits/params.yaml: train.batch_size`."""
    if field.split(".")[0] in Shared.model_fields:
        return f"{root / SHARED_FILE}: {field}"
    try:
        return f"{find_task_folder(root) / 'params.yaml'}: {field}"
    except ParameterError:  # the caller runs outside a repository, without parameter files
        return f"parameter {field}"


def _parse(model: type[ModelT], path: Path) -> ModelT:
    values = read_yaml(path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe_fault(fault, values) for fault in error.errors(include_url=False)]
        raise ParameterError(str(path), f"{len(lines)} error(s)\n" + "\n".join(lines)) from None
    except RecursionError:
        raise ParameterError(
            str(path),
            "found an anchor that contains itself",
            "values without such loops",
            "replace the alias inside the anchor with a value",
        ) from None


def _describe_fault(fault: Any, values: Any) -> str:
    field, kind = _field_name(fault["loc"], values, fault["type"]), fault["type"]
    if kind == "missing":
        remedy = f"add it ({_example_file(field, values)} has an example)"
        return f"  {field}: found nothing, expected a value; remedy: {remedy}"
    value = _show_value(fault["input"])
    if kind == "extra_forbidden":
        value = value.rpartition(" (")[0] or value
        return (
            f"  {field}: found {value}, expected no parameter of this name; remedy: remove it or correct its spelling"
        )
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error" and isinstance(fault["input"], dict):
        value = f"a block of {len(fault['input'])} fields"  # the message names the fields that contradict each other
    return f"  {field}: found {value}, expected: {expected}; remedy: {_remedy(fault['input'], kind)}"


def _example_file(field: str, values: Any) -> str:
    """Return the path of an example parameter file that sets `field`, from a task with the same kind of data.

    For a field of the root's params.yaml, return the command that prints the committed version of this file.
    """
    if "." not in field and field in Shared.model_fields:
        return "git show HEAD:params.yaml"
    data = values.get("data") if isinstance(values, dict) else None
    kind = data.get("kind") if isinstance(data, dict) else None
    task = EXAMPLES.get(kind, "digits") if isinstance(kind, str) else "digits"
    return f"tasks/{task}/params.yaml"


def _field_name(loc: tuple[str | int, ...], values: Any, kind: str) -> str:
    """Return the dotted name of the invalid field, made of the keys in the parameter file.

    `loc` is the field's location in pydantic's error. It can also contain the type of a source or a format.
    Such a type is not a key in the file, so it is left out.
    """
    parts = []
    for number, part in enumerate(loc, start=1):
        inside = part in values if isinstance(values, dict) else isinstance(values, list) and part in range(len(values))
        if inside:
            values = values[part]
        elif kind != "missing" or number < len(loc):
            continue
        parts.append(str(part))
    return ".".join(parts) or "the file"


def _show_value(value: Any) -> str:
    try:
        return f"{reprlib.repr(value)} ({type(value).__name__})"
    except ValueError:  # Python does not convert integers of more than 4300 digits to text
        return "a number of thousands of digits"


def _remedy(value: Any, kind: str) -> str:
    """Return the remedy that the error message proposes for an invalid value.

    YAML 1.1 reads 1e-3 as text, because a number with an exponent must have a decimal point and a signed exponent.
    """
    if kind in ("float_type", "int_type") and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return "change the value"
        if not math.isfinite(number):
            return "write a number"
        if kind == "int_type" and number.is_integer():
            return f"write it as {int(number)}, without quotes"
        text = re.sub(r"^(-?\d+)e", r"\1.0e", repr(number))  # 1e-05 -> 1.0e-05
        return f"write it as {text}, without quotes"
    return "write it in quotes" if kind == "string_type" else "change the value"
