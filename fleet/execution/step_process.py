"""Run a step of `fleet wave` in a process on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

from fleet.execution.worker_job import HERE


def run(arguments: Sequence[str], stdin: str, poll: Callable[[], bool], poll_s: float) -> tuple[int, str, str]:
    """Run a step, and return its exit code, its standard output and its standard error.

    The step runs in its own session, so that Ctrl-C stops only the program that calls this function.

    Args:
        arguments: The name of the step, and its arguments.
        stdin: The step's standard input.
        poll: A function that is called repeatedly while the step runs. The step is killed if it returns True.
        poll_s: The time between two calls of `poll`, in seconds.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", "--json", "wave", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        start_new_session=True,
    )
    text: str | None = stdin
    while True:
        try:
            stdout, stderr = process.communicate(text, timeout=poll_s)
            return process.returncode, stdout, stderr
        except subprocess.TimeoutExpired:
            text = None  # communicate() accepts the input only once
            if poll():
                process.kill()
