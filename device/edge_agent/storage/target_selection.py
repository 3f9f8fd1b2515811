"""Select which target of a release this device runs, or explain why the release does not fit the device.

A release fits if the device has the required type, architecture, memory and disk space, and a runtime for one of the
release's targets. Versions of runtimes are read from the metadata of the installed packages, without importing them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from edge_agent.core import space
from edge_agent.core.config import Config
from edge_agent.core.errors import FitError, StorageError

MB = 1_000_000
# Other names that kernels use for an architecture, each with the name that this project uses.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}
# The architecture of 32-bit programs on a 64-bit kernel. The kernel reports only its own architecture, but libraries
# must match the architecture of the program.
NARROW = {"aarch64": "armv7l", "x86_64": "i686"}
# For each runtime: its module, the packages that provide the module (vendors publish it under other names), and the
# agent's extra that installs the runtime.
RUNTIMES: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "onnxruntime": ("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "onnx"),
    "litert": ("ai_edge_litert", ("ai-edge-litert", "ai-edge-litert-nightly"), "litert"),
}


@dataclass(frozen=True)
class DeviceFacts:
    """The properties of this device that decide which releases fit.

    Attributes:
        architecture: The processor architecture, as the function `architecture` returns it.
        memory_bytes: Total memory in bytes.
        runtimes: The version of each runtime, as the function `runtime_version` returns it.
    """

    architecture: str
    memory_bytes: int
    runtimes: Mapping[str, str | None]


def architecture(machine: str | None = None, pointer_bytes: int = struct.calcsize("P")) -> str:
    """Return the architecture for which this Python was built: x86_64, aarch64, armv7l or another name.

    `machine` is the kernel's name of the architecture, and `pointer_bytes` is the size of a pointer. Only tests set
    these arguments.
    """
    name = (machine or platform.machine()).lower()
    name = ARCHITECTURES.get(name, name)
    return NARROW.get(name, name) if pointer_bytes == 4 else name


def runtime_version(runtime: str) -> str | None:
    """Return the version of a runtime, or None if the runtime is not installed.

    The version is "unknown" if the package of the runtime has no metadata.
    """
    module, packages, _ = RUNTIMES[runtime]
    if importlib.util.find_spec(module) is None:
        return None
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def device_facts() -> DeviceFacts:
    """Return the properties of this device that decide which releases fit."""
    return DeviceFacts(
        architecture=architecture(),
        memory_bytes=psutil.virtual_memory().total,
        runtimes={runtime: runtime_version(runtime) for runtime in RUNTIMES},
    )


def select_target(config: Config, manifest: Mapping[str, Any], free_bytes: int | None = None) -> str:
    """Select the target of a release that this device runs, and return the name of the target.

    It is the first target in `device.targets` that the release has and that an installed runtime can load.

    Args:
        config: The configuration.
        manifest: The manifest of the release.
        free_bytes: Disk space in bytes that is free after the bundle is unpacked; None skips the check of disk space.

    Raises:
        FitError: The release does not fit; the message lists every reason.
    """
    facts = device_facts()
    device_reasons = _device_reasons(config, manifest.get("requirements", {}), facts, free_bytes)
    targets = {name: _target_reason(target, facts.runtimes) for name, target in manifest["targets"].items()}
    for name in targets.keys() - set(config.device.targets):
        targets[name] = f"is not among device.targets ({', '.join(config.device.targets)})"
    fitting = [name for name in config.device.targets if name in targets and targets[name] is None]
    if fitting and not device_reasons:
        return fitting[0]
    reasons = device_reasons + [f"target {name}: {reason}" for name, reason in targets.items() if reason is not None]
    raise FitError(
        f"{manifest['name']}",
        "\n".join(["it does not fit this device", *(f"  {reason}" for reason in reasons)]),
        "a release that is built for this device",
        "publish such a release, or change the properties that are listed above",
    )


def require_space(config: Config, release: str, free: int, needed: int) -> None:
    """Raise an error if a bundle does not fit on the disk.

    Args:
        config: The configuration; `install.reserve_mb` is the disk space that must stay free.
        release: The name of the release, for the message.
        free: Free disk space in bytes.
        needed: Disk space that the unpacked bundle needs, in bytes.

    Raises:
        StorageError: `free` is less than the sum of `needed` and `install.reserve_mb`.
    """
    reserve = int(config.install.reserve_mb * MB)
    error = StorageError(
        str(config.layout.releases),
        f"{free / MB:.1f} MB are free",
        f"{(needed + reserve) / MB:.1f} MB: {needed / MB:.1f} for {release}, {reserve / MB:.1f} to stay free",
        "run edge-agent prune --keep 0, free other space, or lower install.reserve_mb",
    )
    space.require_space(free, needed + reserve, error)


def _device_reasons(
    config: Config, required: Mapping[str, Any], facts: DeviceFacts, free_bytes: int | None
) -> list[str]:
    """Return the reasons why the device does not meet the requirements of the release."""
    reasons = []
    types, architectures = required.get("device_types"), required.get("architectures")
    if types is not None and config.device.type not in types:
        reasons.append(f"device.type: found {config.device.type}; expected one of {', '.join(types)}")
    if architectures is not None and facts.architecture not in architectures:
        reasons.append(f"architecture: found {facts.architecture}; expected one of {', '.join(architectures)}")
    memory, disk = required.get("memory_mb"), required.get("disk_mb")
    if memory is not None and facts.memory_bytes < memory * MB:
        reasons.append(f"memory: found {facts.memory_bytes / MB:.0f} MB; expected at least {memory:g} MB")
    if disk is not None and free_bytes is not None and free_bytes < disk * MB:
        free = max(free_bytes, 0) / MB
        reasons.append(
            f"free disk space after unpacking the bundle: found {free:.0f} MB; expected at least {disk:g} MB"
        )
    return reasons


def _target_reason(target: Mapping[str, Any], versions: Mapping[str, str | None]) -> str | None:
    """Return the reason why no runtime of this device can load the target, or None if a runtime can load it."""
    runtime, oldest = target["io"]["runtime"], target.get("runtime_version")
    version = versions[runtime]
    if version is None:
        return f"{runtime} is not installed; add the agent's extra `{RUNTIMES[runtime][2]}`"
    if oldest is not None and _numbers(version) < _numbers(oldest):
        return f"{runtime}: found version {version}; expected at least {oldest}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without trailing zeros: 1.20.1 -> (1, 20, 1), 1.20.0 -> (1, 20).

    A pre-release has the numbers of its release. Text that is not a version counts as the oldest version.
    """
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
