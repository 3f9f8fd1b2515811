"""The page's provenance, contents, links and baseline."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

from stages.gate import stage as gate
from stages.report.page import figures
from tests.support.stages.built import change_report, edit, record_gate
from tests.support.stages.clone import call
from tests.support.stages.page import BUNDLE, Text, page


def test_the_contents_lead_to_every_section(built: Path) -> None:
    gate.main()

    html = page(built)
    navigation = html[html.index("<nav") : html.index("</nav>")]
    sections = re.findall(r'<h2 id="([^"]*)"', html)
    assert re.findall(r'href="#([^"]*)"', navigation) == sections
    assert len(sections) == 7


def test_the_provenance_of_the_build_is_shown(built: Path) -> None:
    for command in (["init", "--quiet"], ["add", "params.yaml"], ["commit", "--quiet", "--message", "first"]):
        call(built, "git", *command)
    commit = call(built, "git", "rev-parse", "HEAD").stdout[:12]
    gate.main()

    html = page(built)
    text = str(Text(html))
    for words in (
        "snapshot 2026-11-01 00:00 UTC",
        f"commit {commit} seed 42",
        "training: 61.2 s; compression: 12.5 s",
        f"onnxruntime {version('onnxruntime')}",
        "digits embedded 1,799 2026-11-02 08:30 UTC pkg:pypi/scikit-learn",
        "model_card.md in the bundle",
        "Not read from source digits: 4 (hidden), .a.npy , .b.npy , .c.npy and 1 more.",
    ):
        assert words in text
    assert f'<a href="{BUNDLE}">' in html

    (built / "params.yaml").write_text((built / "params.yaml").read_text() + "# a comment\n")
    gate.main()
    assert f"commit {commit} , with changes that were not committed" in str(Text(page(built)))


def test_outside_a_repository_and_without_records_the_page_says_so(built: Path) -> None:
    (built / "data/provenance.json").write_text("{}")
    (built / "reports/durations/train.json").unlink()
    gate.main()

    text = str(Text(page(built)))
    for words in (
        "snapshot not recorded",
        "commit not in a git repository",
        "training: not recorded; compression: 12.5 s",
        "unexpected form: reports/durations/train.json, data/provenance.json.",
    ):
        assert words in text


def test_the_data_docs_are_linked_where_they_are(built: Path) -> None:
    gate.main()
    assert "Data Docs" not in page(built)

    (built / "reports/data_docs").mkdir()
    (built / "reports/data_docs/index.html").write_text("<!doctype html>")
    gate.main()
    assert '<a href="data_docs/index.html">Data Docs</a>' in page(built)


def test_the_bundle_is_not_linked_where_none_is_made(built: Path) -> None:
    edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()

    assert BUNDLE not in page(built)


def test_groups_are_counted_where_samples_share_them(built: Path) -> None:
    gate.main()
    assert "train: 1,167 samples; validation: 270 samples; test: 360 samples." in str(Text(page(built)))

    path = built / "reports/balance.json"
    balance = json.loads(path.read_text())
    balance["splits"]["test"]["groups"] = 12
    path.write_text(json.dumps(balance))
    gate.main()
    assert "test: 360 samples of 12 groups." in str(Text(page(built)))


def test_the_numbers_of_the_previous_build_are_beside_the_new_ones(built: Path) -> None:
    gate.main()
    assert "Since the previous build" not in page(built)

    record_gate(built)
    metrics = json.loads((built / "reports/metrics.json").read_text())
    change_report(built, "onnx-int8", latency_ms={"p95": {"value": 0.5, "low": 0.5, "high": 0.5}})
    gate.main()

    text = str(Text(page(built)))
    accuracy = figures.percent(metrics["onnx-int8"]["accuracy"])
    assert f"onnx-int8 {accuracy} unchanged" in text
    assert "0.0247 ms → 0.5 ms" in text
