"""In the background, load the release that state.json names, and replace the served release between two requests.

Commands write state.json before they notify the service. If the service misses the notification, it still reads
state.json within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, SelfTestError
from edge_agent.core.fault_points import point
from edge_agent.inference.engine import Engine
from edge_agent.inference.loading import LoadedRelease, load_in_background
from edge_agent.inference.model import InferenceError
from edge_agent.monitoring.health import Health
from edge_agent.monitoring.service_statistics import ServiceStatistics
from edge_agent.service.events import Events

FOLLOW_S = 1.0  # seconds between two reads of state.json
RETRY_S = 30.0  # seconds until a release that failed to load is loaded again


class _OvertakenError(Exception):
    """Loading is no longer needed, because another release has become current or the service is ending."""


class Loader:
    """Load the release that state.json names whenever the file changes. All methods run in the event loop's thread.

    Attributes:
        state: The state of the agent when state.json was last read.
        error: The reason why the current release is not loaded, or None.
        unreadable_since: The time (monotonic clock) at which reading the current release from the disk first failed,
            or None if the disk can be read.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        health: Health,
        statistics: ServiceStatistics,
        events: Events,
        ending: asyncio.Event,
    ) -> None:
        """Create the loader from the parts of the service that it uses.

        Args:
            config: The agent's configuration.
            engine: The engine that serves the loaded release.
            health: The object that probes a release after a model swap.
            statistics: The statistics, in which the loader sets whether the release is on trial, and the number of its
                starts.
            events: The events to which the loader adds each loaded release and each failure.
            ending: An event that is set when the service is ending.
        """
        self.config, self.engine = config, engine
        self.state = State()
        self.error: str | None = None
        self.unreadable_since: float | None = None
        self._health, self._statistics, self._events, self._ending = health, statistics, events, ending
        self._failure: tuple[str | None, float] = (None, 0.0)
        self._loading: tuple[str, asyncio.Future[LoadedRelease]] | None = None
        self._following = asyncio.Lock()

    @property
    def up_to_date(self) -> bool:
        """Return whether the engine serves the release that state.json names."""
        loaded = self.engine.loaded
        return loaded is not None and loaded.release == self.state.current

    async def follow(self, retry: bool = False) -> str | None:
        """Load the release that state.json names, and replace the loaded release with it.

        The loaded release serves requests until it is replaced. If it is the release that state.json names, nothing
        changes.

        Args:
            retry: True loads a release again immediately even if loading it failed less than RETRY_S seconds ago.

        Returns:
            The reason why the release could not be loaded, or None.
        """
        async with self._following:
            while True:
                with contextlib.suppress(_OvertakenError):
                    return await self._reconcile(retry)
                if self._ending.is_set():
                    return self.error

    async def _reconcile(self, retry: bool) -> str | None:
        layout = self.config.layout
        written = await asyncio.to_thread(state.settle, layout)
        self.state = await asyncio.to_thread(state.load, layout)
        if written:
            text = f"{layout.state_file} was written; {self.state.current or 'no release'} also stays after a reboot"
            self._events.add("written", text, release=self.state.current)
        trial = self.state.trial
        self._statistics.trial, self._statistics.starts = trial is not None, trial.starts if trial else 0
        release, loaded = self.state.current, self.engine.loaded
        if (loaded.release if loaded else None) == release:
            self._clear_failure()
            return None
        if not retry and self._failure[0] == release and time.monotonic() < self._failure[1]:
            return self.error
        try:
            await self._swap(release)
        except (AgentError, InferenceError, OSError, ValueError) as error:
            self._record_failure(release, error)
        else:
            self._clear_failure()
        return self.error

    def _clear_failure(self) -> None:
        self.error, self._failure, self.unreadable_since = None, (None, 0.0), None

    def _record_failure(self, release: str | None, error: Exception) -> None:
        self.error = " ".join(str(error).split())
        self.unreadable_since = (self.unreadable_since or time.monotonic()) if isinstance(error, OSError) else None
        self._failure = (release, time.monotonic() + RETRY_S)
        self._events.add("load_failed", f"not loaded: {self.error}", logging.ERROR, release=release)

    async def _swap(self, release: str | None) -> None:
        new = None
        if release is not None:
            point("serve.before_load")
            new = await self._load(release)
            point("serve.after_load")
        point("serve.before_swap")
        await self.engine.swap(new)
        await self._health.probe()
        if new and self.state.trial and (failure := self._health.observation().failure):
            raise SelfTestError(new.release, failure)
        point("serve.after_swap")
        name = new.release if new else None
        self._events.add("loaded", f"serving {self.summary()}", release=name, target=new.target if new else None)
        if new and new.joining_fault:
            message = f"samples are computed one by one: {new.joining_fault}"
            self._events.add("not_joinable", message, logging.WARNING, release=name)

    async def _load(self, release: str) -> LoadedRelease:
        """Load a release in a background thread, and return the loaded release.

        Raises the errors of `load`. Also raises SelfTestError if loading takes too long, and _OvertakenError if
        state.json meanwhile names another release or the service ends.
        """
        # If a thread already loads the release, wait for that thread. If it hangs, a second thread would hang too.
        if self._loading is None or self._loading[0] != release or self._loading[1].done():
            self._loading = (release, load_in_background(self.config, release))
        future, limit_s = self._loading[1], self.config.selftest.timeout_s
        ending = asyncio.create_task(self._ending.wait())
        either: set[asyncio.Future[Any]] = {future, ending}
        deadline = time.monotonic() + limit_s
        try:
            while not future.done():
                remaining_s = max(deadline - time.monotonic(), 0.0)
                await asyncio.wait(either, timeout=min(FOLLOW_S, remaining_s), return_when=asyncio.FIRST_COMPLETED)
                if future.done():
                    break
                if self._ending.is_set() or await self._current_release() != release:
                    raise _OvertakenError
                if time.monotonic() >= deadline:
                    raise SelfTestError(
                        release,
                        f"not loaded within {limit_s:g} s",
                        "a model that loads within this time",
                        "build the release again",
                    )
            return future.result()
        finally:
            ending.cancel()

    async def _current_release(self) -> str | None:
        """Return the current release in state.json, or the release that was last read if the file cannot be read."""
        try:
            return (await asyncio.to_thread(state.load, self.config.layout)).current
        except (AgentError, OSError):
            return self.state.current

    def summary(self) -> str:
        """Return the loaded release as text for people, such as `digits@1.2.0 (onnx-fp32), on trial`."""
        loaded = self.engine.loaded
        if loaded is None:
            return "no release" + (f" ({self.error})" if self.error else "")
        return f"{loaded.release} ({loaded.target}){', on trial' if self.state.trial else ''}"
