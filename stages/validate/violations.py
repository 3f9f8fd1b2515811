"""Report rows that violate the contract: example values, the first row for each rule, and a file with all rows."""

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
    """Return the columns that rows are sorted by: group, time, then all others, so that input order does not matter."""
    data = params.data
    first = [data.group] + ([data.time] if data.time else [])
    return first + [name for name in params.validation.columns if name not in first]


def explain_violations(name: str, flagged: FlaggedRows, data: Data) -> Iterator[tuple[str, str]]:
    """Yield the reason of each violated rule, and a text with up to three bad values and the first bad row.

    Args:
        name: Name of the source.
        flagged: Rows of the source, with flags for violated rules.
        data: The block `data` of the parameters.
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
    """Write the rows that violate a rule to a parquet file, each with the `reason`.

    The file is written even if there are no such rows, so that an empty folder always means an interrupted run.

    Args:
        folder: The folder that receives one parquet file.
        flagged: Rows of a source, with flags for violated rules.
        engine: The engine for tables.
        params: All parameters.
    """
    schema = arrow_schema(params.validation).append(pa.field("reason", pa.string()))
    invalid = flagged.invalid_rows().order_by([*row_order(params), "reason"])
    write_parquet(folder / "part-00000.parquet", engine.stream(invalid, schema), schema)
