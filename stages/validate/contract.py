"""The data contract: what a snapshot's columns and rows must be, as Ibis expressions that pandera runs.

A fault of the table (a column too few, too many, of another type) ends the stage. A fault of a row sends that
row to quarantine with the reason; what share of rows may do so is for the quality thresholds to say.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.core.errors import ContractError, ParameterError, StageError
from stages.params import where
from stages.validate.quality import METRICS
from stages.validate.row_rules import COPIED, STATISTICS, Rule, column_of, text_of

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.params.validate import Column, Validate

# Canonical types: what data/validated holds, whatever width the source had.
ARROW = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),  # UTC
    "values": pa.list_(pa.float32()),
}
IBIS = {
    "float": "float64",
    "integer": "int64",
    "string": "string",
    "timestamp": "timestamp(6)",
    "values": "array<float32>",
}


# Text that is read as a value; a time as `collect` writes it beside text that is none.
READABLE = {
    "float": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$",
    "integer": r"^[+-]?[0-9]+(\.0+)?$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
}


def arrow_schema(contract: Validate) -> pa.Schema:
    """The columns of validated data, without `source`."""
    return pa.schema([(name, ARROW[column.type]) for name, column in contract.columns.items()])


def check_parameters(data: Data, contract: Validate) -> None:
    """Raise ParameterError where the contract names columns that it does not describe."""
    needed = dict.fromkeys((data.group, data.label, *data.columns), "data")
    if data.time is not None:
        needed[data.time] = "data.time"
    needed |= {name: "validate.redundant" for pair in contract.redundant for name in pair.columns}
    needed |= {column_of(term, contract): "validate.plausibility" for r in contract.plausibility for term in r.terms}
    if contract.freshness is not None:
        needed[contract.freshness.column] = "validate.freshness"
    for name, used_by in needed.items():
        if name not in contract.columns:
            raise _parameter_fault(f"{name!r} is used by `{used_by}` and not described", "an entry for it")
    types = {name: column.type for name, column in contract.columns.items()}
    wanted = dict.fromkeys(data.columns, ("float", "integer") if data.kind == "series" else ("values",))
    wanted |= {data.group: ("string",), data.label: ("string",)}
    if data.time is not None:
        wanted[data.time] = ("timestamp",)
    if contract.freshness is not None:
        wanted[contract.freshness.column] = ("timestamp",)
    for name, allowed in wanted.items():
        if types[name] not in allowed:
            raise _parameter_fault(f"{name!r} has type {types[name]}", f"type {' or '.join(allowed)}")
    for term in (term for rule in contract.plausibility for term in rule.terms):
        kind, statistic = types[column_of(term, contract)], None if term in types else term.rsplit(".", 1)[1]
        if (kind == "values") != (statistic in STATISTICS) or kind in ("string", "timestamp"):
            raise _parameter_fault(
                f"the term {term!r} of `validate.plausibility` is no number",
                f"a float or integer column, or of a values column .{', .'.join(STATISTICS)}",
            )
    for pair in contract.redundant:
        kinds = {"number" if types[name] in ("float", "integer") else types[name] for name in pair.columns}
        if len(kinds) > 1 or "values" in kinds:
            raise _parameter_fault(f"{' and '.join(pair.columns)} have types that do not compare", "two alike columns")
    for key in (data.group, data.label, data.time):
        if key is not None and contract.columns[key].nullable:
            raise _parameter_fault(f"{key!r} is nullable", "group, time and label are in every row: nullable: false")
    if {"source", "reason", COPIED} & set(contract.columns):
        found = f"a column is called `source`, `reason` or `{COPIED}`"
        raise _parameter_fault(found, "other names: validate writes these itself")


def _parameter_fault(found: str, expected: str) -> ParameterError:
    return ParameterError(where("validate.columns"), found, expected, "mend the contract")


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
                faults += [_extra(source, name) for name in extra]
            elif error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
                faults.append(_missing(source, str(error.failure_cases), table))
            else:
                name = error.schema.name
                faults.append(_wrong_type(source, name, str(table[name].type()), contract.columns[name].type))
        return faults
    return []


def _same_family(found: dt.DataType, column: Column) -> bool:
    return {
        "float": (found.is_numeric() and not found.is_decimal()) or found.is_string(),
        "integer": found.is_integer() or found.is_string(),
        "string": found.is_string() or found.is_integer(),
        "timestamp": found.is_timestamp() or found.is_string(),
        "values": found.is_array() and found.value_type.is_numeric(),
    }[column.type]


def _missing(source: str, name: str, table: ir.Table) -> ContractError:
    return ContractError(
        f"source {source}, column {name}",
        f"the column is missing; there are {', '.join(table.columns)}",
        "a column of this name",
        "mend the source, or the contract (validate.columns)",
    )


def _extra(source: str, name: str) -> ContractError:
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


def no_value(source: str, name: str, table: ir.Table, contract: Validate) -> ContractError:
    """The fault of a text column of a canonical table of which no cell is what the contract wants."""
    return _wrong_type(source, name, f"string, such as {examples(table, text_of(name))}", contract.columns[name].type)


def examples(table: ir.Table, name: str) -> str:
    """Up to three values of a column, in order."""
    cell = table[name]
    values = table.filter(cell.notnull()).select(name).distinct().order_by(name).limit(3).to_pyarrow()[name].to_pylist()
    return ", ".join(reprlib.repr(value) if isinstance(value, str) else str(value) for value in values)


def text_columns(table: ir.Table, contract: Validate) -> list[str]:
    """Columns that are text where the contract wants numbers or times: read cell by cell."""
    return [n for n, column in contract.columns.items() if column.type in READABLE and table[n].type().is_string()]


def canonical(table: ir.Table, contract: Validate) -> ir.Table:
    """The contract's columns in its order and types. A NaN in a float column is a missing value.

    Of a text column, what is no number or time is missing, and stands in a column `text_of` that follows the others.
    """
    import ibis

    columns, unread = {}, {}
    for name, column in contract.columns.items():
        cell = table[name]
        if column.type in READABLE and cell.type().is_string():
            plain = cell.strip()
            readable = plain.re_search(READABLE[column.type]).ifelse(plain, ibis.null("string"))
            if column.type == "integer":
                readable = readable.re_replace(r"\.0+$", "")
            value = readable.try_cast(IBIS[column.type])
            unread[text_of(name)] = (cell.notnull() & value.isnull()).ifelse(cell, ibis.null("string"))
        else:
            value = cell.cast(IBIS[column.type])
        if column.type == "float":
            value = value.isnan().ifelse(ibis.null("float64"), value)
        columns[name] = value
    return table.select(**columns, **unread)


def broken(table: ir.Table, every: list[Rule]) -> list[Rule]:
    """The rules that at least one row of a canonical table breaks. pandera runs them."""
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrors

    by_reason = {rule.reason: rule for rule in every}
    checks = [
        # One failure case is enough here: the rows themselves are found by `reasons`.
        pandera.Check(lambda d, rule=rule: rule.holds(d.table), name=rule.reason, n_failure_cases=1, ignore_na=False)
        for rule in every
    ]
    columns = {name: pandera.Column(nullable=True) for name in table.columns}
    try:
        pandera.DataFrameSchema(columns, checks=checks, strict=True).validate(table, lazy=True)
    except SchemaErrors as errors:
        names = {error.check.name for error in errors.schema_errors}
        return [rule for reason, rule in by_reason.items() if reason in names]
    return []


def flagged(table: ir.Table, failing: list[Rule]) -> ir.Table:
    """The table with a boolean column per failing rule (`broken_0`, ...), true where the row breaks it."""
    return table.mutate(**{f"broken_{i}": ~rule.holds(table) for i, rule in enumerate(failing)})


@dataclass(frozen=True)
class Broken:
    """How many rows break any rule, a rule of each metric, and each rule."""

    rows: int
    by_metric: dict[str, int]
    by_rule: dict[str, int]


def count_broken(table: ir.Table, failing: list[Rule]) -> Broken:
    """Count over a flagged table."""
    flags = {rule.reason: table[f"broken_{i}"] for i, rule in enumerate(failing)}
    counted: dict[str, ir.BooleanColumn] = {f"rule_{i}": flag for i, flag in enumerate(flags.values())}
    for metric in METRICS:
        of_metric = [flags[rule.reason] for rule in failing if rule.metric == metric]
        if of_metric:
            counted[f"metric_{metric}"] = reduce(or_, of_metric)
    if not flags:
        return Broken(0, dict.fromkeys(METRICS, 0), {})
    counted["any"] = reduce(or_, flags.values())
    row = table.aggregate(**{name: flag.sum() for name, flag in counted.items()}).to_pyarrow().to_pylist()[0]
    return Broken(
        int(row["any"]),
        {metric: int(row.get(f"metric_{metric}", 0)) for metric in METRICS},
        {reason: int(row[f"rule_{i}"]) for i, reason in enumerate(flags)},
    )


def reasons(table: ir.Table, failing: list[Rule]) -> ir.Table:
    """The rows of a flagged table that break a rule, with `reason`: every rule that they break, joined by '; '."""
    import ibis

    flags = [table[f"broken_{i}"] for i in range(len(failing))]
    texts = [
        flag.ifelse(_told(table, rule).concat("; "), ibis.literal(""))
        for flag, rule in zip(flags, failing, strict=True)
    ]
    joined = reduce(lambda a, b: a.concat(b), texts, ibis.literal("")).re_replace("; $", "")
    return table.filter(reduce(or_, flags)).mutate(reason=joined).drop(*[flag.get_name() for flag in flags])


def _told(table: ir.Table, rule: Rule) -> ir.StringColumn:
    import ibis

    if rule.shows is None:
        return ibis.literal(rule.reason)
    return ibis.literal(f"{rule.reason} (found '").concat(table[rule.shows].fill_null("")).concat("')")


def kept(table: ir.Table, failing: list[Rule]) -> ir.Table:
    """The rows of a flagged table that break no rule."""
    flags = [table[f"broken_{i}"] for i in range(len(failing))]
    if not flags:
        return table
    return table.filter(~reduce(or_, flags)).drop(*[flag.get_name() for flag in flags])
