"""Files that are either whole or not there: written aside, flushed, then renamed into place.

What a stage reads of another one is checked all the same: disks, copies and people do damage files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import reprlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from stages.core.errors import StageError

if TYPE_CHECKING:
    from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound="BaseModel")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, or of a directory: of the sorted relative paths and digests inside it."""
    if path.is_dir():
        total = hashlib.sha256()
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{child.relative_to(path).as_posix()} {sha256(child)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, or leave what was there."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON. NaN and infinity are not JSON: ValueError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises OSError, json.JSONDecodeError."""
    return json.loads(path.read_text(encoding="utf-8"))


def rerun_hint(stage: str) -> str:
    """The remedy for a damaged file: the stage that wrote it."""
    return f"run the stage {stage} again (make repro)"


def read_object(path: Path, stage: str) -> dict[str, Any]:
    """The JSON object that `stage` wrote. Raises StageError where there is none, or one with a number that is not
    finite: `write_json` writes none, json reads NaN, and 1e999 as infinity.
    """
    expected = f"the JSON object that the stage {stage} writes"
    try:
        value = json.loads(
            path.read_text(encoding="utf-8"),
            parse_constant=_refuse_number,
            parse_float=_finite,
            parse_int=_finite_integer,
        )
    except FileNotFoundError:
        raise StageError(str(path), "there is no such file", expected, rerun_hint(stage)) from None
    except OSError as error:
        raise StageError(str(path), f"not readable: {error.strerror}", expected, rerun_hint(stage)) from None
    except (ValueError, RecursionError) as error:
        raise StageError(str(path), f"not readable as JSON: {error}", expected, rerun_hint(stage)) from None
    if not isinstance(value, dict):
        raise StageError(str(path), f"found {type(value).__name__}, no JSON object", expected, rerun_hint(stage))
    return value


def read_model(path: Path, model: type[ModelT], stage: str) -> ModelT:
    """The same as an object of a pydantic model. Raises StageError, which names the first field at fault."""
    from pydantic import ValidationError

    value = read_object(path, stage)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ": ".join([str(path), ".".join(map(str, fault["loc"]))] if fault["loc"] else [str(path)])
        found = "nothing" if fault["type"] == "missing" else reprlib.repr(fault["input"])
        raise StageError(where, f"found {found}", fault["msg"], rerun_hint(stage)) from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _finite_integer(text: str) -> int:
    _finite(text)
    return int(text)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{reprlib.repr(text)} is no finite number")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory aside and put it in place of `path` when the block ends well.

    When the block raises, `path` keeps what it had. A directory cannot be swapped for another in one portable step: a
    kill between the two renames leaves neither, never a part, which DVC sees as missing and restores.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{state}") for state in ("partial", "old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.replace(old)
        partial.replace(path)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
