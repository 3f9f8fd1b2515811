"""A pytest plug-in: how a test run ends, by itself or by a signal.

SIGTERM and SIGHUP end a run as ^C does: the test is interrupted, fixtures clean up, in the workers of pytest-xdist too.
A worker that is killed, or takes longer than 15 s, leaves the rest to the watchers of `lab/cleanup.py`.
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
# A worker has 15 s for its fixtures (execnet), then it ends itself; the main process kills it after `WORKER_END_S`.
WORKER_END_S = 60
INTERPRETER_END_S = 45
workers: list[int] = []


def pytest_configure(config: pytest.Config) -> None:
    NodeManager.EXIT_TIMEOUT = WORKER_END_S
    for number in SIGNALS if is_worker(config) else SIGNALS[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as below nohup
            signal.signal(number, interrupt)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def interrupt(number: int, frame: object) -> None:
    """The first signal is obeyed. The main process hands it on, so a worker may get several: cleaning up goes on."""
    for each in SIGNALS:  # SIGINT may be another library's by now (pyspark)
        if signal.getsignal(each) not in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(each, go_on)
    raise KeyboardInterrupt(signal.Signals(number).name)


def go_on(number: int, frame: object) -> None:
    """Not SIG_IGN: programs that fixtures start now would inherit that."""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    workers.append(node.gateway._io.popen.pid)  # execnet has no public name for it


def pytest_keyboard_interrupt() -> None:
    """At once: execnet would let a worker's test run on for 5 s."""
    for process in workers:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def pytest_unconfigure(config: pytest.Config) -> None:
    """A process that does not end after its last test says where it stands, and ends: no time limit of a test holds."""
    if is_worker(config):  # it stays, idle, until the others are done too
        threading.Thread(target=end_after_main_thread, daemon=True).start()
    else:
        faulthandler.dump_traceback_later(2 * WORKER_END_S, exit=True)


def end_after_main_thread() -> None:
    threading.main_thread().join()
    faulthandler.dump_traceback_later(INTERPRETER_END_S, exit=True)
