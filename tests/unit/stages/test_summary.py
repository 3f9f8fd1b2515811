"""The table at the end of `make repro`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import summary
from stages.core.errors import StageError
from stages.core.files import sha256
from stages.gate import stage as gate
from stages.package import stage as package
from tests.support.stages.built import change_report, edit, report

pytestmark = pytest.mark.slow  # each starts the command line


def printed(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stages.summary", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_row_per_target_and_where_things_are(packaged: Path) -> None:
    text = printed()

    for name in ("onnx-fp32", "onnx-int8"):
        (row,) = [line for line in text.splitlines() if line.startswith(name)]
        measured = report(packaged, name)
        for cell in (
            f"{measured['accuracy']['value']:.2%}",
            f"{measured['f1_macro']['value']:.2%}",
            f"{measured['size_bytes'] / 1000:.1f} kB",
            f"{350_000 / measured['size_bytes']:.2f}x",
            f"{measured['latency_ms']['p95']['value']:.3f} ms",
            f"{measured['agreement']['value']:.2%}",
            "pass",
        ):
            assert cell in row
    archive = packaged / "models/bundle/digits.tar.zst"
    assert f"models/bundle/digits.tar.zst ({archive.stat().st_size / 1000:.1f} kB, sha256 {sha256(archive)})" in text
    assert "reports/index.html" in text


def test_splits_durations_and_the_float_size_are_below_the_targets(packaged: Path) -> None:
    text = printed()

    training = json.loads((packaged / "reports/train/summary.json").read_text())
    balance = json.loads((packaged / "reports/balance.json").read_text())
    for split in ("train", "validation", "test"):
        (row,) = [line.split() for line in text.splitlines() if line.startswith(split)]
        assert row == [
            split,
            f"{balance['splits'][split]['samples']:,}",
            f"{training[split]['accuracy']:.2%}",
        ]
    assert "time    training 61.2 s (12 epochs), compression 12.5 s" in text
    assert "float   350.0 kB, the trained network's weights" in text


def test_everything_but_the_bundle_and_notes_fits_in_100_columns(packaged: Path) -> None:
    edit(packaged, lambda task: task.update(name="bearing-vibration"))
    gate.main()

    lines = [line.rstrip() for line in printed().splitlines() if not line.startswith(("bundle", "note"))]
    assert [line for line in lines if len(line) > 100] == []
    assert sum(line.startswith("onnx-") for line in lines) == 2


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_what_is_not_recorded_is_left_open(packaged: Path, content: str | None) -> None:
    for name in ("train/summary.json", "balance.json", "durations/train.json"):
        path = packaged / "reports" / name
        path.unlink() if content is None else path.write_text(content)

    text = printed()
    assert [line.split() for line in text.splitlines() if line.startswith("validation")] == [["validation", "-", "-"]]
    assert "time    training not recorded, compression 12.5 s" in text
    value = json.loads(printed("--json"))
    assert value["splits"]["test"] == {"samples": None, "accuracy": None}
    assert value["network"] is None
    assert value["duration_s"] == {"train": None, "compress": 12.5}


def test_the_same_for_machines(packaged: Path) -> None:
    value: dict[str, Any] = json.loads(printed("--json"))

    assert value["passed"] is True
    assert value["bundle"]["sha256"] == sha256(packaged / "models/bundle/digits.tar.zst")
    assert value["report"] == "reports/index.html"
    assert [target["target"] for target in value["targets"]] == ["onnx-fp32", "onnx-int8"]
    assert value["targets"][0]["retention"] == 1.0
    first = value["targets"][0]
    assert first["compression"] == pytest.approx(350 / first["size_kb"])
    assert value["splits"]["train"] == {"samples": 1167, "accuracy": 0.975}
    assert value["network"] == {
        "kind": "cnn", "parameters": 87500, "float32_bytes": 350_000, "epochs": 12, "best_epoch": 7
    }  # fmt: skip
    assert value["duration_s"] == {"train": 61.25, "compress": 12.5}


def test_a_failed_target_names_its_checks(packaged: Path) -> None:
    edit(packaged, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    assert "FAIL, left out: size_kb" in printed()


def test_a_bundle_of_an_earlier_run_is_called_so(packaged: Path) -> None:
    edit(packaged, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()

    text = printed()

    assert "FAIL: accuracy" in text
    assert "from an earlier run, because the gate has now failed" in text


def test_a_bundle_of_other_files_is_called_one_of_an_earlier_run(packaged: Path) -> None:
    """The gate has passed again, and `package` has not run."""
    edit(packaged, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    assert "from an earlier run with different files; run make repro" in printed()
    assert json.loads(printed("--json"))["bundle"]["current"] is False

    package.main()
    assert "earlier run" not in printed()
    assert json.loads(printed("--json"))["bundle"]["current"] is True


def set_epochs(task: dict[str, Any]) -> None:
    task["train"]["epochs"] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: edit(root, set_epochs), "the parameters have changed since the verdict"),
        (lambda root: shutil.rmtree(root / "models/trained"), "models/trained/model.pt is missing"),
        (lambda root: (root / "reports/quality.json").write_text("{}"), "reports/quality.json has changed since"),
        (
            lambda root: change_report(root, "onnx-int8", samples=1),
            "reports/evaluate/onnx-int8/metrics.json has changed since the gate judged it",
        ),
    ],
)
def test_results_that_are_not_of_what_lies_here_now_are_called_those_of_an_earlier_run(
    packaged: Path, change: Any, message: str
) -> None:
    """This happens after a training that was killed: its former outputs are removed, later outputs are still there."""
    assert "earlier run" not in printed()
    change(packaged)

    text = printed()
    assert f"state   from an earlier run: {message}" in text
    for name in ("onnx-fp32", "onnx-int8"):
        assert "pass, from an earlier run" in next(line for line in text.splitlines() if line.startswith(name))
    assert re.search(r"bundle .*; from an earlier run$", text, re.MULTILINE)
    value = json.loads(printed("--json"))
    assert value["outdated"][0].startswith(message)
    assert value["bundle"]["current"] is False


def test_comments_order_and_where_the_work_is_done_make_no_other_parameters(packaged: Path) -> None:
    path = packaged / "params.yaml"
    path.write_text(path.read_text().replace("device: auto", "device: cpu") + "# a comment\n")
    edit(packaged, lambda task: task["package"].update(description="another"))
    edit(packaged, lambda task: task["gate"].update(agreement=float(task["gate"]["agreement"])))
    edit(packaged, lambda task: [task.update({key: task.pop(key)}) for key in sorted(task)])

    assert "earlier run" not in printed()


def test_a_failed_check_of_the_pipeline_is_said(packaged: Path) -> None:
    (packaged / "reports/quality.json").unlink()
    gate.main()

    assert "FAIL: quality: reports/quality.json: there is no such file" in printed()
    assert json.loads(printed("--json"))["failed"] == ["quality: reports/quality.json: there is no such file"]


@pytest.mark.parametrize("change", ["task", "name"])
def test_a_verdict_on_another_task_is_not_shown_as_this_ones(packaged: Path, change: str) -> None:
    if change == "task":
        params = packaged / "params.yaml"
        params.write_text(params.read_text().replace("task: digits", "task: pump"))
    else:
        edit(packaged, lambda task: task.update(name="pump"))

    refused(r"gate.json: name: found 'digits'", "'pump")


@pytest.mark.parametrize("name", ["params.yaml", "tasks/digits/params.yaml"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "task: 3\nname: 3", "\x00"])
def test_parameters_that_name_no_task_are_named(packaged: Path, name: str, content: str | None) -> None:
    (packaged / name).unlink() if content is None else (packaged / name).write_text(content)

    refused(name)


@pytest.mark.parametrize("name", ["gate", "metrics"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "{}", '{"name": NaN}', "[" * 100_000])
def test_a_damaged_report_is_named(packaged: Path, name: str, content: str | None) -> None:
    path = packaged / f"reports/{name}.json"
    path.unlink() if content is None else path.write_text(content)

    refused(f"reports/{name}.json", "make repro")


@pytest.mark.parametrize("row", [None, 3, {"accuracy": "high"}, {"accuracy": [1]}])
def test_a_row_that_holds_no_numbers_is_named(packaged: Path, row: Any) -> None:
    path = packaged / "reports/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "onnx-fp32": row}))

    refused("reports/metrics.json: onnx-fp32", "make repro")


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_bundle_that_was_cut_is_named(packaged: Path, keep: int) -> None:
    archive = packaged / "models/bundle/digits.tar.zst"
    archive.write_bytes(archive.read_bytes()[:keep])

    refused("digits.tar.zst: not a complete bundle", "make repro")


def refused(*messages: str) -> None:
    done = subprocess.run([sys.executable, "-m", "stages.summary"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for words in messages:
        assert words in done.stderr


def test_no_bundle_is_said(packaged: Path) -> None:
    (packaged / "models/bundle/digits.tar.zst").unlink()

    assert "none yet: run make repro" in printed()
    assert json.loads(printed("--json"))["bundle"] is None


@pytest.mark.parametrize("content", [None, "", "{"])
def test_before_anything_is_built_it_says_what_to_run(
    workspace: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (workspace / "reports").mkdir()
        (workspace / "reports" / "gate.json").write_text(content)

    with pytest.raises(StageError, match="make repro"):
        summary.summarise()


def test_it_loads_nothing_heavy(packaged: Path) -> None:
    code = (
        "import sys; sys.argv = ['summary']; import stages.summary; stages.summary.main(); "
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"torch", "pandas", "numpy", "matplotlib", "dvc", "jinja2"})
