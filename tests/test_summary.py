"""The table at the end of `make repro`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import gate, package, summary
from stages.errors import GateError, StageError
from stages.files import sha256
from tests.built_fixtures import build, edit, report


@pytest.fixture
def packaged(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which the whole pipeline has passed."""
    build(workspace)
    monkeypatch.setattr(sys, "argv", ["stage"])
    gate.main()
    package.main()
    return workspace


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
            f"{measured['latency_ms']['p95']['value']:.3f} ms",
            f"{measured['agreement']['value']:.2%}",
            "pass",
        ):
            assert cell in row
    archive = packaged / "models/bundle/digits.tar.zst"
    assert f"models/bundle/digits.tar.zst ({archive.stat().st_size / 1000:.1f} kB, sha256 {sha256(archive)})" in text
    assert "reports/index.html" in text


def test_the_same_for_machines(packaged: Path) -> None:
    value: dict[str, Any] = json.loads(printed("--json"))

    assert value["passed"] is True
    assert value["bundle"]["sha256"] == sha256(packaged / "models/bundle/digits.tar.zst")
    assert value["report"] == "reports/index.html"
    assert [target["target"] for target in value["targets"]] == ["onnx-fp32", "onnx-int8"]
    assert value["targets"][0]["retention"] == 1.0


def test_a_failed_target_names_its_checks(packaged: Path) -> None:
    edit(packaged, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    assert "FAIL, left out: size_kb" in printed()


def test_a_bundle_of_an_earlier_run_is_called_so(packaged: Path) -> None:
    edit(packaged, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    with pytest.raises(GateError):
        gate.main()

    text = printed()

    assert "FAIL: accuracy" in text
    assert "of an earlier run, since the gate did not pass now" in text


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
    assert loaded.isdisjoint({"torch", "pandas", "numpy", "matplotlib", "pydantic", "dvc", "jinja2"})
