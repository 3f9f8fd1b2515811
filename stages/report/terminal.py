"""Print tables on the terminal. A verdict is always written as a word, so that users can read it without colour."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PASS, FAIL = "[green]pass[/]", "[bold red]FAIL[/]"

# For each column: the title in two lines, the key in reports/metrics.json, and the format of the number.
COLUMNS = (
    ("\naccuracy", "accuracy", "{:.2%}"),
    ("F1\nmacro", "f1_macro", "{:.2%}"),
    ("\nsize", "size_kb", "{:.1f} kB"),
    ("\ncompression", "compression", "{:.2f}x"),
    ("latency\np95", "latency_p95_ms", "{:.3f} ms"),
    ("\nagreement", "agreement", "{:.2%}"),
    ("\nretention", "retention", "{:.2%}"),
)

F1 = [key for _, key, _ in COLUMNS].index("f1_macro")


def _console() -> Console:
    """Return a console that is as wide as the terminal, or 140 columns wide for a pipe or a log."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def print_gate(gate: Mapping[str, Any]) -> None:
    """Print the gate's checks, the reasons why targets are left out of the bundle, the gate's notes, and the verdict.

    `gate` is the content of reports/gate.json.
    """
    table = Table(title=f"Gate: {gate['name']}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("target")
    table.add_column("check")
    table.add_column("found", justify="right")
    table.add_column("needed", justify="right")
    table.add_column("verdict")
    previous = None
    for check in gate["checks"]:
        value, needed = _short(check["value"]), f"{check['operator']} {_short(check['threshold'])}"
        value += f" {escape(check['note'])}" if check.get("note") else ""
        target = check["target"] if check["target"] != previous else ""
        table.add_row(target, check["name"], value, needed, PASS if check["passed"] else FAIL)
        previous = check["target"]
    console = _console()
    console.print(table)
    for check in gate["checks"]:
        if gate["passed"] and not check["passed"]:  # if the gate fails, the message of `enforce` has these lines
            reason = f"{check['target']} is left out of the bundle because of {check['name']}: {check['reason']}"
            console.print(reason, soft_wrap=True, markup=False)
    for note in gate["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"gate: {PASS if gate['passed'] else FAIL}")


def print_summary(
    name: str,
    targets: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Mapping[str, Any]],
    lines: Sequence[tuple[str, str]],
    current: bool,
) -> None:
    """Print a table of the targets, a table of the splits, and lines with other information.

    Args:
        name: The task's name.
        targets: For each target, its name, the numbers that `COLUMNS` lists, and its verdict.
        splits: For each split, the number of `samples` and the `accuracy` of the trained float network; each is None if
            it was not recorded.
        lines: For each line, a title of at most seven letters and a text.
        current: Whether the verdict is for the current files and parameters. If false, each row shows that its verdict
            is from an earlier run.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column(f"\n{name}", style="bold")
    for title, _, _ in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("\nverdict")
    for row in targets:
        cells = [_cell(form, row.get(key)) for _, key, form in COLUMNS]
        if over := row.get("classes_with_samples"):
            cells[F1] = escape(f"{'undefined' if row.get('f1_macro') is None else cells[F1]}\n{over.partition(':')[0]}")
        table.add_row(row["target"], *cells, _verdict(row) if current else f"{_verdict(row)}, from an earlier run")
    console = _console()
    console.print()
    console.print(table)
    console.print()
    console.print(_split_table(splits))
    console.print()
    for title, text in lines:
        console.print(f"{title:<8}{text}", soft_wrap=True, markup=False)


def _split_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("split", style="bold")
    table.add_column("samples", justify="right")
    table.add_column("accuracy of the float network", justify="right")
    for name, own in splits.items():
        table.add_row(name, _cell("{:,}", own["samples"]), _cell("{:.2%}", own["accuracy"]))
    return table


def _cell(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)


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
