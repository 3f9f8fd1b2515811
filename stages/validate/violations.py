"""What a person needs to mend rows that break the contract: the values, a place, and the rows themselves."""

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
    """Columns that order rows whatever order they came in: group, time, then all others."""
    data = params.data
    first = [data.group] + ([data.time] if data.time else [])
    return first + [name for name in params.validation.columns if name not in first]


def explain_violations(name: str, flagged: FlaggedRows, data: Data) -> Iterator[tuple[str, str]]:
    """Per rule that rows of the source `name` break: its reason; up to three values and where the first row is."""
    for number, rule in enumerate(flagged.violated):
        rows = flagged.table.filter(flagged.flag(number))
        place = [data.group] + ([data.time] if data.time else [])
        first = rows.order_by(place).limit(1).select(place).to_pyarrow().to_pylist()
        if not first:
            continue  # another source breaks it
        column = rule.text_column or (rule.columns[0] if len(rule.columns) == 1 else None)
        said = ""
        if column is not None and not rows[column].type().is_array():
            values = example_values(rows, column)
            said += f"; found {values}" if values else ""
            said += f" (known are {', '.join(data.classes)})" if values and column == data.label else ""
        yield rule.reason, f"{said}; first in source {name}, {', '.join(f'{k} {v}' for k, v in first[0].items())}"


def write_violations(folder: Path, flagged: FlaggedRows, engine: Engine, params: Params) -> None:
    """The rows that break a rule, with `reason`. Written also where no row is: a kill leaves an empty folder."""
    schema = arrow_schema(params.validation).append(pa.field("reason", pa.string()))
    bad = flagged.invalid_rows().order_by([*row_order(params), "reason"])
    write_parquet(folder / "part-00000.parquet", engine.stream(bad, schema), schema)
