"""Check the rows of all sources against the data contract, and compute the counts and statistics of each source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from stages.params import Params
from stages.tables.engine import Engine
from stages.validate import cross_source_duplicates
from stages.validate.contract import SourceTable, conform
from stages.validate.flagged_rows import FlaggedRows, ViolationCounts, flag_violations
from stages.validate.quality import Counts, count_source
from stages.validate.row_rules import Rule, build_rules
from stages.validate.sampling_steps import step_shares
from stages.validate.source_profile import Profile, profile_source


@dataclass(frozen=True)
class CheckedSource:
    """A source of the snapshot, with the results of its check against the data contract.

    name: Name of the source.
    flagged: The rows of the source, with flags for violated rules.
    counts: The counts from which the quality metrics of the source are computed.
    violations: The numbers of rows that violate rules.
    profile: Statistics of the source, for the quality report and great-expectations.
    """

    name: str
    flagged: FlaggedRows
    counts: Counts
    violations: ViolationCounts
    profile: Profile


@dataclass(frozen=True)
class FlaggedSource:
    """A source of the snapshot, with flags for the rows that violate the data contract.

    source: The canonical table of the source.
    paths: The parquet files of the source.
    rules: The rules against which the rows were checked.
    flagged: The rows, with flags for violated rules.
    """

    source: SourceTable
    paths: list[Path]
    rules: list[Rule]
    flagged: FlaggedRows


def flag_source(
    engine: Engine, name: str, paths: list[Path], earlier: list[FlaggedSource], params: Params
) -> FlaggedSource:
    """Check the rows of one source against the data contract.

    Args:
        engine: The table engine (DuckDB or Spark) that runs the queries.
        name: Name of the source.
        paths: The parquet files of the source.
        earlier: The sources that have already been checked. A row that also occurs in the valid rows of such a source
            is a duplicate.
        params: All parameters.

    Raises:
        CombinedError: Columns of the source are missing, additional, empty or of the wrong type.
    """
    data, contract, snapshot = params.data, params.validation, params.collect.snapshot
    source = conform(engine.read(paths), name, contract)
    rows, row_rules = source.table, build_rules(data, contract, snapshot, source.parsed_text)
    if len(params.collect.sources) > 1:
        row_rules.append(cross_source_duplicates.duplicate_rule(data))
        before = [other.flagged.valid_rows() for other in earlier]
        rows = cross_source_duplicates.mark_duplicates(engine, rows, before, data, list(contract.columns))
    return FlaggedSource(source, paths, row_rules, flag_violations(rows, row_rules))


def check_sources(engine: Engine, sources: list[FlaggedSource], params: Params) -> list[CheckedSource]:
    """Flag the rows with which another source disagrees, and compute the counts and statistics of all sources.

    Args:
        engine: The table engine (DuckDB or Spark) that runs the queries.
        sources: All sources of the snapshot.
        params: All parameters.
    """
    if len(sources) == 1:
        return [measure_source(sources[0], params)]
    flagged = cross_source_duplicates.flag_conflicts(engine, [s.flagged for s in sources], params.data)
    rule = cross_source_duplicates.conflict_rule(params.data)
    return [
        measure_source(replace(s, flagged=rows, rules=[*s.rules, rule]), params)
        for s, rows in zip(sources, flagged, strict=True)
    ]


def measure_source(flagged: FlaggedSource, params: Params) -> CheckedSource:
    """Compute the counts and statistics of a source whose rows are flagged."""
    data, contract, snapshot = params.data, params.validation, params.collect.snapshot
    source, violations = flagged.source, flagged.flagged.count()
    steps = step_shares(flagged.paths, data, contract.sampling)
    counts = count_source(source, flagged.rules, violations, steps, contract)
    valid = flagged.flagged.valid_rows()
    profile = profile_source(source, valid, source.rows - violations.rows, data, contract, snapshot)
    return CheckedSource(source.name, flagged.flagged, counts, violations, profile)
