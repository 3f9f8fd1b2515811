"""Measure the memory and time of `prepare` on a large table: python -m benchmarks.prepare --rows 20000000"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.paths import REPOSITORY
from tests.support.stages.contract import SERIES, write_task

CHANNELS = [f"c{i}" for i in range(8)]
RUN_ROWS = 50_000
BLOCK = 1_000_000

BENCH: dict[str, Any] = {
    "data": SERIES["data"] | {"channels": {name: {"unit": "V"} for name in CHANNELS}},
    "validate": SERIES["validate"]
    | {
        "columns": {name: SERIES["validate"]["columns"][name] for name in ("run", "time", "state")}
        | {name: {"type": "float", "nullable": True, "minimum": -50, "maximum": 50} for name in CHANNELS},
        "plausibility": [{"name": "c0 above c1", "terms": {"c0": 1.0, "c1": -1.0}, "minimum": -50, "maximum": None}],
        "freshness": None,
        "thresholds": SERIES["validate"]["thresholds"] | {"timeliness": 0.0},
    },
    "prepare": SERIES["prepare"]
    | {
        "missing": "mean",
        "window": {"length": 64, "stride": 16, "max_gap_s": 2.0, "label": "majority"},
        "drift": {"bins": 10, "samples": 20000},
    },
}


def write_table(root: Path, rows: int, memory_limit: str = "2GB") -> None:
    """Write a task and its table: eight channels at 1 Hz in shuffled blocks, with one value in a thousand missing.

    Args:
        root: Folder of the pipeline.
        rows: Number of rows.
        memory_limit: Memory limit of the engine (compute.memory_limit).
    """
    write_task(root, BENCH, compute__memory_limit=memory_limit)
    rng = np.random.default_rng(0)
    types = {"run": pa.string(), "time": pa.timestamp("us"), "state": pa.string()} | dict.fromkeys(
        CHANNELS, pa.float64()
    )
    paths = [root / "data/snapshot/rig/part-00000.parquet", root / "data/validated/rig/part-00000.parquet"]
    schemas = [pa.schema(types), pa.schema(types | {"source": pa.string()})]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(paths[0], schemas[0]) as snapshot, pq.ParquetWriter(paths[1], schemas[1]) as validated:
        for start in range(0, rows, BLOCK):
            n = np.arange(start, min(start + BLOCK, rows))
            block: dict[str, Any] = {
                "run": np.char.add("run-", (n // RUN_ROWS).astype(str)),
                "time": pa.array(n * 1_000_000, pa.timestamp("us")),
                "state": np.where(n % RUN_ROWS < RUN_ROWS // 2, "ok", "leak"),
            }
            for name in CHANNELS:
                values = rng.normal(0, 1, len(n))
                block[name] = pa.array(values, mask=rng.random(len(n)) < 0.001)
            table = pa.table(block).cast(schemas[0])
            snapshot.write_table(table)
            shuffled = table.take(rng.permutation(len(n)))
            validated.write_table(shuffled.append_column("source", pa.array(["rig"] * len(n))))


# A small intermediate process starts the stage, because Linux also counts the memory of the process that starts it.
MEASURE = """
import resource, subprocess, sys, time
started = time.monotonic()
code = subprocess.run([sys.executable, "-m", sys.argv[1]]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.monotonic() - started, file=open("usage", "w"))
"""


def measure(root: Path, stage: str) -> tuple[float, float]:
    """Run a stage. Return its peak resident memory in MB and its duration in seconds."""
    subprocess.run([sys.executable, "-c", MEASURE, f"stages.{stage}"], cwd=root, check=True)
    code, peak, seconds = (root / "usage").read_text(encoding="utf-8").split()
    if code != "0":
        raise RuntimeError(f"{stage} ended with exit code {code}")
    per_mb = 1024 * 1024 if sys.platform == "darwin" else 1024
    return float(peak) / per_mb, float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--stages", nargs="+", default=["prepare"], choices=["validate", "prepare"])
    parser.add_argument("--memory-limit", default="2GB", help="memory limit of the engine (compute.memory_limit)")
    parser.add_argument("--folder", type=Path, help="folder for the temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root = Path(temporary)
        shutil.copytree(REPOSITORY / "stages", root / "stages")
        write_table(root, options.rows, options.memory_limit)
        for stage in options.stages:
            peak_mb, seconds = measure(root, stage)
            print(f"{stage}: {options.rows} rows, peak {peak_mb:.0f} MB, {seconds:.1f} s")


if __name__ == "__main__":
    main()
