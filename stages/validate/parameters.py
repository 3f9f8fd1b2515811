"""Check that the data contract is consistent with itself and with the `data` parameters, before any row is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stages.core.errors import ParameterError
from stages.params import locate_parameter
from stages.params.common import Data
from stages.params.validate import Validate
from stages.validate.row_rules import CONFLICT_COLUMN, DUPLICATE_COLUMN, STATISTICS, column_of_term

Problem = tuple[str, str]  # the parts `found` and `expected` of an error


def check_parameters(data: Data, contract: Validate) -> None:
    """Run all CHECKS on the `data` parameters and the data contract. Raises ParameterError for the first problem."""
    for check in CHECKS:
        for problem, expected in check(data, contract):
            raise ParameterError(locate_parameter("validate.columns"), problem, expected, "correct the contract")


def _undescribed_columns(data: Data, contract: Validate) -> Iterator[Problem]:
    used = dict.fromkeys((data.group, data.label, *data.columns), "data")
    if data.time is not None:
        used[data.time] = "data.time"
    used |= {name: "validate.redundant" for pair in contract.redundant for name in pair.columns}
    used |= {column_of_term(term, contract): "validate.plausibility" for term in _terms(contract)}
    if contract.freshness is not None:
        used[contract.freshness.column] = "validate.freshness"
    for name, user in used.items():
        if name not in contract.columns:
            yield f"{name!r} is used by `{user}` but not described", "an entry for this column"


def _unsuitable_types(data: Data, contract: Validate) -> Iterator[Problem]:
    needed = dict.fromkeys(data.columns, ("float", "integer") if data.kind == "series" else ("values",))
    needed |= {data.group: ("string",), data.label: ("string",)}
    if data.time is not None:
        needed[data.time] = ("timestamp",)
    if contract.freshness is not None:
        needed[contract.freshness.column] = ("timestamp",)
    for name, types in needed.items():
        if contract.columns[name].type not in types:
            yield f"{name!r} has type {contract.columns[name].type}", f"type {' or '.join(types)}"


def _non_numeric_terms(data: Data, contract: Validate) -> Iterator[Problem]:
    for term in _terms(contract):
        kind = contract.columns[column_of_term(term, contract)].type
        statistic = None if term in contract.columns else term.rsplit(".", 1)[1]
        if (kind == "values") != (statistic in STATISTICS) or kind in ("string", "timestamp"):
            yield (
                f"the term {term!r} of `validate.plausibility` is not numeric",
                f"a float or integer column, or a values column followed by .{', .'.join(STATISTICS)}",
            )


def _incomparable_columns(data: Data, contract: Validate) -> Iterator[Problem]:
    for pair in contract.redundant:
        types = [contract.columns[name].type for name in pair.columns]
        kinds = {"number" if kind in ("float", "integer") else kind for kind in types}
        if len(kinds) > 1 or "values" in kinds:
            yield (
                f"{' and '.join(pair.columns)} have types that cannot be compared",
                "two columns of numbers, of text or of times",
            )


def _nullable_keys(data: Data, contract: Validate) -> Iterator[Problem]:
    for key in (data.group, data.label, data.time):
        if key is not None and contract.columns[key].nullable:
            yield f"{key!r} is nullable", "nullable: false, because every row must have a group, time and label"


def _reserved_names(data: Data, contract: Validate) -> Iterator[Problem]:
    reserved = ("source", "reason", DUPLICATE_COLUMN, CONFLICT_COLUMN)
    if set(reserved) & set(contract.columns):
        yield (
            f"a column is called {', '.join(f'`{name}`' for name in reserved[:-1])} or `{reserved[-1]}`",
            "other names, because the `validate` stage adds columns with these names",
        )


def _terms(contract: Validate) -> Iterator[str]:
    return (term for rule in contract.plausibility for term in rule.terms)


# The order matters, because a later check relies on the earlier checks.
CHECKS: tuple[Callable[[Data, Validate], Iterator[Problem]], ...] = (
    _undescribed_columns,
    _unsuitable_types,
    _non_numeric_terms,
    _incomparable_columns,
    _nullable_keys,
    _reserved_names,
)
