"""Report the progress of a run of Ansible as it happens, from Ansible's events and the results of `fleet wave`."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edge_agent.core.progress import Progress

from fleet.devices.messages import TaskResult, parse_command
from fleet.errors import EXIT_INTERRUPTED, FleetError, from_json
from fleet.execution.step_outputs import (
    BakeChecked,
    ManualRollbackFinished,
    PreflightResult,
    RollbacksDecided,
    RolloutClosed,
    StepResults,
    WaveJudged,
    WaveOpened,
)

# Task names of the role `rollout`.
STEP = "Run the fleet step"
SWITCH = "Install, test and switch"
UNREACHABLE = "runner_on_unreachable"


@dataclass(frozen=True)
class TaskEvent:
    """An event that ansible-runner reported about a task on a host.

    `kind` is ansible-runner's name for the event, such as runner_on_ok. `result` is the result of the task. `host` is
    empty if the event does not concern a host.
    """

    kind: str
    task: str | None
    host: str
    result: Mapping[str, Any]

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> TaskEvent:
        """Parse an event of ansible-runner. Raises KeyError if the event has no kind."""
        data = event.get("event_data", {})
        return cls(event["event"], data.get("task"), data.get("host", ""), data.get("res") or {})


class LiveProgress:
    """Reports the progress of one run of Ansible, and stores the results of the steps of `fleet wave` in this run.

    While an object of this class is used as a context manager, SIGINT and SIGTERM set `stopped` instead of ending this
    process. Several threads can report events at the same time.

    Attributes:
        steps: The latest result of each step.
        refusal: The error of the step that refused to continue, as JSON; None if no step refused.
        stopped: Whether the operator stopped the run.
    """

    def __init__(self) -> None:
        self.steps = StepResults()
        self.refusal: Mapping[str, Any] | None = None
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
        """Update the displayed progress of a wave's bake, and return whether the operator has stopped the run.

        The caller must call this method repeatedly, and must end the run if the result is True.
        """
        if self._baking:
            wave, since, total = self._baking
            with self._lock:
                self._progress.seconds(min(time.monotonic() - since, total), total, f"wave {wave} bakes")
        return self.stopped

    def on_event(self, event: Mapping[str, Any]) -> bool:
        """Handle an event of Ansible on this machine. ansible-runner calls this method for each event."""
        parsed = TaskEvent.parse(event)
        if parsed.task == STEP and parsed.kind in ("runner_on_ok", "runner_on_failed"):
            self.on_step_output(parsed.result.get("stdout") or "")
        return self.on_device_event(event)

    def on_device_event(self, event: Mapping[str, Any]) -> bool:
        """Report an event about a device to the operator.

        No decision depends on the event, because a worker can forge it.
        """
        parsed = TaskEvent.parse(event)
        if parsed.task == SWITCH and parsed.kind in ("runner_on_ok", UNREACHABLE):
            self._report_switch(parsed)
        elif parsed.kind == UNREACHABLE:
            self.report(f"{parsed.host}: does not respond")
        return False  # ansible-runner does not have to store the event

    def start_bake(self) -> None:
        """Start to display the bake progress of the wave that was opened last.

        `on_step_output` ends the display.
        """
        opened = self.steps.opened
        assert opened is not None
        self._baking = self._baking or (opened.wave, time.monotonic(), opened.bake_s)

    def on_step_output(self, stdout: str) -> None:
        """Store the result that a step of `fleet wave` printed as JSON, and report it to the operator."""
        baking, self._baking = self._baking, None
        try:
            output = json.loads(stdout)
        except ValueError:
            return
        if "error" in output:
            self.refusal = output
            return
        match output["command"]:
            case "wave bake":
                if BakeChecked.model_validate(output).again:
                    self._baking = baking
                    self.start_bake()
            case "wave preflight":
                self.steps.preflight = PreflightResult.model_validate(output)
                self.report(*self.steps.preflight.table)
            case "wave open":
                opened = self.steps.opened = WaveOpened.model_validate(output)
                self._switched = set()
                self.report(f"wave {opened.wave}: {'starts' if opened.go else opened.reason}")
            case "wave judge":
                judged = WaveJudged.model_validate(output)
                self.report(f"wave {judged.wave}: {judged.status}: {judged.reason}")
            case "wave settle":
                if rollbacks := RollbacksDecided.model_validate(output).rollbacks:
                    self.report(f"rolling back: {', '.join(rollbacks)}")
            case "wave close":
                self.steps.closed = RolloutClosed.model_validate(output)
            case "wave recalled":
                self.steps.manual_rollback = ManualRollbackFinished.model_validate(output)

    def _report_switch(self, event: TaskEvent) -> None:
        if event.kind == UNREACHABLE:
            state = "does not respond"
        else:
            response = parse_command(TaskResult.model_validate(dict(event.result)))
            state = f"runs {response.result.release}, on trial" if response.result else f"failed: {response.reason}"
        self._switched.add(event.host)
        self.report(f"  {event.host}: {state} ({len(self._switched)} done)")

    def report(self, *lines: str) -> None:
        """Print lines on stderr.

        Control characters are replaced, because devices and workers provide parts of the lines.
        """
        with self._lock:
            self._progress.end()
            for line in lines:
                print("".join(each if each.isprintable() else "?" for each in line), file=sys.stderr, flush=True)

    def failure(self) -> FleetError | None:
        """Return the error that ended the run; None if neither the operator stopped the run nor a step refused."""
        if self.stopped:
            error = FleetError("fleet", "interrupted", "", "run the command again; it continues where it stopped")
            error.exit_code = EXIT_INTERRUPTED
            return error
        return from_json(self.refusal) if self.refusal else None
