"""`edge-agent serve`: boots to a verified release, serves it, follows state.json, judges trials, pings the watchdog.

The event loop answers; a thread infers (inference/engine.py); what touches the disk runs in other threads. state.json
is followed: whoever switches writes it first, and a service that missed the call finds it a second later.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from edge_agent.core import logs, state
from edge_agent.core import systemd as core_systemd
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, BusyError, SelfTestError, ServiceError
from edge_agent.core.fault_points import point
from edge_agent.core.state import State
from edge_agent.inference.engine import Engine
from edge_agent.inference.loading import Loaded, beside
from edge_agent.inference.runtime import InferenceError
from edge_agent.inference.shadow import Shadow
from edge_agent.lifecycle import trial
from edge_agent.lifecycle.boot import Booted, boot, followed
from edge_agent.monitoring.counts import Counts
from edge_agent.monitoring.health import IDLE_PROBE_S, Health

FOLLOW_S = 1.0  # how often state.json is looked at
RETRY_S = 30.0  # until a release that could not be loaded is tried again


def serve(config: Config, systemd: bool = True) -> None:
    """Until SIGTERM or SIGINT. Raises AgentError where it cannot boot, or hangs without systemd to see it."""
    logs.setup(logs.JOURNAL if systemd else None)
    if not systemd:
        os.environ.pop("NOTIFY_SOCKET", None)
    asyncio.run(Service(config, systemd).run())


class _OvertakenError(Exception):
    """What is being loaded is not wanted any more."""


class Service:
    """One per process. All methods belong to the event loop's thread."""

    def __init__(self, config: Config, systemd: bool = True) -> None:
        self.config = config
        self.engine = Engine(config.serve)
        self.health = Health(self.engine, config.serve.request_timeout_s, config.trial.error_share)
        self.shadow: Shadow | None = None
        self.events: collections.deque[dict[str, Any]] = collections.deque(maxlen=20)
        self.error: str | None = None  # why what state.json names is not loaded
        self.known = State()
        self._booted = Booted()
        self.counts = Counts(config).attach(self.engine)
        self._systemd = systemd
        self.started = time.monotonic()
        self._failed: tuple[str | None, float] = (None, 0.0)
        self._refused_since: float | None = None  # since when the device does not let what is named be read
        self._loading: tuple[str, asyncio.Future[Loaded]] | None = None
        self._ending = asyncio.Event()
        self._following = asyncio.Lock()

    async def run(self) -> None:
        """Boot, serve, end."""
        from edge_agent.service import control_server, endpoints

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        layout = self.config.layout
        layout.run.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            # A second service would take the first one's sockets away.
            stack.enter_context(state.locked(layout, wait_s=0.0, file=layout.run / "serve.lock"))
            self._booted = await asyncio.to_thread(boot, self.config)
            stack.push_async_callback(self.engine.close)
            keeping = asyncio.create_task(self.counts.keep())
            stack.push_async_callback(_cancelled, keeping)
            await self.follow(again=True)  # first: who is let in is answered
            if self._ending.is_set():
                return
            public = await endpoints.start(self, stack)
            await control_server.start(self, stack)
            tasks = [asyncio.create_task(part) for part in self._parts()]
            stack.callback(lambda: [task.cancel() for task in tasks])
            core_systemd.ready(self.line())
            self.event("ready", f"serving {self.line()} on {public}")
            waiting = asyncio.create_task(self._ending.wait())
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            core_systemd.stopping()
            self.event("stopping", "no new requests; those that wait are answered")
            for task in done - {waiting}:
                task.result()  # raises what ended it

    def _parts(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside answering."""
        yield self._follow()
        yield self.health.probe_on(lambda: self.config.trial.probe_interval_s if self.known.trial else IDLE_PROBE_S)
        watchdog_s = core_systemd.watchdog_s() if self._systemd else None
        yield self.health.ping_on(watchdog_s) if watchdog_s else self._hangs()

    async def _hangs(self) -> None:
        """Where nobody watches: a hung model ends the process, so that a supervisor starts it again."""
        limit = 3 * self.config.serve.request_timeout_s
        while self.known.trial or self.health.silent_s < limit:  # a trial goes back instead
            await asyncio.sleep(FOLLOW_S)
        raise ServiceError("the loaded model", f"has not answered for {limit:g} s", "", "start the service again")

    # --- following state.json ---

    async def follow(self, again: bool = False) -> str | None:
        """Load what state.json names, beside what runs, and swap. Returns why it could not, or None.

        A release that failed is not tried each second; `again` tries it now.
        """
        async with self._following:
            while True:
                with contextlib.suppress(_OvertakenError):
                    return await self._reconcile(again)
                if self._ending.is_set():
                    return self.error

    async def _reconcile(self, again: bool) -> str | None:
        self.known = known = await asyncio.to_thread(followed, self.config, self._booted)
        self.counts.trial, self.counts.starts = known.trial is not None, known.trial.starts if known.trial else 0
        wanted, loaded = known.current, self.engine.loaded
        if (loaded.release if loaded else None) == wanted:
            self._settled()
            return None
        if not again and self._failed[0] == wanted and time.monotonic() < self._failed[1]:
            return self.error
        try:
            await self._swap(wanted)
        except (AgentError, InferenceError, OSError, ValueError) as error:
            self.error = " ".join(str(error).split())
            self._refused_since = (self._refused_since or time.monotonic()) if isinstance(error, OSError) else None
            self._failed = (wanted, time.monotonic() + RETRY_S)
            self.event("load_failed", f"not loaded: {self.error}", logging.ERROR, release=wanted)
        else:
            self._settled()
        return self.error

    def _settled(self) -> None:
        self.error, self._failed, self._refused_since = None, (None, 0.0), None

    async def _swap(self, wanted: str | None) -> None:
        new = None
        if wanted is not None:
            point("serve.before_load")
            new = await self._load(wanted)
            point("serve.after_load")
        point("serve.before_swap")
        await self.engine.swap(new)
        await self.health.probe()
        if new and self.known.trial and (wrong := self.health.seen().wrong):
            raise SelfTestError(new.release, wrong)
        point("serve.after_swap")
        name = new.release if new else None
        self.event("loaded", f"answering with {self.line()}", release=name, target=new.target if new else None)

    async def _load(self, wanted: str) -> Loaded:
        """Beside all else. Raises what `load` raises; SelfTestError where that takes too long, _OvertakenError where
        state.json names another release meanwhile, or the service ends.
        """
        if self._loading is None or self._loading[0] != wanted or self._loading[1].done():
            self._loading = (wanted, beside(self.config, wanted))  # one that hangs is waited for again, not joined
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
            return self.known.current

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.follow()
                await self._judge()
            except (AgentError, OSError) as error:  # a state that cannot be read: go on with what is loaded
                self.event("state", " ".join(str(error).split()), logging.ERROR)

    # --- the trial ---

    async def _judge(self) -> None:
        """Confirm the release on trial, go back from it, or wait."""
        on = self.known.trial
        if on is None:
            return
        loaded = self.engine.loaded
        if self._refused_since is not None:  # what the device does not let be read makes no release bad
            if time.monotonic() - self._refused_since >= self.config.trial.deadline_s:
                await self._change("rollback", on, lambda s: s.rolled_back(None), f"not loaded: {self.error}")
        elif self.error is not None:
            await self._change("rollback", on, lambda s: s.rolled_back(f"not loaded: {self.error}"), self.error)
        elif loaded is not None and loaded.release == on.release:
            decision = trial.decide(self.config.trial, self.health.seen())
            if decision.action == "confirm":
                await self._change("confirm", on, State.confirmed, decision.reason)
            elif decision.action == "back":
                await self._change("rollback", on, lambda s: s.rolled_back(decision.reason), decision.reason)

    async def _change(self, what: str, on: state.Trial, change: Callable[[State], State], reason: str) -> None:
        """Write what was decided, unless somebody else decided meanwhile; then follow it."""

        def write() -> bool:
            with state.locked(self.config.layout, wait_s=0.0):
                known = state.load(self.config.layout)
                if known.trial is None or known.trial.release != on.release:
                    return False
                point(f"{what}.before")
                state.save(self.config.layout, change(known))
                point("rollback.after_state" if what == "rollback" else "confirm.after")
            return True

        try:
            written = await asyncio.to_thread(write)
        except (BusyError, OSError) as error:
            self.event("waiting", f"{what} has to wait: {' '.join(str(error).split())}", logging.WARNING)
            return
        if written:
            level = logging.WARNING if what == "rollback" else logging.INFO
            text = f"{'went back from' if what == 'rollback' else 'confirmed'} {on.release}: {reason}"
            self.event(what, text, level, release=on.release)
            await self.follow(again=True)
            if what == "rollback":
                point("rollback.after")

    # --- what is told ---

    def healthy(self) -> tuple[bool, str]:
        """Whether what state.json names is loaded and does what it should, and if not why."""
        if self.error:
            return False, f"{self.known.current} is current, but not loaded: {self.error}"
        if self.engine.loaded is None:
            return False, "no release is current"
        if not self._is_loaded():
            return False, f"{self.known.current} is current, but not loaded yet"
        return self.health.healthy()

    def trial_so_far(self) -> dict[str, Any]:
        """For `status`: the decision as it stands, and the numbers under it."""
        seen, rules = self.health.seen(), self.config.trial
        if not self._is_loaded():  # what is seen is of the release before
            seen = trial.Seen(0.0, 0.0, 0, 0)
        decision = trial.decide(rules, seen)
        return {
            "action": decision.action,
            "reason": decision.reason,
            "healthy_seconds": round(seen.healthy_s, 1),
            "answered": seen.answered,
            "errors": seen.errors,
            "left_seconds": round(max(rules.deadline_s - seen.loaded_s, 0.0), 1),
        }

    def _is_loaded(self) -> bool:
        loaded = self.engine.loaded
        return loaded is not None and loaded.release == self.known.current

    def line(self) -> str:
        loaded = self.engine.loaded
        if loaded is None:
            return "no release" + (f" ({self.error})" if self.error else "")
        return f"{loaded.release} ({loaded.target}){', on trial' if self.known.trial else ''}"

    def event(self, name: str, message: str, level: int = logging.INFO, **fields: object) -> None:
        logs.event(name, message, level, **fields)
        core_systemd.status(message)
        self.events.append({"time": state.now(), "event": name, "message": message})


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for what it does at its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
