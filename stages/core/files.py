"""Atomic writes and checked reads of the files that stages exchange.

A file is written under a temporary name, flushed and then renamed, so that it is either complete or absent. A stage
still checks the files that it reads, because disks, copies and manual edits can corrupt them.
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
    """Return the SHA-256 of a file or a directory in hex.

    The digest of a directory is computed from the relative paths and the digests of its files, sorted by path.
    """
    if path.is_dir():
        total = hashlib.sha256()
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{child.relative_to(path).as_posix()} {sha256(child)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, so that an error leaves `path` unchanged."""
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
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, atomically. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`. Raises OSError or json.JSONDecodeError."""
    return json.loads(path.read_text(encoding="utf-8"))


def rerun_hint(stage: str) -> str:
    """Return the remedy for a missing or corrupted file: run `stage` again, because this stage writes the file."""
    return f"run the `{stage}` stage again (make repro)"


def read_object(path: Path, stage: str) -> dict[str, Any]:
    """Return the JSON object that `stage` wrote to `path`.

    Raises StageError if the file is missing, not a JSON object, or contains a number that is not finite. `write_json`
    never writes such a number, but Python's json module would accept NaN, and would read 1e999 as infinity.
    """
    expected = f"the JSON object that the `{stage}` stage writes"
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
        raise StageError(str(path), f"found {type(value).__name__}, not a JSON object", expected, rerun_hint(stage))
    return value


def read_model(path: Path, model: type[ModelT], stage: str) -> ModelT:
    """Return the JSON object that `stage` wrote to `path`, as an instance of a pydantic model.

    Args:
        path: The JSON file.
        model: The class of the pydantic model.
        stage: Name of the stage that writes the file; the error's remedy is to run this stage again.

    Raises:
        StageError: The file is missing or not valid; the message names the first field at fault.
    """
    from pydantic import ValidationError

    value = read_object(path, stage)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ": ".join([str(path), ".".join(map(str, fault["loc"]))] if fault["loc"] else [str(path)])
        actual = "nothing" if fault["type"] == "missing" else reprlib.repr(fault["input"])
        raise StageError(where, f"found {actual}", fault["msg"], rerun_hint(stage)) from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _finite_integer(text: str) -> int:
    _finite(text)
    return int(text)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{reprlib.repr(text)} is not a finite number")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary directory, and replace `path` with it when the `with` block succeeds.

    If the block raises an exception, `path` is unchanged. No portable system call replaces one directory with another,
    so `path` is replaced by two renames. If the process is killed between the renames, `path` is missing, but never
    incomplete, and DVC restores a missing output.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{state}") for state in ("partial", "old"))
    for stale in (partial, old):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.replace(old)
        partial.replace(path)
    finally:
        for temporary in (partial, old):
            shutil.rmtree(temporary, ignore_errors=True)
