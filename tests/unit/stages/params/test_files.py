"""Parameter files: valid YAML is read; other content and duplicate keys are refused with their lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stages.params import load
from tests.support.stages.params import SHARED, TASK, refused


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
        (b"task: " + b"[" * 20000 + b"]" * 20000 + b"\n", "values are nested too deeply, or contain themselves"),
        (b"task: digits\x00\n", "line 1"),
        (b"\x80\x02}q\x00.", "byte 0x80 at 0 is not UTF-8"),
        ("task: digits\n".encode("utf-16"), "is not UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
        (b"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> main\n", "line 2"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("name", [SHARED, TASK])
def test_a_file_without_a_mapping_of_parameters_is_refused(
    workspace: Path, name: str, content: bytes, words: str
) -> None:
    (workspace / name).write_bytes(content)

    message = refused()

    assert message.startswith(f"{name}: "), message[:200]
    if name == SHARED or "error(s)" not in message:
        assert words in message
    assert "expected" in message
    assert "remedy:" in message


@pytest.mark.parametrize("name", [SHARED, TASK])
def test_something_other_than_a_file_is_refused(workspace: Path, name: str) -> None:
    (workspace / name).unlink()
    assert refused().startswith(f"{name}: there is no such file\n  expected: a YAML file")

    (workspace / name).mkdir()
    assert refused().startswith(f"{name}: not readable: Is a directory\n  expected: a YAML file")


def test_all_duplicate_keys_are_reported_with_their_lines(workspace: Path) -> None:
    path = workspace / TASK
    lines = path.read_text().splitlines()
    deep = next(i for i, line in enumerate(lines) if line.startswith("  epochs: 40"))
    listed = next(i for i, line in enumerate(lines) if "share of ink" in line)
    lines[listed] = lines[listed].replace("minimum: 1,", "minimum: 1, minimum: 2,")
    lines.insert(deep + 3, "  epochs: 2")
    lines.append("name: again")
    path.write_text("\n".join(lines))
    name = next(i for i, line in enumerate(lines) if line.startswith("name:"))

    message = refused()

    assert message.startswith(f"{TASK}: found a duplicate key\n")
    assert f"  validate.plausibility.1.minimum: line {listed + 1} and line {listed + 1}\n" in message
    assert f"  train.epochs: line {deep + 1} and line {deep + 4}\n" in message
    assert f"  name: line {name + 1} and line {len(lines)}\n" in message
    assert "remedy:   remove one of the two lines" in message


@pytest.mark.parametrize(
    ("word", "kind"),
    [("no", "a truth value"), ("off", "a truth value"), ("null", "null"), ("~", "null"), ("1", "a number"),
     (".nan", "a number"), ("1:30", "a number"), ("2026-01-01", "a date")],
)  # fmt: skip
def test_a_class_whose_name_yaml_reads_as_a_value_is_refused(workspace: Path, word: str, kind: str) -> None:
    path = workspace / TASK
    text = path.read_text()
    number = next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith("  classes:"))
    path.write_text(re.sub(r"classes: .*", f"classes: {{{word}: a, b: c}}", text, count=1))

    message = refused()

    assert f"data.classes.{word}: YAML reads the key in line {number} as {kind}" in message
    assert "write it in quotes" in message

    path.write_text(re.sub(r"classes: .*", f'classes: {{"{word}": a, b: "{word}"}}', text, count=1))
    assert load().data.classes == {word: "a", "b": word}


@pytest.mark.parametrize("word", ["NA", "None", "nan", "NaN", "y", "n", "N/A"])
def test_other_words_are_names_of_classes_without_quotes(workspace: Path, word: str) -> None:
    path = workspace / TASK
    path.write_text(re.sub(r"classes: .*", f"classes: {{{word}: a, b: {word}}}", path.read_text(), count=1))

    assert load().data.classes == {word: "a", "b": word}


def test_a_duplicate_key_in_the_shared_file(workspace: Path) -> None:
    path = workspace / SHARED
    path.write_text(path.read_text() + "  onnx-fp32: {runtime: litert, precision: int8}\n")

    message = refused()

    assert re.match(r"params\.yaml: found a duplicate key\n  targets\.onnx-fp32: line \d+ and line \d+\n", message)


def test_anchors_merge_keys_and_a_byte_order_mark_are_read_as_yaml(workspace: Path) -> None:
    path = workspace / TASK
    text = path.read_text().replace("onnx-fp32: {required", "onnx-fp32: &budget {required")
    text = re.sub(r"(?m)^    onnx-int8: \{.*\}$", "    onnx-int8: {<<: *budget, size_kb: 100}", text)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    budgets = load().gate.targets

    assert budgets["onnx-int8"] == budgets["onnx-fp32"].model_copy(update={"size_kb": 100})
    assert budgets["onnx-fp32"].size_kb == 200
