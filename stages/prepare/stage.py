"""Handle missing values, split the samples, cut windows, and compute the scaling and the drift reference.

Reads  data/validated/
Writes data/prepared/, data/drift_reference.json, reports/balance.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.core import command
from stages.core.dataset import SPLITS, Channel, SampleSpec, Scaling, Split
from stages.core.errors import ContractError, ParameterError
from stages.core.files import new_directory, write_json
from stages.params import Params, load, locate_parameter

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.tables.engine import Engine

VALIDATED = Path("data/validated")
PREPARED = Path("data/prepared")
DRIFT_REFERENCE = Path("data/drift_reference.json")
BALANCE = Path("reports/balance.json")


@dataclass(frozen=True)
class MissingValues:
    """The missing values of a table, and how they are handled.

    method: The parameter prepare.missing.
    holes: Number of missing values by column, only for columns that have missing values.
    dropped: Number of rows that were removed because of missing values.
    """

    method: str
    holes: dict[str, int]
    dropped: int


def check_parameters(params: Params) -> None:
    """Raise ParameterError if the parameters `prepare` are not consistent with the parameters `data`."""
    data, prepare = params.data, params.prepare

    def refuse(field: str, value: str, expected: str) -> None:
        raise ParameterError(locate_parameter(f"prepare.{field}"), value, expected, "change the value")

    if (prepare.window is None) == (data.kind == "series"):
        refuse("window", f"found {prepare.window}", "a window for kind series, null for image and audio")
    if prepare.features is not None and data.audio is None:
        refuse(
            "features",
            f"found {prepare.features.type} for kind {data.kind}",
            "null, because only kind audio has spectral features",
        )
    if prepare.features is not None and data.audio is not None and prepare.features.frame > data.audio.samples:
        refuse(
            "features.frame",
            f"found {prepare.features.frame}",
            f"at most the length of a clip (data.audio.samples), {data.audio.samples}",
        )
    if data.kind != "series" and prepare.missing != "drop":
        refuse(
            "missing",
            f"found {prepare.missing!r} for kind {data.kind}",
            "drop, because samples must be complete",
        )
    if data.kind == "audio" and len(data.channels) != 1:
        refuse("features", f"found {len(data.channels)} channels", "one channel for kind audio")
    if data.kind == "series" and prepare.split.validation_by == "row":
        refuse("split.validation_by", "found 'row' for kind series", "group, because neighbouring rows are too similar")


def handle_missing(table: ir.Table, params: Params) -> tuple[ir.Table, MissingValues]:
    """Count the missing values, and remove the rows that have missing values if prepare.missing is "drop".

    With any other method, `fill_missing` fills the missing values after the samples have been split.
    """
    from stages.prepare import missing

    names, method = params.data.columns, params.prepare.missing
    holes = missing.count_missing(table, names)
    if method != "drop" or not holes:
        return table, MissingValues(method, holes, 0)
    kept = missing.drop_incomplete(table, names)
    return kept, MissingValues(method, holes, _rows(table) - _rows(kept))


def count_rows(table: ir.Table, dropped: int) -> int:
    """Return the number of rows that remain in `table` after `dropped` rows were removed.

    Raises:
        ContractError: No rows remain.
    """
    rows = _rows(table)
    if rows == 0:
        raise ContractError(
            str(VALIDATED),
            "no rows remain" + (f"; {dropped} were dropped because of missing values" if dropped else ""),
            "at least one row",
            "choose another method (prepare.missing)"
            if dropped
            else "collect rows, then run python -m stages.validate",
        )
    return rows


def fill_missing(
    engine: Engine, table: ir.Table, missing_values: MissingValues, train: ir.Table, params: Params
) -> ir.Table:
    """Fill the missing values that `handle_missing` counted.

    Args:
        engine: The table engine that evaluates expressions.
        table: The rows of all splits.
        missing_values: The counts and the method that `handle_missing` returned.
        train: The rows of the training split.
        params: All parameters of the pipeline.

    Raises:
        ContractError: A column or a group has missing values but no value from which they can be filled.
    """
    from stages.prepare import missing

    names = list(missing_values.holes)
    if missing_values.method == "drop" or not names:
        return table
    if missing_values.method == "interpolate":
        assert params.data.time is not None
        table = missing.interpolate(table, names, [params.data.group, "source"], params.data.time, engine.microseconds)
    else:
        table = missing.fill_constant(table, train, names, missing_values.method)
    for name, n in missing.count_missing(table, names).items():
        where = "a whole group" if missing_values.method == "interpolate" else "the training split"
        raise ContractError(
            f"column {name}",
            f"{n} missing values cannot be filled by {missing_values.method}: {where} has no value",
            "at least one value, from which the others are filled",
            "use another method (prepare.missing), or collect these groups again",
        )
    return table


def _rows(table: ir.Table) -> int:
    return int(table.count().to_pyarrow().as_py())


def summarise_splits(prepared: Path, classes: list[str]) -> dict[str, Any]:
    """Return the number of samples, the number of groups and the number of samples of each class, for each split."""
    report = {}
    for name in SPLITS:
        split = Split.open(prepared, name)
        counts = np.bincount(split.y, minlength=len(classes)).tolist()
        groups = len(np.unique(split.group))
        report[name] = {"samples": len(split), "groups": groups, "classes": dict(zip(classes, counts, strict=True))}
    return report


def sample_spec(params: Params) -> SampleSpec:
    """Return the description of a sample as the parameters define it.

    The scaling and, for a series, the sampling rate are placeholders, because they are computed from the data later.
    """
    data, prepare = params.data, params.prepare
    channels = [Channel(name=name, unit=channel.unit) for name, channel in data.channels.items()]
    if data.image is not None:
        shape, rate = [len(channels), data.image.height, data.image.width], None
    elif data.audio is not None:
        shape, rate = [1, data.audio.samples], float(data.audio.sample_rate_hz)
    else:
        assert prepare.window is not None
        shape, rate = [len(channels), prepare.window.length], None
    none = Scaling(method="none", center=[0.0] * len(channels), scale=[1.0] * len(channels))
    return SampleSpec(
        kind=data.kind,
        shape=shape,
        channels=channels,
        classes=list(data.classes.values()),
        rate_hz=rate,
        scaling=none,
        features=prepare.features,
    )


def prepare(engine: Engine, paths: list[Path], prepared: Path, params: Params) -> dict[str, Any]:
    """Convert the validated rows to samples in three splits, and write them to a folder.

    Args:
        engine: The table engine that evaluates expressions.
        paths: Parquet files with the validated rows.
        prepared: Folder to which the samples are written.
        params: All parameters of the pipeline.

    Returns:
        The contents of reports/balance.json.

    Raises:
        ContractError: The rows are not suitable for training, for example because a split would be empty.
    """
    from stages.prepare.arrays import write_samples, write_series
    from stages.prepare.scaling import fit_scaling
    from stages.prepare.splits import refuse_poor_splits, split_rows
    from stages.prepare.support import describe_absent_classes

    table, missing_values = handle_missing(engine.read(paths), params)
    splits = split_rows(engine, table, count_rows(table, missing_values.dropped), params)
    if missing_values.holes and missing_values.method in ("mean", "median"):
        table = fill_missing(engine, table, missing_values, splits.rows_in("train", engine, table), params)
    else:
        table = fill_missing(engine, table, missing_values, table, params)
    spec = sample_spec(params)
    if params.data.kind == "series":
        spec = spec.model_copy(update={"rate_hz": write_series(engine, table, splits, prepared, params)})
    else:
        write_samples(engine, table, splits, prepared, spec, params)
    spec.write(prepared)
    classes = summarise_splits(prepared, spec.classes)
    refuse_poor_splits(
        {name: split["classes"] for name, split in classes.items()},
        {name: split["groups"] for name, split in classes.items()},
        spec.classes,
    )
    x = Split.open(prepared, "train").x
    spec = spec.model_copy(update={"scaling": fit_scaling(x, spec.channels, params.prepare.scaling)})
    spec.write(prepared)
    return {
        "splits": classes,
        "missing": {
            "method": missing_values.method,
            "values": missing_values.holes,
            "rows_dropped": missing_values.dropped,
        },
        "warnings": describe_absent_classes(prepared, spec.classes, params.data.group),
    }


def main() -> None:
    """Run the stage `prepare` on the files in the current directory."""
    command.parser("prepare", __doc__).parse_args()
    params = load()
    check_parameters(params)

    from stages.prepare.drift_reference import build_reference
    from stages.tables.engine import Engine
    from stages.tables.parquet import list_parquet_files

    paths = [path for folder in sorted(VALIDATED.glob("*/")) for path in list_parquet_files(folder)]
    if not paths:
        raise ContractError(
            str(VALIDATED), "it contains no data set", "validated rows", "run python -m stages.validate"
        )
    with Engine(params.compute) as engine, new_directory(PREPARED) as prepared:
        report = prepare(engine, paths, prepared, params)
        train = Split.open(prepared, "train")
        drift = params.prepare.drift
        write_json(DRIFT_REFERENCE, build_reference(train, SampleSpec.read(prepared), drift.bins, drift.samples))
        write_json(BALANCE, report)
    print("\n".join(_summary(name, split) for name, split in report["splits"].items()))
    if report["missing"]["values"]:
        print(f"missing values: {report['missing']}")
    for warning in report["warnings"]:
        print(f"warning: {warning}")


def _summary(name: str, split: dict[str, Any]) -> str:
    classes = ", ".join(f"{label} {n}" for label, n in split["classes"].items())
    return f"{name:10}  {split['samples']:7} samples of {split['groups']} groups  {classes}"
