"""A device accepts only releases that it can run, and a refusal lists every reason."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
from edge_agent.core import config as configuration
from edge_agent.core.errors import FitError
from edge_agent.storage import target_selection

from tests.support.agent.bundles import bundle

BOTH = ("onnx-fp32", "tflite-int8")


def device(**changes: Any) -> configuration.Config:
    return configuration.parse({"device": changes})


def manifest(folder: Path, **changes: Any) -> Any:
    return bundle(folder, **changes).manifest


def test_the_first_target_in_the_devices_own_order_is_chosen(tmp_path: Path) -> None:
    described = manifest(tmp_path, targets=BOTH)

    assert target_selection.select_target(device(), described) == "tflite-int8"
    assert (
        target_selection.select_target(device(targets=["onnx-int8", "onnx-fp32", "tflite-int8"]), described)
        == "onnx-fp32"
    )


def test_a_target_whose_runtime_is_too_old_is_passed_over(tmp_path: Path) -> None:
    described = manifest(tmp_path, targets=BOTH)
    described["targets"]["tflite-int8"]["runtime_version"] = "99.0"

    assert target_selection.select_target(device(), described) == "onnx-fp32"


def test_the_runtime_that_is_installed_is_enough_for_its_own_version(tmp_path: Path) -> None:
    version = importlib.metadata.version("onnxruntime")

    assert target_selection.select_target(device(), manifest(tmp_path, runtime_version=version)) == "onnx-fp32"


@pytest.mark.parametrize(
    ("version", "oldest", "enough"),
    [("1.20.1", "1.20", True), ("1.9.3", "1.10", False), ("1.20", "1.20.0", True), ("2.0.0rc1", "2.0", True)],
)
def test_versions_are_compared_number_by_number(version: str, oldest: str, enough: bool) -> None:
    target = {"io": {"runtime": "onnxruntime"}, "runtime_version": oldest}

    assert (target_selection._target_reason(target, {"onnxruntime": version}) is None) is enough


def test_an_unknown_version_is_not_enough_and_a_missing_runtime_is_named() -> None:
    target = {"io": {"runtime": "litert"}, "runtime_version": "1.2"}

    assert (
        target_selection._target_reason(target, {"litert": "unknown"})
        == "litert: found version unknown; expected at least 1.2"
    )
    missing = target_selection._target_reason(target, {"litert": None})
    assert missing == "litert is not installed; add the agent's extra `litert`"


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        ({"device_types": ["jetson", "pi5"]}, "device.type: found generic; expected one of jetson, pi5"),
        (
            {"architectures": ["armv7l"]},
            f"architecture: found {target_selection.architecture()}; expected one of armv7l",
        ),
        ({"memory_mb": 1e9}, "expected at least 1e+09 MB"),
        ({"disk_mb": 500}, "free disk space after unpacking the bundle: found 499 MB; expected at least 500 MB"),
    ],
)
def test_what_the_device_lacks_is_named_with_found_and_expected(tmp_path: Path, requirements: Any, reason: str) -> None:
    with pytest.raises(FitError) as refusal:
        target_selection.select_target(device(), manifest(tmp_path, requirements=requirements), 499_000_000)

    assert reason in str(refusal.value)


def test_every_reason_against_a_release_is_listed(tmp_path: Path) -> None:
    required = {"device_types": ["pi5"], "architectures": ["armv7l"]}
    described = manifest(tmp_path, targets=BOTH, requirements=required, runtime_version="99.1")

    with pytest.raises(FitError) as refusal:
        target_selection.select_target(device(targets=["onnx-fp32"]), described)

    message = str(refusal.value)
    assert "device.type: found generic" in message
    assert f"architecture: found {target_selection.architecture()}" in message
    assert "target onnx-fp32: onnxruntime: found version" in message
    assert "target tflite-int8: is not among device.targets (onnx-fp32)" in message


def test_requirements_that_are_met_are_accepted(tmp_path: Path) -> None:
    memory = psutil.virtual_memory().total / target_selection.MB
    required = {
        "device_types": ["generic"],
        "architectures": [target_selection.architecture()],
        "memory_mb": memory,
        "disk_mb": 1,
    }

    assert target_selection.select_target(device(), manifest(tmp_path, requirements=required), 2_000_000) == "onnx-fp32"


def test_nulls_in_requirements_require_nothing(tmp_path: Path) -> None:
    required = dict.fromkeys(["device_types", "architectures", "memory_mb", "disk_mb"])

    assert target_selection.select_target(device(), manifest(tmp_path, requirements=required), 0) == "onnx-fp32"


@pytest.mark.parametrize(
    ("machine", "pointer_bytes", "name"),
    [
        ("AMD64", 8, "x86_64"),
        ("arm64", 8, "aarch64"),
        ("aarch64", 8, "aarch64"),
        ("armv8l", 4, "armv7l"),
        ("aarch64", 4, "armv7l"),
        ("riscv64", 8, "riscv64"),
    ],
)
def test_one_architecture_has_one_name(machine: str, pointer_bytes: int, name: str) -> None:
    assert target_selection.architecture(machine, pointer_bytes) == name


def test_facts_are_those_of_this_machine() -> None:
    facts = target_selection.device_facts()

    assert facts.memory_bytes == psutil.virtual_memory().total
    assert facts.runtimes["litert"] == importlib.metadata.version("ai-edge-litert")
