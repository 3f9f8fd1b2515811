"""Change the parameter files of a workspace field by field, and read the error message of invalid ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.errors import ParameterError
from stages.params import load

SHARED, TASK = "params.yaml", "tasks/digits/params.yaml"


def change(path: Path, field: str | tuple[Any, ...], value: Any) -> None:
    """Set one field, given as a dotted name or as its parts; a number is an index of a list."""
    if isinstance(field, str):
        field = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    values = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    block = values
    for part in field[:-1]:
        block = block[part]
    block[field[-1]] = value
    path.write_text(yaml.dump(values, Dumper=yaml.CSafeDumper, sort_keys=False), encoding="utf-8")


def refused(root: Path = Path()) -> str:
    """Return the message of the error that invalid parameters raise."""
    with pytest.raises(ParameterError) as error:
        load(root)
    return str(error.value)


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every field below `values` as its parts, with its value."""
    if not isinstance(values, dict | list) or not values:
        yield path, values
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield from leaves(value, (*path, key))
