"""A rollout, or a rollback by hand, whose devices are worked on by workers.

What playbooks/rollout.yml and playbooks/rollback.yml are where this machine reaches every device: the same steps of
`fleet wave` in the same order decide, and keep the same record. Only what PARTS names is done elsewhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from fleet.errors import FleetError, InventoryError, PlaybookError
from fleet.execution import worker_job
from fleet.execution.live_progress import LiveProgress
from fleet.execution.worker_job import HERE, LostError, WorkerJob
from fleet.inventory import model
from fleet.inventory.listing import Listing, read_listing
from fleet.inventory.workers import Worker, WorkerAssignment, assign_workers
from fleet.releases import repository_storage

TICK_S = 0.2
# What comes home of a step (playbooks/steps.yml): of a device whose worker is lost, "unreachable", or nothing.
PARTS = {
    "query_status": ("asked",),
    "deploy": ("deployed", "trouble"),
    "roll_back_failed": ("asked",),
    "roll_back_pending": ("asked",),
    "roll_back_devices": ("back", "asked"),
}
NOTHING: dict[str, Any] = {"trouble": ""}
Json = dict[str, Any]


class StoppedError(Exception):
    """A step refused, or somebody stopped it: `LiveProgress.failure` says which."""


class DistributedRun:
    """One run of a rollout or rollback through workers. `results`: see LiveProgress."""

    def __init__(self, options: argparse.Namespace, listing: Listing, folder: Path) -> None:
        self.fleet = model.load(options.inventory, listing)
        self.assignment: WorkerAssignment = assign_workers(self.fleet, listing)
        self.options, self.folder = options, folder
        chosen = limited_devices(options.inventory, options.limit) if options.limit else None
        self.devices = [each.name for each in self.fleet.devices if chosen is None or each.name in chosen]
        self.live = LiveProgress()
        self.results = self.live.results
        self.away = f"{self.fleet.name}-{folder.name}"
        self._number = 0
        self._push: Path | None = None
        self._has_push: set[Worker] = set()
        self._met: set[Worker] = set()
        self._said_lost: set[Worker] = set()

    def rollout(self, plan: Sequence[str], check: bool) -> None:
        """playbooks/rollout.yml. `plan`: arguments of `fleet wave plan`."""
        rollouts = str(self.options.rollouts.resolve())
        planned = self._decide("plan", *plan)
        if planned["pending"] and not check:
            self._step("roll_back_pending", list(planned["pending"]), {"rollout_plan": planned}, hand_over=True)
        asked = self._ask(self.devices)
        also = ("--check",) if check else ()
        ready = self._decide("preflight", "--rollouts", rollouts, *also, stdin={"plan": planned, "devices": asked})
        if check or ready["status"] == "refused" or not ready["record"]:
            return
        record = ("--record", ready["record"])
        self._push = Path(ready["push"])
        order = list(ready["order"])
        for size in ready["serial"]:
            wave, order = order[:size], order[size:]
            if wave:
                self._wave(wave, record, planned)
        touched = list(dict.fromkeys([*ready["order"], *ready["touched"]]))
        back: Json = {}
        if touched:
            asked = self._ask(touched, hand_over=True)
            back = self._decide("settle", *record, stdin={"devices": asked})["back"]
        called = self._step("roll_back_failed", list(back), {"rollout_rollbacks": {"back": back}}, hand_over=True)
        self._decide("close", *record, stdin={"devices": called["asked"]})

    def rollback(self, reason: str, release: str | None) -> None:
        """playbooks/rollback.yml."""
        of = ("--rollouts", str(self.options.rollouts.resolve()), "--fleet", self.fleet.name)
        every = ("--every",) if self.options.limit or release else ()
        brought = self._decide("recall", *of, *every)["brought"]
        variables = {
            "rollout_reason": reason,
            "rollout_release": release or "",
            "rollout_releases_to_roll_back": brought,
        }
        called = self._step("roll_back_devices", self.devices, variables, hand_over=True)
        self._decide("recalled", *of, *every, "--reason", reason, stdin=called)

    def _wave(self, wave: list[str], record: Sequence[str], planned: Json) -> None:
        """playbooks/roles/rollout/tasks/run_wave.yml."""
        approve = ",".join(self.options.approve)
        where = repository_storage.absolute_location(self.options.repository)
        options = ("--repository", where, "--approve", approve)
        opened = self._decide("open", *record, *options, stdin={"devices": wave})
        if not opened["go"]:
            return
        if opened["packed"]:
            self._has_push.clear()
        wanted = {name: {"release": planned["devices"][name]["release"]} for name in wave}
        switched = self._step("deploy", wave, {"rollout_plan": {"devices": wanted}})
        self._watch(wave, record, switched, opened["looks"])
        asked = self._ask([*wave, *opened["rest"]])
        judged = {
            "switched": switched,
            "asked": {name: asked[name] for name in wave},
            "rest": [{"item": name, **asked[name]} for name in opened["rest"]],
        }
        self._decide("judge", *record, stdin=judged)

    def _watch(self, wave: list[str], record: Sequence[str], switched: Json, looks: int) -> None:
        """playbooks/roles/rollout/tasks/bake_wave.yml."""
        asked: Json = {}
        looked: Json = {}
        for _ in range(looks):
            self.live.start_bake()
            looked = self._decide("bake", *record, stdin={"switched": switched, "asked": asked, "looked": looked})
            if not looked["again"]:
                return
            asked = self._ask(wave)

    # --- on this machine

    def _decide(self, step: str, *arguments: str, stdin: Json | None = None) -> Json:
        """One step of `fleet wave`, as playbooks/roles/rollout/tasks/run_fleet_step.yml has it. Raises StoppedError."""
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "--json", "wave", step, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE,
            start_new_session=True,  # ^C is for this program
        )
        text: str | None = json.dumps(stdin or {})
        while True:
            try:
                stdout, stderr = process.communicate(text, timeout=TICK_S)
                break
            except subprocess.TimeoutExpired:
                text = None
                if self.live.poll():
                    process.kill()
        self.live.on_step_output(stdout)
        if process.returncode and not self.live.stopped and not self.live.refusal:
            raise PlaybookError(f"fleet wave {step}", stderr.strip()[-400:], "an answer", "")
        if process.returncode or self.live.stopped:
            raise StoppedError
        return dict(json.loads(stdout))

    # --- on workers

    def _ask(self, devices: Sequence[str], hand_over: bool = False) -> Json:
        return dict(self._step("query_status", devices, {}, hand_over)["asked"])

    def _step(self, step: str, devices: Sequence[str], variables: Json, hand_over: bool = False) -> Json:
        """What Ansible registered: part -> device -> result, see PARTS. Devices of a lost worker are unreachable.

        `hand_over`: others try once what a lost worker was to do.
        """
        shards = self.assignment.shards(devices)
        found, lost = self._run(step, shards, variables)
        left = [worker for worker in self.assignment.workers if worker not in lost]
        if hand_over and lost and left:
            names = [name for worker in lost for name in shards[worker]]
            self.live.report(f"{', '.join(names)}: handed over to {', '.join(worker.name for worker in left)}")
            again = {worker: part for place, worker in enumerate(left) if (part := names[place :: len(left)])}
            more, _ = self._run(step, again, variables)
            found = {part: {**found[part], **more[part]} for part in found}
        return found

    def _run(self, step: str, shards: dict[Worker, list[str]], variables: Json) -> tuple[Json, set[Worker]]:
        """All workers at once, to the last one's end; and who was lost. Raises StoppedError."""
        self._number += 1
        jobs_of = {worker: self._job(step, worker, names, variables) for worker, names in shards.items()}
        self._met |= set(shards)
        with ThreadPoolExecutor(max(len(shards), 1)) as pool:
            work = {
                worker: pool.submit(job.run, PARTS[step], shards[worker], self.live.on_device_event)
                for worker, job in jobs_of.items()
            }
            pending = set(work.values())
            while pending:
                _, pending = wait(pending, TICK_S)
                if self.live.poll():
                    for job in jobs_of.values():
                        job.stop()
        self._log(jobs_of)
        if self.live.stopped:
            raise StoppedError
        found: Json = {part: {} for part in PARTS[step]}
        lost = set()
        for worker, names in shards.items():
            try:
                said = work[worker].result()
                self._has_push |= {worker} if step == "deploy" else set()
            except LostError as error:
                lost.add(worker)
                said = self._without(worker, names, error, found)
            for part in found:
                found[part] |= said[part]
        return found, lost

    def _job(self, step: str, worker: Worker, names: list[str], variables: Json) -> WorkerJob:
        """What a worker has to do in a step, with all that it is sent."""
        folder = self.folder / worker.name
        push = self._push if step == "deploy" and worker not in self._has_push else None
        devices = {name: self.assignment.variables[name] for name in names}
        worker_job.pack(folder / "send", devices, {"worker_step": step, **variables}, push)
        return WorkerJob(worker, f"{self.away}-{worker.name}", folder, f"{self._number:02d}-{step}")

    def _without(self, worker: Worker, names: list[str], error: LostError, parts: Iterable[str]) -> Json:
        """What a lost worker stands for: its devices were not reached."""
        self._has_push.discard(worker)  # another machine may come in its place
        reason = f"worker {worker.name} is lost: {error}"
        self.live.report(f"{reason}; {len(names)} device(s) were not reached")
        return {part: dict.fromkeys(names, NOTHING.get(part, _unreachable(reason))) for part in parts}

    def _log(self, jobs_of: dict[Worker, WorkerJob]) -> None:
        """What Ansible printed, step by step, where `fleet logs` looks."""
        (self.folder / "artifacts").mkdir(exist_ok=True)
        with (self.folder / "artifacts/stdout").open("a", encoding="utf-8") as log:
            for worker, job in jobs_of.items():
                log.write(f"\n=== {job.name}, worker {worker.name}\n")
                for file in (job.folder / "artifacts" / job.name / "stdout", job.errors):
                    log.write(file.read_text(errors="replace") if file.exists() else "")

    def close(self) -> None:
        """Nothing stays on workers."""
        for worker in self._met:
            # Only its room is lost where it stays: no key is in it.
            shutil.rmtree(self.folder / worker.name / "send", ignore_errors=True)
        with ThreadPoolExecutor(max(len(self._met), 1)) as pool:
            met = sorted(self._met, key=lambda worker: worker.name)
            for worker, wrong in zip(
                met,
                pool.map(lambda each: worker_job.clean(each, f"{self.away}-{each.name}", self.fleet.name), met),
                strict=True,
            ):
                if wrong:
                    self.live.report(
                        f"worker {worker.name}: ~/{worker_job.AWAY}/{self.away}-{worker.name} stays there: {wrong}"
                    )

    def failure(self) -> FleetError:
        return self.live.failure() or PlaybookError("fleet rollout", "it ended early", "its end", f"see {self.folder}")


def limited_devices(path: Path, limit: str) -> list[str]:
    """The devices that --limit names, as Ansible reads it. Raises InventoryError where there is none."""
    if not (found := read_listing(path, limit).hosts(model.GROUP)):
        raise InventoryError(
            str(path), f"no device is {limit!r}", "one of the fleet", "see --limit of ansible-playbook"
        )
    return found


def _unreachable(reason: str) -> Json:
    """As Ansible registers it."""
    return {"unreachable": True, "msg": reason}
