"""Parameters: what is written is read; what cannot be meant is refused with file, field, found, expected and remedy."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.errors import ParameterError
from stages.params import Shared, load, where
from tests.conftest import REPOSITORY

SHARED, TASK = "params.yaml", "tasks/digits/params.yaml"
TASKS = sorted(path.parent.name for path in (REPOSITORY / "tasks").glob("*/params.yaml"))
HUGE = 10**30
NOT_A_TASK = "small letters, digits and -"


def change(path: Path, field: str | tuple[Any, ...], value: Any) -> None:
    """Set one field, dotted or as its parts; a part that is a number counts into a list."""
    if isinstance(field, str):
        field = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    block = values
    for part in field[:-1]:
        block = block[part]
    block[field[-1]] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def refused(root: Path = Path()) -> str:
    with pytest.raises(ParameterError) as error:
        load(root)
    return str(error.value)


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
        ("sed", 1, "no such parameter"),
    ],
)
def test_a_fault_in_the_shared_file(workspace: Path, field: str, value: Any, expected: str) -> None:
    change(workspace / SHARED, field, value)

    said = refused()

    named = "targets" if "with runtime" in expected else field
    assert said.startswith(f"{SHARED}: 1 fault(s)\n  {named}: found "), said
    assert re.search(rf"expected.*{re.escape(expected)}.*; remedy: \w+", said), said


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "../digits", NOT_A_TASK),
        ("data.classes", {"0": "zero", "1": "zero"}, "different classes (zero is there twice)"),
        ("data.classes", {0: "zero", "1": "one"}, "valid string"),
        ("data.group", "digit", "different columns for group, time, label and channels (digit is there twice)"),
        ("data.image.height", 0, "greater than 0"),
        ("data.image.width", HUGE, "less than or equal to"),
        ("collect.snapshot", "yesterday", "valid datetime"),
        ("collect.snapshot", "0001-01-01T00:00:00Z", "between 1970 and 2200"),
        ("collect.retry.attempts", 5000, "less than or equal to 30"),
        ("collect.retry.timeout_s", 1e300, "less than or equal to 1000000"),
        ("collect.sources.digits.type", "magnetic-tape", "'embedded', 'cloud'"),
        ("collect.sources.digits.dataset", "mnist", "'sklearn-digits'"),
        ("validate.columns.values", {"type": "values", "nullable": False, "minimum": 16, "maximum": 0}, "16 and 0"),
        ("validate.plausibility.1.minimum", 13, "a minimum that is not above the maximum; found 13 and 12"),
        ("validate.quarantine_share", 1.5, "less than or equal to 1"),
        ("prepare.drift.bins", HUGE, "less than or equal to"),
        ("prepare.drift", {"bins": 500, "samples": 100}, "at most one bin per sample"),
        ("prepare.split.validation", 0.0, "greater than 0"),
        ("train.optimiser.learning_rate", "1e-3", "valid number; remedy: write it as 0.001, without quotes"),
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
        ("evaluate.repeats", 10, "repeats must be at least"),
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

    said = refused()

    of_the_block = expected.startswith(("different", "a minimum", "'embedded'", "repeats must"))
    named = field.rsplit(".", 1)[0] if of_the_block else field
    assert said.startswith(f"{TASK}: 1 fault(s)\n  {named}"), said
    assert re.search(rf"found .*expected: .*{re.escape(expected)}", said), said
    assert re.search(r"; remedy: \w+", said), said


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every field below `values` as its parts, with what it holds."""
    if not isinstance(values, dict | list) or not values:
        yield path, values
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield from leaves(value, (*path, key))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_of_any_block_may_be_nan_or_infinite(workspace: Path, value: float) -> None:
    path = workspace / TASK
    original = path.read_text()
    fields = [field for field, held in leaves(yaml.safe_load(original)) if isinstance(held, float)]
    assert len(fields) > 40
    for field in fields:
        path.write_text(original)
        change(path, field, value)

        said = refused()

        assert f"{'.'.join(map(str, field))}: found {value!r} (float), expected: Input should be" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found nothing"),
        (b"# only a comment\n", "found nothing"),
        (b"- a\n- b\n", "found a list"),
        (b"digits\n", "found a str"),
        (b"task:\n\tdigits\n", "line 2, column 1"),
        (b"task: digits\n\tseed: 1\n", "line 2, column 1"),
        (b"task: [digits\nseed: 1\n", "line 2"),
        (b"task: !!python/object:os.system digits\n", "line 1, column 7"),
        (b"task: !!python/object/apply:os.system [id]\n", "line 1, column 7"),
        (b"task: !mine digits\n", "line 1, column 7"),
        (b"? [a, b]\n: 1\n", "unhashable key"),
        (b"? {a: b}\n: 1\n", "unhashable key"),
        (b"task: *nowhere\n", "undefined alias"),
        (b"task: digits\n---\ntask: pump\n", "line 2"),
        (b"seed: 2026-13-45\n", "month must be in 1..12"),
        (b"seed: !!int many\n", "invalid literal"),
        (b"seed: !!int ''\n", "not readable as YAML"),
        (b"seed: !!bool maybe\n", "not readable as YAML"),
        (b"seed: !!timestamp noon\n", "not readable as YAML"),
        (b'task: "\\ud800"\n', "line 1, column 7: found half of a character"),
        (b"seed: " + b"9" * 5000 + b"\n", "4300"),
        (b"seed: 0x" + b"f" * 6000 + b"\n", "a number of thousands of digits"),
        (b"task: &a [*a]\n", "valid string"),
        (b"a: &a\n  <<: [*a]\n  b: *a\n", "expected"),
        (b"task: " + b"[" * 20000 + b"]" * 20000 + b"\n", "nested too deeply, or in itself"),
        (b"task: digits\x00\n", "line 1"),
        (b"\x80\x02}q\x00.", "byte 0x80 at 0 is not UTF-8"),
        ("task: digits\n".encode("utf-16"), "is not UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
        (b"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> main\n", "line 2"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("name", [SHARED, TASK])
def test_a_file_that_is_no_mapping_of_parameters(workspace: Path, name: str, content: bytes, words: str) -> None:
    (workspace / name).write_bytes(content)

    said = refused()

    assert said.startswith(f"{name}: "), said[:200]
    if name == SHARED or "fault(s)" not in said:
        assert words in said
    assert "expected" in said
    assert "remedy:" in said


@pytest.mark.parametrize("name", [SHARED, TASK])
def test_a_file_that_is_none(workspace: Path, name: str) -> None:
    (workspace / name).unlink()
    assert refused().startswith(f"{name}: there is no such file\n  expected: a YAML file")

    (workspace / name).mkdir()
    assert refused().startswith(f"{name}: not readable: Is a directory\n  expected: a YAML file")


def test_keys_that_are_written_twice_are_all_named_with_their_lines(workspace: Path) -> None:
    path = workspace / TASK
    lines = path.read_text().splitlines()
    deep = next(i for i, line in enumerate(lines) if line.startswith("  epochs: 40"))
    listed = next(i for i, line in enumerate(lines) if "share of ink" in line)
    lines[listed] = lines[listed].replace("minimum: 1,", "minimum: 1, minimum: 2,")
    lines.insert(deep + 3, "  epochs: 2")
    lines.append("name: again")
    path.write_text("\n".join(lines))
    name = next(i for i, line in enumerate(lines) if line.startswith("name:"))

    said = refused()

    assert said.startswith(f"{TASK}: found a key twice\n")
    assert f"  validate.plausibility.1.minimum: line {listed + 1} and again line {listed + 1}\n" in said
    assert f"  train.epochs: line {deep + 1} and again line {deep + 4}\n" in said
    assert f"  name: line {name + 1} and again line {len(lines)}\n" in said
    assert "remedy:   remove one of the two" in said


def test_a_key_twice_in_the_shared_file(workspace: Path) -> None:
    path = workspace / SHARED
    path.write_text(path.read_text() + "  onnx-fp32: {runtime: litert, precision: int8}\n")

    said = refused()

    assert re.match(r"params\.yaml: found a key twice\n  targets\.onnx-fp32: line \d+ and again line \d+\n", said)


def test_anchors_merge_keys_and_a_byte_order_mark_mean_what_yaml_says(workspace: Path) -> None:
    path = workspace / TASK
    text = path.read_text().replace("onnx-fp32: {required", "onnx-fp32: &budget {required")
    text = re.sub(r"(?m)^    onnx-int8: \{.*\}$", "    onnx-int8: {<<: *budget, size_kb: 100}", text)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    budgets = load().gate.targets

    assert budgets["onnx-int8"] == budgets["onnx-fp32"].model_copy(update={"size_kb": 100})
    assert budgets["onnx-fp32"].size_kb == 200


def test_every_fault_of_a_file_is_named_at_once(workspace: Path) -> None:
    change(workspace / TASK, "train.epochs", 0)
    change(workspace / TASK, "gate.agreement", 2)
    change(workspace / TASK, "export.tie", 1)

    said = refused()

    assert said.startswith(f"{TASK}: 3 fault(s)\n")
    assert all(f"  {field}: " in said for field in ("train.epochs", "gate.agreement", "export.tie"))


def test_a_block_that_is_missing_and_a_source_s_field_are_named_as_they_are_written(workspace: Path) -> None:
    path = workspace / TASK
    values = yaml.safe_load(path.read_text())
    del values["gate"]
    archive = {"select": ["*"], "path": None, "format": {"type": "csv", "separator": "::", "encoding": "utf-9"}}
    values["collect"]["sources"] = {"plant": {"type": "external_api", "url": "ftp://plant/a.zip", "archive": archive}}
    path.write_text(yaml.safe_dump(values))

    said = refused()

    assert "  gate: found nothing, expected a value; remedy: add it" in said
    assert "  collect.sources.plant.url: found 'ftp://plant/a.zip' (str), expected: a URL" in said
    assert "  collect.sources.plant.archive.format.separator: found '::' (str), expected: one ASCII character" in said
    assert "  collect.sources.plant.archive.format.encoding: found 'utf-9' (str), expected: an encoding" in said
    assert "  collect.sources.plant.archive.format.columns: found nothing" in said


def test_a_spark_that_would_not_start_for_want_of_memory(workspace: Path) -> None:
    change(workspace / SHARED, "compute.backend", "pyspark")
    change(workspace / SHARED, "compute.memory_limit", "100MB")

    assert "compute: found {'backend': 'pyspark'" in refused()
    assert "memory_limit of at least 512MB for backend pyspark; found 100MB" in refused()


@pytest.mark.parametrize("master", ["local", "local[*]", "local[4]", "local[2,3]", "yarn"])
@pytest.mark.parametrize("more", ["spark://spark-1.plant:7077", "spark://a:7077,b:7077", "k8s://https://10.0.0.1:6443"])
def test_masters_that_spark_takes(workspace: Path, master: str, more: str) -> None:
    for each in (master, more):
        change(workspace / SHARED, "compute.spark_master", each)
        assert load().compute.spark_master == each


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_of_every_task_is_loaded(workspace: Path, task: str) -> None:
    """What is written comes back from the typed object, each value as itself; what is not written steers nothing."""
    change(workspace / SHARED, "task", task)
    written = yaml.safe_load((workspace / "params.yaml").read_text()) | yaml.safe_load(
        (workspace / "tasks" / task / "params.yaml").read_text()
    )

    params = load()

    read = params.model_dump(mode="json", by_alias=True)
    found = dict(leaves(read))
    told = dict(leaves(written))
    assert {field: found[field] for field in told} == told
    assert all(found[field] in (None, False) for field in found.keys() - told.keys())  # an optional one, left out
    assert set(read) == {field.alias or name for name, field in type(params).model_fields.items()}


@pytest.mark.parametrize("task", TASKS)
def test_a_parameter_is_named_with_the_file_that_holds_it(workspace: Path, task: str) -> None:
    change(workspace / SHARED, "task", task)

    for field in Shared.model_fields:
        assert where(field) == f"params.yaml: {field}"
    assert where("train.batch_size") == f"tasks/{task}/params.yaml: train.batch_size"


def test_no_message_names_a_file_that_is_not_there() -> None:
    for path in sorted((REPOSITORY / "stages").rglob("*.py")):
        messages = [
            line
            for line in path.read_text().splitlines()
            if re.search(r"""["'](params: |[^"']*tasks/<task>/params)""", line)
        ]
        assert [line for line in messages if '"""' not in line] == [], path


@pytest.mark.parametrize("stage", ["validate", "prepare", "gate"])
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(SHARED, "task", "../digits"), (SHARED, "seed", -1), (TASK, "gate.metrics.accuracy", float("nan"))],
)
def test_a_stage_refuses_and_leaves_what_there_is(
    workspace: Path, stage: str, name: str, field: str, value: Any
) -> None:
    # given what an earlier run wrote
    outputs = [Path("data/prepared/spec.json"), Path("data/validated/rows.parquet"), Path("reports/gate.json")]
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"earlier {output}")
    change(workspace / name, field, value)
    before = contents(workspace)
    # when
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], capture_output=True, text=True, check=False)
    # then
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}: 1 fault(s)\n  {field}: found {value!r} ")
    assert "remedy: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert contents(workspace) == before


def contents(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
