"""How the loaded release does: answers and errors since it was loaded, and golden samples sent through it as probes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_agent.core import logs, systemd
from edge_agent.inference.engine import Engine, ProbeResult
from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.model import InferenceError
from edge_agent.lifecycle import trial_rules

IDLE_PROBE_S = 5.0  # between golden samples when nothing is on trial


@dataclass
class Watch:
    """What is seen of `loaded`, in seconds of a clock that nobody sets. `alive`: its last answer, or 0."""

    loaded: LoadedRelease | None
    since: float
    unhealthy: float
    alive: float
    answered: int = 0
    errors: int = 0
    wrong: str = ""

    @property
    def silent_s(self) -> float:
        return time.monotonic() - max(self.alive, self.since)

    @staticmethod
    def now(loaded: LoadedRelease | None) -> Watch:
        moment = time.monotonic()
        return Watch(loaded, moment, moment, 0.0)


class Health:
    """Watches one engine. `hang_s`: silence, while it is asked, that is taken for a hang."""

    def __init__(self, engine: Engine, hang_s: float, error_share: float) -> None:
        self._engine, self._hang_s, self._error_share = engine, hang_s, error_share
        self._watch = Watch.now(None)
        self._taken_over = asyncio.Event()
        engine.swap_observers.append(self._swapped)
        engine.observers.append(self._answered)
        engine.failure_observers.append(self._failed)

    def observation(self) -> trial_rules.TrialObservation:
        now, watch = time.monotonic(), self._watch
        return trial_rules.TrialObservation(
            now - watch.since, now - watch.unhealthy, watch.answered, watch.errors, watch.wrong
        )

    def healthy(self) -> tuple[bool, str]:
        """Whether the loaded release does what it should, and if not why."""
        watch = self._watch
        total = watch.answered + watch.errors
        if watch.wrong:
            return False, watch.wrong
        if not watch.answered:
            return False, "no golden sample answered yet"
        if watch.errors >= trial_rules.LEAST_ERRORS and watch.errors > self._error_share * total:
            return False, f"{watch.errors} of {total} inferences failed"
        return True, "healthy"

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, of a request or of a probe."""
        return self._watch.silent_s

    def _swapped(self, loaded: LoadedRelease) -> None:
        self._watch = Watch.now(loaded)
        self._taken_over.set()

    def _answered(self, x: Any, probabilities: Any, latency_s: float, loaded: LoadedRelease) -> None:
        if loaded is not self._watch.loaded:
            return  # the release before answers what it had accepted
        self._watch.answered += 1
        self._watch.alive = time.monotonic()

    def _failed(self, error: InferenceError, loaded: LoadedRelease, samples: int) -> None:
        if loaded is not self._watch.loaded:
            return
        self._watch.errors += 1  # no sign of life: one that came too late is an error too
        self._watch.unhealthy = time.monotonic()

    async def probe(self) -> None:
        """One golden sample, through the queue and the thread that requests take."""
        watch = self._watch
        if self._engine.loaded is None:  # nothing to ask: the event loop itself is alive
            watch.alive = time.monotonic()
            return
        try:
            probe = await asyncio.wait_for(self._engine.probe(), self._hang_s)
        except asyncio.TimeoutError:
            self._late(watch)
        except InferenceError as error:
            watch.errors += 1
            watch.alive = watch.unhealthy = time.monotonic()
            logs.event("probe", f"a golden sample failed: {error}", logging.ERROR)
        else:
            self._came(watch, probe)

    def _came(self, watch: Watch, probe: ProbeResult) -> None:
        watch.alive = time.monotonic()
        watch.answered += 1
        if probe.passed:
            watch.wrong = ""
            return
        watch.unhealthy = watch.alive
        watch.wrong = f"a golden sample differs by {probe.difference:.3g}, allowed {probe.tolerance:g}"
        logs.event("probe", watch.wrong, logging.ERROR, release=probe.release)

    def _late(self, watch: Watch) -> None:
        """No golden sample came back. Where nothing else did either, the model hangs: else it is busy."""
        silent = watch.silent_s
        if silent < self._hang_s:
            return
        watch.unhealthy = time.monotonic()
        watch.wrong = f"the model has not answered for {silent:.0f} s"
        logs.event("hangs", watch.wrong, logging.CRITICAL)

    async def probe_periodically(self, interval_s: Callable[[], float]) -> None:
        """Without end, `interval_s()` apart, often enough for the watchdog, and when a release has taken over."""
        ping = systemd.watchdog_s() or 3 * IDLE_PROBE_S
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._taken_over.wait(), min(interval_s(), ping / 3))
            self._taken_over.clear()
            await self.probe()

    async def ping_watchdog(self, every_s: float) -> None:
        """Tell systemd, without end, each time that an inference went through since the last time."""
        pinged = 0.0
        while True:
            if self._watch.alive > pinged:
                pinged = time.monotonic()
                systemd.alive()
            await asyncio.sleep(every_s / 4)
