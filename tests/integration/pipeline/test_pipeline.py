"""The whole pipeline on the default task, run as a user does: `dvc repro` in a fresh clone."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stages.clone import (
    ENVIRONMENT,
    REPOSITORY,
    bundle_digest,
    call,
    change,
    commit,
    fresh_clone,
    report,
    stages_run,
)

pytestmark = pytest.mark.slow

DIGITS = Path("tasks/digits/params.yaml")
ENFORCE = ["enforce"]  # DVC runs this stage in every run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which the default task has been built once, and committed."""
    root = fresh_clone(tmp_path_factory.mktemp("built"))
    (root / "dvc.lock").unlink(missing_ok=True)
    call(root, "dvc", "repro")
    commit(root)
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the built clone that the test may change."""
    return Path(shutil.copytree(built, tmp_path / "copy", symlinks=True))


def test_default_task_passes_every_gate_with_the_promised_quality(built: Path) -> None:
    gate, trained = report(built, "gate.json"), report(built, "train/summary.json")
    int8 = {name: report(built, f"evaluate/{name}/metrics.json") for name in ("onnx-int8", "tflite-int8")}

    assert gate["passed"], [check for check in gate["checks"] if not check["passed"]]
    assert trained["test"]["accuracy"] >= 0.98
    for metrics in int8.values():
        assert metrics["accuracy"]["value"] / trained["test"]["accuracy"] >= 0.99
    assert trained["size_bytes"] / int8["tflite-int8"]["size_bytes"] >= 10


def test_the_summary_has_times_samples_accuracies_and_ratios_of_the_build(built: Path) -> None:
    trained = report(built, "train/summary.json")
    summary = json.loads(call(built, "python", "-m", "stages.summary", "--json").stdout)
    text = call(built, "python", "-m", "stages.summary").stdout

    assert all(0 < summary["duration_s"][stage] < 3600 for stage in ("train", "compress"))
    assert sum(own["samples"] for own in summary["splits"].values()) == 1797  # the handwritten digits, none dropped
    assert {split: own["accuracy"] for split, own in summary["splits"].items()} == {
        split: trained[split]["accuracy"] for split in ("train", "validation", "test")
    }
    assert 0.98 <= summary["splits"]["train"]["accuracy"] <= 1
    for target in summary["targets"]:
        folder = built / "models/exported" / target["target"]
        exported = folder / json.loads((folder / "export.json").read_text())["file"]
        ratio = trained["size_bytes"] / exported.stat().st_size
        assert target["compression"] == pytest.approx(ratio)
        (row,) = [line for line in text.splitlines() if line.startswith(target["target"])]
        assert f"{ratio:.2f}x" in row
        assert len(row.rstrip()) <= 100
    assert "epochs), compression" in text


def changed(root: Path) -> Any:
    """Return what DVC would do in the next run: for each stage, what has changed."""
    return json.loads(call(root, "dvc", "status", "--json").stdout)


def test_without_a_change_only_the_verdict_is_enforced_again(built: Path) -> None:
    done = call(built, "dvc", "repro")

    assert stages_run(done.stdout) == ENFORCE
    assert changed(built) == {"enforce": ["always changed"]}


def test_the_first_build_changes_no_tracked_file_but_the_lock_file(built: Path) -> None:
    done = call(built, "git", "diff", "--name-only", "HEAD~1", "HEAD")

    assert done.stdout.split() == ["dvc.lock"]


def commands(title: str) -> list[str]:
    """Return the commands below a heading of docs/how-to/share-builds.md."""
    section = (REPOSITORY / "docs/how-to/share-builds.md").read_text().split(f"## {title}\n")[1]
    return re.findall(r"^\$ (.*)", section.split("```")[1], flags=re.MULTILINE)


def follow(root: Path, command: str, store: Path) -> str:
    """Run a documented command, with a folder as the store and this environment instead of that of `make setup`."""
    words = shlex.split(command.replace("s3://your-bucket/edge-ai", str(store)))
    if words[0] == "make":
        words[1:1] = ["--old-file", ".venv/.ready"]
    return "" if words[-1] == "setup" else call(root, *words).stdout


def share_and_clone(first: Path, tmp_path: Path) -> tuple[Path, str]:
    """Push `first`, delete it, and clone it by the documented commands. Return the clone and their output."""
    origin, second, store = tmp_path / "origin", tmp_path / "second", tmp_path / "store"
    call(tmp_path, "git", "clone", "--quiet", "--bare", str(first), str(origin))
    call(first, "git", "remote", "add", "origin", str(origin))
    call(first, "git", "push", "--quiet", "--set-upstream", "origin", "main")
    for command in commands("In the clone in which you build"):
        follow(first, command, store)
    shutil.rmtree(first)
    call(tmp_path, "git", "clone", "--quiet", str(origin), str(second))
    return second, "".join(follow(second, command, store) for command in commands("In any other clone"))


def test_a_clone_that_follows_the_documented_commands_restores_everything(copy: Path, tmp_path: Path) -> None:
    digest = bundle_digest(copy)

    second, output = share_and_clone(copy, tmp_path)

    assert stages_run(output) == ENFORCE
    assert "tflite-int8" in output and "models/bundle/digits.tar.zst" in output
    assert bundle_digest(second) == digest
    assert call(second, "git", "status", "--porcelain").stdout == ""


def test_a_clone_restores_everything_after_a_target_was_removed(copy: Path, tmp_path: Path) -> None:
    shared = yaml.safe_load((copy / "params.yaml").read_text())
    del shared["targets"]["onnx-int8"]
    (copy / "params.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))

    built_again = stages_run(call(copy, "dvc", "repro").stdout)
    commit(copy)
    digest = bundle_digest(copy)
    second, output = share_and_clone(copy, tmp_path)

    assert built_again == ["gate", "package", *ENFORCE]
    assert stages_run(output) == ENFORCE
    assert "tflite-int8" in output and "onnx-int8" not in output
    assert bundle_digest(second) == digest


def test_new_libraries_repeat_the_training_and_new_test_tools_do_not(copy: Path) -> None:
    with (copy / "constraints-dev.txt").open("a") as stream:
        stream.write("another==1.0\n")
    assert set(changed(copy)) == {"enforce"}

    with (copy / "constraints.txt").open("a") as stream:
        stream.write("another==1.0\n")
    planned = stages_run(call(copy, "dvc", "repro", "--dry").stdout)

    assert {"validate", "prepare", "train", "compress", "package"} <= set(planned) and "collect" not in planned


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("gate__calibration_error", 0.5, ["gate", "package"]),
        (
            "evaluate__confidence",
            0.9,
            [*(f"evaluate@{t}" for t in ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")), "gate", "package"],
        ),
        ("package__description", "another", ["package"]),
    ],
)
def test_a_changed_parameter_runs_only_what_depends_on_it(
    copy: Path, parameter: str, value: object, expected: list[str]
) -> None:
    change(copy / DIGITS, **{parameter: value})

    done = call(copy, "dvc", "repro")

    assert sorted(set(stages_run(done.stdout)) - {*expected, *ENFORCE}) == []
    assert stages_run(done.stdout)[0] == expected[0]


def test_a_build_killed_in_its_last_stages_recovers_to_the_same_bundle(copy: Path) -> None:
    change(copy / DIGITS, gate__calibration_error=0.5, package__description="another")
    moment = random.Random(7)  # noqa: S311 - a moment, not a secret
    killed: set[str] = set()

    while (stage := _run_until_new_stage_and_kill(copy, killed, moment)) is not None:
        killed.add(stage)

    assert killed == {"gate", "package", *ENFORCE}
    digest = bundle_digest(copy)
    assert stages_run(call(copy, "dvc", "repro", "--force", "--single-item", "package").stdout) == ["package"]
    assert bundle_digest(copy) == digest


@pytest.mark.exhaustive
def test_a_build_killed_in_every_stage_recovers_to_the_same_bundle(built: Path, tmp_path: Path) -> None:
    """Start from a clean clone and kill every stage once with SIGKILL. The bundle has the same bytes."""
    root = fresh_clone(tmp_path)
    (root / "dvc.lock").unlink(missing_ok=True)
    moment = random.Random(7)  # noqa: S311 - a moment, not a secret
    killed: set[str] = set()

    while (stage := _run_until_new_stage_and_kill(root, killed, moment)) is not None:
        killed.add(stage)

    assert len(killed) == len(call(root, "dvc", "stage", "list", "--name-only").stdout.split())
    assert bundle_digest(root) == bundle_digest(built)


def _run_until_new_stage_and_kill(root: Path, killed: set[str], moment: random.Random) -> str | None:
    """Run `dvc repro` and kill its process group in the first stage that was not killed before. None: it completed."""
    call(root, "python", "-m", "stages.restore", "--lock")
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        started = [stage for stage in stages_run(line) if stage not in killed]
        if started:
            try:
                process.wait(timeout=moment.uniform(0.0, 0.2 if started == ENFORCE else 1.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                raise AssertionError(f"ended in {started}:\n{output}")
            process.stdout.read()
            process.wait()
            return started[0]
    assert process.wait() == 0, output
    return None


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_after_a_truncated_lock_file_no_stage_runs_again(copy: Path, share: float) -> None:
    lock = copy / "dvc.lock"
    content = lock.read_text()
    call(copy, "git", "rm", "--quiet", "--cached", "dvc.lock")
    call(copy, "git", "commit", "--quiet", "--message", "no lock")
    lock.write_text(content[: int(len(content) * share)])

    call(copy, "python", "-m", "stages.restore", "--lock")
    done = call(copy, "dvc", "repro")

    assert stages_run(done.stdout) == ENFORCE
    assert lock.read_text() == content


def test_a_failed_gate_makes_no_bundle_and_keeps_the_last_good_one_restorable(copy: Path) -> None:
    before = yaml.safe_load((copy / DIGITS).read_text())["gate"]["metrics"]
    digest = bundle_digest(copy)
    change(copy / DIGITS, gate__metrics={"accuracy": 1.0})

    failed = call(copy, "dvc", "repro", check=False)
    call(copy, "python", "-m", "stages.restore")

    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout + failed.stderr
    assert not report(copy, "gate.json")["passed"]
    assert (copy / "reports" / "index.html").exists()
    assert [path.name for path in (copy / "models/bundle").iterdir()] == ["NO_BUNDLE.txt"]
    change(copy / DIGITS, gate__metrics=before)
    assert stages_run(call(copy, "dvc", "repro").stdout) == ENFORCE
    assert bundle_digest(copy) == digest
