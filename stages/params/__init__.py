"""Every number that steers the pipeline, read once and typed.

`params.yaml` names the task and holds what all tasks share; `tasks/<task>/params.yaml` holds the rest,
one block per stage. There are no defaults in code: what is not written there does not steer anything.

Enter at `load()`. One module per stage holds the types of its block; `common` what blocks share.
May import only stages.core.
"""

from __future__ import annotations

import math
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
    """`tasks/<task>/params.yaml`: what one sample is, and a block per stage."""

    name: Slug
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


def find_task_folder(root: Path = Path()) -> Path:
    """The folder of the task that params.yaml names. Raises ParameterError."""
    return _task_folder(_parse(Shared, root / SHARED_FILE), root)


def _task_folder(shared: Shared, root: Path) -> Path:
    folder = root / "tasks" / shared.task
    if not folder.is_dir():
        known = sorted(p.parent.name for p in (root / "tasks").glob("*/params.yaml"))
        raise ParameterError(
            f"{root / SHARED_FILE}: task",
            f"found {shared.task!r}, and there is no {folder}/",
            f"one of {', '.join(known)}",
            f"name one of these, or write {folder}/params.yaml (docs/how-to/your-own-task.md)",
        )
    return folder


def load(root: Path = Path()) -> Params:
    """Read and check both files below `root`. Raises ParameterError, which lists every fault of a file."""
    shared = _parse(Shared, root / SHARED_FILE)
    task = _parse(Task, _task_folder(shared, root) / "params.yaml")
    return Params.model_validate({**shared.model_dump(by_alias=True), **task.model_dump(by_alias=True)})


def locate_parameter(field: str, root: Path = Path()) -> str:
    """`tasks/digits/params.yaml: train.batch_size`: the file that holds a parameter, and its dotted name."""
    if field.split(".")[0] in Shared.model_fields:
        return f"{root / SHARED_FILE}: {field}"
    try:
        return f"{find_task_folder(root) / 'params.yaml'}: {field}"
    except ParameterError:  # a part that is used without a pipeline around it
        return f"parameter {field}"


def _parse(model: type[ModelT], path: Path) -> ModelT:
    values = read_yaml(path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe_fault(fault, values) for fault in error.errors(include_url=False)]
        raise ParameterError(str(path), f"{len(lines)} fault(s)\n" + "\n".join(lines)) from None
    except RecursionError:
        raise ParameterError(
            str(path), "an anchor that holds itself", "values that end", "write the value out"
        ) from None


def _describe_fault(fault: Any, values: Any) -> str:
    field, kind = _field_name(fault["loc"], values, fault["type"]), fault["type"]
    if kind == "missing":
        remedy = f"add it ({_example_file(field, values)} has an example)"
        return f"  {field}: found nothing, expected a value; remedy: {remedy}"
    found = _show_value(fault["input"])
    if kind == "extra_forbidden":
        found = found.rpartition(" (")[0] or found
        return f"  {field}: found {found}, expected no such parameter; remedy: remove it or mend its spelling"
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error" and isinstance(fault["input"], dict):
        found = f"a block of {len(fault['input'])} fields"  # of which the message says what does not fit
    return f"  {field}: found {found}, expected: {expected}; remedy: {_remedy(fault['input'], kind)}"


def _example_file(field: str, values: Any) -> str:
    """The file of this repository that has the field for data of the same kind."""
    if "." not in field and field in Shared.model_fields:
        return "git show HEAD:params.yaml"
    data = values.get("data") if isinstance(values, dict) else None
    kind = data.get("kind") if isinstance(data, dict) else None
    task = EXAMPLES.get(kind, "digits") if isinstance(kind, str) else "digits"
    return f"tasks/{task}/params.yaml"


def _field_name(loc: tuple[str | int, ...], values: Any, kind: str) -> str:
    """The dotted name as it is written: pydantic adds the kind of a source or a format, which is not in the file."""
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
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _remedy(value: Any, kind: str) -> str:
    """YAML 1.1 takes 1e-3 and 1_0.0e3 for text: it wants a point, and a sign in the exponent."""
    if kind in ("float_type", "int_type") and isinstance(value, str):
        try:
            return f"write it as {float(value)!r}, without quotes" if math.isfinite(float(value)) else "write a number"
        except ValueError:
            pass
    return "write it in quotes" if kind == "string_type" else "change the value"
