"""Test the stage train as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import networks
from stages.core.errors import ParameterError, StageError
from stages.core.files import sha256
from stages.params import load
from stages.train import fabric
from stages.train.stage import train
from tests.support.stages.bench import call_stage
from tests.support.stages.training import prepare_digits, recipe, run_stage, write_params, write_prepared

pytestmark = pytest.mark.slow

MODEL, REPORT = Path("models/trained/model.pt"), Path("reports/train")
NONE = {"noise": 0.0, "rotation_deg": 0.0, "scaling": 0.0, "time_shift": 0.0}
# Run in every test run: each kind of data and each network once.
REPRESENTATIVE = {("series", "rnn"), ("log-mel", "cnn"), ("mfcc", "transformer")}
KINDS_AND_NETWORKS = [
    pytest.param(kind, network, marks=[] if (kind, network) in REPRESENTATIVE else pytest.mark.exhaustive)
    for network in ("cnn", "rnn", "transformer")
    for kind in ("series", "log-mel", "mfcc")
]


@pytest.fixture
def digits_workspace(workspace: Path) -> Path:
    return prepare_digits(workspace)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "THREADS", 1)  # more threads would busy-wait in this process


def run_training(root: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the stage in a separate process."""
    result: subprocess.CompletedProcess[str] = run_stage(root, "stages.train", **options)
    assert result.returncode == 0, result.stderr
    return result


def train_here() -> None:
    train(load())


@pytest.mark.slow
def test_the_stage_writes_a_network_and_its_reports(digits_workspace: Path) -> None:
    output = run_training(digits_workspace).stdout
    network = networks.load(MODEL)
    summary = json.loads((REPORT / "summary.json").read_text())
    assert summary["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert summary["size_bytes"] == 4 * summary["parameters"]
    x, y = (np.load(f"data/prepared/test/{name}.npy") for name in "xy")
    with torch.no_grad():
        accuracy = float((network(torch.from_numpy(x)).argmax(1).numpy() == y).mean())
    assert summary["test"]["accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.8
    x, y = (np.load(f"data/prepared/train/{name}.npy") for name in "xy")
    with torch.no_grad():
        accuracy = float((network(torch.from_numpy(x)).argmax(1).numpy() == y).mean())
    assert summary["train"]["accuracy"] == pytest.approx(accuracy)
    assert json.loads(Path("reports/durations/train.json").read_text())["seconds"] > 0
    with (REPORT / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert list(rows[0])[1:] == [
        "train_loss", "validation_loss", "validation_accuracy", "validation_f1_macro", "learning_rate",
        "validation_f1_partial",
    ]  # fmt: skip
    best = rows[summary["best_epoch"]]
    assert float(best["validation_accuracy"]) == summary["validation"]["accuracy"]
    assert max(float(row["validation_accuracy"]) for row in rows) == summary["validation"]["accuracy"]
    live = (REPORT / "plots/metrics/validation/accuracy.tsv").read_text().split()[3::2]
    assert live == [row["validation_accuracy"] for row in rows]
    assert "test accuracy" in output and len(output.splitlines()) < 10
    assert not list(Path(".work/train").iterdir())  # the checkpoint was removed
    assert not Path("dvc.lock").exists() and "dvclive" not in Path("dvc.yaml").read_text()


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(digits_workspace: Path) -> None:
    run_training(digits_workspace, threads="1")
    first = (sha256(MODEL), sha256(REPORT))
    shutil.rmtree("models")
    run_training(digits_workspace, threads="3")
    assert (sha256(MODEL), sha256(REPORT)) == first


def test_another_seed_gives_another_network(digits_workspace: Path) -> None:
    train_here()
    first = sha256(MODEL)
    shared = Path("params.yaml")
    shared.write_text(shared.read_text().replace("seed: 42", "seed: 43"))
    train_here()
    assert sha256(MODEL) != first


def kill_after_epoch(root: Path, stage: str, epochs: int) -> None:
    """Start a stage, and kill it as soon as its checkpoint holds this number of epochs."""
    process = subprocess.Popen([sys.executable, "-m", stage], cwd=root, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            for path in root.glob(".work/*/**/last.pt"):
                if len(torch.load(path, weights_only=True)["history"]) >= epochs:
                    process.send_signal(signal.SIGKILL)
                    assert process.wait() == -signal.SIGKILL
                    return
        raise AssertionError(f"{stage} ended or did not write a checkpoint of {epochs} epochs in time")
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(digits_workspace: Path) -> None:
    write_params(digits_workspace, train=recipe("cnn", epochs=12, augment={"noise": 0.05}))
    run_training(digits_workspace)
    expected = (sha256(MODEL), sha256(REPORT))
    shutil.rmtree("models")
    shutil.rmtree("reports")
    kill_after_epoch(digits_workspace, "stages.train", 3)
    assert not MODEL.exists()
    (checkpoint,) = Path(".work/train").glob("*/last.pt")
    completed = len(torch.load(checkpoint, weights_only=True)["history"])
    assert 3 <= completed < 12
    run_training(digits_workspace)
    assert (sha256(MODEL), sha256(REPORT)) == expected


@pytest.mark.slow
def test_a_checkpoint_of_other_parameters_or_data_is_ignored_and_removed(digits_workspace: Path) -> None:
    checkpoints = Path(".work/train")
    write_params(digits_workspace, train=recipe("cnn", epochs=12))
    kill_after_epoch(digits_workspace, "stages.train", 2)
    write_params(digits_workspace, train=recipe("cnn", epochs=2))
    train_here()
    assert not list(checkpoints.iterdir())
    assert json.loads((REPORT / "summary.json").read_text())["epochs"] == 2
    kill_after_epoch(digits_workspace, "stages.train", 1)
    y = np.load("data/prepared/train/y.npy")
    np.save("data/prepared/train/y.npy", y[::-1])
    train_here()
    assert not list(checkpoints.iterdir())
    with_stale_checkpoint = sha256(MODEL)
    train_here()
    assert sha256(MODEL) == with_stale_checkpoint


def test_only_checkpoints_of_the_same_stage_are_removed(digits_workspace: Path) -> None:
    for stage in ("train", "compress"):
        Path(f".work/{stage}/0123456789abcdef/distil").mkdir(parents=True)
    train_here()
    assert not list(Path(".work/train").iterdir())
    assert Path(".work/compress/0123456789abcdef/distil").exists()


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_network_intact(digits_workspace: Path) -> None:
    train_here()
    before = (sha256(MODEL), sha256(REPORT))
    write_params(digits_workspace, train=recipe("cnn", epochs=2))

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    result = subprocess.run(
        [sys.executable, "-m", "stages.train"],
        cwd=digits_workspace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "File too large" in result.stderr and "Traceback" not in result.stderr
    assert (sha256(MODEL), sha256(REPORT)) == before
    assert not list(Path("models").glob(".*")) and not list(Path("reports").glob(".*"))


def test_the_error_names_a_learning_rate_that_is_too_high_and_the_earlier_network_stays(
    digits_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here()
    before = sha256(MODEL)
    block = recipe("cnn", optimiser={"name": "sgd", "learning_rate": 1e30}, scheduler={"name": "none"})
    write_params(digits_workspace, train=block)
    code = call_stage("train", monkeypatch)
    message = capsys.readouterr().err
    assert code == 1
    assert message.startswith("error: ")
    assert "learning_rate 1e+30" in message and "lower learning_rate" in message
    assert sha256(MODEL) == before


def test_training_data_of_a_single_class_is_refused(digits_workspace: Path) -> None:
    np.save("data/prepared/train/y.npy", np.full(400, 7))
    with pytest.raises(StageError, match="every training sample is of class '7'"):
        train_here()


def test_missing_prepared_data_is_refused(workspace: Path) -> None:
    with pytest.raises(StageError, match="data/prepared: no prepared data"):
        train_here()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device cuda is available on this machine")
def test_a_device_that_is_not_available_is_refused(digits_workspace: Path) -> None:
    shared = Path("params.yaml")
    shared.write_text(shared.read_text().replace("device: auto", "device: cuda"))
    with pytest.raises(ParameterError, match=r"params\.yaml: device"):
        train_here()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "mlp"}, "train.network"),
        ({"cnn": {"kernel": 4}}, "an odd kernel"),
        ({"transformer": {"width": 15}}, "multiple of heads"),
        ({"scheduler": {"warmup_epochs": 4}}, "scheduler.warmup_epochs less than"),
        ({"optimiser": {"learning_rate": "fast"}}, "train.optimiser.learning_rate"),
        ({"augment": {"time_shift": 0.1}}, "train.augment.time_shift"),
        ({"cnn": {"channels": [8, 8, 8, 8]}}, "train.cnn.channels"),
        ({"quantile_bins": 8}, "train.quantile_bins"),
    ],
)
def test_the_error_names_an_invalid_parameter(change: dict[str, Any], message: str, digits_workspace: Path) -> None:
    write_params(digits_workspace, train=recipe(**{"network": "cnn", **change}))
    with pytest.raises(ParameterError, match=message):
        train_here()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "network"), KINDS_AND_NETWORKS)
def test_every_network_learns_series_and_audio(kind: str, network: str, workspace: Path) -> None:
    write_prepared(workspace, kind)
    augment = {"noise": 0.05, "scaling": 0.1, "time_shift": 0.05}
    rnn = {"pool": "max" if kind != "series" else "last"}
    write_params(workspace, train=recipe(network, epochs=20, rnn=rnn, augment=augment))
    train_here()
    assert json.loads((REPORT / "summary.json").read_text())["test"]["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("network", ["rnn", "transformer"])
def test_every_network_learns_images(network: str, digits_workspace: Path) -> None:
    write_params(digits_workspace, train=recipe(network, epochs=30))
    train_here()
    assert json.loads((REPORT / "summary.json").read_text())["test"]["accuracy"] > 0.75


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_result_of_one(digits_workspace: Path) -> None:
    # Without augmentation and batch norm, whose statistics cover only a rank's samples, two processes compute what one
    # does.
    block = recipe("transformer", epochs=3, augment=NONE, optimiser={"name": "sgd", "learning_rate": 0.05})
    write_params(digits_workspace, train=block)
    train_here()
    single, report = networks.load(MODEL), json.loads((REPORT / "summary.json").read_text())
    shutil.rmtree("models")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "stages.train"]
    result = run_stage(digits_workspace, *torchrun)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("test accuracy") == 1  # only rank 0 prints
    distributed = networks.load(MODEL)
    for name, weight in single.state_dict().items():
        torch.testing.assert_close(distributed.state_dict()[name], weight, atol=1e-4, rtol=1e-3, msg=name)
    assert json.loads((REPORT / "summary.json").read_text())["test"]["accuracy"] == report["test"]["accuracy"]
    first = sha256(MODEL)
    assert run_stage(digits_workspace, *torchrun).returncode == 0
    assert sha256(MODEL) == first
