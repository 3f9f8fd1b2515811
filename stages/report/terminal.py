"""Tables for the terminal. A verdict is a word, never a colour alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

PASS, FAIL = "[green]pass[/]", "[bold red]FAIL[/]"

# Column title, key in reports/metrics.json, format.
COLUMNS = (
    ("accuracy", "accuracy", "{:.2%}"),
    ("F1 macro", "f1_macro", "{:.2%}"),
    ("size", "size_kb", "{:.1f} kB"),
    ("latency p95", "latency_p95_ms", "{:.3f} ms"),
    ("agreement", "agreement", "{:.2%}"),
    ("retention", "retention", "{:.2%}"),
)


def _console() -> Console:
    """As wide as the terminal; a pipe or a log has no width to keep."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def print_gate(gate: Mapping[str, Any]) -> None:
    """Every check of the gate; below it why a target that is not required is left out."""
    table = Table(title=f"Gate: {gate['name']}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("target")
    table.add_column("check")
    table.add_column("found", justify="right")
    table.add_column("needed", justify="right")
    table.add_column("verdict")
    before = None
    for check in gate["checks"]:
        found, needed = _short(check["value"]), f"{check['operator']} {_short(check['threshold'])}"
        target = check["target"] if check["target"] != before else ""
        table.add_row(target, check["name"], found, needed, PASS if check["passed"] else FAIL)
        before = check["target"]
    console = _console()
    console.print(table)
    for check in gate["checks"]:
        if gate["passed"] and not check["passed"]:  # where the gate fails, the stage ends with these lines
            reason = f"{check['target']} is left out of the bundle, since {check['name']}: {check['reason']}"
            console.print(reason, soft_wrap=True, markup=False)
    for note in gate["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"gate: {PASS if gate['passed'] else FAIL}")


def print_summary(
    name: str, rows: Sequence[Mapping[str, Any]], places: Sequence[tuple[str, str]], current: bool
) -> None:
    """A row per target; below it, where things are. A verdict that is not on what lies there now says so itself."""
    table = Table(box=None, pad_edge=False)
    table.add_column(name, style="bold")
    for title, _, _ in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("verdict")
    for row in rows:
        cells = [form.format(row[key]) if row.get(key) is not None else "-" for _, key, form in COLUMNS]
        table.add_row(row["target"], *cells, _verdict(row) if current else f"{_verdict(row)}, of an earlier run")
    console = _console()
    console.print()
    console.print(table)
    console.print()
    for title, place in places:
        console.print(f"{title:<8}{place}", soft_wrap=True, markup=False)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["passed"]:
        return PASS
    reasons = ", ".join(row["failed"])
    return f"{FAIL}: {reasons}" if row["required"] else f"{FAIL}, left out: {reasons}"


def _short(value: float | str | None) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return value[:12]
    return f"{value:.4g}"
