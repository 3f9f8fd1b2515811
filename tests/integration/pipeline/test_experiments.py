"""Experiments that the gate refuses keep their numbers, and no other build with a refused model succeeds."""

from __future__ import annotations

import csv
import io
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stages.clone import (
    bundle_digest,
    call,
    change,
    commit,
    fresh_clone,
    quick,
    report,
    stages_run,
)

pytestmark = pytest.mark.slow

TASK = "tasks/digits/params.yaml"
# After two epochs, the calibration error is about 0.4. So the gate refuses the first four values.
LIMITS = (0.001, 0.002, 0.003, 0.004, 0.7, 0.8, 0.9, 1.0)
REFUSED, GOOD = LIMITS[0], LIMITS[-1]
QUEUE_TIMEOUT_S = 400
MESSAGE = "error: reports/gate.json: the gate did not pass; no bundle is made\n  onnx-fp32 calibration_error: 0."


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a small model has been built with the limit `GOOD`, and committed."""
    root = fresh_clone(tmp_path_factory.mktemp("built"))
    (root / "dvc.lock").unlink(missing_ok=True)
    quick(root, "digits", {}, targets=("onnx-fp32",))
    change(root / TASK, gate__calibration_error=GOOD)
    call(root, "dvc", "repro")
    commit(root)
    return root


@pytest.fixture(scope="module")
def swept(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this clone in which a queue has run an experiment for each of the eight limits."""
    root = copied(built, tmp_path_factory.mktemp("swept"))
    values = ",".join(map(str, LIMITS))
    call(root, "dvc", "exp", "run", "--queue", "-S", f"{TASK}:gate.calibration_error={values}")
    call(root, "dvc", "queue", "start", "--jobs", "2")
    try:
        deadline = time.monotonic() + QUEUE_TIMEOUT_S
        while re.search(r"Queued|Running|[1-9] active", status := call(root, "dvc", "queue", "status").stdout):
            assert time.monotonic() < deadline, status
            time.sleep(5)
    finally:
        call(root, "dvc", "queue", "stop", "--kill", check=False)
    return root


def copied(root: Path, folder: Path) -> Path:
    return Path(shutil.copytree(root, folder / "copy", symlinks=True))


def rows(root: Path) -> list[dict[str, Any]]:
    """Return the rows of `dvc exp show` for experiments, not for the workspace or the commit."""
    table = call(root, "dvc", "exp", "show", "--csv").stdout
    return [row for row in csv.DictReader(io.StringIO(table)) if row["typ"].startswith("branch")]


def refused(root: Path, *command: str) -> None:
    """Run a command, which must fail with the gate's message and leave no bundle."""
    done = call(root, *(command or ("dvc", "repro")), check=False)

    assert done.returncode != 0, done.stdout
    assert MESSAGE in done.stderr
    assert "see reports/index.html" in done.stderr
    assert not report(root, "gate.json")["passed"]
    assert no_bundle(root)


def no_bundle(root: Path) -> bool:
    """Check that the bundle's folder has only the text with the reasons."""
    (text,) = (root / "models/bundle").iterdir()
    return text.name == "NO_BUNDLE.txt" and "calibration_error: 0." in text.read_text()


def test_a_queue_of_eight_experiments_shows_eight_rows_with_numbers_and_verdicts(built: Path, swept: Path) -> None:
    shown = sorted(rows(swept), key=lambda row: float(row["gate.calibration_error"]))

    assert [float(row["gate.calibration_error"]) for row in shown] == list(LIMITS)
    assert [row.get("passed") for row in shown] == ["False"] * 4 + ["True"] * 4
    measured = report(built, "metrics.json")["onnx-fp32"]
    for row in shown:
        for name in ("accuracy", "f1_macro", "calibration_error", "size_kb"):
            assert float(row[f"onnx-fp32.{name}"]) == pytest.approx(measured[name]), (row, name)


def test_a_refused_experiment_that_is_applied_fails_the_next_build(swept: Path, tmp_path: Path) -> None:
    root = copied(swept, tmp_path)
    names = {row["gate.calibration_error"]: row["Experiment"] for row in rows(root)}
    call(root, "dvc", "exp", "apply", names[str(REFUSED)])

    refused(root)
    refused(root)

    call(root, "dvc", "exp", "apply", names[str(GOOD)])
    call(root, "dvc", "repro")
    assert bundle_digest(root) == bundle_digest(swept)


def test_parameters_that_an_experiment_tried_fail_a_build_until_they_are_good_again(
    swept: Path, tmp_path: Path
) -> None:
    """The run cache has the results of the experiment."""
    root = copied(swept, tmp_path)
    digest = bundle_digest(root)
    change(root / TASK, gate__calibration_error=REFUSED)

    refused(root)
    assert stages_run(call(root, "dvc", "repro", check=False).stdout) == ["enforce"]
    refused(root, "make", "--old-file", ".venv/.ready", "repro")

    change(root / TASK, gate__calibration_error=GOOD)
    restored = call(root, "dvc", "repro")
    assert stages_run(restored.stdout) == ["enforce"]
    assert bundle_digest(root) == digest
    assert report(root, "gate.json")["passed"]


@pytest.mark.parametrize("options", [(), ("--temp",)], ids=["workspace", "temp"])
def test_a_refused_experiment_that_is_run_directly_leaves_its_row(
    built: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    root = copied(built, tmp_path)
    digest = bundle_digest(root)

    done = call(root, "dvc", "exp", "run", *options, "-S", f"{TASK}:gate.calibration_error={REFUSED}")

    assert "The experiment is kept" in done.stdout
    (row,) = rows(root)
    assert row["passed"] == "False"
    assert float(row["onnx-fp32.calibration_error"]) > REFUSED
    if options:
        assert bundle_digest(root) == digest
        change(root / TASK, gate__calibration_error=REFUSED)
    refused(root)


def test_the_name_of_an_experiment_in_the_shell_opens_no_gate(built: Path, tmp_path: Path) -> None:
    root = copied(built, tmp_path)
    change(root / TASK, gate__calibration_error=REFUSED)

    refused(root, "env", "DVC_EXP_NAME=mine", "dvc", "repro")


def test_a_first_build_that_is_refused_can_be_published_by_no_command(built: Path, tmp_path: Path) -> None:
    root = copied(built, tmp_path)
    change(root / TASK, gate__calibration_error=REFUSED)
    refused(root)

    published = call(root, "python", "-m", "fleet", "publish", "models/bundle/digits.tar.zst", "--version", "1.0.0",
                     check=False)  # fmt: skip
    summary = call(root, "python", "-m", "stages.summary")

    assert published.returncode == 4
    assert "build a bundle: make repro" in published.stderr
    assert "bundle  none: the gate did not pass" in summary.stdout
