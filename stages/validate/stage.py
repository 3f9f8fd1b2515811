"""Check the snapshot against the data contract; quarantine the rows that break it.

Reads  data/snapshot/<source>/*.parquet, tasks/<task>/expectations.json
Writes data/validated/<source>/, data/quarantine/<source>/, reports/quality.json, reports/data_docs/
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core import command
from stages.core.errors import CombinedError, ContractError, StageError
from stages.core.files import new_directory, write_json
from stages.core.progress import watched
from stages.params import Params, load, task_folder, where
from stages.tables.engine import Engine
from stages.tables.parquet import parquet_files, write_parquet
from stages.validate import cross_source_duplicates
from stages.validate.contract import arrow_schema, conform
from stages.validate.flagged_rows import BrokenCounts, FlaggedRows, flag_rows
from stages.validate.parameters import check_parameters
from stages.validate.quality import METRICS, Counts, count, judge, table
from stages.validate.row_rules import rules
from stages.validate.sampling_steps import step_shares
from stages.validate.source_profile import Profile, gather
from stages.validate.violations import REFUSED, explain, order, write_bad

SNAPSHOT = Path("data/snapshot")
VALIDATED = Path("data/validated")
QUARANTINE = Path("data/quarantine")
QUALITY = Path("reports/quality.json")
DATA_DOCS = Path("reports/data_docs")


@dataclass(frozen=True)
class Checked:
    """One source after the check: its rows with flags, what was counted, and what describes it."""

    name: str
    flagged: FlaggedRows
    counts: Counts
    broken: BrokenCounts
    profile: Profile


def check(engine: Engine, name: str, paths: list[Path], earlier: list[Checked], params: Params) -> Checked:
    """Check one source; what an `earlier` one holds and keeps is a copy here.

    Raises CombinedError for faults of the table as a whole.
    """
    data, contract, snapshot = params.data, params.validation, params.collect.snapshot
    source = conform(engine.read(paths), name, contract)
    rows, every = source.table, rules(data, contract, snapshot, source.texts)
    if len(params.collect.sources) > 1:
        every.append(cross_source_duplicates.rule(data))
        before = [other.flagged.valid() for other in earlier]
        rows = cross_source_duplicates.mark(engine, rows, before, data, list(contract.columns))
    flagged = flag_rows(rows, every)
    broken = flagged.count()
    counts = count(source, every, broken, step_shares(paths, data, contract.sampling), contract)
    profile = gather(source, flagged.valid(), source.rows - broken.rows, data, contract, snapshot)
    return Checked(name, flagged, counts, broken, profile)


def check_whole(sources: list[Checked], params: Params) -> list[StageError]:
    """Faults that only all sources together show: one class only, a channel that never changes."""
    data = params.data
    faults: list[StageError] = []
    seen = {label for s in sources for label in data.classes if (s.profile.row[f"share.{label}"] or 0) > 0}
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
        lows = {s.profile.row[f"min.{column}"] for s in sources} - {None}
        highs = {s.profile.row[f"max.{column}"] for s in sources} - {None}
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
    quarantined = sum(s.broken.rows for s in sources)
    reasons = sum((Counter(s.broken.by_rule) for s in sources), Counter[str]())
    return {
        "overall": judge(total, thresholds),
        "sources": {
            s.name: judge(s.counts, thresholds) | {"rows": s.counts.rows, "quarantined": s.broken.rows} for s in sources
        },
        "quarantine": {"rows": quarantined, "share": quarantined / total.rows, "reasons": dict(reasons)},
        "columns": {s.name: s.profile.columns for s in sources},
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
        for s in (s for s in sources if s.broken.rows):
            told = dict(explain(s.name, s.flagged, params.data)) | told
            write_bad(folder / s.name, s.flagged, engine, params)
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

    schema = arrow_schema(params.validation).append(pa.field("source", pa.string()))
    with new_directory(VALIDATED) as validated, new_directory(QUARANTINE) as quarantine:
        for s in sources:
            good = s.flagged.valid().mutate(source=ibis.literal(s.name)).order_by(order(params))
            batches = watched(engine.stream(good, schema), f"validate {s.name}", s.counts.rows - s.broken.rows)
            write_parquet(validated / s.name / "part-00000.parquet", batches, schema)
            write_bad(quarantine / s.name, s.flagged, engine, params)


def main() -> None:
    command.parser("validate", __doc__).parse_args()
    # pandera imports pyspark where that is installed, whichever engine is asked for.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    params = load()
    check_parameters(params.data, params.validation)
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

            profile = pd.DataFrame([s.profile.row for s in checked])
            faults = run_suite(profile, suite, suite_path, params.collect.snapshot, data_docs)
            if faults:
                raise CombinedError(faults)
            write(checked, engine, params)
            write_json(QUALITY, quality)
        shutil.rmtree(REFUSED, ignore_errors=True)
    for source in checked:
        later = source.profile.later
        if later.get("rows"):
            print(
                f"warning: source {source.name}: {later['rows']} row(s) are of a time after the snapshot "
                f"(collect.snapshot), the last of {later['last']}; validate.freshness would quarantine them"
            )
    overall = ", ".join(f"{metric} {judged['value']:.4f}" for metric, judged in quality["overall"].items())
    rows = sum(s.counts.rows for s in checked)
    print(f"validated {rows} rows of {len(checked)} source(s), {quality['quarantine']['rows']} quarantined; {overall}")
