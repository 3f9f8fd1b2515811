"""The data contract on a table as a whole: its columns and their types.

A fault of the table (a column too few, too many, of another type, or without a value) ends the stage. A fault of a row
sends that row to quarantine with the reason (`row_rules`).
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.core.errors import CombinedError, ContractError, StageError

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

    from stages.params.validate import Column, Validate

# Canonical types: what data/validated holds, whatever width the source had.
ARROW_TYPES = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),  # UTC
    "values": pa.list_(pa.float32()),
}
IBIS_TYPES = {
    "float": "float64",
    "integer": "int64",
    "string": "string",
    "timestamp": "timestamp(6)",
    "values": "array<float32>",
}


# Text that is read as a value; a time as `collect` writes it beside text that is none.
TEXT_PATTERNS = {
    "float": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$",
    "integer": r"^[+-]?[0-9]+(\.0+)?$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
}


@dataclass(frozen=True)
class SourceTable:
    """One source as a canonical table: the contract's columns in its order and types.

    `cells`: per column, how many rows have a value there. `parsed_text`: columns that were text where the contract
    requires numbers or times; their unreadable cells are in `text_column_name(column)`.
    """

    name: str
    table: ir.Table
    rows: int
    cells: dict[str, int]
    parsed_text: list[str]


def conform(raw: ir.Table, source: str, contract: Validate) -> SourceTable:
    """Bring the table of a source into the contract's form.

    Raises CombinedError with every fault of its columns, ContractError where it has no row.
    """
    if faults := check_columns(raw, source, contract):
        raise CombinedError(faults)
    table, texts = to_canonical_types(raw, contract), parsed_text_columns(raw, contract)
    rows, cells = count_cells(table, contract)
    if rows == 0:
        raise ContractError(f"source {source}", "it has no rows", "at least one", "mend the source (collect.sources)")
    conformed = SourceTable(source, table, rows, cells, texts)
    if empty := [column for column, count in cells.items() if count == 0]:
        raise CombinedError([_empty_column(conformed, column, contract) for column in empty])
    return conformed


def arrow_schema(contract: Validate) -> pa.Schema:
    """The columns of validated data, without `source`."""
    return pa.schema([(name, ARROW_TYPES[column.type]) for name, column in contract.columns.items()])


def check_columns(table: ir.Table, source: str, contract: Validate) -> list[StageError]:
    """What is wrong with the columns of a source: missing, extra, of another type. pandera's own check."""
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrorReason, SchemaErrors

    extra = [name for name in table.columns if name not in contract.columns]
    # A check, not pandera's dtype: that knows no arrays, and a type of the same family (float32 for float, a whole
    # number for float) is widened, not refused.
    schema = pandera.DataFrameSchema(
        {
            name: pandera.Column(
                nullable=True,
                checks=pandera.Check(lambda d, wanted=column: _same_family(d.table[d.key].type(), wanted)),
            )
            for name, column in contract.columns.items()
        },
        strict=contract.extra_columns == "forbid",
    )
    try:
        schema.validate(table, lazy=True)
    except SchemaErrors as errors:
        faults: list[StageError] = []
        for error in errors.schema_errors:
            if error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
                faults += [_extra_column(source, name) for name in extra]
            elif error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
                faults.append(_missing_column(source, str(error.failure_cases), table))
            else:
                name = error.schema.name
                faults.append(_wrong_type(source, name, str(table[name].type()), contract.columns[name].type))
        return faults
    return []


def _same_family(found: dt.DataType, column: Column) -> bool:
    fits: dict[str, bool] = {
        "float": (found.is_numeric() and not found.is_decimal()) or found.is_string(),
        "integer": found.is_integer() or found.is_string(),
        "string": found.is_string() or found.is_integer(),
        "timestamp": found.is_timestamp() or found.is_string(),
        "values": found.is_array() and found.value_type.is_numeric(),
    }
    return fits[column.type]


def _missing_column(source: str, name: str, table: ir.Table) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        f"the column is missing; there are {', '.join(table.columns)}",
        "a column of this name",
        "mend the source, or the contract (validate.columns)",
    )


def _extra_column(source: str, name: str) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        "the contract does not know this column",
        "only the contract's columns",
        "describe it in validate.columns, or set validate.extra_columns: drop",
    )


def _wrong_type(source: str, name: str, found: str, expected: str) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        f"found type {found}",
        f"type {expected}",
        "mend the source, or the contract (validate.columns)",
    )


def _empty_column(source: SourceTable, column: str, contract: Validate) -> ContractError:
    """The fault of a column without a value: no cell holds one, or no text is what the contract wants."""
    found = example_values(source.table, text_column_name(column)) if column in source.parsed_text else ""
    if found:
        return _wrong_type(source.name, column, f"string, such as {found}", contract.columns[column].type)
    return ContractError(
        f"source {source.name}, column {column}",
        f"it is missing in all {source.rows} rows",
        "values",
        "mend the source, or take the column out of the contract (validate.columns)",
    )


def example_values(table: ir.Table, name: str) -> str:
    """Up to three values of a column, in order."""
    cell = table[name]
    values = table.filter(cell.notnull()).select(name).distinct().order_by(name).limit(3).to_pyarrow()[name].to_pylist()
    return ", ".join(reprlib.repr(value) if isinstance(value, str) else str(value) for value in values)


def text_column_name(name: str) -> str:
    """The column of a canonical table with the text of each cell that is no value of the column `name`."""
    return f"text of {name}"


def is_complete(table: ir.Table, name: str) -> ir.BooleanColumn:
    """True where a cell is there: not null, and of a list every element, of which there is at least one."""
    cell = table[name]
    if not cell.type().is_array():
        return cell.notnull()
    holes = cell.filter(lambda element: element.isnull() | element.isnan()).length()
    return (cell.notnull() & (cell.length() > 0) & (holes == 0)).fill_null(False)


def count_cells(table: ir.Table, contract: Validate) -> tuple[int, dict[str, int]]:
    """Rows, and per column the cells that are there."""
    names = list(contract.columns)
    sums = {f"there_{i}": is_complete(table, name).sum() for i, name in enumerate(names)}
    row = table.aggregate(rows=table.count(), **sums).to_pyarrow().to_pylist()[0]
    return row["rows"], {name: int(row[f"there_{i}"] or 0) for i, name in enumerate(names)}


def parsed_text_columns(table: ir.Table, contract: Validate) -> list[str]:
    """Columns that are text where the contract wants numbers or times: read cell by cell."""
    return [n for n, column in contract.columns.items() if column.type in TEXT_PATTERNS and table[n].type().is_string()]


def to_canonical_types(table: ir.Table, contract: Validate) -> ir.Table:
    """The contract's columns in its order and types. A NaN in a float column is a missing value.

    Of a text column, what is no number or time is missing, and stands in a column `text_of` that follows the others.
    """
    import ibis

    columns, unread = {}, {}
    for name, column in contract.columns.items():
        cell = table[name]
        if column.type in TEXT_PATTERNS and cell.type().is_string():
            plain = cell.strip()
            readable = plain.re_search(TEXT_PATTERNS[column.type]).ifelse(plain, ibis.null("string"))
            if column.type == "integer":
                readable = readable.re_replace(r"\.0+$", "")
            value = readable.try_cast(IBIS_TYPES[column.type])
            unread[text_column_name(name)] = (cell.notnull() & value.isnull()).ifelse(cell, ibis.null("string"))
        else:
            value = cell.cast(IBIS_TYPES[column.type])
        if column.type == "float":
            value = value.isnan().ifelse(ibis.null("float64"), value)
        columns[name] = value
    return table.select(**columns, **unread)
