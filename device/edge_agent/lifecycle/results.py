"""The results of the commands of `edge-agent`, one class each, and their form as JSON.

The fields and their order are those that `--json` prints (cli/output.schema.json): a field that is renamed or moved
changes the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from edge_agent.core.errors import AgentError
from edge_agent.inference.selftest import SelfTestResult
from edge_agent.lifecycle.control_messages import LoadedModel, ServiceEvent, ServiceModel, TrialProgress


@dataclass(frozen=True)
class InstallResult:
    """The result of `install`.

    Attributes:
        release: The installed release.
        changed: False where it was installed and undamaged before.
        sha256: Digest of the archive, in hexadecimal digits.
        targets: The targets that the release has, sorted.
        current: The current release, or None.
    """

    release: str
    changed: bool
    sha256: str
    targets: list[str]
    current: str | None


@dataclass(frozen=True)
class ActivateResult:
    """The result of `activate`.

    Attributes:
        release: The release that is current now.
        changed: False where it was current before.
        previous: The release that a rollback would return to, or None.
        trial: True where the release is on trial.
        service: The model that the service has loaded.
        selftest: The measurements of the self-test; None where it was skipped or nothing changed.
    """

    release: str
    changed: bool
    previous: str | None
    trial: bool
    service: ServiceModel
    selftest: SelfTestResult | None


@dataclass(frozen=True)
class DeployResult(ActivateResult):
    """The result of `deploy`: that of `activate`, and of the installation before it.

    Attributes:
        installed: True where the release was not installed before.
        sha256: Digest of the archive, in hexadecimal digits.
    """

    installed: bool
    sha256: str


@dataclass(frozen=True)
class ConfirmResult:
    """The result of `confirm`: the current release, and whether its trial ended now."""

    release: str
    changed: bool


@dataclass(frozen=True)
class RollbackResult:
    """The result of `rollback`.

    Attributes:
        release: The release that is current now.
        left: The release that was current before, or None.
        changed: False where `release` was current before.
        trial: True where `release` is on trial.
        service: The model that the service has loaded.
    """

    release: str
    left: str | None
    changed: bool
    trial: bool
    service: ServiceModel


@dataclass(frozen=True)
class ForgetResult:
    """The result of `forget`.

    Attributes:
        release: The release that may be installed again; None with `--trusted-time`.
        changed: False where there was nothing to forget.
        reason: The reason why the release was bad, or the trusted time that was removed; None where there was none.
    """

    release: str | None
    changed: bool
    reason: str | None


@dataclass(frozen=True)
class PruneResult:
    """The result of `prune`.

    Attributes:
        removed: The releases whose slots were removed.
        installed: The releases that are still installed.
        incoming_bytes: Bytes of interrupted downloads that were removed.
    """

    removed: list[str]
    installed: list[str]
    incoming_bytes: int


@dataclass(frozen=True)
class SlotCheck:
    """The result of verifying one slot.

    Attributes:
        release: The release in the slot.
        whole: True where every file matches the manifest.
        files: Number of files; None for a damaged slot.
        fault: The damage, or None.
    """

    release: str
    whole: bool
    files: int | None
    fault: AgentError | None


@dataclass(frozen=True)
class VerifyResult:
    """The result of `verify`: one check for each slot."""

    slots: list[SlotCheck]

    @property
    def undamaged(self) -> bool:
        """True where every slot matches its manifest."""
        return all(slot.whole for slot in self.slots)


@dataclass(frozen=True)
class DeviceInfo:
    """The device, as `status` reports it.

    Attributes:
        id: Name of the device (`device.id`).
        type: Kind of the device (`device.type`).
        architecture: Machine name of the kernel, such as `aarch64`.
        kernel: Release of the kernel.
        memory_bytes: Total memory in bytes.
        cpus: Number of processors, or None where it is unknown.
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
    """The trial that state.json records.

    Attributes:
        release: The release on trial.
        since: Time of the switch (ISO 8601, UTC).
        starts: Number of starts of the service with it.
        starts_allowed: Largest number of starts before the agent rolls back (`trial.starts`).
    """

    release: str
    since: str
    starts: int
    starts_allowed: int


@dataclass(frozen=True)
class ServiceSummary:
    """The service, as `status` reports it; a field that the service does not send is None.

    Attributes:
        running: True where a service responds, or exists and fails to respond.
        fault: The reason why a running service did not respond, or None.
        loaded: The model in memory.
        healthy: True while the model answers requests and probes as it should.
        reason: The reason why the service is not healthy, or `healthy`.
        ready: True once a model is loaded.
        trial: Progress of the trial.
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
    """The result of `status`.

    Attributes:
        time: The clock of the device (ISO 8601, UTC).
        device: The device.
        current: The current release, or None.
        previous: The release that a rollback returns to, or None.
        trial: The trial of the current release, or None.
        bad: The reason for each release that failed on this device.
        trusted_time: Latest time at which metadata was verified (ISO 8601, UTC), or None.
        installed: The installed releases, sorted by name.
        service: The running service.
        disk: Space on the disk; None before the first installation.
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


@dataclass(frozen=True)
class StatusReportResult(StatusResult):
    """The result of `status --report`: the status, and the service's report, which is None without a response."""

    report: dict[str, Any] | None


@dataclass(frozen=True)
class SamplesResult:
    """The result of `samples export`.

    Attributes:
        file: The file that was written.
        samples: Number of samples.
        labelled: Number of samples that have a label.
        lines: Number of lines; a series has one for each time step.
        size_bytes: Size of the file in bytes.
    """

    file: str
    samples: int
    labelled: int
    lines: int
    size_bytes: int


def to_json(value: Any) -> Any:
    """Return `value` in types that JSON has: objects become dictionaries with the names of their fields as keys."""
    if isinstance(value, AgentError):
        return value.as_json()
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value
