"""Files that are either whole or not there: written aside, flushed, then renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory aside and put it in place of `path` when the block ends well.

    When the block raises, `path` keeps what it had. A directory cannot be swapped for another in one
    portable step; a kill between the two renames leaves neither, which DVC sees as missing and restores.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
