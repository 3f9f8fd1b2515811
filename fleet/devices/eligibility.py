"""Decide from an agent's status whether its device already runs a release, and whether the device could run it."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import Field

from fleet.devices.messages import AgentStatus, Count, LoadedModel
from fleet.documents import Document

MB = 1_000_000


class Requirements(Document):
    """The requirements that a device must meet to run a release. A null field sets no requirement."""

    device_types: list[str] | None = Field(default=None, description="Device types that the release is made for.")
    architectures: list[str] | None = Field(
        default=None, description="Processor architectures that the release is made for."
    )
    memory_mb: float | None = Field(default=None, description="Minimum memory of the device, in 1,000,000 bytes.")
    disk_mb: float | None = Field(
        default=None, description="Free disk space needed in addition to the bundle, in 1,000,000 bytes."
    )


class ReleaseInfo(Document):
    """The facts about a release that decide which devices can run the release.

    Older rollout records lack some of these fields.
    """

    path: str = Field(default="", description="Path of the archive in the repository of releases.")
    length: Count = Field(default=0, description="Size of the archive in bytes.")
    sha256: str | None = Field(default=None, description="SHA-256 of the archive, hexadecimal.")
    unpacked: Count = Field(default=0, description="Size of the unpacked bundle in bytes.")
    targets: dict[str, str] = Field(description="SHA-256 of the model file of each target.")
    requirements: Requirements = Field(default=Requirements(), description="What the release requires of a device.")


def loaded_model(status: AgentStatus | None) -> LoadedModel | None:
    """Return the model that the service of a device's agent has loaded; None if it has loaded no model."""
    return status.service.loaded if status else None


def loaded_release(status: AgentStatus | None) -> str | None:
    """Return the release that the service of a device's agent has loaded; None if it has loaded no release."""
    loaded = loaded_model(status)
    return loaded.release if loaded else None


def runs(status: AgentStatus | None, release: str, release_info: ReleaseInfo) -> bool:
    """Return whether a device has confirmed a release and runs the model file that was published in this release.

    Args:
        status: The device's status; None if the device did not respond.
        release: The release, as NAME@VERSION.
        release_info: The published facts about this release.
    """
    loaded = loaded_model(status)
    if status is None or loaded is None:
        return False
    published = loaded.release == release and release_info.targets.get(loaded.target) == loaded.sha256
    return published and status.trial is None and status.current == release


def obstacles(
    status: AgentStatus,
    release: str,
    release_info: ReleaseInfo,
    *,
    queried: datetime,
    now: datetime,
    clock_skew_s: float,
) -> list[str]:
    """Return the reasons why a device cannot run a release; an empty list if it can.

    Args:
        status: The device's status.
        release: The release, as NAME@VERSION.
        release_info: The published facts about this release, including its requirements.
        queried: The time at which the query of all devices began. The device responded between `queried` and `now`.
        now: The current time, with a time zone.
        clock_skew_s: The maximum allowed difference between the device's clock and the controller's clock, in seconds.
    """
    device, service, required = status.device, status.service, release_info.requirements
    reasons = []
    for name, value, allowed in (
        ("type", device.type, required.device_types),
        ("architecture", device.architecture, required.architectures),
    ):
        if allowed is not None and value not in allowed:
            reasons.append(f"{name} {value}: {release} is for {', '.join(allowed)}")
    if not set(device.targets) & set(release_info.targets):
        reasons.append(
            f"it can run the targets {', '.join(device.targets)}, but {release} has {', '.join(release_info.targets)}"
        )
    if required.memory_mb is not None and device.memory_bytes < required.memory_mb * MB:
        reasons.append(f"{device.memory_bytes / MB:.0f} MB of memory, but {release} needs {required.memory_mb:g} MB")
    needed = (required.disk_mb or 0) * MB
    if release not in status.installed:  # space for the payload, the fetched archive and the unpacked bundle
        needed += 2 * release_info.length + release_info.unpacked
    if status.disk is not None and status.disk.free_bytes < needed:
        reasons.append(
            f"{status.disk.free_bytes / MB:.0f} MB of disk space are free, but {needed / MB:.0f} MB are needed"
        )
    if not service.running or service.fault:
        reasons.append("its service does not answer" if service.running else "its service is not running")
    if release in status.bad:
        reasons.append(f"{release} failed on this device before: {status.bad[release]} (edge-agent forget {release})")
    return reasons + _clock_deviation(status.time, queried, now, clock_skew_s)


def _clock_deviation(time: str, queried: datetime, now: datetime, clock_skew_s: float) -> list[str]:
    device_time, tolerance = datetime.fromisoformat(time), timedelta(seconds=clock_skew_s + 1)
    if queried - tolerance <= device_time <= now + tolerance:
        return []
    return [f"its clock shows {time}, more than {clock_skew_s:g} s away from {now.isoformat(timespec='seconds')}"]
