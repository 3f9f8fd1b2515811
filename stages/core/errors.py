"""Errors of the stages. Each one is reported as a message with a remedy, never as a traceback."""

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
    """A stage cannot continue. This is the base class of all errors of the stages.

    The message has four parts: where, found, expected, remedy.
    """

    def __init__(
        self,
        where: str,
        found: str,
        expected: str = "",
        remedy: str = "",
    ) -> None:
        """Compose the error's message from its four parts.

        Args:
            where: The file, column or parameter at fault.
            found: What is wrong there.
            expected: What is required instead; left out if empty.
            remedy: What the user should do, as an imperative; left out if empty.
        """
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        lines = [f"{where}: {found}"]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))


class ParameterError(StageError):
    """A parameter in params.yaml or in tasks/<task>/params.yaml is unknown, missing or not valid."""


class SourceError(StageError):
    """A data source is not reachable, or delivers data that cannot be used."""


class ContractError(StageError):
    """Data does not meet the data contract, or is not suitable for training."""


class ConversionError(StageError):
    """A converter failed, or the converted file's predictions differ from the model's predictions."""


class GateError(StageError):
    """A model does not meet a threshold of the gate."""


class CombinedError(StageError):
    """Several independent errors occurred; they are reported together."""

    def __init__(self, errors: list[StageError]) -> None:
        self.errors = errors
        Exception.__init__(self, "\n".join(str(error) for error in errors))


EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_CODES = {
    0: "done",
    EXIT_REFUSED: "refused, with a message that names the cause and the remedy",
    EXIT_INTERRUPTED: "interrupted",
}
WRITTEN_FOLDERS = ("data", "models", "reports", ".work", ".")


def run(main: Callable[[], None]) -> None:
    """Call a stage's main(), and turn errors that the user can fix into a message and an exit code.

    A full disk, too little memory or a missing file is also reported in a message. Any other exception is a defect of
    the stage, and its traceback is printed.
    """
    try:
        main()
    except StageError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # signal.signal raises ValueError outside the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would show a traceback of some library
        print(
            "interrupted; run the same command again to continue (make repro restores the outputs that DVC removed)",
            file=sys.stderr,
        )
        sys.exit(EXIT_INTERRUPTED)
    except MemoryError as error:
        _fail(
            f"memory: not enough: {error or 'an allocation failed'}\n"
            "  remedy:   lower sizes in the task's params.yaml, such as train.batch_size, "
            "or use a machine with more memory"
        )
    except OSError as error:
        where = error.filename or error.filename2 or _free_space(error)
        _fail(f"{where}: {error.strerror or error}\n  remedy:   free disk space or correct the path, then run again")


def _free_space(error: OSError) -> str:
    """Return a text with the disks that a stage writes to, and the free space on each disk.

    The text is needed because the error for a full disk does not name a file. If `error` is not about a full disk, the
    text is "file system".
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return "file system"
    disks: dict[int, Path] = {}
    for folder in (*map(Path, WRITTEN_FOLDERS), Path(tempfile.gettempdir())):
        if folder.is_dir():
            disks.setdefault(folder.stat().st_dev, folder.resolve())
    return ", ".join(f"{folder} ({shutil.disk_usage(folder).free / 1e6:.0f} MB free)" for folder in disks.values())


def _fail(message: str) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_REFUSED)
