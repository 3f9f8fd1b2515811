"""Run all measurements of the agent's costs one by one (`make bench-agent`; docs/explanation/benchmarks-agent.md).

Ratios can be compared between machines, because each run alternates between the agent and the bare interpreter. Seconds
cannot be compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.agent import inprocess
from benchmarks.agent.service import Bench

EXPORTED = Path(__file__).parents[2] / "models" / "exported"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--exported", type=Path, default=EXPORTED, help="models that `make repro` exported (models/exported)"
    )
    parser.add_argument("--seconds", type=int, default=3, help="seconds of load for each row of the HTTP table (3)")
    parser.add_argument(
        "--predictions", type=int, default=1_000_000, help="number of predictions of the memory test (1000000)"
    )
    arguments = parser.parse_args()
    console = Console(width=110)
    console.print(f"{os.cpu_count()} cores, load of others before the run {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passed = _runtime(console, folder, arguments.exported)
        _engine(console, folder)
        bench = Bench(folder / "service")
        try:
            passed &= _service(console, bench, arguments.seconds, arguments.predictions)
        finally:
            bench.close()
    return 0 if passed else 1


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _runtime(console: Console, folder: Path, exported: Path) -> bool:
    table = _table(
        "one sample, one thread, processor time: Model.predict and the bare interpreter",
        *("model", "bare us", "predict us", "extra us", "allowed us", "extra %", ""),
    )
    passed = True
    for name, file, io in inprocess.models(folder, exported):
        comparison = inprocess.compare(name, file, io)
        within = comparison.extra_s <= comparison.allowed_s
        passed &= within
        times = (comparison.bare_s, comparison.own_s, comparison.extra_s, comparison.allowed_s)
        cells = [f"{1e6 * value:.1f}" for value in times]
        table.add_row(
            name, *cells, f"{100 * comparison.extra_s / comparison.bare_s:.0f}", "ok" if within else "TOO MUCH"
        )
    console.print(table)
    return passed


def _engine(console: Console, folder: Path) -> None:
    times = inprocess.engine(folder)
    table = _table("one tiny ONNX model, one sample each", "way", "us", "x")
    for name, value in (
        ("Model.predict", times.predict_s),
        ("engine and counts, one after the other", times.sequential_s),
        (f"engine and counts, {inprocess.AT_ONCE} at once", times.together_s),
    ):
        table.add_row(name, f"{1e6 * value:.1f}", f"{value / times.predict_s:.2f}")
    console.print(table)


def _service(console: Console, bench: Bench, seconds: int, predictions: int) -> bool:
    ready_s, status_s = bench.starts(5)
    with bench.device.serving() as served:
        served.ready()
        pid = served.process.pid
        loads = bench.load(seconds)
        requests_mb = psutil.Process(pid).memory_info().rss / 1e6
    with bench.device.serving() as served:
        served.ready()
        memory = bench.memory(served.process.pid, predictions)
        switches = [bench.switch(clients, 4) for clients in (1, 8)]
    table = _table(
        "HTTP on loopback, wrk on the same cores", "body", "clients", "requests/s", "p50 ms", "p99 ms", "failed"
    )
    for load in loads:
        times = (f"{load.per_second:.0f}", f"{load.p50_ms:.2f}", f"{load.p99_ms:.2f}")
        table.add_row(load.body, str(load.clients), *times, str(load.refused), str(load.failed))
    console.print(table)
    columns = ("clients", "switches", "answered", "lost", "longest gap ms", "without ms")
    table = _table("activate under load", *columns)
    for switch in switches:
        counts = (switch.clients, switch.switches, switch.answered, switch.lost)
        table.add_row(*map(str, counts), f"{switch.gap_ms:.0f}", f"{switch.still_gap_ms:.0f}")
    console.print(table)
    console.print(f"memory: {memory.rest_mb:.1f} MB at rest, {requests_mb:.1f} MB after the load above")
    console.print(
        f"memory: {memory.first_mb:.1f} MB after a tenth of {memory.predictions} predictions, "
        f"{memory.last_mb:.1f} MB after all of them ({memory.seconds:.0f} s); "
        f"slope {memory.slope_kb:+.1f} kB per 100000"
    )
    console.print(f"start: {ready_s:.2f} s from spawn to /readyz 200; status {status_s:.2f} s (medians of 5)")
    lost = sum(switch.lost for switch in switches) + sum(load.failed for load in loads)
    return lost == 0


if __name__ == "__main__":
    sys.exit(main())
