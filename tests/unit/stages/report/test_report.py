"""The page: true to the reports, self-contained, readable by people."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stages.gate import stage as gate
from stages.report.page import figures
from tests.support.stages.built import edit, regroup, rename_classes, report
from tests.support.stages.clone import call
from tests.support.stages.page import BUNDLE, Text, page
from tests.support.stages.target import CLASSES

pytestmark = pytest.mark.slow


def test_the_numbers_are_those_of_the_reports(built: Path) -> None:
    gate.main()

    text = str(Text(page(built)))
    for name in ("onnx-fp32", "onnx-int8"):
        measured = report(built, name)
        assert figures.percent(measured["accuracy"]["value"]) in text
        assert figures.interval(measured["accuracy"]["low"], measured["accuracy"]["high"]) in text
        assert f"{measured['size_bytes'] / 1000:.1f} kB" in text
    for words in (
        "All gates passed",
        "2 of 2 exported files",
        "Class balance",
        "Quality",
        "Loss",
        "Compression",
        "at least 0.85",
        "values: out of range (2)",
    ):
        assert words in text


def test_the_page_asks_for_nothing_from_elsewhere(built: Path) -> None:
    gate.main()

    html = page(built)
    assert re.findall(r'(?:src|href|action)="(?!data:|#)[^"]*"', html.replace(f'<a href="{BUNDLE}">', "")) == []
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html


def test_the_same_reports_give_the_same_page(built: Path) -> None:
    gate.main()
    first = page(built)
    gate.main()

    assert page(built) == first


def test_a_cell_of_the_matrix_is_of_the_classes_that_it_names(built: Path) -> None:
    """Classes in the order of the parameters: by name, as JSON sorts them, it is another one."""
    names = [f"class {letter}" for letter in "zkaybxcwdv"]
    rename_classes(built, names)
    gate.main()

    measured = report(built, "onnx-fp32")
    html = page(built)
    for i, row in enumerate(measured["confusion"]):
        assert sum(row) == measured["per_class"][names[i]]["support"]
        assert f"{names[i]} predicted as {names[i]}: {row[i]} of {sum(row)}" in html
    picture = html[html.index("Confusion matrix of onnx-fp32") :]
    assert re.findall(r">(class \w)</text>", picture)[: 2 * len(names)] == [name for name in names for _ in "xy"]


def test_names_from_the_data_are_escaped(built: Path) -> None:
    evil = "<script>alert(1)</script>"
    rename_classes(built, [evil, *CLASSES[1:]])

    gate.main()

    assert "<script" not in page(built)
    assert "&lt;script&gt;" in page(built)


def test_a_failed_gate_is_shown_with_its_reasons_in_words(built: Path) -> None:
    edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()

    text = str(Text(page(built)))
    assert "The gate did not pass" in text
    assert "No bundle is made" in text
    assert "is below 0.999" in text
    assert "onnx-fp32 (failed)" in text


def test_a_target_left_out_is_shown_with_its_reason(built: Path) -> None:
    edit(built, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    text = str(Text(page(built)))
    assert "1 of 2 exported files" in text
    assert "onnx-int8 is not required and is left out because it failed: size_kb." in text


@pytest.mark.parametrize("name", ["quality.json", "balance.json", "compress.json", "train/history.csv"])
@pytest.mark.parametrize("content", [None, "", "{}", '{"splits": 3}', "[]"])
def test_a_report_that_is_missing_or_odd_leaves_out_its_picture_and_is_named(
    built: Path, name: str, content: str | None
) -> None:
    path = built / "reports" / name
    path.unlink() if content is None else path.write_text(content)

    gate.main()

    text = str(Text(page(built)))
    assert ("All gates passed" in text) == (name == "train/history.csv")  # the gate judges by the other reports
    assert "Not on this page, because the report is missing or has an unexpected form" in text


def test_without_any_report_the_page_still_says_so(built: Path) -> None:
    for path in (built / "reports").rglob("*.json"):
        path.unlink()

    gate.main()

    assert "not measured" in str(Text(page(built)))


def test_that_few_groups_are_few_stands_beside_the_intervals(built: Path) -> None:
    gate.main()
    assert "Keep in mind" not in str(Text(page(built)))

    regroup(built, [f"writer {i % 7}" for i in range(360)])
    gate.main()

    text = str(Text(page(built)))
    assert "treat whole groups as independent (sample_id: 7 in the test split)" in text
    assert "Keep in mind 7 groups are few, so the intervals are approximate and probably too narrow." in text
    assert "the files may be equally good; 7 groups are few" in text


def test_a_file_that_is_better_than_its_network_is_said_in_every_place_and_passes(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that was trained too little: what compression trains on hides what it takes."""
    poor = {"loss": 0.9, "accuracy": 0.85, "f1_macro": 0.85}
    summary, compressed = built / "reports/train/summary.json", built / "reports/compress.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "test": poor}))
    steps = json.loads(compressed.read_text())
    steps["steps"][0] |= {"accuracy": 0.85, "f1_macro": 0.85}
    accuracy = steps["steps"][-1]["accuracy"]
    compressed.write_text(json.dumps({**steps, "drop": 0.85 - accuracy, "retention": accuracy / 0.85}))

    gate.main()

    kept = report(built, "onnx-fp32")["accuracy"]["value"] / 0.85
    note_text = (
        f"an exported file is better than the trained network (accuracy: onnx-fp32 has a retention of {kept:.2%}"
    )
    (note,) = json.loads((built / "reports/gate.json").read_text())["notes"]
    assert note_text in note
    assert f"note: {note_text}" in capsys.readouterr().out
    assert f"Keep in mind A{note_text[1:]}" in str(Text(page(built)))


def test_groups_are_drawn_where_there_are_few_and_large_ones(built: Path) -> None:
    gate.main()
    assert "Accuracy by sample_id" not in str(Text(page(built)))

    regroup(built, [f"writer {i % 4}" for i in range(360)])
    gate.main()
    assert "Accuracy by sample_id" in str(Text(page(built)))


@pytest.mark.slow
def test_dvc_shows_the_metrics_and_draws_the_plots(built: Path) -> None:
    gate.main()
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        call(built, *command)

    metrics = json.loads(call(built, "dvc", "metrics", "show", "--json").stdout)
    plots = json.loads(call(built, "dvc", "plots", "show", "--json").stdout)["data"]
    call(built, "dvc", "plots", "show")

    (row,) = [own["data"] for own in metrics[""]["data"].values()]
    assert row["onnx-fp32"]["accuracy"] == report(built, "onnx-fp32")["accuracy"]["value"]
    assert set(plots) == {"loss", "validation", "confusion"}
    drawn = {name: own[0]["content"]["data"]["values"] for name, own in plots.items()}
    assert len(drawn["loss"]) == 2 * 12  # two lines of twelve epochs
    assert len(drawn["confusion"]) == 2 * 360  # two targets of 360 test samples
    assert (built / "dvc_plots" / "index.html").stat().st_size > 1000
