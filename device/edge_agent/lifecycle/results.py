"""The results of the commands of `edge-agent`, one class for each command.

The option `--json` prints the fields under their names and in the order of their declarations, and
cli/output.schema.json describes them. So renaming or moving a field changes the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import AgentError
from edge_agent.inference.selftest import SelfTestResult
from edge_agent.lifecycle.control_messages import LoadedModel, ServiceEvent, ServiceModel, TrialProgress
from edge_agent.lifecycle.unwritten import UnwrittenState


@dataclass(frozen=True)
class InstallResult:
    """The result of `edge-agent install`.

    Attributes:
        release: The requested release, which is now installed.
        changed: False if the release was already installed and undamaged.
        sha256: SHA-256 digest of the archive, in hexadecimal digits.
        targets: The targets that the release contains, sorted.
        current: The current release after the installation, or None.
    """

    release: str
    changed: bool
    sha256: str
    targets: list[str]
    current: str | None


@dataclass(frozen=True)
class ActivateResult:
    """The result of `edge-agent activate`.

    Attributes:
        release: The release that is current now.
        changed: False if the release was already current.
        previous: The release to which a rollback would return, or None.
        trial: True if the release is on trial.
        service: The model that the service has loaded.
        selftest: The measurements of the self-test; None if no self-test ran.
        unwritten: The reason why a return to the previous release is not in state.json yet; None if it is.
    """

    release: str
    changed: bool
    previous: str | None
    trial: bool
    service: ServiceModel
    selftest: SelfTestResult | None
    unwritten: UnwrittenState | None


@dataclass(frozen=True)
class DeployResult(ActivateResult):
    """The result of `edge-agent deploy`: the fields of ActivateResult, and two fields about the installation.

    Attributes:
        installed: True if `deploy` installed the release, False if it was already installed.
        sha256: SHA-256 digest of the archive, in hexadecimal digits.
    """

    installed: bool
    sha256: str


@dataclass(frozen=True)
class ConfirmResult:
    """The result of `edge-agent confirm`: the current release, and whether this command ended its trial."""

    release: str
    changed: bool


@dataclass(frozen=True)
class RollbackResult:
    """The result of `edge-agent rollback`.

    Attributes:
        release: The release that is current now.
        left: The release that was current before the rollback; None if nothing changed or no release was current.
        changed: False if `release` was already current.
        trial: True if `release` is on trial.
        service: The model that the service has loaded.
        unwritten: The reason why the rollback, which is in effect, is not in state.json yet; None if it is.
    """

    release: str
    left: str | None
    changed: bool
    trial: bool
    service: ServiceModel
    unwritten: UnwrittenState | None


@dataclass(frozen=True)
class ForgetResult:
    """The result of `edge-agent forget`.

    Attributes:
        release: The release that can be installed again; None if the command had the option `--trusted-time`.
        changed: False if there was nothing to forget.
        reason: The reason why the release was marked as bad, or the trusted time that was removed; None if there was
            nothing to forget.
    """

    release: str | None
    changed: bool
    reason: str | None


@dataclass(frozen=True)
class PruneResult:
    """The result of `edge-agent prune`.

    Attributes:
        removed: The releases whose slots were removed.
        installed: The releases that are still installed.
        incoming_bytes: Total size, in bytes, of the files of interrupted downloads that were removed.
    """

    removed: list[str]
    installed: list[str]
    incoming_bytes: int


@dataclass(frozen=True)
class SlotCheck:
    """The result of checking the files of one slot.

    Attributes:
        release: The release in the slot.
        whole: True if every file in the slot matches the manifest.
        files: Number of files that the manifest lists; None if the slot is damaged.
        fault: The error that describes the damage, or None.
    """

    release: str
    whole: bool
    files: int | None
    fault: AgentError | None


@dataclass(frozen=True)
class VerifyResult:
    """The result of `edge-agent verify`, with one SlotCheck for each checked slot."""

    slots: list[SlotCheck]

    @property
    def undamaged(self) -> bool:
        """True if every checked slot matches its manifest."""
        return all(slot.whole for slot in self.slots)


@dataclass(frozen=True)
class DeviceInfo:
    """Properties of the device that `edge-agent status` reports.

    Attributes:
        id: Name of the device (`device.id`).
        type: Kind of the device (`device.type`).
        architecture: Processor architecture, as `uname -m` prints it, such as `aarch64`.
        kernel: Kernel version, as `uname -r` prints it.
        memory_bytes: Total memory in bytes.
        cpus: Number of processors, or None if this number is unknown.
        targets: The targets that the device accepts, in order of preference.
    """

    id: str
    type: str
    architecture: str
    kernel: str
    memory_bytes: int
    cpus: int | None
    targets: list[str]


@dataclass(frozen=True)
class TrialStatus:
    """The trial of the current release, as state.json records it.

    Attributes:
        release: The release on trial.
        since: Time of the switch (ISO 8601, UTC).
        starts: Number of times that the service has started with this release.
        starts_allowed: Maximum number of starts (`trial.starts`); at the next start, the agent rolls back.
    """

    release: str
    since: str
    starts: int
    starts_allowed: int


@dataclass(frozen=True)
class ServiceSummary:
    """The part of `edge-agent status` about the service. A field that the service did not send is None.

    Attributes:
        running: True if a service is running, even if it does not respond.
        fault: The reason why a running service did not respond, or None.
        loaded: The model in memory.
        healthy: True if the current release is loaded and its model answers requests and probes correctly.
        reason: `healthy`, or the reason why the service is not healthy.
        ready: True if a model is loaded.
        trial: Progress of the trial, or None if no release is on trial.
        uptime_seconds: Seconds since the service started.
        events: The last events, oldest first.
    """

    running: bool
    fault: AgentError | None
    loaded: LoadedModel | None
    healthy: bool | None
    reason: str | None
    ready: bool | None
    trial: TrialProgress | None
    uptime_seconds: float | None
    events: list[ServiceEvent] | None


@dataclass(frozen=True)
class DiskStatus:
    """Size and free space of the file system of the state directory, in bytes."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class StatusResult:
    """The result of `edge-agent status`.

    Attributes:
        time: The time of the device's clock (ISO 8601, UTC).
        device: The device.
        current: The current release, or None.
        previous: The release to which a rollback returns, or None.
        trial: The trial of the current release, or None.
        bad: The releases that are marked as bad on this device, each with the reason.
        trusted_time: Latest time at which the agent verified metadata (ISO 8601, UTC), or None.
        installed: The installed releases, sorted by name.
        service: The status of the service.
        disk: Size and free space of the disk; None while the state directory does not exist.
        unwritten: The reason why this state, which is in effect, is not in state.json yet; None if it is.
    """

    time: str
    device: DeviceInfo
    current: str | None
    previous: str | None
    trial: TrialStatus | None
    bad: dict[str, str]
    trusted_time: str | None
    installed: list[str]
    service: ServiceSummary
    disk: DiskStatus | None
    unwritten: UnwrittenState | None


@dataclass(frozen=True)
class StatusReportResult(StatusResult):
    """The result of `edge-agent status --report`: the status of the agent, and the statistics of the loaded release.

    Attributes:
        report: The statistics that the service sent, as JSON; None if the service sent no statistics.
    """

    report: dict[str, Any] | None


@dataclass(frozen=True)
class SamplesResult:
    """The result of `edge-agent samples export`.

    Attributes:
        file: The file that was written.
        samples: Number of captured samples on the disk.
        labelled: Number of captured samples that have a label.
        lines: Number of lines in the file; a sample of a time series has one line for each time step.
        size_bytes: Size of the file in bytes.
    """

    file: str
    samples: int
    labelled: int
    lines: int
    size_bytes: int
