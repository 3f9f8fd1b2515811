"""Report the rows that violate the data contract: examples for error messages, and a file with all these rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.tables.engine import Engine
from stages.tables.parquet import write_parquet
from stages.validate.contract import arrow_schema, example_values

if TYPE_CHECKING:
    from stages.params import Params
    from stages.params.common import Data
    from stages.validate.flagged_rows import FlaggedRows

VIOLATIONS = Path(".work/refused")


def row_order(params: Params) -> list[str]:
    """Return the names of the columns by which rows are sorted: group, time, then all other columns.

    Sorted rows do not depend on the order of the rows in the snapshot.
    """
    data = params.data
    first = [data.group] + ([data.time] if data.time else [])
    return first + [name for name in params.validation.columns if name not in first]


def explain_violations(name: str, flagged: FlaggedRows, data: Data) -> Iterator[tuple[str, str]]:
    """Yield two texts for each violated rule: the rule's reason, and examples of the violation.

    The examples are up to three values that violate the rule, and the group and time of the first row that violates it.

    Args:
        name: Name of the source.
        flagged: The rows of the source, with flags for violated rules.
        data: The task's `data` parameters.
    """
    for number, rule in enumerate(flagged.violated):
        rows = flagged.table.filter(flagged.flag(number))
        keys = [data.group] + ([data.time] if data.time else [])
        first = rows.order_by(keys).limit(1).select(keys).to_pyarrow().to_pylist()
        if not first:
            continue  # no row of this source violates the rule
        column = rule.text_column or (rule.columns[0] if len(rule.columns) == 1 else None)
        details = ""
        if column is not None and not rows[column].type().is_array():
            values = example_values(rows, column)
            details += f"; found {values}" if values else ""
            details += f" (known labels: {', '.join(data.classes)})" if values and column == data.label else ""
        yield rule.reason, f"{details}; first in source {name}, {', '.join(f'{k} {v}' for k, v in first[0].items())}"


def write_violations(folder: Path, flagged: FlaggedRows, engine: Engine, params: Params) -> None:
    """Write the rows that violate rules to a parquet file; the column `reason` names the violated rules.

    The file is written even if no row violates a rule, so that an empty folder always means an interrupted run.

    Args:
        folder: The folder in which the parquet file is written.
        flagged: The rows of one source, with flags for violated rules.
        engine: The table engine (DuckDB or Spark) that runs the queries.
        params: All parameters.
    """
    schema = arrow_schema(params.validation).append(pa.field("reason", pa.string()))
    invalid = flagged.invalid_rows().order_by([*row_order(params), "reason"])
    write_parquet(folder / "part-00000.parquet", engine.stream(invalid, schema), schema)
