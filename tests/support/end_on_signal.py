"""A pytest plug-in that ends a test run in order, also after a signal.

SIGTERM and SIGHUP act as ^C: the test is interrupted and fixtures clean up, in the workers of pytest-xdist too.
If a worker is killed or needs more than 15 s, the watchers of `lab/cleanup.py` clean up instead.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from contextlib import suppress
from typing import Any

import pytest
from xdist.workermanage import NodeManager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# execnet ends a worker that needs more than 15 s for its fixtures; the main process kills it after WORKER_END_S.
WORKER_END_S = 60
INTERPRETER_END_S = 45
workers: list[int] = []


def pytest_configure(config: pytest.Config) -> None:
    NodeManager.EXIT_TIMEOUT = WORKER_END_S
    for number in SIGNALS if is_worker(config) else SIGNALS[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def interrupt(number: int, frame: object) -> None:
    """Interrupt the run at the first signal. A worker may receive more signals, which must not stop the cleanup."""
    for each in SIGNALS:  # another library may have set SIGINT's handler (pyspark)
        if signal.getsignal(each) not in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(each, ignore_signal)
    raise KeyboardInterrupt(signal.Signals(number).name)


def ignore_signal(number: int, frame: object) -> None:
    """Do nothing. Not SIG_IGN, which programs that fixtures start would inherit."""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    workers.append(node.gateway._io.popen.pid)  # execnet has no public name for it


def pytest_keyboard_interrupt() -> None:
    """Interrupt the workers at once: execnet would let a test continue for 5 s."""
    for process in workers:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End a process that hangs after its last test, and print its stacks: no time limit of a test applies any more."""
    if is_worker(config):  # it stays idle until the other workers have finished
        threading.Thread(target=end_after_main_thread, daemon=True).start()
    else:
        faulthandler.dump_traceback_later(2 * WORKER_END_S, exit=True)


def end_after_main_thread() -> None:
    threading.main_thread().join()
    faulthandler.dump_traceback_later(INTERPRETER_END_S, exit=True)
