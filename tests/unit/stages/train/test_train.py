"""The stage `train`, as a person runs it."""

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

MODEL, REPORT = Path("models/trained/model.pt"), Path("reports/train")
NONE = {"noise": 0.0, "rotation_deg": 0.0, "scaling": 0.0, "time_shift": 0.0}


@pytest.fixture
def digits_workspace(workspace: Path) -> Path:
    return prepare_digits(workspace)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "THREADS", 1)  # for runs in this process, whose waiting threads spin


def trained(root: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    done: subprocess.CompletedProcess[str] = run_stage(root, "stages.train", **options)
    assert done.returncode == 0, done.stderr
    return done


def train_here() -> None:
    train(load())


@pytest.mark.slow
def test_it_writes_a_network_and_its_reports(digits_workspace: Path) -> None:
    said = trained(digits_workspace).stdout
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
        "train_loss", "validation_loss", "validation_accuracy", "validation_f1_macro", "learning_rate"
    ]  # fmt: skip
    best = rows[summary["best_epoch"]]
    assert float(best["validation_accuracy"]) == summary["validation"]["accuracy"]
    assert max(float(row["validation_accuracy"]) for row in rows) == summary["validation"]["accuracy"]
    live = (REPORT / "plots/metrics/validation/accuracy.tsv").read_text().split()[3::2]
    assert live == [row["validation_accuracy"] for row in rows]
    assert "test accuracy" in said and len(said.splitlines()) < 10
    assert not list(Path(".work/train").iterdir())  # nothing is left to resume
    assert not Path("dvc.lock").exists() and "dvclive" not in Path("dvc.yaml").read_text()


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(digits_workspace: Path) -> None:
    trained(digits_workspace, threads="1")
    first = (sha256(MODEL), sha256(REPORT))
    shutil.rmtree("models")
    trained(digits_workspace, threads="3")
    assert (sha256(MODEL), sha256(REPORT)) == first


def test_the_seed_matters(digits_workspace: Path) -> None:
    train_here()
    first = sha256(MODEL)
    shared = Path("params.yaml")
    shared.write_text(shared.read_text().replace("seed: 42", "seed: 43"))
    train_here()
    assert sha256(MODEL) != first


def kill_after_epoch(root: Path, stage: str, epochs: int) -> None:
    """SIGKILL as soon as so many epochs are in the checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", stage], cwd=root, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            for path in root.glob(".work/*/**/last.pt"):
                if len(torch.load(path, weights_only=True)["history"]) >= epochs:
                    process.send_signal(signal.SIGKILL)
                    assert process.wait() == -signal.SIGKILL
                    return
        raise AssertionError(f"{stage} ended, or wrote no checkpoint of {epochs} epochs in time")
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bytes(digits_workspace: Path) -> None:
    write_params(digits_workspace, train=recipe("cnn", epochs=12, augment={"noise": 0.05}))
    trained(digits_workspace)
    expected = (sha256(MODEL), sha256(REPORT))
    shutil.rmtree("models")
    shutil.rmtree("reports")
    kill_after_epoch(digits_workspace, "stages.train", 3)
    assert not MODEL.exists()
    (checkpoint,) = Path(".work/train").glob("*/last.pt")
    done = len(torch.load(checkpoint, weights_only=True)["history"])
    assert 3 <= done < 12
    trained(digits_workspace)
    assert (sha256(MODEL), sha256(REPORT)) == expected


@pytest.mark.slow
def test_a_checkpoint_of_other_parameters_or_data_is_not_taken_up_and_goes(digits_workspace: Path) -> None:
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
    beside_a_checkpoint = sha256(MODEL)
    train_here()
    assert sha256(MODEL) == beside_a_checkpoint


def test_only_this_stages_own_checkpoints_go(digits_workspace: Path) -> None:
    for stage in ("train", "compress"):
        Path(f".work/{stage}/0123456789abcdef/distil").mkdir(parents=True)
    train_here()
    assert not list(Path(".work/train").iterdir())
    assert Path(".work/compress/0123456789abcdef/distil").exists()


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_network(digits_workspace: Path) -> None:
    train_here()
    before = (sha256(MODEL), sha256(REPORT))
    write_params(digits_workspace, train=recipe("cnn", epochs=2))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [sys.executable, "-m", "stages.train"],
        cwd=digits_workspace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=small_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert (sha256(MODEL), sha256(REPORT)) == before
    assert not list(Path("models").glob(".*")) and not list(Path("reports").glob(".*"))


def test_a_rate_that_is_too_high_is_named_and_the_earlier_network_stays(
    digits_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here()
    before = sha256(MODEL)
    block = recipe("cnn", optimiser={"name": "sgd", "learning_rate": 1e30}, scheduler={"name": "none"})
    write_params(digits_workspace, train=block)
    code = call_stage("train", monkeypatch)
    said = capsys.readouterr().err
    assert code == 1
    assert said.startswith("error: ") and "learning_rate 1e+30" in said and "lower learning_rate" in said
    assert sha256(MODEL) == before


def test_one_class_only_is_refused(digits_workspace: Path) -> None:
    np.save("data/prepared/train/y.npy", np.full(400, 7))
    with pytest.raises(StageError, match="every training sample is of class '7'"):
        train_here()


def test_no_prepared_data_is_refused(workspace: Path) -> None:
    with pytest.raises(StageError, match="data/prepared: no prepared data"):
        train_here()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so that asking for one is no error")
def test_a_device_that_is_not_there_is_refused(digits_workspace: Path) -> None:
    shared = Path("params.yaml")
    shared.write_text(shared.read_text().replace("device: auto", "device: cuda"))
    with pytest.raises(ParameterError, match=r"params\.yaml: device"):
        train_here()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"network": "mlp"}, "train.network"),
        ({"cnn": {"kernel": 4}}, "kernel must be odd"),
        ({"transformer": {"width": 15}}, "multiple of heads"),
        ({"scheduler": {"warmup_epochs": 4}}, "warmup_epochs must be less than epochs"),
        ({"optimiser": {"learning_rate": "fast"}}, "train.optimiser.learning_rate"),
        ({"augment": {"time_shift": 0.1}}, "train.augment.time_shift"),
        ({"cnn": {"channels": [8, 8, 8, 8]}}, "train.cnn.channels"),
        ({"quantile_bins": 8}, "train.quantile_bins"),
    ],
)
def test_parameters_without_sense_are_named(change: dict[str, Any], named: str, digits_workspace: Path) -> None:
    write_params(digits_workspace, train=recipe(**{"network": "cnn", **change}))
    with pytest.raises(ParameterError, match=named):
        train_here()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["series", "log-mel", "mfcc"])
@pytest.mark.parametrize("network", ["cnn", "rnn", "transformer"])
def test_every_network_learns_series_and_sound(kind: str, network: str, workspace: Path) -> None:
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
def test_torchrun_spreads_the_same_work(digits_workspace: Path) -> None:
    # No augmentation and no batch norm, whose statistics are of each rank's own samples: then two see what one sees.
    block = recipe("transformer", epochs=3, augment=NONE, optimiser={"name": "sgd", "learning_rate": 0.05})
    write_params(digits_workspace, train=block)
    train_here()
    alone, report = networks.load(MODEL), json.loads((REPORT / "summary.json").read_text())
    shutil.rmtree("models")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "stages.train"]
    done = run_stage(digits_workspace, *torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1  # only rank 0 speaks
    spread = networks.load(MODEL)
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(spread.state_dict()[name], weight, atol=1e-4, rtol=1e-3, msg=name)
    assert json.loads((REPORT / "summary.json").read_text())["test"]["accuracy"] == report["test"]["accuracy"]
    first = sha256(MODEL)
    assert run_stage(digits_workspace, *torchrun).returncode == 0
    assert sha256(MODEL) == first
