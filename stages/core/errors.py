"""What a stage says when it cannot go on: one message that a person can act on, never a traceback."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


class StageError(Exception):
    """The stage cannot go on. The message says where, what was found, what was expected, what to do."""

    def __init__(
        self,
        where: str,
        found: str,
        expected: str = "",
        remedy: str = "",
    ) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        lines = [f"{where}: {found}"]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))


class ParameterError(StageError):
    """A value in params.yaml or in the task's parameters is unknown, missing or of the wrong type."""


class SourceError(StageError):
    """A data source did not deliver what was asked of it."""


class ContractError(StageError):
    """The snapshot does not meet the data contract."""


class ConversionError(StageError):
    """A converter failed, or what it wrote does not agree with the model."""


class GateError(StageError):
    """A gate did not pass."""


class CombinedError(StageError):
    """Several independent failures, reported together."""

    def __init__(self, errors: list[StageError]) -> None:
        self.errors = errors
        Exception.__init__(self, "\n".join(str(error) for error in errors))


# Exit codes of every stage: 0 done, 1 the stage refused its input, 130 interrupted (128 + SIGINT).
EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130
WRITTEN_FOLDERS = ("data", "models", "reports", ".work", ".")


def run(main: Callable[[], None]) -> None:
    """Call a stage's main(); turn what people can mend into a message and an exit code.

    A full disk, too little memory and a missing file are the operator's to mend; anything else is our defect
    and keeps its traceback.
    """
    try:
        main()
    except StageError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would end in some library's traceback
        print("interrupted; run it again to go on (make repro brings back what DVC took away)", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except MemoryError as error:
        _fail(
            f"memory: too little for this: {error or 'no more could be had'}\n"
            "  remedy:   lower the sizes in the task's params.yaml, or take a machine with more"
        )
    except OSError as error:
        where = error.filename or error.filename2 or _free_space(error)
        _fail(f"{where}: {error.strerror or error}\n  remedy:   free the space or mend the path, then run again")


def _free_space(error: OSError) -> str:
    """What stands for the file that a write to a full disk does not name: the disks that a stage writes to."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return "file system"
    disks: dict[int, Path] = {}
    for place in (*map(Path, WRITTEN_FOLDERS), Path(tempfile.gettempdir())):
        if place.is_dir():
            disks.setdefault(place.stat().st_dev, place.resolve())
    return ", ".join(f"{place} ({shutil.disk_usage(place).free / 1e6:.0f} MB free)" for place in disks.values())


def _fail(message: str) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_REFUSED)
