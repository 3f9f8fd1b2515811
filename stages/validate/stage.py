"""Check the snapshot against the data contract, and quarantine the rows that violate the contract.

Reads  data/snapshot/<source>/*.parquet, tasks/<task>/expectations.json
Writes data/validated/<source>/, data/quarantine/<source>/, reports/quality.json, reports/data_docs/
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core import command
from stages.core.errors import CombinedError, ContractError, StageError
from stages.core.files import new_directory, write_json
from stages.core.progress import report_rows
from stages.params import Params, find_task_folder, load, locate_parameter
from stages.tables.engine import Engine
from stages.tables.parquet import list_parquet_files, write_parquet
from stages.validate.check_sources import CheckedSource, FlaggedSource, check_sources, flag_source
from stages.validate.contract import arrow_schema
from stages.validate.parameters import check_parameters
from stages.validate.quality import METRICS, Counts, format_table, judge_metrics
from stages.validate.violations import VIOLATIONS, explain_violations, row_order, write_violations

SNAPSHOT = Path("data/snapshot")
VALIDATED = Path("data/validated")
QUARANTINE = Path("data/quarantine")
QUALITY = Path("reports/quality.json")
DATA_DOCS = Path("reports/data_docs")


def check_combined(sources: list[CheckedSource], params: Params) -> list[StageError]:
    """Return the errors in the combined valid rows of all sources.

    It is an error if the rows have fewer than two classes, or if a channel has the same value in all rows.
    """
    data = params.data
    faults: list[StageError] = []
    present = {label for s in sources for label in data.classes if (s.profile.row[f"share.{label}"] or 0) > 0}
    if len(present) < 2:
        classes = f"only the class {present.pop()!r}" if present else "no known class"
        faults.append(
            ContractError(
                f"column {data.label}",
                f"found {classes} in the valid rows",
                f"at least two of the classes {', '.join(data.classes)}",
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
                    f"its value is {lows.pop():g} in every row",
                    "a channel whose values vary, because a constant channel has no information and cannot be "
                    "standardised",
                    "repair the sensor, or remove the channel (data.channels and validate.columns)",
                )
            )
    return faults


def quality_report(sources: list[CheckedSource], params: Params) -> dict[str, Any]:
    """Return the contents of reports/quality.json."""
    thresholds = params.validation.thresholds
    total = sum((s.counts for s in sources), Counts())
    quarantined = sum(s.violations.rows for s in sources)
    reasons = sum((Counter(s.violations.by_rule) for s in sources), Counter[str]())
    return {
        "overall": judge_metrics(total, thresholds),
        "sources": {
            s.name: judge_metrics(s.counts, thresholds) | {"rows": s.counts.rows, "quarantined": s.violations.rows}
            for s in sources
        },
        "quarantine": {"rows": quarantined, "share": quarantined / total.rows, "reasons": dict(reasons)},
        "columns": {s.name: s.profile.columns for s in sources},
    }


def refuse_below_thresholds(
    quality: dict[str, Any], sources: list[CheckedSource], engine: Engine, params: Params
) -> None:
    """Raise ContractError if a metric is below its threshold, or if too many rows violate the contract.

    Before the error is raised, the rows that violate the contract are written to .work/refused. The quarantine of the
    last successful run is unchanged.

    Args:
        quality: The contents of reports/quality.json.
        sources: All sources with the results of their checks.
        engine: The table engine (DuckDB or Spark) that runs the queries.
        params: All parameters.
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
    details: dict[str, str] = {}
    with new_directory(VIOLATIONS) as folder:
        for s in (s for s in sources if s.violations.rows):
            details = dict(explain_violations(s.name, s.flagged, params.data)) | details
            write_violations(folder / s.name, s.flagged, engine, params)
    reasons = "".join(
        f"\n    {n} row(s): {reason}{details[reason]}" for reason, n in sorted(quarantine["reasons"].items())
    )
    remedy = f"correct the source, or the contract in {locate_parameter('validate')}"
    if any(rule.text_column and rule.reason in quarantine["reasons"] for s in sources for rule in s.flagged.violated):
        remedy += "; if a word means a missing value, write it into `missing_values` of the CSV format"
    remedy += f"; the rows with their reasons are in {VIOLATIONS}/" if reasons else ""
    if low:
        problem = f"the quality is below a threshold\n{format_table(low)}"
        problem += f"\n  rows that violate the contract:{reasons}" if reasons else ""
        raise ContractError("data/snapshot", problem, "every metric at or above its threshold", remedy)
    problem = f"{quarantine['rows']} rows ({quarantine['share']:.2%}) would go to quarantine{reasons}"
    raise ContractError("data/snapshot", problem, f"at most {largest_share:.2%} of the rows (quarantine_share)", remedy)


def write_rows(sources: list[CheckedSource], engine: Engine, params: Params) -> None:
    """Write the valid rows to data/validated, and the other rows, with the violated rules, to data/quarantine.

    The rows are sorted, so that the order of the rows in the snapshot does not matter.

    Args:
        sources: All sources with the results of their checks.
        engine: The table engine (DuckDB or Spark) that runs the queries.
        params: All parameters.
    """
    import ibis

    schema = arrow_schema(params.validation).append(pa.field("source", pa.string()))
    with new_directory(VALIDATED) as validated, new_directory(QUARANTINE) as quarantine:
        for s in sources:
            good = s.flagged.valid_rows().mutate(source=ibis.literal(s.name)).order_by(row_order(params))
            batches = report_rows(engine.stream(good, schema), f"validate {s.name}", s.counts.rows - s.violations.rows)
            write_parquet(validated / s.name / "part-00000.parquet", batches, schema)
            write_violations(quarantine / s.name, s.flagged, engine, params)


def main() -> None:
    """Run the `validate` stage in the current directory."""
    command.parser("validate", __doc__).parse_args()
    # pandera imports pyspark if it is installed, even for the engine duckdb.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    params = load()
    check_parameters(params.data, params.validation)
    suite_path = find_task_folder() / "expectations.json"

    from stages.validate.expectations import read_suite, run_suite

    suite = read_suite(suite_path)
    sources = sorted(params.collect.sources)
    with Engine(params.compute) as engine:
        flagged, faults = list[FlaggedSource](), list[StageError]()
        for name in sources:
            try:
                paths = list_parquet_files(SNAPSHOT / name)
                flagged.append(flag_source(engine, name, paths, flagged, params))
            except CombinedError as error:
                faults += error.errors
            except StageError as error:
                faults.append(error)
        if faults:
            raise CombinedError(faults)
        checked = check_sources(engine, flagged, params)
        quality = quality_report(checked, params)
        refuse_below_thresholds(quality, checked, engine, params)
        faults = check_combined(checked, params)
        if faults:
            raise CombinedError(faults)
        with new_directory(DATA_DOCS) as data_docs:
            import pandas as pd

            profile = pd.DataFrame([s.profile.row for s in checked])
            faults = run_suite(profile, suite, suite_path, params.collect.snapshot, data_docs)
            if faults:
                raise CombinedError(faults)
            write_rows(checked, engine, params)
            write_json(QUALITY, quality)
        shutil.rmtree(VIOLATIONS, ignore_errors=True)
    for source in checked:
        later = source.profile.later
        if later.get("rows"):
            print(
                f"warning: source {source.name}: {later['rows']} row(s) have a time after the snapshot "
                f"(collect.snapshot), the latest is {later['last']}; validate.freshness would quarantine them"
            )
    overall = ", ".join(f"{metric} {judged['value']:.4f}" for metric, judged in quality["overall"].items())
    rows = sum(s.counts.rows for s in checked)
    print(f"validated {rows} rows of {len(checked)} source(s), {quality['quarantine']['rows']} quarantined; {overall}")
