"""How long one prediction takes, and how much memory: on this machine, through the device's own runtime."""

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
PROBES_AT_ONCE = 2  # memory does not depend on who else computes
MEMORY_CALLS = 3  # predictions until the memory is taken as settled: buffers are allocated by the first

# Runs in a process of its own, which imports nothing but numpy, the runtime and its one library.
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
    """p50, p95 and p99 in ms of `predict` with one sample, and their intervals.

    Each call takes the next of `samples` [N, *shape]; the first `warmup` calls do not count, and garbage is
    not collected meanwhile. Intervals take the calls as independent; a machine that is busy for a while makes
    neighbours alike.
    """
    order = [samples[i % len(samples)][None] for i in range(warmup + repeats)]
    times = np.empty(repeats)
    for x in order[:warmup]:
        model.predict(x)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i, x in enumerate(order[warmup:]):
            began = time.perf_counter_ns()
            model.predict(x)
            times[i] = time.perf_counter_ns() - began
    finally:
        if collecting:
            gc.enable()
    times.sort()
    return {name: percentile(times / 1e6, share, confidence) for name, share in SHARES.items()}


def measure_memory(file: Path, io: Mapping[str, Any], sample: Path, threads: int, confidence: float) -> Estimate:
    """What the model adds to a process, in MB (1e6 bytes): the peak of its resident memory over loading the
    file and three predictions of one sample, minus the resident memory just before loading, with numpy and the
    runtime's library already imported.

    `sample`: npy of one sample [1, *shape]. The median over as many fresh processes as the interval of a
    median needs; its ends are the smallest and the largest. Raises StageError.
    """
    request = {"file": str(file), "io": io, "sample": str(sample), "threads": threads, "calls": MEMORY_CALLS}
    count = math.ceil(1 - math.log2(1 - confidence))
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        values = sorted(pool.map(_probe, [json.dumps(request)] * count))
    return Estimate(float(np.median(values)), values[0], values[-1])


def _probe(request: str) -> float:
    command = [sys.executable, "-c", PROBE, request]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise StageError("memory probe", f"still running after {LIMIT_S} s", "three predictions") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise StageError("memory probe", lines[-1] if lines else f"exit code {done.returncode}", "three predictions")
    return float(done.stdout)
