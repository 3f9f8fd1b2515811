"""The running service without its sockets: the engine, what watches it, and the tasks that go on beside answering.

The event loop answers; a thread infers (inference/engine.py); what touches the disk runs in other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from edge_agent.core import state, systemd
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, ServiceError
from edge_agent.inference.engine import Engine
from edge_agent.lifecycle.boot import boot
from edge_agent.monitoring.health import IDLE_PROBE_S, Health
from edge_agent.monitoring.service_statistics import ServiceStatistics
from edge_agent.service.events import Events
from edge_agent.service.loader import FOLLOW_S, Loader
from edge_agent.service.trial_judge import TrialJudge


class Supervisor:
    """One per process. All methods belong to the event loop's thread."""

    def __init__(self, config: Config, under_systemd: bool = True) -> None:
        self.config = config
        self.engine = Engine(config.serve)
        self.health = Health(self.engine, config.serve.request_timeout_s, config.trial.error_share)
        self.events = Events()
        self.statistics = ServiceStatistics(config).attach(self.engine)
        self.ending = asyncio.Event()
        self.started = time.monotonic()
        self.loader = Loader(config, self.engine, self.health, self.statistics, self.events, self.ending)
        self.judge = TrialJudge(config, self.loader, self.health, self.events)
        self._under_systemd = under_systemd

    @classmethod
    async def boot(cls, config: Config, under_systemd: bool, stack: contextlib.AsyncExitStack) -> Supervisor:
        """A service that answers with a verified release, until `stack` unwinds; nobody can ask it yet.

        Raises AgentError where it cannot boot, or another service runs.
        """
        supervisor = cls(config, under_systemd)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.ending.set)
        layout = config.layout
        layout.run.mkdir(parents=True, exist_ok=True)
        # A second service would take the first one's sockets away.
        stack.enter_context(state.locked(layout, wait_s=0.0, file=layout.run / "serve.lock"))
        supervisor.loader.booted = await asyncio.to_thread(boot, config)
        stack.push_async_callback(supervisor.engine.close)
        keeping = asyncio.create_task(supervisor.statistics.save_periodically())
        stack.push_async_callback(_cancelled, keeping)
        await supervisor.loader.follow(retry=True)
        return supervisor

    async def run_until_signal(self, where: str) -> None:
        """Serve until SIGTERM or SIGINT; `where` the service answers is for the log. Raises what ends a task."""
        tasks = [asyncio.create_task(part) for part in self._parts()]
        waiting = asyncio.create_task(self.ending.wait())
        try:
            systemd.ready(self.loader.line())
            self.events.add("ready", f"serving {self.loader.line()} on {where}")
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            systemd.stopping()
            self.events.add("stopping", "no new requests; those that wait are answered")
            for task in done - {waiting}:
                task.result()  # raises what ended it
        finally:
            for task in (waiting, *tasks):
                task.cancel()

    def _parts(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside answering."""
        yield self.follow()
        trial_s, idle_s = self.config.trial.probe_interval_s, IDLE_PROBE_S
        yield self.health.probe_periodically(lambda: trial_s if self.loader.state.trial else idle_s)
        watchdog_s = systemd.watchdog_s() if self._under_systemd else None
        yield self.health.ping_watchdog(watchdog_s) if watchdog_s else self._hangs()

    async def _hangs(self) -> None:
        """Where nobody watches: a hung model ends the process, so that a supervisor starts it again."""
        limit = 3 * self.config.serve.request_timeout_s
        while self.loader.state.trial or self.health.silent_s < limit:  # a trial goes back instead
            await asyncio.sleep(FOLLOW_S)
        raise ServiceError("the loaded model", f"has not answered for {limit:g} s", "", "start the service again")

    async def follow(self) -> None:
        """Without end: load what state.json names, and judge the trial."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.loader.follow()
                await self.judge.judge()
            except (AgentError, OSError) as error:  # a state that cannot be read: go on with what is loaded
                self.events.add("state", " ".join(str(error).split()), logging.ERROR)

    def healthy(self) -> tuple[bool, str]:
        """Whether what state.json names is loaded and does what it should, and if not why."""
        loader = self.loader
        if loader.error:
            return False, f"{loader.state.current} is current, but not loaded: {loader.error}"
        if self.engine.loaded is None:
            return False, "no release is current"
        if not loader.up_to_date:
            return False, f"{loader.state.current} is current, but not loaded yet"
        return self.health.healthy()


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for what it does at its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
