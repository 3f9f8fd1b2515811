"""Check if a table has the columns and types that the data contract requires, and convert the table to these types.

If a column is missing, additional, empty or of the wrong type, the `validate` stage fails. The rules for single
rows are in `row_rules`: a row that violates such a rule is quarantined with the reason, and the stage continues.
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

# Canonical types: the types in data/validated. They do not depend on the bit widths of the numbers in the source.
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

# Text that is parsed as a value. The pattern for times matches the format in which `collect` writes times into a column
# that also contains other text.
TEXT_PATTERNS = {
    "float": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$",
    "integer": r"^[+-]?[0-9]+(\.0+)?$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
}


@dataclass(frozen=True)
class SourceTable:
    """The data of one source as a canonical table: its columns have the order and types of the data contract.

    name: Name of the source.
    table: The canonical table.
    rows: Number of rows.
    cells: For each column, the number of rows that have a value in this column.
    parsed_text: Names of the columns that were collected as text although the contract requires numbers or times. For
        each of these columns, the table has an additional column (`text_column_name`) with the text of the cells that
        could not be parsed.
    """

    name: str
    table: ir.Table
    rows: int
    cells: dict[str, int]
    parsed_text: list[str]


def conform(raw: ir.Table, source: str, contract: Validate) -> SourceTable:
    """Convert the table of a source to the contract's columns and types.

    Args:
        raw: The table as it was collected.
        source: Name of the source.
        contract: The data contract.

    Raises:
        CombinedError: Columns are missing, additional, empty or of the wrong type. The error lists every fault.
        ContractError: The table has no rows.
    """
    if faults := check_columns(raw, source, contract):
        raise CombinedError(faults)
    table, texts = to_canonical_types(raw, contract), parsed_text_columns(raw, contract)
    rows, cells = count_cells(table, contract)
    if rows == 0:
        raise ContractError(
            f"source {source}", "it has no rows", "at least one row", "correct the source (collect.sources)"
        )
    conformed = SourceTable(source, table, rows, cells, texts)
    if empty := [column for column, count in cells.items() if count == 0]:
        raise CombinedError([_empty_column(conformed, column, contract) for column in empty])
    return conformed


def arrow_schema(contract: Validate) -> pa.Schema:
    """Return the Arrow schema of the files in data/validated, without their additional column `source`."""
    return pa.schema([(name, ARROW_TYPES[column.type]) for name, column in contract.columns.items()])


def check_columns(table: ir.Table, source: str, contract: Validate) -> list[StageError]:
    """Check with pandera whether a table has the columns and types that the data contract requires.

    Args:
        table: The table as it was collected.
        source: Name of the source, for error messages.
        contract: The data contract.

    Returns:
        An error for each column that is missing, additional or of the wrong type.
    """
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrorReason, SchemaErrors

    extra = [name for name in table.columns if name not in contract.columns]
    # This check replaces pandera's own check of types, which does not support arrays. A type of the same family is
    # accepted and converted: for float, for example, float32 or a whole number.
    schema = pandera.DataFrameSchema(
        {
            name: pandera.Column(
                nullable=True,
                checks=pandera.Check(lambda d, column=column: _same_family(d.table[d.key].type(), column)),
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


def _same_family(kind: dt.DataType, column: Column) -> bool:
    accepted: dict[str, bool] = {
        "float": (kind.is_numeric() and not kind.is_decimal()) or kind.is_string(),
        "integer": kind.is_integer() or kind.is_string(),
        "string": kind.is_string() or kind.is_integer(),
        "timestamp": kind.is_timestamp() or kind.is_string(),
        "values": kind.is_array() and kind.value_type.is_numeric(),
    }
    return accepted[column.type]


def _missing_column(source: str, name: str, table: ir.Table) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        f"the column is missing; the columns are {', '.join(table.columns)}",
        "a column with this name",
        "correct the source, or the contract (validate.columns)",
    )


def _extra_column(source: str, name: str) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        "the contract does not have this column",
        "only columns that the contract describes",
        "describe the column in validate.columns, or set validate.extra_columns: drop",
    )


def _wrong_type(source: str, name: str, actual: str, expected: str) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        f"found type {actual}",
        f"type {expected}",
        "correct the source, or the contract (validate.columns)",
    )


def _empty_column(source: SourceTable, column: str, contract: Validate) -> ContractError:
    """Return the error for a column without values: its cells are all missing, or are texts that cannot be parsed."""
    texts = example_values(source.table, text_column_name(column)) if column in source.parsed_text else ""
    if texts:
        return _wrong_type(source.name, column, f"string, such as {texts}", contract.columns[column].type)
    return ContractError(
        f"source {source.name}, column {column}",
        f"the value is missing in all {source.rows} rows",
        "at least one value",
        "correct the source, or remove the column from the contract (validate.columns)",
    )


def example_values(table: ir.Table, name: str) -> str:
    """Return a text with the lowest distinct values of a column, at most three."""
    cell = table[name]
    values = table.filter(cell.notnull()).select(name).distinct().order_by(name).limit(3).to_pyarrow()[name].to_pylist()
    return ", ".join(reprlib.repr(value) if isinstance(value, str) else str(value) for value in values)


def text_column_name(name: str) -> str:
    """Return the name of the additional column with those texts of column `name` that could not be parsed."""
    return f"text of {name}"


def is_complete(table: ir.Table, name: str) -> ir.BooleanColumn:
    """Return a boolean column that is True for each row in which column `name` has a value.

    A null is not a value. A list that is empty, or that contains a null or NaN, is not a value either.
    """
    cell = table[name]
    if not cell.type().is_array():
        return cell.notnull()
    missing = cell.filter(lambda element: element.isnull() | element.isnan()).length()
    return (cell.notnull() & (cell.length() > 0) & (missing == 0)).fill_null(False)


def count_cells(table: ir.Table, contract: Validate) -> tuple[int, dict[str, int]]:
    """Return the number of rows of a table, and for each column the number of cells with a value."""
    names = list(contract.columns)
    sums = {f"cells_{i}": is_complete(table, name).sum() for i, name in enumerate(names)}
    row = table.aggregate(rows=table.count(), **sums).to_pyarrow().to_pylist()[0]
    return row["rows"], {name: int(row[f"cells_{i}"] or 0) for i, name in enumerate(names)}


def parsed_text_columns(table: ir.Table, contract: Validate) -> list[str]:
    """Return the names of the columns that contain text although the contract requires numbers or times."""
    return [n for n, column in contract.columns.items() if column.type in TEXT_PATTERNS and table[n].type().is_string()]


def to_canonical_types(table: ir.Table, contract: Validate) -> ir.Table:
    """Convert a table to the columns of the contract, in the contract's order and types.

    NaN in a float column becomes null. If a column contains text although the contract requires numbers or times, each
    cell is parsed. A cell that cannot be parsed becomes null, and an additional column at the end of the table contains
    its text (`text_column_name`).
    """
    import ibis

    columns, unparsed = {}, {}
    for name, column in contract.columns.items():
        cell = table[name]
        if column.type in TEXT_PATTERNS and cell.type().is_string():
            text = cell.strip()
            readable = text.re_search(TEXT_PATTERNS[column.type]).ifelse(text, ibis.null("string"))
            if column.type == "integer":
                readable = readable.re_replace(r"\.0+$", "")
            value = readable.try_cast(IBIS_TYPES[column.type])
            unparsed[text_column_name(name)] = (cell.notnull() & value.isnull()).ifelse(cell, ibis.null("string"))
        else:
            value = cell.cast(IBIS_TYPES[column.type])
        if column.type == "float":
            value = value.isnan().ifelse(ibis.null("float64"), value)
        columns[name] = value
    return table.select(**columns, **unparsed)
