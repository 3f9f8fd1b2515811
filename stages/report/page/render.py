"""Render reports/index.html, a single self-contained file, from the reports. The page names each missing report."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.core.errors import StageError
from stages.core.files import read_model, read_object, write_text
from stages.params.common import Data
from stages.report.page import figures, sections
from stages.report.page.provenance import Build, describe_build
from stages.report.schemas.base import ReportModel
from stages.report.schemas.data import BalanceReport, Provenance, QualityReport
from stages.report.schemas.evaluation import EvaluationReport
from stages.report.schemas.training import CompressionReport, Duration, TrainingReport
from stages.report.verdict import PIPELINE, SUPPORT

TEMPLATES = Path(__file__).parent
PROVENANCE = Path("data/provenance.json")


def render(
    name: str,
    data: Data,
    gate: Mapping[str, Any],
    build: Build,
    previous: Mapping[str, Mapping[str, float | str]],
    root: Path = Path(),
) -> str:
    """Return the page as HTML. If a report is missing or unreadable, the page names the report and omits its section.

    Args:
        name: The task's name.
        data: The parameters that describe a sample: its kind, channels and classes.
        gate: Content of reports/gate.json.
        build: Seed, code and libraries of the build.
        previous: Content of reports/metrics.json from the previous build; empty if there is none.
        root: The folder that contains data/ and reports/.
    """
    missing: list[str] = []

    def read(path: str, model: type[ReportModel]) -> Any:
        return _read_optional(root / path, model, missing)

    def draw(section: Callable[..., Any], *reports: Any) -> Any:
        return _draw(section, reports, missing)

    targets = list(gate["targets"])
    reports = {target: read(f"reports/evaluate/{target}/metrics.json", EvaluationReport) for target in targets}
    evaluated = {target: report for target, report in reports.items() if report}
    trained = read("reports/train/summary.json", TrainingReport)
    history = _read_history(root / "reports/train/history.csv", missing)
    drawn = {
        "quality": draw(sections.quality, read("reports/quality.json", QualityReport)),
        "balance": draw(sections.balance, read("reports/balance.json", BalanceReport)),
        "training": draw(sections.training, history, trained) if history else None,
        "compression": draw(sections.compression, read("reports/compress.json", CompressionReport)),
        "tradeoffs": draw(sections.tradeoffs, evaluated, gate) if evaluated else None,
        "mistakes": draw(sections.mistakes, evaluated) if evaluated else None,
    }
    durations = {stage: read(f"reports/durations/{stage}.json", Duration) for stage in ("train", "compress")}
    origin = describe_build(build, read(PROVENANCE.as_posix(), Provenance), durations, gate)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = figures.percent
    environment.globals["interval"] = figures.interval
    pipeline = [check for check in gate["checks"] if check["target"] == PIPELINE]
    rows = [sections.target_row(target, gate, evaluated.get(target), trained) for target in targets]
    return environment.get_template("page.html.j2").render(
        name=name,
        data=data,
        gate=gate,
        trained=trained,
        evaluated=evaluated,
        rows=rows,
        changes=sections.changes(rows, previous),
        checks=sections.checks_by_name([check for check in gate["checks"] if check["target"] != PIPELINE], targets),
        records=[check for check in pipeline if check["name"] not in SUPPORT.values()],
        support=[(split, check) for split, name in SUPPORT.items() for check in pipeline if check["name"] == name],
        failures=sections.failures(gate["checks"]),
        intervals=next((own["intervals"] for own in evaluated.values() if own.get("intervals")), None),
        machines=sorted({sections.machine(own["machine"]) for own in evaluated.values() if own.get("machine")}),
        origin=origin,
        data_docs=(root / "reports/data_docs/index.html").is_file(),
        missing=missing,
        **drawn,
    )


def write_page(html: str, path: Path) -> None:
    """Write the page. An existing page is replaced atomically."""
    write_text(path, html)


def _read_optional(path: Path, model: type[ReportModel], missing: list[str]) -> Any:
    """Read the report at `path`, and return it as a JSON object.

    If the report is missing or does not match the schema `model`, add `path` to `missing` and return None.
    """
    try:
        read_model(path, model, path.stem)
        return read_object(path, path.stem)
    except StageError:
        missing.append(path.as_posix())
        return None


def _read_history(path: Path, missing: list[str]) -> list[dict[str, float]]:
    """Return the rows of reports/train/history.csv, one row for each epoch.

    Empty cells, which are undefined scores, are left out. If the file is unreadable or has no rows, add its path to
    `missing` and return an empty list.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [{key: float(text) for key, text in row.items() if text != ""} for row in csv.DictReader(stream)]
    except (OSError, ValueError, TypeError):
        rows = []
    if not rows:
        missing.append(path.as_posix())
    return rows


def _draw(section: Callable[..., Any], reports: tuple[Any, ...], missing: list[str]) -> Any:
    """Compute a section of the page with the function `section`, and return the section.

    If a value that the section shows is missing or unexpected in the reports, add the error to `missing` and return
    None. Then only this section is left out, and the page still shows the verdict.
    """
    if len(reports) == 1 and reports[0] is None:
        return None
    try:
        return section(*reports)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        missing.append(f"{section.__name__}: {type(error).__name__} {error}")
        return None
