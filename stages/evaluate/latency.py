"""Measure latency and memory of single predictions on this machine, with the same runtime that devices use."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.model import Model

from stages.core.errors import StageError
from stages.metrics.classification import Estimate, percentile

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LIMIT_S = 120
PROBES_AT_ONCE = 2  # probes can run at the same time, because other processes do not change a process's memory
MEMORY_CALLS = 3  # predictions before memory is measured, because the first one allocates buffers

# This code runs in a new process, which imports only numpy, the runtime module of edge_agent and one runtime library.
PROBE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from edge_agent.inference.runtime import open_model

def status(field):
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # macOS has the peak only, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6

request = json.loads(sys.argv[1])
__import__("onnxruntime" if request["io"]["runtime"] == "onnxruntime" else "ai_edge_litert.interpreter")
sample = np.load(request["sample"])
before = status("VmRSS:")
model = open_model(Path(request["file"]), request["io"], request["threads"])
for _ in range(request["calls"]):
    model.predict(sample)
print(status("VmHWM:") - before)
"""


def measure_latency(
    model: Model, samples: np.ndarray, warmup: int, repeats: int, confidence: float
) -> dict[str, Estimate]:
    """Measure the latency of single predictions, and return p50, p95 and p99 in ms with their confidence intervals.

    Garbage collection is off during the predictions. The intervals assume that the latencies of different predictions
    are independent. If the machine is temporarily busy, consecutive predictions have similar latencies, and the
    intervals are too narrow.

    Args:
        model: The opened model file.
        samples: Samples [N, *shape]. Each prediction uses the next sample; the first sample follows the last sample.
        warmup: Number of unmeasured predictions before the measurement.
        repeats: Number of measured predictions.
        confidence: Confidence level of the intervals, 0 to 1.
    """
    order = [samples[i % len(samples)][None] for i in range(warmup + repeats)]
    times = np.empty(repeats)
    for x in order[:warmup]:
        model.predict(x)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i, x in enumerate(order[warmup:]):
            start = time.perf_counter_ns()
            model.predict(x)
            times[i] = time.perf_counter_ns() - start
    finally:
        if collecting:
            gc.enable()
    times.sort()
    return {name: percentile(times / 1e6, share, confidence) for name, share in SHARES.items()}


def measure_memory(file: Path, io: Mapping[str, Any], sample: Path, threads: int, confidence: float) -> Estimate:
    """Measure by how much a process's memory increases when the process loads and runs a model, in MB (1e6 bytes).

    A new process imports numpy and the runtime's library, loads the model file and makes three predictions. The
    increase is the peak of the resident memory minus the resident memory just before the file is loaded. The estimate
    is the median of several processes, and its interval extends from the smallest value to the largest value. The
    number of processes is the smallest number for which this interval reaches the confidence level.

    Args:
        file: The model file.
        io: The description of the model file's inputs and outputs.
        sample: A .npy file with one sample [1, *shape].
        threads: Number of threads that the runtime uses.
        confidence: Confidence level of the interval, 0 to 1.

    Raises:
        StageError: A process fails, or takes too long.
    """
    request = {"file": str(file), "io": io, "sample": str(sample), "threads": threads, "calls": MEMORY_CALLS}
    count = math.ceil(1 - math.log2(1 - confidence))
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        values = sorted(pool.map(_probe, [json.dumps(request)] * count))
    return Estimate(float(np.median(values)), values[0], values[-1])


def _probe(request: str) -> float:
    command = [sys.executable, "-c", PROBE, request]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise StageError(
            "memory probe", f"still running after {LIMIT_S} s", "three predictions within this time"
        ) from None
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise StageError(
            "memory probe",
            lines[-1] if lines else f"exit code {result.returncode}",
            "three predictions without an error",
        )
    return float(result.stdout)
