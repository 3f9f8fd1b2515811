"""A device reads bundles of older formats, and refuses newer formats and models that do not do what they declare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.package.archive import pack
from tests.support.agent import neighbours
from tests.support.agent.cli import Device
from tests.support.agent.third_party import series, write_bundle
from tests.support.agent.tuf_repository import TufRepository

pytestmark = pytest.mark.slow  # each starts the agent's command

RELEASE = "theirs@1.0.0"
NEW_FORMAT = 3


class Case:
    """A repository and a device. `publish` publishes a plain classifier, whose manifest `change` has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = TufRepository(folder / "repository")
        self.device = Device(folder / "device", self.repository)

    def publish(self, change: Any = None, io: dict[str, Any] | None = None, logits: bool = False) -> None:
        folder = self.folder / "bundle"
        file = neighbours.plain(self.folder / "model.onnx")
        if logits:
            file = neighbours.without_softmax(self.folder / "model.onnx")
        golden = neighbours.samples(12)
        described = series("theirs", ["channel", "time"], list(neighbours.SHAPE), 3, neighbours.CLASSES)
        outputs = neighbours.alone(file, golden)
        write_bundle(folder, file, io or neighbours.IO, described, (golden, outputs), "onnx-fp32", None)
        if change is not None:
            path = folder / "manifest.json"
            manifest = json.loads(path.read_text())
            change(manifest)
            path.write_text(json.dumps(manifest))
        pack(folder, self.folder / "theirs.tar.zst")
        self.repository.publish(RELEASE, self.folder / "theirs.tar.zst")


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.device.remove()


def test_a_bundle_of_version_1_is_deployed_and_computes_one_sample_at_a_time(case: Case) -> None:
    case.publish()

    deployed = case.device.json("deploy", RELEASE)

    assert deployed["changed"] is True
    assert deployed["selftest"]["batch"] == "single"


def test_a_newer_format_is_refused_with_the_agent_version_that_is_needed(case: Case) -> None:
    case.publish(lambda manifest: manifest.update(schema_version=NEW_FORMAT, agent_version="7.1.0", later={"a": 1}))

    refused = case.device.json("deploy", RELEASE, code=4)

    assert refused["found"] == f"found {NEW_FORMAT}"
    assert "schema_version" in refused["where"]
    assert refused["remedy"] == "install version 7.1.0 or newer of the agent on this device"
    assert case.device.state.current is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m["targets"]["onnx-fp32"]["io"]["output"].update(activation="logit"), "activation"),
        (lambda m: m["targets"]["onnx-fp32"]["io"]["output"].pop("activation"), "targets.onnx-fp32.io.output"),
        (lambda m: m["input"]["channels"].pop(), "input.channels"),
        (lambda m: m["input"].update(axes=["time", "channel"]), "input.channels"),
    ],
)
def test_a_contradiction_in_the_manifest_is_refused_at_installation(case: Case, change: Any, field: str) -> None:
    case.publish(change)

    done = case.device.call("--json", "install", RELEASE)

    assert done.returncode == 3, done.stdout + done.stderr
    assert field in json.loads(done.stdout)["where"]


def test_outputs_that_are_not_probabilities_are_refused_by_the_self_test(case: Case) -> None:
    case.publish(logits=True)

    refused = case.device.json("deploy", RELEASE, code=5)

    assert "but probabilities" in refused["found"]
    assert case.device.state.current is None
