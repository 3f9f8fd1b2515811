"""Check the snapshot against the data contract; quarantine the rows that break it.

Reads  data/snapshot/<source>/*.parquet, tasks/<task>/expectations.json
Writes data/validated/<source>/, data/quarantine/<source>/, reports/quality.json, reports/data_docs/
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stages.core import command
from stages.core.errors import CombinedError, ContractError, StageError
from stages.core.files import new_directory, write_json
from stages.core.progress import watched
from stages.params import Params, load, task_folder, where
from stages.tables.engine import Engine, settled
from stages.tables.parquet import parquet_files, write_parquet
from stages.validate import contract as contracts
from stages.validate.quality import METRICS, Counts, Share, judge, table
from stages.validate.row_rules import Rule, rules, text_of
from stages.validate.violations import REFUSED, explain, order, write_bad

if TYPE_CHECKING:
    import ibis.expr.types as ir

SNAPSHOT = Path("data/snapshot")
VALIDATED = Path("data/validated")
QUARANTINE = Path("data/quarantine")
QUALITY = Path("reports/quality.json")
DATA_DOCS = Path("reports/data_docs")


@dataclass
class Checked:
    """One source after the check: its rows with flags, and what was counted."""

    name: str
    flagged: ir.Table
    failing: list[Rule]
    counts: Counts
    quarantined: int
    profile: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, dict[str, float | None]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    later: dict[str, Any] = field(default_factory=dict)  # kept rows after the snapshot: how many, the last one's time


def check(engine: Engine, name: str, paths: list[Path], earlier: list[Checked], params: Params) -> Checked:
    """Check one source; what an `earlier` one holds and keeps is a copy here.

    Raises CombinedError for faults of the table as a whole.
    """
    from stages.validate import cross_source_duplicates, source_profile

    data, contract = params.data, params.validation
    raw = engine.read(paths)
    faults = contracts.check_columns(raw, name, contract)
    if faults:
        raise CombinedError(faults)
    rows_table = contracts.canonical(raw, contract)
    rows, there = source_profile.count_cells(rows_table, contract)
    if rows == 0:
        raise ContractError(f"source {name}", "it has no rows", "at least one", "mend the source (collect.sources)")
    empty = [column for column, n in there.items() if n == 0]
    texts = contracts.text_columns(raw, contract)
    if empty:
        raise CombinedError([_empty(name, column, rows, rows_table, column in texts, params) for column in empty])

    every = rules(data, contract, params.collect.snapshot, texts)
    if len(params.collect.sources) > 1:
        every.append(cross_source_duplicates.rule(data))
        before = [contracts.kept(source.flagged, source.failing) for source in earlier]
        rows_table = cross_source_duplicates.mark(engine, rows_table, before, data, list(contract.columns))
    failing = contracts.broken(rows_table, every)
    flagged = contracts.flagged(rows_table, failing)
    lost = contracts.count_broken(flagged, failing)
    counts = Counts(
        rows=rows,
        cells={column: Share(n, rows) for column, n in there.items()},
        consistent=_consistency(paths, every, lost, rows, params),
        plausible=Share(rows - lost.by_metric["accuracy"], rows) if contract.plausibility else Share(),
        fresh=Share(rows - lost.by_metric["timeliness"], rows) if contract.freshness else Share(),
        valid=Share(rows - lost.by_metric["validity"], rows),
        broken={
            metric: {r.reason: lost.by_rule[r.reason] for r in failing if r.metric == metric} for metric in METRICS
        },
    )
    checked = Checked(name, flagged, failing, counts, lost.rows, reasons=lost.by_rule)
    kept = contracts.kept(flagged, failing)
    if data.time is not None:
        after = kept.filter(kept[data.time] > params.collect.snapshot.astimezone(UTC).replace(tzinfo=None))
        checked.later = after.aggregate(rows=after.count(), last=after[data.time].max()).to_pyarrow().to_pylist()[0]
    found = source_profile.figures(kept, contract)
    classes = source_profile.class_counts(kept, data)
    null_shares = {column: settled(1 - n / rows) or 0.0 for column, n in there.items()}
    checked.profile = source_profile.describe(
        name, rows - lost.rows, source_profile.group_count(kept, data), classes, null_shares, found
    )
    checked.columns = {
        column: {"null_share": null_shares[column], "min": None, "max": None, "mean": None}
        | {figure: value for figure, value in found.get(column, {}).items() if figure != "std"}
        for column in contract.columns
    }
    return checked


def _empty(source: str, column: str, rows: int, table: ir.Table, text: bool, params: Params) -> ContractError:
    if text and contracts.examples(table, text_of(column)):
        return contracts.no_value(source, column, table, params.validation)
    return ContractError(
        f"source {source}, column {column}",
        f"it is missing in all {rows} rows",
        "values",
        "mend the source, or take the column out of the contract (validate.columns)",
    )


def _consistency(
    paths: list[Path], every: list[Rule], lost: contracts.Broken, rows: int, params: Params
) -> dict[str, Share]:
    data, contract = params.data, params.validation
    of_rows = [rule for rule in every if rule.metric == "consistency"]
    shares = {rule.reason: Share(rows - lost.by_rule.get(rule.reason, 0), rows) for rule in of_rows}
    if data.time is not None:
        from stages.validate.sampling_steps import count_steps

        sampling = contract.sampling
        interval, tolerance = (sampling.interval_s, sampling.tolerance_s) if sampling else (0.0, 0.0)
        steps = count_steps(paths, data.group, data.time, interval, tolerance)
        shares[f"{data.time}: not in order"] = Share(steps.forward, steps.total)
        if sampling:
            shares[f"{data.time}: step is not {interval:g} s +- {tolerance:g} s"] = Share(steps.regular, steps.total)
    return shares


def check_whole(sources: list[Checked], params: Params) -> list[StageError]:
    """Faults that only all sources together show: one class only, a channel that never changes."""
    data = params.data
    faults: list[StageError] = []
    seen = {label for s in sources for label in data.classes if (s.profile[f"share.{label}"] or 0) > 0}
    if len(seen) < 2:
        found = f"only the class {seen.pop()!r}" if seen else "no known class"
        faults.append(
            ContractError(
                f"column {data.label}",
                f"found {found} in the rows that were kept",
                f"at least two of {', '.join(data.classes)}",
                "collect rows of the other classes",
            )
        )
    for column in data.columns:
        lows = {s.profile[f"min.{column}"] for s in sources} - {None}
        highs = {s.profile[f"max.{column}"] for s in sources} - {None}
        if len(lows | highs) == 1:
            faults.append(
                ContractError(
                    f"column {column}",
                    f"it is {lows.pop():g} in every row",
                    "a channel that changes: a constant one carries nothing and cannot be standardised",
                    "mend the sensor, or take the channel out (data.channels and validate.columns)",
                )
            )
    return faults


def report(sources: list[Checked], params: Params) -> dict[str, Any]:
    """What reports/quality.json holds."""
    thresholds = params.validation.thresholds
    total = sum((s.counts for s in sources), Counts())
    quarantined = sum(s.quarantined for s in sources)
    reasons = sum((Counter(s.reasons) for s in sources), Counter[str]())
    return {
        "overall": judge(total, thresholds),
        "sources": {
            s.name: judge(s.counts, thresholds) | {"rows": s.counts.rows, "quarantined": s.quarantined} for s in sources
        },
        "quarantine": {"rows": quarantined, "share": quarantined / total.rows, "reasons": dict(reasons)},
        "columns": {s.name: s.columns for s in sources},
    }


def refuse_below_thresholds(quality: dict[str, Any], sources: list[Checked], engine: Engine, params: Params) -> None:
    """Raise ContractError with a table of what is below its threshold, and of the rows that break the contract.

    Those rows are then in .work/refused: the quarantine keeps what the last good run put there.
    """
    largest_share = params.validation.quarantine_share
    places = {"overall": quality["overall"], **{f"source {n}": v for n, v in quality["sources"].items()}}
    low = [
        (where, metric, judged[metric]["value"], judged[metric]["threshold"], judged[metric]["worst_columns"])
        for where, judged in places.items()
        for metric in METRICS
        if not judged[metric]["passed"]
    ]
    quarantine = quality["quarantine"]
    if not low and quarantine["share"] <= largest_share:
        return
    told: dict[str, str] = {}
    with new_directory(REFUSED) as folder:
        for s in (s for s in sources if s.quarantined):
            told = dict(explain(s.name, s.flagged, s.failing, params.data)) | told
            write_bad(folder / s.name, s.flagged, s.failing, engine, params)
    reasons = "".join(
        f"\n    {n} row(s): {reason}{told[reason]}" for reason, n in sorted(quarantine["reasons"].items())
    )
    remedy = f"mend the source, or the contract in {where('validate')}"
    remedy += f"; the rows with their reasons lie in {REFUSED}/" if reasons else ""
    if low:
        found = f"quality is below its threshold\n{table(low)}"
        found += f"\n  rows that break the contract:{reasons}" if reasons else ""
        raise ContractError("data/snapshot", found, "every metric at or above its threshold", remedy)
    found = f"{quarantine['rows']} rows ({quarantine['share']:.2%}) would go to quarantine{reasons}"
    raise ContractError("data/snapshot", found, f"at most {largest_share:.2%} (quarantine_share)", remedy)


def write(sources: list[Checked], engine: Engine, params: Params) -> None:
    """The rows that were kept, and those that were not with the reason, in an order that the data alone decides."""
    import ibis

    schema = contracts.arrow_schema(params.validation).append(pa.field("source", pa.string()))
    with new_directory(VALIDATED) as validated, new_directory(QUARANTINE) as quarantine:
        for s in sources:
            good = contracts.kept(s.flagged, s.failing).mutate(source=ibis.literal(s.name)).order_by(order(params))
            batches = watched(engine.stream(good, schema), f"validate {s.name}", s.counts.rows - s.quarantined)
            write_parquet(validated / s.name / "part-00000.parquet", batches, schema)
            write_bad(quarantine / s.name, s.flagged, s.failing, engine, params)


def main() -> None:
    command.parser("validate", __doc__).parse_args()
    # pandera imports pyspark where that is installed, whichever engine is asked for.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    params = load()
    contracts.check_parameters(params.data, params.validation)
    suite_path = task_folder() / "expectations.json"

    from stages.validate.expectations import read_suite, run_suite

    suite = read_suite(suite_path)
    sources = sorted(params.collect.sources)
    with Engine(params.compute) as engine:
        checked, faults = list[Checked](), list[StageError]()
        for name in sources:
            try:
                checked.append(check(engine, name, parquet_files(SNAPSHOT / name), checked, params))
            except CombinedError as error:
                faults += error.errors
            except StageError as error:
                faults.append(error)
        if faults:
            raise CombinedError(faults)
        quality = report(checked, params)
        refuse_below_thresholds(quality, checked, engine, params)
        faults = check_whole(checked, params)
        if faults:
            raise CombinedError(faults)
        with new_directory(DATA_DOCS) as data_docs:
            import pandas as pd

            profile = pd.DataFrame([s.profile for s in checked])
            faults = run_suite(profile, suite, suite_path, params.collect.snapshot, data_docs)
            if faults:
                raise CombinedError(faults)
            write(checked, engine, params)
            write_json(QUALITY, quality)
        shutil.rmtree(REFUSED, ignore_errors=True)
    for source in checked:
        if source.later.get("rows"):
            print(
                f"warning: source {source.name}: {source.later['rows']} row(s) are of a time after the snapshot "
                f"(collect.snapshot), the last of {source.later['last']}; validate.freshness would quarantine them"
            )
    overall = ", ".join(f"{metric} {judged['value']:.4f}" for metric, judged in quality["overall"].items())
    rows = sum(s.counts.rows for s in checked)
    print(f"validated {rows} rows of {len(checked)} source(s), {quality['quarantine']['rows']} quarantined; {overall}")
