"""The shipped tasks run on their real data with each network, by parameters alone."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.requirements import SHARED, shared_data
from tests.support.stages.clone import bundle_digest, call, change, fresh_clone, quick, report, stages_run

pytestmark = pytest.mark.slow

# Every test run builds the task `pump` with the network in its parameters. All builds but one per task are for a single
# quantized target, whose export converts the float model first (tests/unit/stages/export compares all targets with
# torch).
BUILDS = [
    ("cnn", 1),
    pytest.param("cnn", 4, marks=pytest.mark.exhaustive),
    pytest.param("rnn", 1, marks=pytest.mark.exhaustive),
    pytest.param("transformer", 1, marks=pytest.mark.exhaustive),
]
ALL_TARGETS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
QUANTIZED = {"pump": ("onnx-int8",), "spoken-digits": ("tflite-int8",)}


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def data_server() -> Iterator[str]:
    """Serve `../shared/data` over HTTP on a free local port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(SHARED)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module", params=["pump", pytest.param("spoken-digits", marks=pytest.mark.exhaustive)])
def prepared(request: pytest.FixtureRequest, data_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which a shipped task's real data has been collected, validated and prepared."""
    task = request.param
    root = fresh_clone(tmp_path_factory.mktemp(task))
    path = root / "tasks" / task / "params.yaml"
    content = path.read_text().replace("http://127.0.0.1:8000", data_server)
    (archive,) = re.findall(rf"{data_server}/(\S+)", content)
    shared_data(archive)
    path.write_text(content)
    quick(root, task, {})
    call(root, "dvc", "repro", "prepare")
    return root


@pytest.mark.parametrize(("network", "number_of_targets"), BUILDS)
def test_a_shipped_task_is_built_with_each_network(
    prepared: Path, network: str, number_of_targets: int, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(prepared, tmp_path / "copy", symlinks=True))
    shared = yaml.safe_load((root / "params.yaml").read_text())
    task = shared["task"]
    targets = QUANTIZED[task] if number_of_targets == 1 else ALL_TARGETS
    change(root / "params.yaml", targets={name: shared["targets"][name] for name in targets})
    change(root / "tasks" / task / "params.yaml", train__network=network)

    done = call(root, "dvc", "repro")

    assert stages_run(done.stdout)[0] == "train"
    assert report(root, "train/summary.json")["network"] == network
    assert set(report(root, "gate.json")["targets"]) == set(targets)
    assert bundle_digest(root)
    if task == "spoken-digits":
        by_speaker = report(root, "evaluate/tflite-int8/metrics.json")["by_group"]
        assert set(by_speaker) == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
