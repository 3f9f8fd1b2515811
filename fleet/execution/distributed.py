"""Run a rollout or a manual rollback through workers, which connect to the devices.

This module replaces playbooks/rollout.yml and playbooks/rollback.yml, in which this machine connects to every device.
In both cases, the same steps of `fleet wave` make the decisions on this machine in the same order, and write the same
record. Workers run only the steps that PARTS lists.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from fleet.errors import FleetError, PlaybookError
from fleet.execution import step_process, worker_job
from fleet.execution.live_progress import LiveProgress
from fleet.execution.step_outputs import (
    BakeChecked,
    ManualRollbackBegun,
    ManualRollbackFinished,
    PlanResult,
    PreflightResult,
    RollbacksDecided,
    RolloutClosed,
    StepResult,
    WaveJudged,
    WaveOpened,
)
from fleet.execution.worker_job import LostError, PartResults, WorkerJob
from fleet.inventory import model
from fleet.inventory.listing import Listing
from fleet.inventory.workers import Worker, WorkerAssignment, assign_workers
from fleet.releases import repository_storage

POLL_S = 0.2
# The parts of each step's results (playbooks/steps.yml). If a worker is lost, a part in LOST_PARTS has the value given
# there for the worker's devices. Every other part says that these devices are unreachable.
PARTS = {
    "query_status": ("asked",),
    "deploy": ("deployed", "trouble"),
    "roll_back_failed": ("asked",),
    "roll_back_pending": ("asked",),
    "roll_back_devices": ("back", "asked"),
}
LOST_PARTS: Mapping[str, object] = {"trouble": ""}
Statuses = dict[str, object]  # device -> its response to a status query, as Ansible registers it
Fields = Mapping[str, Any]
Result = TypeVar("Result", bound=StepResult)


class StoppedError(Exception):
    """A step refused to continue, or the operator stopped the run. `LiveProgress.failure` returns the reason."""


class DistributedRun:
    """A rollout or a manual rollback that runs through workers.

    `live` reports the progress of the run and contains the results of its steps.
    """

    def __init__(self, options: argparse.Namespace, listing: Listing, folder: Path) -> None:
        """Read the fleet from its inventory, and assign each device to a worker. This connects to no worker yet.

        Args:
            options: The parsed command line of `fleet rollout` or `fleet rollback`.
            listing: The inventory as Ansible reads it.
            folder: The folder for the files of this run, including Ansible's output from the workers.
        """
        self.fleet = model.load(options.inventory, listing)
        self.assignment: WorkerAssignment = assign_workers(self.fleet, listing)
        self.options, self.folder = options, folder
        selected = model.limited_devices(options.inventory, options.limit) if options.limit else None
        self.devices = [each.name for each in self.fleet.devices if selected is None or each.name in selected]
        self.live = LiveProgress()
        self._remote_prefix = f"{self.fleet.name}-{folder.name}"
        self._step_number = 0
        self._payload: Path | None = None
        self._has_payload: set[Worker] = set()
        self._used: set[Worker] = set()

    def rollout(self, plan_arguments: Sequence[str], check: bool) -> None:
        """Run a rollout with the same steps as playbooks/rollout.yml. Raises StoppedError.

        `plan_arguments` are the command-line arguments of `fleet wave plan`. If `check` is true, the run stops after
        preflight and changes no device.
        """
        rollouts = str(self.options.rollouts.resolve())
        plan = self._decide(PlanResult, "plan", *plan_arguments)
        if plan.pending and not check:
            self._step("roll_back_pending", list(plan.pending), {"rollout_plan": plan.as_json()}, hand_over=True)
        statuses = self._query(self.devices)
        check_option = ("--check",) if check else ()
        stdin = {"plan": plan.as_json(), "devices": statuses}
        preflight = self._decide(PreflightResult, "preflight", "--rollouts", rollouts, *check_option, stdin=stdin)
        if check or preflight.status == "refused" or not preflight.record or not preflight.payload:
            return
        record = ("--record", preflight.record)
        self._payload = Path(preflight.payload)
        order = list(preflight.order)
        for size in preflight.serial:
            wave, order = order[:size], order[size:]
            if wave:
                self._wave(wave, record, plan)
        changed = list(dict.fromkeys([*preflight.order, *preflight.changed]))
        rollbacks: Fields = {}
        if changed:
            statuses = self._query(changed, hand_over=True)
            rollbacks = self._decide(RollbacksDecided, "settle", *record, stdin={"devices": statuses}).rollbacks
        variables = {"rollout_rollbacks": {"back": rollbacks}}
        rolled_back = self._step("roll_back_failed", list(rollbacks), variables, hand_over=True)
        self._decide(RolloutClosed, "close", *record, stdin={"devices": rolled_back["asked"]})

    def rollback(self, reason: str, release: str | None) -> None:
        """Run a manual rollback with the same steps as playbooks/rollback.yml. Raises StoppedError.

        `reason` is the operator's reason for the rollback. `release` is the installed release to which devices roll
        back; None selects the previous release of each device.
        """
        fleet = ("--rollouts", str(self.options.rollouts.resolve()), "--fleet", self.fleet.name)
        every = ("--every",) if self.options.limit or release else ()
        recalled = self._decide(ManualRollbackBegun, "recall", *fleet, *every)
        variables = {
            "rollout_reason": reason,
            "rollout_release": release or "",
            "rollout_releases_to_roll_back": recalled.releases,
        }
        results = self._step("roll_back_devices", self.devices, variables, hand_over=True)
        self._decide(ManualRollbackFinished, "recalled", *fleet, *every, "--reason", reason, stdin=results)

    def _wave(self, wave: list[str], record: Sequence[str], plan: PlanResult) -> None:
        """Update, observe and judge one wave, as playbooks/roles/rollout/tasks/run_wave.yml does."""
        location = repository_storage.absolute_location(self.options.repository)
        options = ("--repository", location, "--approve", ",".join(self.options.approve))
        opened = self._decide(WaveOpened, "open", *record, *options, stdin={"devices": wave})
        if not opened.go:
            return
        if opened.is_new_payload:
            self._has_payload.clear()
        releases = {name: {"release": plan.devices[name].release} for name in wave}
        switched = self._step("deploy", wave, {"rollout_plan": {"devices": releases}})
        self._bake(wave, record, switched, opened.checks)
        statuses = self._query([*wave, *opened.control_group])
        stdin = {
            "switched": switched,
            "asked": {name: statuses[name] for name in wave},
            "rest": [{"item": name, **_as_mapping(statuses[name])} for name in opened.control_group],
        }
        self._decide(WaveJudged, "judge", *record, stdin=stdin)

    def _bake(self, wave: list[str], record: Sequence[str], switched: PartResults, checks: int) -> None:
        """Observe a wave during its bake, as playbooks/roles/rollout/tasks/bake_wave.yml does."""
        statuses: Statuses = {}
        previous: Fields = {}
        for _ in range(checks):
            self.live.start_bake()
            stdin = {"switched": switched, "asked": statuses, "looked": previous}
            checked = self._decide(BakeChecked, "bake", *record, stdin=stdin)
            if not checked.again:
                return
            previous = checked.as_json()
            statuses = self._query(wave)

    # --- on this machine

    def _decide(self, model_of_result: type[Result], step: str, *arguments: str, stdin: Fields | None = None) -> Result:
        """Run one step of `fleet wave` in a process on this machine, and return the step's result. Raises StoppedError.

        The playbooks do the same in playbooks/roles/rollout/tasks/run_fleet_step.yml.
        """
        code, stdout, stderr = step_process.run([step, *arguments], json.dumps(stdin or {}), self.live.poll, POLL_S)
        self.live.on_step_output(stdout)
        if code and not self.live.stopped and not self.live.refusal:
            raise PlaybookError(
                f"fleet wave {step}", stderr.strip()[-400:], "a result as JSON", "report this as a defect"
            )
        if code or self.live.stopped:
            raise StoppedError
        return model_of_result.model_validate_json(stdout)

    # --- on workers

    def _query(self, devices: Sequence[str], hand_over: bool = False) -> Statuses:
        return self._step("query_status", devices, {}, hand_over)["asked"]

    def _step(self, step: str, devices: Sequence[str], variables: Fields, hand_over: bool = False) -> PartResults:
        """Run a step on workers, and return the parts of the step's results (PARTS).

        If `hand_over` is true and a worker is lost, the other workers try the step once for the devices of the lost
        worker. All devices that still have no result count as unreachable.
        """
        shards = self.assignment.shards(devices)
        results, lost = self._run(step, shards, variables)
        remaining = [worker for worker in self.assignment.workers if worker not in lost]
        if hand_over and lost and remaining:
            names = [name for worker in lost for name in shards[worker]]
            workers = ", ".join(worker.name for worker in remaining)
            self.live.report(f"{', '.join(names)}: handed over to {workers}")
            retried = {
                worker: part for index, worker in enumerate(remaining) if (part := names[index :: len(remaining)])
            }
            further, _ = self._run(step, retried, variables)
            results = {part: {**results[part], **further[part]} for part in results}
        return results

    def _run(self, step: str, shards: Mapping[Worker, list[str]], variables: Fields) -> tuple[PartResults, set[Worker]]:
        """Run a step on several workers at the same time. Raises StoppedError.

        `shards` lists the devices of each worker. Return the results of the step and the workers that were lost.
        """
        self._step_number += 1
        jobs = {worker: self._job(step, worker, names, variables) for worker, names in shards.items()}
        self._used |= set(shards)
        with ThreadPoolExecutor(max(len(shards), 1)) as pool:
            futures = {
                worker: pool.submit(job.run, PARTS[step], shards[worker], self.live.on_device_event)
                for worker, job in jobs.items()
            }
            pending = set(futures.values())
            while pending:
                _, pending = wait(pending, POLL_S)
                if self.live.poll():
                    for job in jobs.values():
                        job.stop()
        self._append_log(jobs)
        if self.live.stopped:
            raise StoppedError
        results: PartResults = {part: {} for part in PARTS[step]}
        lost = set()
        for worker, names in shards.items():
            try:
                response = futures[worker].result()
                self._has_payload |= {worker} if step == "deploy" else set()
            except LostError as error:
                lost.add(worker)
                response = self._unreachable(worker, names, error, results)
            for part in results:
                results[part] |= response[part]
        return results, lost

    def _job(self, step: str, worker: Worker, names: list[str], variables: Fields) -> WorkerJob:
        """Write the input files of a step for one worker, and return the job that runs the step there."""
        folder = self.folder / worker.name
        payload = self._payload if step == "deploy" and worker not in self._has_payload else None
        devices = {name: self.assignment.variables[name] for name in names}
        worker_job.write_input(folder / "send", devices, {"worker_step": step, **variables}, payload)
        return WorkerJob(worker, self._remote_name(worker), folder, f"{self._step_number:02d}-{step}")

    def _remote_name(self, worker: Worker) -> str:
        return f"{self._remote_prefix}-{worker.name}"

    def _unreachable(self, worker: Worker, names: list[str], error: LostError, parts: Iterable[str]) -> PartResults:
        """Return the results of a step for a lost worker, in which all devices of this worker are unreachable."""
        self._has_payload.discard(worker)  # the worker may be replaced by another machine
        reason = f"worker {worker.name} is lost: {error}"
        self.live.report(f"{reason}; {len(names)} device(s) were not reached")
        unreachable = {"unreachable": True, "msg": reason}  # as Ansible registers it
        return {part: dict.fromkeys(names, LOST_PARTS.get(part, unreachable)) for part in parts}

    def _append_log(self, jobs: Mapping[Worker, WorkerJob]) -> None:
        """Append Ansible's output from the workers to the log of this run, which `fleet logs` prints."""
        (self.folder / "artifacts").mkdir(exist_ok=True)
        with (self.folder / "artifacts/stdout").open("a", encoding="utf-8") as log:
            for worker, job in jobs.items():
                log.write(f"\n=== {job.name}, worker {worker.name}\n")
                for file in (job.folder / "artifacts" / job.name / "stdout", job.errors):
                    log.write(file.read_text(errors="replace") if file.exists() else "")

    def close(self) -> None:
        """Remove the files of this run from all workers that the run used."""
        for worker in self._used:
            # A failure only wastes disk space, because the folder contains no keys.
            shutil.rmtree(self.folder / worker.name / "send", ignore_errors=True)
        workers = sorted(self._used, key=lambda worker: worker.name)
        with ThreadPoolExecutor(max(len(workers), 1)) as pool:
            removals = pool.map(
                lambda each: worker_job.remove_files(each, self._remote_name(each), self.fleet.name), workers
            )
            for worker, reason in zip(workers, removals, strict=True):
                if reason:
                    folder = f"~/{worker_job.REMOTE_FOLDER}/{self._remote_name(worker)}"
                    self.live.report(f"worker {worker.name}: {folder} could not be removed: {reason}")

    def failure(self) -> FleetError:
        """Return the error that ended the run."""
        return self.live.failure() or PlaybookError(
            "fleet rollout", "the run ended early", "a run that completes all steps", f"see {self.folder}"
        )


def _as_mapping(result: object) -> Mapping[str, object]:
    """Return a task result of Ansible; an empty mapping if a worker has sent something that is not a mapping."""
    return result if isinstance(result, dict) else {}
