"""Invalid values of parameters are refused with file, field, found, expected and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.params import load
from tests.support.stages.params import SHARED, TASK, change, leaves, refused

HUGE = 10**30
NOT_A_TASK = "lowercase letters, digits and -"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("task", "", NOT_A_TASK),
        ("task", "..", NOT_A_TASK),
        ("task", "../tasks/digits", NOT_A_TASK),
        ("task", "/etc", NOT_A_TASK),
        ("task", "digits/", NOT_A_TASK),
        ("task", "Digits", NOT_A_TASK),
        ("task", "digits\n", NOT_A_TASK),
        ("task", "d" * 300, NOT_A_TASK),
        ("task", 7, "valid string"),
        ("task", None, "valid string"),
        ("task", ["digits"], "valid string"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, "less than or equal to 4294967295"),
        ("seed", HUGE, "less than or equal to 4294967295"),
        ("seed", True, "valid integer"),
        ("seed", 1.0, "valid integer"),
        ("device", "gpu", "'auto', 'cpu', 'cuda' or 'mps'"),
        ("compute.backend", "sqlite", "'duckdb' or 'pyspark'"),
        ("compute.memory_limit", "2 gigabytes", '"512MB" or "2GB"'),
        ("compute.memory_limit", "0GB", '"512MB" or "2GB"'),
        ("compute.memory_limit", "2g", '"512MB" or "2GB"'),
        ("compute.memory_limit", "-1GB", '"512MB" or "2GB"'),
        ("compute.memory_limit", "9999999GB", "at most five digits"),
        ("compute.memory_limit", "1GB'; DROP TABLE x; --", '"512MB" or "2GB"'),
        ("compute.memory_limit", 2, "valid string"),
        ("compute.spark_master", "nonsense", "a Spark master"),
        ("compute.spark_master", "", "a Spark master"),
        ("compute.spark_master", "local[0]", "a Spark master"),
        ("compute.spark_master", "spark://host", "a Spark master"),
        ("compute.spark_master", "spark://a_b:7077", "a Spark master"),
        ("targets", {}, "at least 1 item"),
        ("targets.onnx-fp32.runtime", "litert", "onnx-fp32 with runtime onnxruntime and precision fp32"),
        ("targets.onnx-int8.precision", "fp32", "onnx-int8 with runtime onnxruntime and precision int8"),
        ("targets.tflite-fp32.precision", "int8", "tflite-fp32 with runtime litert and precision fp32"),
        ("targets.tflite-int8.runtime", "onnxruntime", "tflite-int8 with runtime litert and precision int8"),
        ("targets.onnx-fp16", {"runtime": "onnxruntime", "precision": "fp32"}, "'onnx-fp32', 'onnx-int8'"),
        ("targets.onnx-fp32.runtime", "tensorrt", "'onnxruntime' or 'litert'"),
        ("sed", 1, "no parameter of this name"),
    ],
)
def test_a_fault_in_the_shared_file(workspace: Path, field: str, value: Any, expected: str) -> None:
    change(workspace / SHARED, field, value)

    message = refused()

    named = "targets" if "with runtime" in expected else field
    assert message.startswith(f"{SHARED}: 1 error(s)\n  {named}: found "), message
    assert re.search(rf"expected.*{re.escape(expected)}.*; remedy: \w+", message), message


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "../digits", NOT_A_TASK),
        ("data.classes", {"0": "zero", "1": "zero"}, "different classes (zero is a duplicate)"),
        ("data.group", "digit", "different columns for group, time, label and channels (digit is a duplicate)"),
        ("data.image.height", 0, "greater than 0"),
        ("data.image.width", HUGE, "less than or equal to"),
        ("collect.snapshot", "yesterday", "valid datetime"),
        ("collect.snapshot", "0001-01-01T00:00:00Z", "between 1970 and 2200"),
        ("collect.retry.attempts", 5000, "less than or equal to 30"),
        ("collect.retry.timeout_s", 1e300, "less than or equal to 1000000"),
        ("collect.sources.digits.type", "magnetic-tape", "'embedded', 'cloud'"),
        ("collect.sources.digits.dataset", "mnist", "'sklearn-digits'"),
        (
            "validate.columns.values",
            {"type": "values", "nullable": False, "minimum": 16, "maximum": 0},
            "16 is above 0",
        ),
        ("validate.plausibility.1.minimum", 13, "a minimum that is not above the maximum, but 13 is above 12"),
        ("validate.quarantine_share", 1.5, "less than or equal to 1"),
        ("prepare.drift.bins", HUGE, "less than or equal to"),
        ("prepare.drift", {"bins": 500, "samples": 100}, "at most one bin per sample"),
        ("prepare.split.validation", 0.0, "greater than 0"),
        ("train.optimiser.learning_rate", "1e-3", "valid number; remedy: write it as 0.001, without quotes"),
        ("train.optimiser.learning_rate", "1e-5", "valid number; remedy: write it as 1.0e-05, without quotes"),
        ("train.optimiser.learning_rate", 0, "greater than 0"),
        ("train.optimiser.learning_rate", 1e39, "less than or equal to 1000"),
        ("train.optimiser.learning_rate", True, "valid number"),
        ("train.optimiser.learning_rate", 10**400, "valid number"),
        ("train.augment.rotation_deg", 400.0, "less than or equal to 180"),
        ("train.cnn.channels", [32, 10**9], "less than or equal to 65536"),
        ("train.rnn.layers", 10**6, "less than or equal to 64"),
        ("train.batch_size", HUGE, "less than or equal to"),
        ("train.epochs", "many", "valid integer"),
        ("compress.distil.temperature", 1e-300, "greater than or equal to 0.01"),
        ("compress.prune.sparsity", 1.0, "less than 1"),
        ("export.timeout_s", 10**9, "less than or equal to 1000000"),
        ("export.calibration_samples", 0, "greater than 0"),
        ("export.comparison_samples", HUGE, "less than or equal to"),
        ("export.quantization.methods", ["dynamic", "dynamic"], "each method once"),
        ("evaluate.confidence", 0.0, "greater than 0"),
        ("evaluate.confidence", 1.0, "less than 1"),
        ("evaluate.threads", 10**6, "less than or equal to 1024"),
        ("evaluate.repeats", 10, "at least 368 repeats"),
        ("gate.metrics.accuracy", 95, "less than or equal to 1"),
        ("gate.metrics.accuracy", -0.1, "greater than or equal to 0"),
        ("gate.retention.accuracy", 0.0, "greater than 0"),
        ("gate.retention.accuracy", 99, "less than or equal to 1.1"),
        ("gate.targets.onnx-fp32.size_kb", 0, "greater than 0"),
        ("package.golden_samples", 0, "greater than 0"),
        ("package.golden_samples", True, "valid integer"),
        ("package.licence", "", "at least 1 character"),
    ],
)
def test_a_fault_in_the_task_s_file(workspace: Path, field: str, value: Any, expected: str) -> None:
    change(workspace / TASK, field, value)

    message = refused()

    of_the_block = expected.startswith(("different", "a minimum", "'embedded'", "at least 368"))
    named = field.rsplit(".", 1)[0] if of_the_block else field
    assert message.startswith(f"{TASK}: 1 error(s)\n  {named}"), message
    assert re.search(rf"found .*expected: .*{re.escape(expected)}", message), message
    assert re.search(r"; remedy: \w+", message), message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_of_any_block_may_be_nan_or_infinite(workspace: Path, value: float) -> None:
    path = workspace / TASK
    original = path.read_text()
    fields = [field for field, held in leaves(yaml.safe_load(original)) if isinstance(held, float)]
    assert len(fields) > 40
    for field in fields:
        path.write_text(original)
        change(path, field, value)

        message = refused()

        assert f"{'.'.join(map(str, field))}: found {value!r} (float), expected: " in message


def test_every_fault_of_a_file_is_reported_at_once(workspace: Path) -> None:
    change(workspace / TASK, "train.epochs", 0)
    change(workspace / TASK, "gate.agreement", 2)
    change(workspace / TASK, "export.tie", 1)

    message = refused()

    assert message.startswith(f"{TASK}: 3 error(s)\n")
    assert all(f"  {field}: " in message for field in ("train.epochs", "gate.agreement", "export.tie"))


def test_a_missing_block_and_a_field_of_a_source_are_named_as_in_the_file(workspace: Path) -> None:
    path = workspace / TASK
    values = yaml.safe_load(path.read_text())
    del values["gate"]
    archive = {"select": ["*"], "path": None, "format": {"type": "csv", "separator": "::", "encoding": "utf-9"}}
    values["collect"]["sources"] = {"plant": {"type": "external_api", "url": "ftp://plant/a.zip", "archive": archive}}
    path.write_text(yaml.safe_dump(values))

    message = refused()

    assert (
        "  gate: found nothing, expected a value; remedy: add it (tasks/digits/params.yaml has an example)" in message
    )
    assert "  collect.sources.plant.url: found 'ftp://plant/a.zip' (str), expected: a URL" in message
    assert (
        "  collect.sources.plant.archive.format.separator: found '::' (str), expected: one ASCII character" in message
    )
    assert "  collect.sources.plant.archive.format.encoding: found 'utf-9' (str), expected: a text encoding" in message
    assert "  collect.sources.plant.archive.format.columns: found nothing" in message


def test_the_remedy_names_a_task_of_the_same_kind(workspace: Path) -> None:
    change(workspace / SHARED, "task", "pump")
    path = workspace / "tasks" / "pump" / "params.yaml"
    values = yaml.safe_load(path.read_text())
    del values["prepare"]["window"]
    path.write_text(yaml.safe_dump(values))

    assert "  prepare.window: found nothing, expected a value; remedy: add it (tasks/pump/params.yaml has" in refused()


def test_a_wrong_type_is_reported_in_four_parts(workspace: Path) -> None:
    change(workspace / TASK, "data.group", 7)

    assert "  data.group: found 7 (int), expected: a valid string; remedy: write it in quotes" in refused()


def test_too_little_memory_for_spark_is_refused(workspace: Path) -> None:
    change(workspace / SHARED, "compute.backend", "pyspark")
    change(workspace / SHARED, "compute.memory_limit", "100MB")

    assert "compute: found a block of 3 fields, expected: a memory_limit of at least 512MB" in refused()
    assert "memory_limit of at least 512MB for backend pyspark, not 100MB" in refused()


@pytest.mark.parametrize("master", ["local", "local[*]", "local[4]", "local[2,3]", "yarn"])
@pytest.mark.parametrize("more", ["spark://spark-1.plant:7077", "spark://a:7077,b:7077", "k8s://https://10.0.0.1:6443"])
def test_masters_that_spark_accepts(workspace: Path, master: str, more: str) -> None:
    for each in (master, more):
        change(workspace / SHARED, "compute.spark_master", each)
        assert load().compute.spark_master == each
