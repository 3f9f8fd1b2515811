"""Test distillation, structured pruning and the stage compress."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import networks
from stages.compress.distil import distillation, make_student
from stages.compress.prune import prune
from stages.compress.stage import compress, summary
from stages.core.errors import StageError
from stages.core.files import sha256
from stages.params import load
from stages.params.compress import Distil
from stages.train import batches, fabric
from stages.train.objective import cross_entropy
from stages.train.stage import train
from tests.support.stages.training import (
    prepare_digits,
    recipe,
    run_stage,
    samples,
    spec_of,
    train_params,
    write_params,
    write_prepared,
)
from tests.support.stages.workspace import copy_code
from tests.unit.stages.train.test_train import kill_after_epoch

pytestmark = pytest.mark.slow

MODEL, REFERENCE, REPORT = (
    Path("models/compressed/model.pt"),
    Path("models/reference.npz"),
    Path("reports/compress.json"),
)
DISTIL = {"enabled": True, "temperature": 4.0, "alpha": 0.7, "epochs": 15, "student_scale": 0.5}
PRUNE = {"enabled": True, "sparsity": 0.5, "finetune_epochs": 5, "learning_rate": 0.005}
OFF = {"enabled": False}


class Cpu:
    device = "cpu"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "THREADS", 1)  # more threads would busy-wait in this process


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with digits and a network that was trained on them; distillation and pruning are enabled."""
    root = prepare_digits(copy_code(tmp_path_factory.mktemp("trained")))
    cnn = {"channels": [16, 32], "hidden": 64}
    write_params(root, train=recipe("cnn", epochs=10, cnn=cnn), compress={"distil": DISTIL, "prune": PRUNE})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fabric, "THREADS", 1)
        patch.chdir(root)
        train(load())
    return root


@pytest.fixture
def digits_workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that workspace, as the current directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps() -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in json.loads(REPORT.read_text())["steps"]}


def prune_on(network: networks.Network, kind: str, folder: Path, sparsity: float = 0.5) -> networks.Network:
    data = batches.Data.open(write_prepared(folder, kind))
    objective = cross_entropy(data, train_params(), torch.device("cpu"))
    cpu = fabric.start_fabric(Cpu())  # type: ignore[arg-type]
    return prune(cpu, network, data, objective, sparsity, seed=1)


@pytest.mark.parametrize("kind", ["image", "series", "log-mel"])
@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("cnn", {"cnn": {"channels": [8, 16, 16]}}),
        ("cnn", {"cnn": {"head": "average"}}),
        ("rnn", {"rnn": {"layers": 2}}),
        ("rnn", {"rnn": {"cell": "lstm", "pool": "max", "layers": 2}}),
        ("transformer", {"transformer": {"layers": 2}}),
    ],
)
def test_pruning_halves_the_channels_of_every_layer(
    kind: str, network: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    original = networks.build(spec_of(kind), train_params(network, **changes))
    half = prune_on(original, kind, tmp_path)
    for name in ("channels", "hidden", "width", "head_width", "feedforward"):
        if name in original.sizes():
            assert np.array_equal(np.array(half.sizes()[name]) * 2, original.sizes()[name]), name
    networks.save(half, tmp_path / "half.pt")
    x = torch.from_numpy(samples(kind, 3)[0])
    assert torch.equal(networks.load(tmp_path / "half.pt")(x), half(x))


def test_idle_channels_are_removed_first_and_the_outputs_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = networks.build(spec_of("image"), train_params("cnn")).eval()
    with torch.no_grad():  # ReLU(BN(...)) is 0 where the weight and the bias of BN are 0
        for block, idle in zip(
            network.body.blocks, (torch.tensor([0, 3, 4, 7]), torch.arange(16) % 2 == 1), strict=True
        ):
            block[1].weight[idle], block[1].bias[idle] = 0.0, 0.0
        network.body.hidden.weight[::2], network.body.hidden.bias[::2] = 0.0, 0.0
    x = torch.from_numpy(samples("image", 20)[0])
    torch.testing.assert_close(prune_on(network, "image", tmp_path).eval()(x), network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", ["last", "max"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_idle_recurrent_units_are_removed_from_every_gate_and_the_outputs_stay(
    cell: str, pool: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    rnn = {"cell": cell, "pool": pool, "layers": 2}
    network = networks.build(spec_of("series"), train_params("rnn", rnn=rnn)).eval()
    with torch.no_grad():  # a unit whose candidate is 0 always stays at 0
        for layer, idle in zip(network.body.layers, (slice(0, 16, 2), slice(0, 8)), strict=True):
            for gates in (layer.inputs, layer.recurrent):
                candidate = gates[layer.gates.index("candidate")]
                candidate.weight[idle], candidate.bias[idle] = 0.0, 0.0
    smaller = prune_on(network, "series", tmp_path).eval()
    assert smaller.sizes()["hidden"] == [8, 8]
    x = torch.from_numpy(samples("series", 20)[0])
    torch.testing.assert_close(smaller(x), network(x), atol=1e-5, rtol=1e-5)


def test_a_transformer_loses_the_same_channels_in_all_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = networks.build(spec_of("series"), train_params("transformer"))
    half = prune_on(original, "series", tmp_path)
    old, new = original.body, half.body
    width = kept(old.position[0, 0], new.position[0, 0])  # previous positions of the channels that are kept
    assert torch.equal(new.embed.weight, old.embed.weight[width])
    assert torch.equal(new.classifier.weight, old.classifier.weight[:, width])
    before, after = old.layers[0], new.layers[0]
    inner = kept(before.expand.bias, after.expand.bias)
    assert torch.equal(after.expand.weight, before.expand.weight[inner][:, width])
    assert torch.equal(after.contract.weight, before.contract.weight[width][:, inner])
    head = kept(before.attention.key.bias, after.attention.key.bias)
    assert [int((head // 8 == number).sum()) for number in range(2)] == [4, 4]  # the same number from every head
    assert torch.equal(after.attention.key.weight, before.attention.key.weight[head][:, width])
    # The heads are now 4 wide. The query is scaled, so that attention still divides by sqrt(8) in effect.
    expected = before.attention.query.weight[head][:, width] / 4**-0.5 * 8**-0.5
    torch.testing.assert_close(after.attention.query.weight, expected)
    value = kept(before.attention.value.bias, after.attention.value.bias)
    assert torch.equal(after.attention.output.weight, before.attention.output.weight[width][:, value])


def kept(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the index in `before` of every value in `after`."""
    matches = (after[:, None] == before[None, :]).float()
    assert (matches.sum(dim=1) == 1).all()
    return matches.argmax(dim=1)


def test_sparsity_is_the_share_of_channels_removed(tmp_path: Path) -> None:
    network = networks.build(spec_of("image"), train_params("cnn"))
    assert prune_on(network, "image", tmp_path, sparsity=0.25).sizes()["channels"] == [6, 12]


def test_the_distillation_loss_follows_the_paper() -> None:
    teacher = networks.build(spec_of("image"), train_params("cnn")).eval()
    x = torch.from_numpy(samples("image", 5)[0])
    logits, y = torch.randn(5, 10), torch.arange(5)
    params = Distil(enabled=True, temperature=3.0, alpha=0.4, epochs=1, student_scale=0.5)
    loss = distillation(teacher, params, lambda logits, _x, y: torch.nn.functional.cross_entropy(logits, y))(
        logits, x, y
    )
    p, q = torch.softmax(teacher(x) / 3, 1), torch.softmax(logits / 3, 1)
    expected = 0.4 * 9 * (p * (p / q).log()).sum(1).mean() + 0.6 * torch.nn.functional.cross_entropy(logits, y)
    torch.testing.assert_close(loss, expected)


def test_a_student_has_the_teachers_preprocessing_and_smaller_layers() -> None:
    teacher = networks.build(spec_of("log-mel"), train_params("cnn"))
    teacher.preprocess.fit_to_samples([torch.from_numpy(samples("log-mel", 30)[0])])
    student = make_student(teacher, train_params("cnn"), 0.5, seed=1)
    x = torch.from_numpy(samples("log-mel", 3)[0])
    assert torch.equal(student.preprocess(x), teacher.preprocess(x))
    assert student.sizes()["channels"] == [4, 8]


def test_ratio_drop_and_retention() -> None:
    before = {"name": "trained", "size_bytes": 400, "accuracy": 0.8}
    report = summary([before, {"name": "prune", "size_bytes": 100, "accuracy": 0.6}])
    assert (report["ratio"], report["drop"], report["retention"]) == (4.0, pytest.approx(0.2), pytest.approx(0.75))
    assert summary([before])["ratio"] == 1.0


@pytest.mark.slow
def test_the_steps_run_in_the_order_distil_prune_finetune(digits_workspace: Path) -> None:
    compress(load())
    results = steps()
    assert json.loads(Path("reports/durations/compress.json").read_text())["seconds"] > 0
    assert list(results) == ["trained", "distil", "prune", "finetune"]
    sizes = [step["parameters"] for step in results.values()]
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]
    assert results["finetune"]["accuracy"] > results["prune"]["accuracy"]
    assert results["finetune"]["accuracy"] > 0.6 and results["distil"]["accuracy"] > 0.7  # chance is 0.1
    network = networks.load(MODEL)
    assert sum(weight.numel() for weight in network.parameters()) == sizes[-1]
    with np.load(REFERENCE) as reference:
        for split in ("validation", "test"):
            x = torch.from_numpy(np.load(f"data/prepared/{split}/x.npy"))
            with torch.no_grad():
                expected = network(x).numpy()
            np.testing.assert_allclose(reference[split], expected, atol=1e-4)
            assert reference[split].dtype == np.float32
        predicted = reference["test"].argmax(axis=1)
    accuracy = (predicted == np.load("data/prepared/test/y.npy")).mean()
    assert results["finetune"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"distil": {**DISTIL, **OFF}, "prune": {**PRUNE, **OFF}}, ["trained"]),
        ({"distil": DISTIL, "prune": {**PRUNE, **OFF}}, ["trained", "distil"]),
        ({"distil": {**DISTIL, **OFF}, "prune": {**PRUNE, "finetune_epochs": 0}}, ["trained", "prune"]),
        ({"distil": {**DISTIL, **OFF}, "prune": PRUNE}, ["trained", "prune", "finetune"]),
    ],
)
def test_every_step_can_be_switched_off(block: dict[str, Any], expected: list[str], digits_workspace: Path) -> None:
    write_params(digits_workspace, compress=block)
    compress(load())
    assert list(steps()) == expected
    if expected == ["trained"]:
        assert sha256(MODEL) == sha256(Path("models/trained/model.pt"))
        assert json.loads(REPORT.read_text())["retention"] == 1.0


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(digits_workspace: Path) -> None:
    block = {"distil": {**DISTIL, "epochs": 20}, "prune": PRUNE}
    write_params(digits_workspace, compress=block)
    result = run_stage(digits_workspace, "stages.compress")
    assert result.returncode == 0, result.stderr
    outputs = (MODEL, REFERENCE, REPORT)
    expected = [sha256(path) for path in outputs]
    for path in outputs:
        path.unlink()
    kill_after_epoch(digits_workspace, "stages.compress", 2)
    assert not MODEL.exists() and list(Path(".work/compress").glob("*/distil/last.pt"))
    result = run_stage(digits_workspace, "stages.compress")
    assert result.returncode == 0, result.stderr
    assert [sha256(path) for path in outputs] == expected
    assert not list(Path(".work/compress").iterdir())


@pytest.mark.slow
def test_a_missing_trained_network_is_refused_and_the_earlier_result_stays(digits_workspace: Path) -> None:
    compress(load())
    before = sha256(MODEL)
    shutil.rmtree("models/trained")
    result = run_stage(digits_workspace, "stages.compress")
    assert result.returncode == 1
    assert "models/trained/model.pt" in result.stderr and "Traceback" not in result.stderr
    assert sha256(MODEL) == before


def test_the_error_names_the_learning_rate_if_fine_tuning_diverges(digits_workspace: Path) -> None:
    train_block = recipe("cnn", epochs=10, optimiser={"name": "sgd", "learning_rate": 0.1})
    block = {"distil": {**DISTIL, **OFF}, "prune": {**PRUNE, "learning_rate": 1e30}}
    write_params(digits_workspace, train=train_block, compress=block)
    with pytest.raises(StageError, match=r"learning_rate 1e\+30"):
        compress(load())
    assert not MODEL.exists() and not REPORT.exists()
