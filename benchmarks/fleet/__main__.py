"""Measure what a rollout and a plain playbook cost their controller (docs/explanation/benchmarks-fleet.md).

Everything runs on this machine, and the devices share its processors. Ratios can be compared between machines, because
rollout and plain playbook alternate within a run. Seconds cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import accounting
from benchmarks.fleet.runs import THREE_WAVES, BenchFleet, Run, median
from lab import LabError, lab

ROLLOUT, PLAIN = "rollout", "plain"
FLEETS, WORKERS = (1_000, 10_000), (1, 10)
KEYS = tuple(Run.__dataclass_fields__)
Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A least-squares line: `fixed` plus `each` per device. `bend`: relative deviation of the last point from it."""

    fixed: float
    each: float
    bend: float

    def at(self, devices: float) -> float:
        return self.fixed + self.each * devices


def line(sizes: list[int], values: list[float]) -> Line:
    """Fit a line to values that were measured with these numbers of devices."""
    each, fixed = np.polyfit(sizes, values, 1) if len(sizes) > 1 else (values[0] / sizes[0], 0.0)
    return Line(float(fixed), float(each), values[-1] / float(fixed + each * sizes[-1]) - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--agents", type=int, nargs="*", default=[10, 40], metavar="N", help="numbers of devices with real agents"
    )
    parser.add_argument(
        "--stand-ins",
        type=int,
        nargs="*",
        default=[20, 50, 100, 200],
        metavar="N",
        help="numbers of stand-ins, which replace the agent",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="repetitions of a comparison; the median is printed (3)"
    )
    parser.add_argument("--forks", type=int, default=20, metavar="N", help="forks of Ansible (20)")
    parser.add_argument("--archive-kb", type=int, default=1000, metavar="KB", help="size of a release in kB (1000)")
    parser.add_argument(
        "--stand-in-seconds",
        type=float,
        nargs=2,
        default=[0.2, 1.0],
        metavar=("ANSWER", "DEPLOY"),
        help="seconds that a stand-in takes to respond and to deploy (0.2 1.0)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if reason := lab.missing():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    accounting.sweep()
    results: Json = {"machine": _machine(), "options": vars(options)}
    try:
        if options.agents:
            results["compared"] = _compare(options)
        if options.stand_ins:
            results["growth"] = _grow(options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; all devices are removed", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        _print(results)
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _machine() -> Json:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": os.cpu_count(), "memory_gb": round(memory / 1e9, 1), "load_before": round(os.getloadavg()[0], 1)}


def _log(text: str, run: Run | None = None) -> None:
    times = f": {run.wall_s:.1f} s, controller {run.controller_s:.1f} s of processor time" if run else ""
    print(f"{time.strftime('%H:%M:%S')} {text}{times}", file=sys.stderr, flush=True)


def _compare(options: argparse.Namespace) -> Json:
    """Run rollouts and the plain playbook alternately on the same devices."""
    sizes = sorted(options.agents)
    result: Json = {}
    with BenchFleet(sizes[-1], options.repeats * len(sizes) + 2, options.archive_kb, options.forks, None) as fleet:
        for size in sizes:
            fleet.up(size)
            _log(f"{size} devices with agents are up, {fleet.remote.memory_mb() / size:.0f} MB each")
            runs: dict[str, list[Run]] = {ROLLOUT: [], PLAIN: []}
            for _ in range(options.repeats):
                for name, way in ((PLAIN, fleet.plain), (ROLLOUT, fleet.rollout)):
                    runs[name].append(way(size))
                    _log(f"{size} devices, {name}", runs[name][-1])
            result[str(size)] = {name: asdict(median(each)) for name, each in runs.items()}
        waves = fleet.rollout(sizes[-1], THREE_WAVES)
        _log(f"{sizes[-1]} devices, rollout in three waves", waves)
        result[str(sizes[-1])]["three waves"] = asdict(waves)
        result["exchanges"] = {ROLLOUT: fleet.exchanges(fleet.rollout), PLAIN: fleet.exchanges(fleet.plain)}
    return result


def _grow(options: argparse.Namespace) -> Json:
    """Measure the controller's cost of a rollout in one wave with different numbers of devices."""
    sizes = sorted(options.stand_ins)
    runs = []
    with BenchFleet(sizes[-1], len(sizes), options.archive_kb, options.forks, tuple(options.stand_in_seconds)) as fleet:
        for size in sizes:
            fleet.up(size)
            _log(f"{size} stand-ins are up")
            runs.append(fleet.rollout(size))
            _log(f"{size} stand-ins, rollout", runs[-1])
    lines = {
        name: asdict(line(sizes, [getattr(run, name) for run in runs]))
        for name in ("wall_s", "controller_s", "memory_mb")
    }
    return {"runs": {str(size): asdict(run) for size, run in zip(sizes, runs, strict=True)}, "lines": lines}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _print(results: Json) -> None:
    console = Console(width=120)
    machine = results["machine"]
    console.print(
        f"{machine['cores']} cores, {machine['memory_gb']} GB, load of others before the run {machine['load_before']}; "
        f"{results['options']['forks']} forks"
    )
    if "compared" in results:
        _print_compared(console, results["compared"])
    if "growth" in results:
        _print_growth(console, results["growth"], results["options"], machine["cores"])


def _print_compared(console: Console, compared: Json) -> None:
    columns = ("devices with agents", "way", "wall s", "x plain", "controller s", "x plain", "devices' s", "memory MB")
    table = _table("a whole rollout, and a plain playbook of five tasks", *columns)
    sizes = [int(name) for name in compared if name.isdigit()]
    for size in sizes:
        ways = compared[str(size)]
        for name, run in ways.items():
            _add(table, str(size), name, run, ways[PLAIN])
    if len(sizes) > 1:
        marginal = {
            name: {key: line(sizes, [compared[str(size)][name][key] for size in sizes]).each for key in KEYS}
            for name in (PLAIN, ROLLOUT)
        }
        for name, run in marginal.items():
            _add(table, "each more", name, run, marginal[PLAIN])
    console.print(table)
    for name, number in compared["exchanges"].items():
        console.print(f"{name}: {number} exchanges with each device")


def _add(table: Table, first: str, name: str, run: Json, plain: Json) -> None:
    cells = [f"{run['wall_s']:.2f}", f"{run['wall_s'] / plain['wall_s']:.2f}"]
    cells += [f"{run['controller_s']:.2f}", f"{run['controller_s'] / plain['controller_s']:.2f}"]
    table.add_row(first, name, *cells, f"{run['devices_s']:.2f}", f"{run['memory_mb']:.1f}")


def _print_growth(console: Console, growth: Json, options: Json, cores: int) -> None:
    columns = ("stand-ins", "wall s", "each ms", "controller s", "each ms", "memory MB", "processors", "forks")
    table = _table("a rollout by number of devices: the controller's cost", *columns)
    waits = 2 * options["stand_in_seconds"][0] + options["stand_in_seconds"][1]
    for size, run in growth["runs"].items():
        each = [1e3 * run[name] / int(size) for name in ("wall_s", "controller_s")]
        busy = (run["controller_s"] + run["devices_s"]) / run["wall_s"] / cores
        forks = int(size) * waits / run["wall_s"] / options["forks"]
        cells = (f"{run['wall_s']:.1f}", f"{each[0]:.0f}", f"{run['controller_s']:.1f}", f"{each[1]:.0f}")
        table.add_row(size, *cells, f"{run['memory_mb']:.0f}", f"{busy:.0%}", f"{forks:.0%}")
    lines = {name: Line(**fields) for name, fields in growth["lines"].items()}
    wall, processor, memory = lines["wall_s"], lines["controller_s"], lines["memory_mb"]
    cells = (f"{wall.fixed:.1f} +", f"{1e3 * wall.each:.0f}", f"{processor.fixed:.1f} +", f"{1e3 * processor.each:.0f}")
    table.add_row("line", *cells, f"{memory.fixed:.0f} + {memory.each:.2f}", "", "")
    console.print(table)
    console.print(
        f"the largest fleet deviates from the line: wall time {wall.bend:+.0%}, processor time {processor.bend:+.0%}"
    )
    table = _table(
        "extrapolated with these lines; workers are machines like this one", "devices", "workers", "wall s", "memory MB"
    )
    for fleet in FLEETS:
        for workers in WORKERS:
            share = fleet / workers
            table.add_row(str(fleet), str(workers), f"{wall.at(share):.0f}", f"{memory.at(share):.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
