"""The running service without its sockets: the engine, its observers, and the background tasks.

The event loop handles requests, one thread runs the model (inference/engine.py), and other threads access the disk.
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
from edge_agent.monitoring.health import IDLE_PROBE_S, Condition, Health
from edge_agent.monitoring.service_statistics import ServiceStatistics
from edge_agent.service.events import Events
from edge_agent.service.loader import FOLLOW_S, Loader
from edge_agent.service.trial_judge import TrialJudge


class Supervisor:
    """Own the parts of the service. A process has one Supervisor, whose methods run in the event loop's thread."""

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
        self._state_error = ""  # the reason why state.json could not be read at the last attempt

    @classmethod
    async def boot(cls, config: Config, under_systemd: bool, stack: contextlib.AsyncExitStack) -> Supervisor:
        """Start the service without its sockets: choose the release and load it. The service ends when `stack` unwinds.

        Args:
            config: The agent's configuration.
            under_systemd: Whether systemd supervises this process.
            stack: The functions that end the service are added to this stack.

        Raises:
            AgentError: The service cannot start, or another service is already running.
        """
        supervisor = cls(config, under_systemd)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.ending.set)
        layout = config.layout
        layout.run.mkdir(parents=True, exist_ok=True)
        # A second service would replace the sockets of the first.
        stack.enter_context(state.locked(layout, wait_s=0.0, file=layout.run / "serve.lock"))
        await asyncio.to_thread(boot, config)
        stack.push_async_callback(supervisor.engine.close)
        saving = asyncio.create_task(supervisor.statistics.save_periodically())
        stack.push_async_callback(_cancel, saving)
        await supervisor.loader.follow(retry=True)
        return supervisor

    async def run_until_signal(self, addresses: str) -> None:
        """Run the background tasks until SIGTERM or SIGINT. If a background task fails, raise its exception.

        `addresses` is the list of the service's addresses, as text for the log.
        """
        tasks = [asyncio.create_task(task) for task in self._background_tasks()]
        waiting = asyncio.create_task(self.ending.wait())
        try:
            systemd.ready(self.loader.summary())
            self.events.add("ready", f"serving {self.loader.summary()} on {addresses}")
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            systemd.stopping()
            self.events.add("stopping", "no new requests; waiting requests are finished")
            for task in done - {waiting}:
                task.result()  # raises the exception of a task that failed
        finally:
            for task in (waiting, *tasks):
                task.cancel()

    def _background_tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self.follow()
        trial_s, idle_s = self.config.trial.probe_interval_s, IDLE_PROBE_S
        yield self.health.probe_periodically(lambda: trial_s if self.loader.state.trial else idle_s)
        watchdog_s = systemd.watchdog_s() if self._under_systemd else None
        yield self.health.ping_watchdog(watchdog_s) if watchdog_s else self._exit_when_hung()

    async def _exit_when_hung(self) -> None:
        """Raise ServiceError if the model hangs, so that the process ends and its supervisor restarts it.

        This method is used if systemd's watchdog is off.
        """
        limit_s = 3 * self.config.serve.request_timeout_s
        while self.loader.state.trial or self.health.silent_s < limit_s:  # a release on trial is rolled back instead
            await asyncio.sleep(FOLLOW_S)
        raise ServiceError("the loaded model", f"has not answered for {limit_s:g} s", "", "restart the service")

    async def follow(self) -> None:
        """Load the release that state.json names and judge its trial. Repeat every FOLLOW_S seconds until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.loader.follow()
                await self.judge.judge()
                self._state_error = ""
            except (AgentError, OSError) as error:  # the state cannot be read: keep the loaded release
                self._state_error = " ".join(str(error).split())
                self.events.add("state", self._state_error, logging.ERROR)

    def condition(self) -> Condition:
        """Return whether the release that state.json names is loaded and healthy.

        Wrong golden samples of the loaded release come first, because clients receive its predictions.
        """
        loader, current, loaded = self.loader, self.loader.state.current, self.health.condition()
        if loaded.reason == "golden_samples_wrong":
            return loaded
        if loader.error:
            return Condition("release_not_loaded", f"{current} is current, but not loaded: {loader.error}")
        if current is None:
            return Condition("no_release", "no release is current")
        if not loader.up_to_date:
            return Condition("release_loading", f"{current} is current, but not loaded yet")
        if loaded.healthy and self._state_error:
            return Condition("state_unreadable", f"the state cannot be read: {self._state_error}")
        return loaded


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until its clean-up has finished."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
