"""A class of one machine has no sample in validation and test: it is said, gated, and never averaged away."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.stages.clone import call, change, fresh_clone, quick, report
from tests.support.stages.page import Text, page

pytestmark = pytest.mark.slow

OVER = "2 of 3 classes: idle, run"
LEVEL = {"idle": 0.0, "run": 4.0, "jam": -4.0}
BLOCKS: dict[str, Any] = {
    "name": "press",
    "data": {
        "kind": "series", "group": "machine", "time": "t", "label": "state", "image": None, "audio": None,
        "classes": {"idle": "idle", "run": "run", "jam": "jam"},
        "channels": {"v": {"unit": "1"}, "w": {"unit": "1"}},
    },
    "collect": {
        "snapshot": "2026-11-01T00:00:00Z",
        "retry": {"attempts": 1, "backoff_s": 1.0, "timeout_s": 30.0},
        "sources": {
            "presses": {
                "type": "cloud", "url": "incoming",
                "files": {
                    "select": ["*.csv"], "path": None,
                    "format": {"type": "csv", "separator": ",", "encoding": "utf-8", "columns": None},
                },
            },
        },
    },
    "validate": {
        "extra_columns": "forbid",
        "columns": {
            "machine": {"type": "string", "nullable": False},
            "t": {"type": "timestamp", "nullable": False},
            "v": {"type": "float", "nullable": False, "minimum": -50, "maximum": 50},
            "w": {"type": "float", "nullable": False, "minimum": -50, "maximum": 50},
            "state": {"type": "string", "nullable": False},
        },
        "redundant": [], "plausibility": [], "sampling": {"interval_s": 1.0, "tolerance_s": 0.5}, "freshness": None,
        "quarantine_share": 0.0,
        "thresholds": {"completeness": 0.9, "consistency": 0.9, "accuracy": 0.0, "timeliness": 0.0, "validity": 0.9},
    },
    "prepare": {
        "missing": "drop", "scaling": "standardise", "features": None,
        "window": {"length": 8, "stride": 2, "max_gap_s": 1.5, "label": "majority"},
        "split": {"method": "group", "validation": 0.2, "test": 0.2},
        "drift": {"bins": 5, "samples": 1000},
    },
}  # fmt: skip


def write_machines(path: Path) -> None:
    """Write one minute of each of twelve machines. Only the first machine is jammed, for half a minute."""
    random = np.random.default_rng(7)
    start = np.datetime64("2026-10-01T08:00:00", "s")
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["t", "v", "w", "machine", "state"])
        for machine in range(12):
            for second in range(60):
                state = "jam" if machine == 0 and second < 30 else ("idle", "run")[second // 10 % 2]
                v, w = random.normal(LEVEL[state]), random.normal(5.0 * (state == "jam"))
                rows.writerow([f"{start + second}Z", f"{v:.4f}", f"{w:.4f}", f"m{machine}", state])


def clone_with_machines(root: Path) -> Path:
    """Clone into `root`, and add the task `press`, which judges macro F1 and its retention."""
    fresh_clone(root)
    task = root / "tasks" / "press"
    task.mkdir()
    task.joinpath("params.yaml").write_bytes((root / "tasks/pump/params.yaml").read_bytes())
    rule = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "rows", "min_value": 700}}
    task.joinpath("expectations.json").write_text(json.dumps({"name": "press", "expectations": [rule]}))
    (root / "incoming").mkdir()
    write_machines(root / "incoming" / "machines.csv")
    quick(root, "press", BLOCKS, targets=("onnx-fp32",))
    judged = {"gate__metrics": {"f1_macro": 0.6}, "gate__retention": {"f1_macro": 0.8}}
    recipe = {"train__epochs": 6, "train__metric": "f1_macro", "train__quantile_bins": 0, "train__batch_size": 16}
    change(task / "params.yaml", **judged, **recipe, compress__prune__enabled=False)
    return root


def say(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def check_reports(root: Path) -> None:
    """Check that every mean over all classes is null, and that the best epoch is the best over the other classes."""
    evaluated, trained = report(root, "evaluate/onnx-fp32/metrics.json"), report(root, "train/summary.json")
    names = {"classes": ["idle", "run"], "absent": ["jam"]}
    assert evaluated["f1_macro"] is None and evaluated["recall_weighted"] is None
    assert names.items() <= evaluated["partial"].items()
    jam = evaluated["per_class"]["jam"]
    assert (jam["support"], jam["precision"], jam["recall"], jam["f1"]) == (0, None, None, None)
    f1 = [evaluated["per_class"][name]["f1"] for name in ("idle", "run")]
    assert evaluated["partial"]["f1_macro"]["value"] == pytest.approx(sum(f1) / 2)
    for split in ("validation", "test"):
        assert trained[split]["f1_macro"] is None and names.items() <= trained[split]["partial"].items()
    (step,) = report(root, "compress.json")["steps"]
    assert step["f1_macro"] is None and step["partial"] == trained["test"]["partial"]
    history = list(csv.DictReader((root / "reports/train/history.csv").read_text().splitlines()))
    assert {row["validation_f1_macro"] for row in history} == {""}
    best = max(float(row["validation_f1_partial"]) for row in history)
    assert float(history[trained["best_epoch"]]["validation_f1_partial"]) == best
    assert trained["validation"]["partial"]["f1_macro"] == best


def test_a_class_of_one_machine_fails_the_gate_and_passes_only_if_it_is_accepted(tmp_path: Path) -> None:
    root = clone_with_machines(tmp_path)
    bundle = root / "models/bundle/press.tar.zst"

    refused = call(root, "dvc", "repro", check=False)

    assert "class 'jam' has no sample in validation and test" in say(refused)
    assert "class 'jam' has no sample in validation and test" in report(root, "balance.json")["warnings"][0]
    assert refused.returncode != 0
    for split in ("validation", "test"):
        assert f"in the {split} split, class 'jam' has no sample" in say(refused)
    assert not bundle.exists()
    check_reports(root)
    row = report(root, "metrics.json")["onnx-fp32"]
    assert (row["f1_macro"], row["classes_with_samples"]) == (None, OVER)
    failures = {check["name"] for check in report(root, "gate.json")["checks"] if not check["passed"]}
    assert failures == {"support.validation", "support.test", "f1_macro", "retention.f1_macro"}
    html = page(root)
    assert "undefined: no test sample of jam" in str(Text(html))
    assert "jam predicted as jam: 0 of 0" in html

    change(root / "tasks/press/params.yaml", gate__support=None)
    accepted = call(root, "dvc", "repro")

    assert f"over {OVER}" in say(accepted)
    row = report(root, "metrics.json")["onnx-fp32"]
    partial = report(root, "evaluate/onnx-fp32/metrics.json")["partial"]
    assert (row["f1_macro"], row["classes_with_samples"]) == (partial["f1_macro"]["value"], OVER)
    shown = json.loads(call(root, "dvc", "metrics", "show", "--json").stdout)
    (data,) = [own["data"]["onnx-fp32"] for own in shown[""]["data"].values()]
    assert data["classes_with_samples"] == OVER
    text = str(Text(page(root)))
    assert f"over {OVER}" in text and "No test sample is of class jam" in text
    card, manifest = (
        call(root, "tar", "--zstd", "-xOf", str(bundle), name).stdout for name in ("model_card.md", "manifest.json")
    )
    assert f"| F1, macro, over {OVER} |" in card
    assert "| jam | 0 | no sample |" in card
    assert '"f1_macro": {' not in manifest  # a device or a fleet would show it without its classes
    assert f"over {OVER}" in call(root, "python", "-m", "stages.summary").stdout
