"""A build with a refused model fails; an experiment with a refused model succeeds and says why it was refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.gate import stage as gate
from tests.support.stages.built import edit

pytestmark = pytest.mark.slow

EXPERIMENT = {"DVC_EXP_BASELINE_REV": "0" * 40, "DVC_EXP_NAME": "tried-once"}


def enforce(**environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    command = [sys.executable, "-m", "stages.enforce"]
    return subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=False)


def refuse(root: Path) -> None:
    edit(root, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()


@pytest.mark.parametrize(
    "environment",
    [{}, {"DVC_EXP_NAME": "mine"}, {"DVC_EXP_BASELINE_REV": "0" * 40}, {**EXPERIMENT, "DVC_EXP_BASELINE_REV": ""}],
)
def test_a_refused_model_fails_the_build_with_every_failed_check(built: Path, environment: dict[str, str]) -> None:
    refuse(built)

    done = enforce(**environment)

    assert done.returncode == 1
    assert done.stderr.startswith("error: reports/gate.json: the gate did not pass; no bundle is made\n  onnx-fp32 acc")
    assert "is below 0.999" in done.stderr
    assert "remedy:   see reports/index.html" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_model_does_not_fail_an_experiment(built: Path) -> None:
    refuse(built)

    done = enforce(**EXPERIMENT)

    assert (done.returncode, done.stderr) == (0, "")
    assert "is below 0.999" in done.stdout
    assert "dvc exp show" in done.stdout


@pytest.mark.parametrize("environment", [{}, EXPERIMENT], ids=["build", "experiment"])
def test_a_model_that_passed_needs_no_words(built: Path, environment: dict[str, str]) -> None:
    gate.main()

    done = enforce(**environment)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("content", [None, "", "{", '{"passed": true}'])
def test_without_a_readable_verdict_an_experiment_fails_too(built: Path, content: str | None) -> None:
    if content is not None:
        (built / "reports/gate.json").write_text(content)

    done = enforce(**EXPERIMENT)

    assert done.returncode == 1
    assert done.stderr.startswith("error: reports/gate.json")
    assert "make repro" in done.stderr
