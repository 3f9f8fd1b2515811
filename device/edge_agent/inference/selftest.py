"""Self-test a release before the agent switches to it: run its model on its golden samples on this device.

The self-test runs in a separate process with a time limit, so that a native library that crashes or hangs on a model
file does not affect the agent. The command of the process is `python -m edge_agent.inference.selftest REQUEST`, where
REQUEST is a JSON object. The process prints its result as a JSON object.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.core.errors import SelfTestError
from edge_agent.core.fault_points import point

if TYPE_CHECKING:
    from edge_agent.core.config import Config

WARMUP = 3  # calls that are not timed: the first ones allocate memory
MODULES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert.interpreter"}


@dataclass(frozen=True)
class LatencyPercentiles:
    """The 50th and 95th percentile of the latency of a prediction for one sample on one thread, in milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True)
class SelfTestResult:
    """The measurements of a self-test that passed. `--json` prints these fields in this order.

    Attributes:
        target: The target that was tested, such as `onnx-int8`.
        batch: `joinable` if the service may join samples of several requests into one run of the model, or `single`.
        joining_fault: The reason why a file that the manifest declares joinable is `single` on this device, or None.
        samples: Number of golden samples.
        max_difference: Largest absolute difference between a computed probability and the stored probability.
        tolerance: The release's limit for `max_difference`.
        latency_ms: Latency of a prediction for one sample on one thread, in milliseconds.
        latency_budget_ms: The release's limit for the 95th percentile of the latency, in milliseconds; None for no
            limit.
        memory_mb: Peak memory of the process of the self-test minus its memory before the model was loaded, in 1e6
            bytes.
        memory_budget_mb: The release's limit for `memory_mb`; None for no limit.
        seconds: Duration of the self-test in seconds.
    """

    target: str
    batch: str
    joining_fault: str | None
    samples: int
    max_difference: float
    tolerance: float
    latency_ms: LatencyPercentiles
    latency_budget_ms: float | None
    memory_mb: float
    memory_budget_mb: float | None
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """The values that the process of the self-test measured, in the same units as in SelfTestResult.

    `worst_sample` is the index of the golden sample whose computed output differs most from its stored output.
    `probability_fault` is what shows that the outputs are not probabilities, or None.
    """

    samples: int
    max_difference: float
    worst_sample: int
    latency_ms: LatencyPercentiles
    memory_mb: float
    joining_fault: str | None
    probability_fault: str | None


def run(config: Config, release: str, target: str) -> SelfTestResult:
    """Run an installed release on its golden samples, and check outputs, latency and memory against its limits.

    Args:
        config: The agent's configuration.
        release: The installed release, as NAME@VERSION.
        target: The target to test, such as `onnx-fp32`.

    Raises:
        SelfTestError: The model does not load, or its outputs, latency or memory exceed the limits of the release, or
            the self-test takes longer than `selftest.timeout_s`.
    """
    from edge_agent.storage import manifest as manifests  # not imported in the process that measures

    where = f"{release} ({target})"
    description = manifests.read(config.layout.bundle(release))["targets"][target]
    request = {
        "bundle": str(config.layout.bundle(release)),
        "target": description,
        "repeats": config.selftest.repeats,
        "joined": min(config.serve.batch, config.serve.queue),
    }
    point("selftest.before")
    start = time.monotonic()
    measurement = _measure_in_process(where, request, config.selftest.timeout_s)
    latency_limit, memory_limit = _require_limits(where, description, measurement)
    seconds = round(time.monotonic() - start, 3)
    point("selftest.after")
    return SelfTestResult(
        target=target,
        batch="single" if description["batch"] == "single" or measurement.joining_fault else "joinable",
        joining_fault=measurement.joining_fault,
        samples=measurement.samples,
        max_difference=measurement.max_difference,
        tolerance=description["golden"]["tolerance"],
        latency_ms=measurement.latency_ms,
        latency_budget_ms=latency_limit,
        memory_mb=round(measurement.memory_mb, 3),
        memory_budget_mb=memory_limit,
        seconds=seconds,
    )


def _measure_in_process(where: str, request: dict[str, Any], timeout_s: float) -> Measurement:
    command = [sys.executable, "-m", "edge_agent.inference.selftest", json.dumps(request)]
    try:
        process = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise SelfTestError(
            where, f"no result after {timeout_s:g} s", "a result within this time", "increase selftest.timeout_s"
        ) from None
    messages = process.stderr.decode(errors="replace").strip().splitlines()
    last = f": {messages[-1]}" if messages else ""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise SelfTestError(
            where,
            f"the model crashed its process ({name}){last}",
            "a model that loads and runs on this device",
            "build the release for this device's runtime and memory",
        )
    lines = process.stdout.splitlines()
    if process.returncode != 0 or not lines:
        raise SelfTestError(
            where,
            f"the self-test ended with exit code {process.returncode}{last}",
            "a result on the standard output of the self-test",
        )
    result: dict[str, Any] = json.loads(lines[-1])
    if "failed" in result:
        raise SelfTestError(where, result["failed"], "a model that loads and runs on this device")
    latency_ms = LatencyPercentiles(**result.pop("latency_ms"))
    return Measurement(**result, latency_ms=latency_ms)


def _require_limits(
    where: str, description: dict[str, Any], measurement: Measurement
) -> tuple[float | None, float | None]:
    """Check a measurement against the limits of the release, and return the limits of latency and memory.

    The limits are in milliseconds and in 1e6 bytes; None means no limit. Raises SelfTestError if the measurement
    exceeds one of the limits or the tolerance of the outputs.
    """
    tolerance = description["golden"]["tolerance"]
    budget = description.get("budget") or {}
    latency_limit, memory_limit = budget.get("latency_p95_ms"), budget.get("memory_mb")
    if measurement.probability_fault is not None:
        raise SelfTestError(
            where,
            measurement.probability_fault,
            "probabilities",
            "correct io.output.activation in the manifest, and build the release again",
        )
    # `not a <= b` is used instead of `a > b`, so that NaN fails.
    if not measurement.max_difference <= tolerance:
        raise SelfTestError(
            where,
            f"the output for golden sample {measurement.worst_sample} differs by {measurement.max_difference:.3g}",
            f"a difference of at most {tolerance:g}",
            "compare the version of this device's runtime with the version that the release was built with",
        )
    if latency_limit is not None and not measurement.latency_ms.p95 <= latency_limit:
        raise SelfTestError(
            where,
            f"latency p95 {measurement.latency_ms.p95:.3f} ms",
            f"at most {latency_limit:g} ms",
            "try again when the device is not busy, or build a smaller model",
        )
    if memory_limit is not None and not measurement.memory_mb <= memory_limit:
        raise SelfTestError(
            where, f"memory {measurement.memory_mb:.1f} MB", f"at most {memory_limit:g} MB", "build a smaller model"
        )
    return latency_limit, memory_limit


def _measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load a model, run it on its golden samples, and return the measurements as a JSON object.

    If the model fails, the object has only the field `failed` with the reason. This function runs in the process of the
    self-test. It imports only the libraries that the model needs, so that no other library adds to the measured memory.
    """
    import importlib

    import numpy as np

    from edge_agent.inference.golden_replay import JOINABLE, joining_fault, probability_fault
    from edge_agent.inference.model import InferenceError
    from edge_agent.inference.runtime import open_model

    bundle, target = Path(request["bundle"]), request["target"]
    golden, io = target["golden"], target["io"]
    try:
        importlib.import_module(MODULES[io["runtime"]])
    except ImportError as error:
        return {"failed": f"the runtime {io['runtime']} is not installed ({error})"}
    inputs = np.load(bundle / golden["inputs"], allow_pickle=False)
    expected = np.load(bundle / golden["outputs"], allow_pickle=False)
    before = _status_mb("VmRSS:")
    try:
        model = open_model(bundle / target["file"], io, threads=1)
        point("selftest.loaded")
        outputs = np.concatenate([model.predict(inputs[index : index + 1]) for index in range(len(inputs))])
        times = _call_times(model, inputs, request["repeats"])
    except InferenceError as error:
        return {"failed": str(error)}
    if outputs.shape != expected.shape:
        return {"failed": f"golden samples: found outputs of shape {outputs.shape}, expected {expected.shape}"}
    memory_mb = max(_status_mb("VmHWM:") - before, 0.0)  # of single samples: the check below joins samples
    tolerance, joinable = golden["tolerance"], target["batch"] == JOINABLE
    differences = np.abs(outputs - expected).max(axis=1)
    worst = int(differences.argmax())
    measurement = Measurement(
        samples=len(inputs),
        max_difference=float(differences[worst]),
        worst_sample=worst,
        latency_ms=LatencyPercentiles(p50=_percentile(times, 0.5), p95=_percentile(times, 0.95)),
        memory_mb=memory_mb,
        joining_fault=joining_fault(model, inputs, tolerance, request["joined"]) if joinable else None,
        probability_fault=probability_fault(outputs, model.output_dtype),
    )
    return asdict(measurement)


def _call_times(model: Any, inputs: Any, repeats: int) -> list[float]:
    """Call the model `repeats` times with one sample, and return the sorted durations of the calls in milliseconds."""
    times = []
    for call in range(WARMUP + repeats):
        sample = inputs[call % len(inputs)][None]
        start = time.perf_counter()
        model.predict(sample)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[WARMUP:])


def _percentile(ordered: list[float], share: float) -> float:
    """Return the quantile `share` of the sorted values: the value with the rank ceil(share * number of values)."""
    return round(ordered[max(math.ceil(share * len(ordered)) - 1, 0)], 6)


def _status_mb(field: str) -> float:
    """Return the memory size in the line of /proc/self/status that begins with `field`, in 1e6 bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def main() -> None:
    # If memory runs out, the kernel must kill this process and not the service.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # Only the result may be printed on stdout, but native libraries also print there. Redirect their output to stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    result = _measure(json.loads(sys.argv[1]))
    out.write(json.dumps(result) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
