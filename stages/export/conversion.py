"""Run a converter with a time limit, and check that the converter wrote its candidate files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import ConversionError
from stages.core.files import read_json
from stages.export.converters.protocol import CANDIDATES, Candidate, Request

LOG_LINES = 15  # an error shows this many lines from the end of the converter's log


def convert(command: Sequence[str], request: Request, limit_s: float, log: Path) -> list[Candidate]:
    """Run one converter program, and return the candidate files that it wrote.

    Args:
        command: The converter's command line, without the arguments of `request`.
        request: The arguments, such as the file of the network and the folder for the candidate files.
        limit_s: Time limit in seconds.
        log: The file that receives the converter's output.

    Returns:
        A description of each candidate file.

    Raises:
        ConversionError: The converter failed, was killed or took too long, or it reported success although candidate
            files are missing.
    """
    arguments = [
        "--network", str(request.network), "--samples", str(request.samples),
        "--output", str(request.output), "--methods", *request.methods,
    ]  # fmt: skip
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise _failure(log, f"still running after {limit_s:g} s", "raise export.timeout_s") from None
        finally:
            # A converter may have started other processes, so kill the whole process group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code < 0:
        raise _failure(log, f"killed by {signal.Signals(-code).name}")
    if code > 0:
        raise _failure(log, f"exit code {code}")
    try:
        candidates = [Candidate(**entry) for entry in read_json(request.output / CANDIDATES)]
    except (OSError, ValueError, TypeError):
        raise _failure(log, f"exit code 0, but it wrote no {CANDIDATES}") from None
    missing = [entry.file for entry in candidates if not (request.output / entry.file).is_file()]
    if missing or not candidates:
        raise _failure(log, f"exit code 0, but it wrote no {', '.join(missing) or 'candidate'}")
    return candidates


def _failure(log: Path, reason: str, remedy: str = "") -> ConversionError:
    """Return the error for a failed converter, with the last lines of the converter's log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LOG_LINES:]
    shown = "".join(f"\n    {line}" for line in lines)
    return ConversionError(
        f"the converter whose log is {log}", reason + shown, "exit code 0 and at least one candidate file", remedy
    )
