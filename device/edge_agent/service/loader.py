"""Keeps the release that state.json names loaded: reads it in the background, then swaps it in between two requests.

Whoever switches writes state.json first, and a service that missed the call finds it a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, SelfTestError
from edge_agent.core.fault_points import point
from edge_agent.core.state import State
from edge_agent.inference.engine import Engine
from edge_agent.inference.loading import LoadedRelease, load_in_background
from edge_agent.inference.model import InferenceError
from edge_agent.lifecycle.boot import BootResult, current_state
from edge_agent.monitoring.health import Health
from edge_agent.monitoring.service_statistics import ServiceStatistics
from edge_agent.service.events import Events

FOLLOW_S = 1.0  # how often state.json is looked at
RETRY_S = 30.0  # until a release that could not be loaded is tried again


class _OvertakenError(Exception):
    """The release that is being loaded is not the one to load any more."""


class Loader:
    """Follows state.json. All methods belong to the event loop's thread.

    `known`: the state as last read. `error`: why the release that it names is not loaded, or None. `ending` is set
    when the service ends.
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
        self.config, self.engine = config, engine
        self.state = State()
        self.error: str | None = None
        self.unreadable_since: float | None = None  # since when the device does not let the named release be read
        self.booted = BootResult()
        self._health, self._statistics, self._events, self._ending = health, statistics, events, ending
        self._failed: tuple[str | None, float] = (None, 0.0)
        self._loading: tuple[str, asyncio.Future[LoadedRelease]] | None = None
        self._following = asyncio.Lock()

    @property
    def up_to_date(self) -> bool:
        """Whether the engine answers with the release that state.json names."""
        loaded = self.engine.loaded
        return loaded is not None and loaded.release == self.state.current

    async def follow(self, retry: bool = False) -> str | None:
        """Load what state.json names, beside what runs, and swap. Returns why it could not, or None.

        A release that failed is not tried each second; `retry` tries it now.
        """
        async with self._following:
            while True:
                with contextlib.suppress(_OvertakenError):
                    return await self._reconcile(retry)
                if self._ending.is_set():
                    return self.error

    async def _reconcile(self, retry: bool) -> str | None:
        self.state = known = await asyncio.to_thread(current_state, self.config, self.booted)
        self._statistics.trial, self._statistics.starts = (
            known.trial is not None,
            known.trial.starts if known.trial else 0,
        )
        wanted, loaded = known.current, self.engine.loaded
        if (loaded.release if loaded else None) == wanted:
            self._settled()
            return None
        if not retry and self._failed[0] == wanted and time.monotonic() < self._failed[1]:
            return self.error
        try:
            await self._swap(wanted)
        except (AgentError, InferenceError, OSError, ValueError) as error:
            self._failure(wanted, error)
        else:
            self._settled()
        return self.error

    def _settled(self) -> None:
        self.error, self._failed, self.unreadable_since = None, (None, 0.0), None

    def _failure(self, release: str | None, error: Exception) -> None:
        self.error = " ".join(str(error).split())
        self.unreadable_since = (self.unreadable_since or time.monotonic()) if isinstance(error, OSError) else None
        self._failed = (release, time.monotonic() + RETRY_S)
        self._events.add("load_failed", f"not loaded: {self.error}", logging.ERROR, release=release)

    async def _swap(self, wanted: str | None) -> None:
        new = None
        if wanted is not None:
            point("serve.before_load")
            new = await self._load(wanted)
            point("serve.after_load")
        point("serve.before_swap")
        await self.engine.swap(new)
        await self._health.probe()
        if new and self.state.trial and (wrong := self._health.observation().failure):
            raise SelfTestError(new.release, wrong)
        point("serve.after_swap")
        name = new.release if new else None
        self._events.add("loaded", f"answering with {self.line()}", release=name, target=new.target if new else None)

    async def _load(self, wanted: str) -> LoadedRelease:
        """Load in the background. Raises what `load` raises; SelfTestError where that takes too long, _OvertakenError
        where state.json names another release meanwhile, or the service ends.
        """
        if self._loading is None or self._loading[0] != wanted or self._loading[1].done():
            self._loading = (
                wanted,
                load_in_background(self.config, wanted),
            )  # one that hangs is waited for again, not joined
        future, limit_s = self._loading[1], self.config.selftest.timeout_s
        ending = asyncio.create_task(self._ending.wait())
        either: set[asyncio.Future[Any]] = {future, ending}
        deadline = time.monotonic() + limit_s
        try:
            while not future.done():
                left_s = max(deadline - time.monotonic(), 0.0)
                await asyncio.wait(either, timeout=min(FOLLOW_S, left_s), return_when=asyncio.FIRST_COMPLETED)
                if future.done():
                    break
                if self._ending.is_set() or await self._named() != wanted:
                    raise _OvertakenError
                if time.monotonic() >= deadline:
                    raise SelfTestError(
                        wanted, f"not loaded within {limit_s:g} s", "a model that loads", "build it again"
                    )
            return future.result()
        finally:
            ending.cancel()

    async def _named(self) -> str | None:
        """What state.json names now; what it named where it cannot be read."""
        try:
            return (await asyncio.to_thread(state.load, self.config.layout)).current
        except (AgentError, OSError):
            return self.state.current

    def line(self) -> str:
        """What answers, for people."""
        loaded = self.engine.loaded
        if loaded is None:
            return "no release" + (f" ({self.error})" if self.error else "")
        return f"{loaded.release} ({loaded.target}){', on trial' if self.state.trial else ''}"
