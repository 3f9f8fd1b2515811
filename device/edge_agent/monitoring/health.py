"""Observe the health of the loaded release by the results of requests and of probes, which run golden samples."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_agent.core import logs, systemd
from edge_agent.inference.engine import Engine, ProbeResult
from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.model import InferenceError
from edge_agent.lifecycle import trial_rules

IDLE_PROBE_S = 5.0  # seconds between two probes while no release is on trial

Reason = Literal[
    "healthy",
    "golden_samples_wrong",
    "model_hangs",
    "model_fails",
    "release_loading",
    "release_not_loaded",
    "no_release",
    "state_unreadable",
]


@dataclass(frozen=True)
class Condition:
    """The condition of the release that state.json names: healthy, or the reason why it is not.

    Attributes:
        reason: `healthy`, or the reason why the release is not healthy: see docs/reference/http-and-mqtt.md.
        detail: The reason as text for people.
    """

    reason: Reason
    detail: str

    @property
    def healthy(self) -> bool:
        return self.reason == "healthy"

    @property
    def ready(self) -> bool:
        """True if clients can rely on the predictions of the loaded release.

        During a switch the previous release still serves them, and an unreadable state.json does not affect the model.
        """
        return self.reason in ("healthy", "release_loading", "state_unreadable")


@dataclass
class ReleaseHealth:
    """The observations of the health of one loaded release. Times are seconds of the monotonic clock.

    Attributes:
        loaded: The observed release, or None before a release is loaded.
        since: The time at which the observation started.
        last_failure: The time of the last failed probe or request; initially `since`.
        last_result: The time of the last result of the model, or 0 if the model has returned no result.
        answered: Number of requests and probes for which the model returned a result.
        errors: Number of requests and probes for which the model failed.
        failed_probes: The last probe of each golden sample that failed then, by the index of the sample.
        hang: The reason why the model is considered to hang; empty if its last probe had a result.
    """

    loaded: LoadedRelease | None
    since: float
    last_failure: float
    last_result: float
    answered: int = 0
    errors: int = 0
    failed_probes: dict[int, ProbeResult] = field(default_factory=dict)
    hang: str = ""

    @property
    def silent_s(self) -> float:
        """Seconds since the last result of the model, or since the start of the observation."""
        return time.monotonic() - max(self.last_result, self.since)

    @staticmethod
    def start(loaded: LoadedRelease | None) -> ReleaseHealth:
        now = time.monotonic()
        return ReleaseHealth(loaded, now, now, 0.0)


class Health:
    """Observe the results of the engine's model, and send probes to the model."""

    def __init__(self, engine: Engine, hang_s: float, error_share: float) -> None:
        """Prepare to observe each release that `engine` starts to serve from now on.

        Args:
            engine: The engine that runs the model.
            hang_s: Number of seconds without a result after which the model is considered to hang.
            error_share: Maximum fraction of failed requests and probes, from 0 to 1, for a healthy release.
        """
        self._engine, self._hang_s, self._error_share = engine, hang_s, error_share
        self._release = ReleaseHealth.start(None)
        self._taken_over = asyncio.Event()
        engine.swap_observers.append(self._swapped)
        engine.observers.append(self._answered)
        engine.failure_observers.append(self._failed)

    def observation(self) -> trial_rules.TrialObservation:
        """Return the observations that decide whether a release on trial is confirmed or rolled back."""
        now, release = time.monotonic(), self._release
        # An error of the model is not a reason to end the trial at once, because it counts as a failed inference.
        wrong_outputs = [probe.fault for probe in release.failed_probes.values() if probe.error is None]
        failure = release.hang or next(iter(wrong_outputs), "")
        return trial_rules.TrialObservation(
            now - release.since, now - release.last_failure, release.answered, release.errors, failure
        )

    def condition(self) -> Condition:
        """Return whether the loaded release is healthy.

        A release whose golden samples were wrong is healthy again when each of these samples has passed a probe.
        """
        release = self._release
        total = release.answered + release.errors
        if self._engine.loaded is None:
            return Condition("no_release", "no release is loaded")
        if release.failed_probes:
            return Condition("golden_samples_wrong", next(iter(release.failed_probes.values())).fault)
        if release.hang:
            return Condition("model_hangs", release.hang)
        if not release.answered:
            return Condition("release_loading", "the model has not computed a golden sample yet")
        if release.errors >= trial_rules.LEAST_ERRORS and release.errors > self._error_share * total:
            return Condition("model_fails", f"{release.errors} of {total} inferences failed")
        return Condition("healthy", "healthy")

    @property
    def silent_s(self) -> float:
        """Seconds since the last result of a request or a probe."""
        return self._release.silent_s

    def _swapped(self, loaded: LoadedRelease) -> None:
        self._release = ReleaseHealth.start(loaded)
        self._taken_over.set()

    def _answered(self, x: Any, probabilities: Any, latency_s: float, loaded: LoadedRelease) -> None:
        if loaded is not self._release.loaded:
            return  # a result of the previous release, which still finishes the requests that it accepted
        self._release.answered += 1
        self._release.last_result = time.monotonic()

    def _failed(self, error: InferenceError, loaded: LoadedRelease, samples: int) -> None:
        if loaded is not self._release.loaded:
            return
        self._release.errors += 1  # `last_result` is not changed, because the error can be a timeout
        self._release.last_failure = time.monotonic()

    async def probe(self) -> None:
        """Send one golden sample to the model through the queue and thread of the requests, and record the result."""
        release = self._release
        if self._engine.loaded is None:  # without a model, a running event loop counts as a result
            release.last_result = time.monotonic()
            return
        try:
            result = await asyncio.wait_for(self._engine.probe(), self._hang_s)
        except asyncio.TimeoutError:
            self._record_timeout(release)
        else:
            self._record(release, result)

    def _record(self, release: ReleaseHealth, result: ProbeResult) -> None:
        release.last_result = time.monotonic()
        release.hang = ""
        if result.error is None:
            release.answered += 1
        else:
            release.errors += 1
        if result.passed:
            release.failed_probes.pop(result.sample, None)
            return
        release.last_failure = release.last_result
        release.failed_probes[result.sample] = result
        logs.event("probe", result.fault, logging.ERROR, release=result.release)

    def _record_timeout(self, release: ReleaseHealth) -> None:
        """Record a failure if a probe had no result in time and the model hangs.

        The model hangs if it returned no result of any request during this time. If it returned a result, the model is
        only busy, and the late probe does not count as a failure.
        """
        silent_s = release.silent_s
        if silent_s < self._hang_s:
            return
        release.last_failure = time.monotonic()
        release.hang = f"the model has not answered for {silent_s:.0f} s"
        logs.event("hangs", release.hang, logging.CRITICAL)

    async def probe_periodically(self, interval_s: Callable[[], float]) -> None:
        """Send a probe every `interval_s()` seconds and after each swap of the model, until cancelled.

        If a third of the watchdog's timeout is shorter than `interval_s()`, probes are sent at the shorter interval.
        """
        ping = systemd.watchdog_s() or 3 * IDLE_PROBE_S
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._taken_over.wait(), min(interval_s(), ping / 3))
            self._taken_over.clear()
            await self.probe()

    async def ping_watchdog(self, every_s: float) -> None:
        """Ping systemd's watchdog if the model returned a result since the last ping. Repeat this until cancelled.

        `every_s` is the watchdog's timeout in seconds. The method checks for a result four times in this period.
        """
        last_ping = 0.0
        while True:
            if self._release.last_result > last_ping:
                last_ping = time.monotonic()
                systemd.alive()
            await asyncio.sleep(every_s / 4)
