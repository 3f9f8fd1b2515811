"""What a rollout says while it runs: read from Ansible's events and from the steps' answers, told as it comes."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any

from edge_agent.core.progress import Progress

from fleet.devices.messages import answer
from fleet.errors import EXIT_INTERRUPTED, FleetError, from_json

# Task names of the role `rollout`.
STEP = "Run the fleet step"
SWITCH = "Install, test and switch"
Json = dict[str, Any]


class LiveProgress:
    """`results`: what each step of `fleet wave` said last, by its name; `refusal`: what one said that refused.

    While it is entered, SIGINT and SIGTERM set `stopped` instead of ending this program. Events may come from several
    threads at once.
    """

    def __init__(self) -> None:
        self.results: dict[str, Json] = {}
        self.refusal: Json | None = None
        self.stopped = False
        self._progress = Progress(sys.stderr)
        self._lock = threading.Lock()
        self._baking: tuple[str, float, float] | None = None
        self._switched: set[str] = set()
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> LiveProgress:
        self._handlers = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        self._progress.end()

    def _stop(self, number: int, frame: Any) -> None:
        self.stopped = True

    def poll(self) -> bool:
        """To be called again and again; True where all of it has to end."""
        if self._baking:
            wave, since, total = self._baking
            with self._lock:
                self._progress.seconds(min(time.monotonic() - since, total), total, f"wave {wave} is watched")
        return self.stopped

    def on_event(self, event: Json) -> bool:
        """One of Ansible's on this machine, as ansible-runner gives it."""
        data = event.get("event_data", {})
        task, kind = data.get("task"), event["event"]
        if task == STEP and kind in ("runner_on_ok", "runner_on_failed"):
            self.on_step_output(data["res"].get("stdout") or "")
        return self.on_device_event(event)

    def on_device_event(self, event: Json) -> bool:
        """One that a worker may have made up: it is told, and decides nothing."""
        data = event.get("event_data", {})
        kind = event["event"]
        if data.get("task") == SWITCH and kind in ("runner_on_ok", "runner_on_unreachable"):
            self._device(data["host"], data["res"], kind)
        elif kind == "runner_on_unreachable":
            self.report(f"{data['host']}: does not answer")
        return False  # what ansible-runner keeps of it is enough in its own stdout

    def start_bake(self) -> None:
        """From now until an answer that ends it, the wave that was opened last is watched."""
        opened = self.results["wave open"]
        self._baking = self._baking or (opened["wave"], time.monotonic(), opened.get("bake_s", 0.0))

    def on_step_output(self, stdout: str) -> None:
        """What a step of `fleet wave` printed."""
        baking, self._baking = self._baking, None
        try:
            said = json.loads(stdout)
        except ValueError:
            return
        looks_again = said.get("command") == "wave bake" and said["again"]
        if looks_again:
            self._baking = baking
        if "error" in said:
            self.refusal = said
            return
        self.results[said["command"]] = said
        if looks_again:
            self.start_bake()
        if said["command"] == "wave preflight":
            self.report(*said["table"])
        elif said["command"] == "wave open":
            self._switched = set()
            self.report(f"wave {said['wave']}: {'begins' if said['go'] else said['reason']}")
        elif said["command"] == "wave judge":
            self.report(f"wave {said['wave']}: {said['status']}: {said['reason']}")
        elif said["command"] == "wave settle" and said["back"]:
            self.report(f"going back: {', '.join(said['back'])}")

    def _device(self, device: str, result: Json, kind: str) -> None:
        if kind == "runner_on_unreachable":
            told = "does not answer"
        else:
            said = answer(result)
            told = f"runs {said['status']['release']}, on trial" if said["status"] else f"failed: {said['reason']}"
        self._switched.add(device)
        self.report(f"  {device}: {told} ({len(self._switched)} done)")

    def report(self, *lines: str) -> None:
        """Devices and workers say part of it: nothing that a terminal would obey."""
        with self._lock:
            self._progress.end()
            for line in lines:
                print("".join(each if each.isprintable() else "?" for each in line), file=sys.stderr, flush=True)

    def failure(self) -> FleetError | None:
        """Why there is no answer, as far as it is known here: somebody stopped it, or a step refused."""
        if self.stopped:
            error = FleetError("fleet", "interrupted", "", "run it again: it goes on where it stopped")
            error.exit_code = EXIT_INTERRUPTED
            return error
        if said := self.refusal:
            return from_json(said)
        return None
