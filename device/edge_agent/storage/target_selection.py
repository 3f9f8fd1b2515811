"""Whether a release is for this device, and which of its targets: type, architecture, memory, disk, runtimes.

Nothing heavy is imported: what a runtime's version is, its installed metadata says.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import struct
from collections.abc import Mapping
from typing import Any

import psutil

from edge_agent.core import space
from edge_agent.core.config import Config
from edge_agent.core.errors import FitError

MB = 1_000_000
# What different kernels call the same machine.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}
# A 64-bit kernel below a 32-bit system names the kernel's; libraries are chosen by the system's.
NARROW = {"aarch64": "armv7l", "x86_64": "i686"}
# The module that runs a file, the packages that may bring it (vendors rename theirs), and the extra that installs it.
RUNTIMES: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "onnxruntime": ("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "onnx"),
    "litert": ("ai_edge_litert", ("ai-edge-litert", "ai-edge-litert-nightly"), "litert"),
}


def architecture(machine: str | None = None, pointer_bytes: int = struct.calcsize("P")) -> str:
    """x86_64, aarch64, armv7l, or what else the kernel says, of the system that this Python was built for."""
    name = (machine or platform.machine()).lower()
    name = ARCHITECTURES.get(name, name)
    return NARROW.get(name, name) if pointer_bytes == 4 else name


def runtime_version(runtime: str) -> str | None:
    """The installed version, "unknown" where the module has no metadata, None where there is no such module."""
    module, packages, _ = RUNTIMES[runtime]
    if importlib.util.find_spec(module) is None:
        return None
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def device_facts() -> dict[str, Any]:
    """What this device has, for `status`; memory in bytes."""
    return {
        "architecture": architecture(),
        "memory_bytes": psutil.virtual_memory().total,
        "runtimes": {runtime: runtime_version(runtime) for runtime in RUNTIMES},
    }


def select_target(config: Config, manifest: Mapping[str, Any], free_bytes: int | None = None) -> str:
    """The target for this device: the first of `device.targets` that the release has and a runtime here reads.

    `free_bytes`: disk space beside the unpacked bundle; None: not judged. Raises FitError with every reason there is.
    """
    have = device_facts()
    device = _device_reasons(config, manifest.get("requirements", {}), have, free_bytes)
    targets = {name: _target_reason(target, have["runtimes"]) for name, target in manifest["targets"].items()}
    for name in targets.keys() - set(config.device.targets):
        targets[name] = f"is not among device.targets ({', '.join(config.device.targets)})"
    fitting = [name for name in config.device.targets if name in targets and targets[name] is None]
    if fitting and not device:
        return fitting[0]
    reasons = device + [f"target {name}: {reason}" for name, reason in targets.items() if reason is not None]
    raise FitError(
        f"{manifest['name']}",
        "\n".join(["it does not fit this device", *(f"  {reason}" for reason in reasons)]),
        "a release that is built for this device",
        "publish one that is, or mend what is named above",
    )


def require_space(config: Config, release: str, free: int, needed: int) -> None:
    """Raises StorageError where a bundle of `needed` bytes on the disk leaves less than `install.reserve_mb` of the
    `free` ones.
    """
    reserve = int(config.install.reserve_mb * MB)
    space.require_space(
        config.layout.releases,
        free,
        needed + reserve,
        found=f"{free / MB:.1f} MB are free",
        expected=f"{(needed + reserve) / MB:.1f} MB: {needed / MB:.1f} for {release}, {reserve / MB:.1f} stay free",
        remedy="edge-agent prune --keep 0, free space otherwise, or lower install.reserve_mb",
    )


def _device_reasons(
    config: Config, required: Mapping[str, Any], have: Mapping[str, Any], free_bytes: int | None
) -> list[str]:
    reasons = []
    types, kinds = required.get("device_types"), required.get("architectures")
    if types is not None and config.device.type not in types:
        reasons.append(f"device.type: found {config.device.type}; expected one of {', '.join(types)}")
    if kinds is not None and have["architecture"] not in kinds:
        reasons.append(f"architecture: found {have['architecture']}; expected one of {', '.join(kinds)}")
    memory, disk = required.get("memory_mb"), required.get("disk_mb")
    if memory is not None and have["memory_bytes"] < memory * MB:
        reasons.append(f"memory: found {have['memory_bytes'] / MB:.0f} MB; expected at least {memory:g} MB")
    if disk is not None and free_bytes is not None and free_bytes < disk * MB:
        found = max(free_bytes, 0) / MB
        reasons.append(f"free disk space beside the bundle: found {found:.0f} MB; expected at least {disk:g} MB")
    return reasons


def _target_reason(target: Mapping[str, Any], versions: Mapping[str, str | None]) -> str | None:
    """Why no runtime here reads this target; None: one does."""
    runtime, oldest = target["io"]["runtime"], target.get("runtime_version")
    found = versions[runtime]
    if found is None:
        return f"{runtime} is not installed; add the agent's extra `{RUNTIMES[runtime][2]}`"
    if oldest is not None and _numbers(found) < _numbers(oldest):
        return f"{runtime}: found version {found}; expected at least {oldest}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """1.20.1 -> (1, 20, 1), 1.20.0 -> (1, 20): trailing zeros say nothing. A pre-release counts as its release, what is
    no version as the oldest one.
    """
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
