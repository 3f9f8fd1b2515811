"""Whether a device can take a release, by what its agent says: before anything is changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

MB = 1_000_000
Status = Mapping[str, Any]


def loaded(status: Status | None) -> Mapping[str, Any]:
    """What the service of a device has loaded: release, target, sha256; empty where nothing."""
    return (status or {}).get("service", {}).get("loaded") or {}


def runs(status: Status | None, release: str, offer: Mapping[str, Any]) -> bool:
    """Whether the running service holds exactly the model that the release has for its target, and proved it."""
    found = loaded(status)
    good = found.get("release") == release and offer["targets"].get(found.get("target")) == found["sha256"]
    return good and status is not None and status["trial"] is None and status["current"] == release


def reasons(
    status: Status, release: str, offer: Mapping[str, Any], asked: datetime, now: datetime, skew_s: float
) -> list[str]:
    """Why the device cannot take it; none: it can. It answered between `asked` and `now`."""
    device, service, required = status["device"], status["service"], offer["requirements"]
    found = []
    for name, key in (("type", "device_types"), ("architecture", "architectures")):
        allowed = required.get(key)
        if allowed is not None and device[name] not in allowed:
            found.append(f"{name} {device[name]}: {release} is for {', '.join(allowed)}")
    if not set(device["targets"]) & set(offer["targets"]):
        found.append(f"it takes {', '.join(device['targets'])}: {release} has {', '.join(offer['targets'])}")
    if (memory := required.get("memory_mb")) is not None and device["memory_bytes"] < memory * MB:
        found.append(f"{device['memory_bytes'] / MB:.0f} MB of memory: {release} needs {memory:g} MB")
    needed = (required.get("disk_mb") or 0) * MB
    if status["installed"].count(release) == 0:  # pushed, fetched, unpacked
        needed += 2 * offer["length"] + offer["unpacked"]
    if status["disk"] is not None and status["disk"]["free_bytes"] < needed:
        found.append(f"{status['disk']['free_bytes'] / MB:.0f} MB of disk free: {needed / MB:.0f} MB needed")
    if not service["running"] or service["fault"]:
        found.append("its service does not answer" if service["running"] else "no service runs")
    if release in status["bad"]:
        found.append(f"{release} failed here before: {status['bad'][release]} (edge-agent forget {release})")
    found += _clock(status["time"], asked, now, skew_s)
    return found


def _clock(time: str, asked: datetime, now: datetime, skew_s: float) -> list[str]:
    at, skew = datetime.fromisoformat(time), timedelta(seconds=skew_s + 1)
    if asked - skew <= at <= now + skew:
        return []
    return [f"its clock says {time}: more than {skew_s:g} s from {now.isoformat(timespec='seconds')}"]
