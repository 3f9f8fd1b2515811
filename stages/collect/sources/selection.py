"""Decide which files of a source are read, and record the files that are left out."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from stages.collect.sources.base import Context, LeftOut
from stages.params.files import Files

UNMATCHED = "matches no pattern of select"
HIDDEN = "hidden: a part of the path begins with a dot"
MACOS = "metadata of macOS"


def select_files(names: Iterable[str], files: Files, context: Context) -> tuple[list[str], list[LeftOut]]:
    """Return the sorted paths of the files to read, and a record of all other files.

    Args:
        names: Paths of all files in the archive, bucket or folder.
        files: The patterns that select files.
        context: Provides the source's name for error messages.

    Raises:
        SourceError: No file is to be read.
    """
    reasons = {name: reason_left_out(name, files) for name in sorted(names)}
    chosen = [name for name, reason in reasons.items() if reason is None]
    if not chosen:
        first = f"; the first are {', '.join(list(reasons)[:3])}" if reasons else ""
        problem = f"none of {len(reasons)} files matches {', '.join(files.select)}{first}"
        remedy = "correct `select:`; a pattern for hidden files must have the dot, such as `.*`"
        raise context.error(problem, "at least one file that matches", remedy)
    return chosen, left_out_by_reason({name: reason for name, reason in reasons.items() if reason is not None})


def reason_left_out(name: str, files: Files) -> str | None:
    """Return the reason why the file with the path `name` is not read; None if it is read.

    Upper and lower case are not distinguished. As in a shell, only a pattern with a hidden part matches a hidden file.
    """
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts or path.name.startswith("._") or path.name == ".DS_Store":
        return MACOS
    patterns = [pattern for pattern in files.select if fnmatchcase(name.casefold(), pattern.casefold())]
    if not patterns:
        return UNMATCHED
    return HIDDEN if _is_hidden(name) and not any(map(_is_hidden, patterns)) else None


def left_out_by_reason(reasons: dict[str, str]) -> list[LeftOut]:
    """Return one record for each reason. `reasons` maps each name that is left out to its reason."""
    return [
        LeftOut.record(reason, [n for n, r in reasons.items() if r == reason]) for reason in sorted({*reasons.values()})
    ]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))
