"""The result of a sample does not depend on the samples of other clients, which the service may join into one run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_agent.inference.engine import Engine, PredictionResult, load
from edge_agent.storage.archive import unpack

from stages.package.archive import pack
from tests.support.agent import neighbours
from tests.support.agent.cli import Device
from tests.support.agent.http_server import Agent, serving
from tests.support.agent.serving import device
from tests.support.agent.third_party import series, write_bundle
from tests.support.agent.tuf_repository import TufRepository

pytestmark = pytest.mark.slow  # model files are built and self-tested

RELEASE = "theirs@1.0.0"
TOLERANCE = 0.01
CLIENTS, ROUNDS = 8, 40
LARGE = 200


@pytest.fixture(params=sorted(neighbours.FILES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bundle(folder: Path, kind: str, batch: str | None) -> tuple[Path, Path]:
    """Return a bundle's folder, and the model file."""
    write, _ = neighbours.FILES[kind]
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = write(folder.parent / "model.onnx")
    golden = neighbours.samples(12, seed=7)
    described = series("theirs", ["channel", "time"], list(neighbours.SHAPE), 3, neighbours.CLASSES)
    write_bundle(folder, file, neighbours.IO, described, (golden, neighbours.alone(file, golden)), "onnx-fp32", batch)
    return folder, file


async def ask_together(engine: Engine, x: np.ndarray, large: int) -> list[PredictionResult]:
    """Return the results of `x`, one sample in each request; `large` clients send samples that are 200 times larger."""
    requests = []
    for start in range(0, len(x), CLIENTS):
        requests += [engine.predict(x[i : i + 1]) for i in range(start, min(start + CLIENTS, len(x)))]
        requests += [engine.predict(LARGE * x[i : i + 1]) for i in range(large)]
    results = await asyncio.gather(*requests)
    return [result for i, result in enumerate(results) if i % (CLIENTS + large) < CLIENTS]


def changed_classes(results: np.ndarray, expected: np.ndarray) -> int:
    """Return how many results have another class than `expected`, except where two classes are almost equal."""
    second, first = np.sort(expected, axis=1)[:, -2:].T
    return int(((results.argmax(axis=1) != expected.argmax(axis=1)) & (first - second >= TOLERANCE)).sum())


@pytest.mark.parametrize("large", [0, 3])
@pytest.mark.parametrize("batch", [None, "joinable", "single"])
def test_the_result_of_a_sample_does_not_depend_on_its_neighbours(
    tmp_path: Path, kind: str, batch: str | None, large: int
) -> None:
    config = device(tmp_path)
    _, file = bundle(config.layout.bundle(RELEASE), kind, batch)
    x = neighbours.samples(CLIENTS * ROUNDS // (2 if large else 1))

    with serving(config, load(config, RELEASE)) as agent:
        results = in_portions(agent, x, large)

    assert changed_classes(results, neighbours.alone(file, x)) == 0
    assert np.abs(results - neighbours.alone(file, x)).max() <= TOLERANCE


def in_portions(agent: Agent, x: np.ndarray, large: int) -> np.ndarray:
    """Ask for all samples in portions that fit into the queue. Return the probabilities [N, classes]."""
    step = 10 * CLIENTS
    parts = [agent.call(ask_together(agent.engine, x[i : i + step], large)) for i in range(0, len(x), step)]
    return np.concatenate([result.probabilities for part in parts for result in part])


def test_several_samples_in_one_request_are_computed_one_by_one(tmp_path: Path, kind: str) -> None:
    config = device(tmp_path)
    _, file = bundle(config.layout.bundle(RELEASE), kind, None)
    x = neighbours.samples(100)
    x[::5] *= LARGE

    with serving(config, load(config, RELEASE)) as agent:
        answer = agent.ask(
            "POST", "/predict", x.tobytes(), "application/octet-stream", Accept="application/octet-stream"
        )

    assert answer.status == 200
    results = np.frombuffer(answer.content, "<f4").reshape(len(x), -1)
    assert np.abs(results - neighbours.alone(file, x)).max() <= TOLERANCE


def test_only_files_that_may_be_joined_are_joined(tmp_path: Path, kind: str) -> None:
    config = device(tmp_path)
    bundle(config.layout.bundle(RELEASE), kind, "joinable")
    loaded = load(config, RELEASE)
    joinable = neighbours.FILES[kind][1]

    with serving(config, loaded) as agent:
        metrics = agent.ask("GET", "/metrics").content.decode()
        report = agent.statistics.report()

    assert (loaded.joining_fault is None) == joinable
    assert report["joining_fault"] == loaded.joining_fault
    assert f"edge_agent_batch_samples_limit {16.0 if joinable else 1.0}\n" in metrics


@pytest.fixture
def published(tmp_path: Path, kind: str) -> Iterator[tuple[Device, Path]]:
    """A device of a repository with this file in a release that declares it joinable; and the model file."""
    folder, file = bundle(tmp_path / "bundle", kind, "joinable")
    pack(folder, tmp_path / "theirs.tar.zst")
    unpack(tmp_path / "theirs.tar.zst", tmp_path / "unpacked")  # the archive is a valid one
    repository = TufRepository(tmp_path / "repository")
    repository.publish(RELEASE, tmp_path / "theirs.tar.zst")
    own = Device(tmp_path / "device", repository, serve={"listen": "127.0.0.1:0"})
    yield own, file
    own.remove()


def test_a_device_deploys_confirms_and_serves(published: tuple[Device, Path], kind: str) -> None:
    own, file = published
    joinable = neighbours.FILES[kind][1]

    deployed = own.json("deploy", RELEASE)
    own.json("confirm", "--force")
    with serving(own.config, load(own.config, RELEASE)) as agent:
        results = in_portions(agent, neighbours.samples(80), 3)
        failed = agent.statistics.report()["errors"]

    assert deployed["selftest"]["batch"] == ("joinable" if joinable else "single")
    assert (deployed["selftest"]["joining_fault"] is None) == joinable
    assert changed_classes(results, neighbours.alone(file, neighbours.samples(80))) == 0
    assert failed == 0


@pytest.mark.parametrize(("limit", "expected"), [(16, True), (17, False), (1, True)])
def test_as_many_samples_are_joined_in_the_check_as_in_the_service(tmp_path: Path, limit: int, expected: bool) -> None:
    config = device(tmp_path, serve={"batch": limit})
    file = neighbours.at_most(tmp_path / "model.onnx", 16)
    golden = neighbours.samples(12)
    described = series("theirs", ["channel", "time"], list(neighbours.SHAPE), 3, neighbours.CLASSES)
    folder = config.layout.bundle(RELEASE)
    answers = neighbours.alone(file, golden)
    write_bundle(folder, file, neighbours.IO, described, (golden, answers), "onnx-fp32", "joinable")

    assert (load(config, RELEASE).joining_fault is None) == expected
