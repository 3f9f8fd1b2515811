"""Other tasks than the default one, by parameters alone: the shipped ones, and a stranger's own."""

from __future__ import annotations

import re
import shutil
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from tests.pipeline import REPOSITORY, bundle_digest, call, change, fresh_clone, report, stages_run
from tests.requirements import SHARED, shared_data

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "your-own-task.md").read_text()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def data_server() -> Iterator[str]:
    """`../shared/data` over HTTP on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(SHARED)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def use(root: Path, task: str, blocks: dict[str, Any], targets: tuple[str, ...] = ()) -> None:
    """Make `task` the active one, quick to train, with some blocks replaced; accuracy is not judged here."""
    shared = yaml.safe_load((root / "params.yaml").read_text())
    shared["task"] = task
    shared["targets"] = {name: form for name, form in shared["targets"].items() if not targets or name in targets}
    (root / "params.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))
    path = root / "tasks" / task / "params.yaml"
    params = {**yaml.safe_load(path.read_text()), **blocks}
    params["train"] |= {"epochs": 2}
    params["compress"]["prune"] |= {"finetune_epochs": 1}
    params["gate"] |= {"metrics": {}, "retention": {}, "agreement": None, "calibration_error": None}
    free = {"required": True, "size_kb": None, "compression": None, "latency_p95_ms": None, "memory_mb": 500.0}
    params["gate"]["targets"] = dict.fromkeys(params["gate"]["targets"], free)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module", params=["pump", "spoken-digits"])
def prepared(request: pytest.FixtureRequest, data_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which a shipped task's real data has been collected, validated and prepared."""
    task = request.param
    root = fresh_clone(tmp_path_factory.mktemp(task))
    path = root / "tasks" / task / "params.yaml"
    content = path.read_text().replace("http://127.0.0.1:8000", data_server)
    (archive,) = re.findall(rf"{data_server}/(\S+)", content)
    shared_data(archive)
    path.write_text(content)
    use(root, task, {})
    call(root, "dvc", "repro", "prepare")
    return root


@pytest.mark.parametrize("network", ["cnn", "rnn", "transformer"])
def test_shipped_task_runs_through_with_each_network(prepared: Path, network: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(prepared, tmp_path / "copy", symlinks=True))
    task = yaml.safe_load((root / "params.yaml").read_text())["task"]
    change(root / "tasks" / task / "params.yaml", train__network=network)

    done = call(root, "dvc", "repro")

    assert stages_run(done.stdout)[0] == "train"
    assert report(root, "train/summary.json")["network"] == network
    assert set(report(root, "gate.json")["targets"]) == {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    assert bundle_digest(root)
    if task == "spoken-digits":
        by_speaker = report(root, "evaluate/tflite-int8/metrics.json")["by_group"]
        assert set(by_speaker) == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}


def machines(folder: Path) -> None:
    """Eight presses: a worn one vibrates more. Half of them as CSV, as the page says."""
    random = np.random.default_rng(3)
    start = np.datetime64("2026-10-01T08:00:00", "s")
    for number in range(8):
        worn = (np.arange(240) // 60) % 2 == 1
        vibration = random.normal(0.1, 0.02, 240) + 0.3 * worn
        times = [f"{moment}Z" for moment in start + np.arange(240)]
        heat = random.normal(40, 1, 240)
        table = pa.table({"when": times, "vibration": vibration, "heat": heat, "state": np.where(worn, "worn", "ok")})
        pa.csv.write_csv(table, folder / f"press-{number:02d}.csv")


def machines_as_parquet(folder: Path) -> None:
    machines(folder)
    for path in folder.glob("*.csv"):
        pa.parquet.write_table(pa.csv.read_csv(path), path.with_suffix(".parquet"))
        path.unlink()


def pictures(folder: Path) -> None:
    random = np.random.default_rng(4)
    for name, colour in (("rust", (150, 70, 30)), ("clean", (120, 120, 130))):
        (folder / name).mkdir()
        for number in range(40):
            noise = random.normal(0, 25, (24, 20, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.{'png' if number % 2 else 'jpg'}")


def sounds(folder: Path) -> None:
    random = np.random.default_rng(5)
    for name, hertz in (("knock", 90), ("hum", 400)):
        (folder / name).mkdir()
        for number in range(40):
            time = np.arange(random.integers(3000, 5000)) / 8000
            tone = 0.5 * np.sin(2 * np.pi * hertz * time) + random.normal(0, 0.05, len(time))
            with wave.open(str(folder / name / f"{number}.wav"), "wb") as stream:
                stream.setnchannels(1)
                stream.setsampwidth(2)
                stream.setframerate(8000)
                stream.writeframes((tone * 20000).astype("<i2").tobytes())


@pytest.mark.parametrize(
    ("kind", "base", "make"),
    [
        ("series", "pump", machines),
        ("series", "pump", machines_as_parquet),
        ("image", "digits", pictures),
        ("audio", "spoken-digits", sounds),
    ],
    ids=["csv", "parquet", "images", "sounds"],
)
def test_a_strangers_task_needs_parameters_only(kind: str, base: str, make: Any, tmp_path: Path) -> None:
    """What docs/your-own-task.md says, word for word."""
    root = fresh_clone(tmp_path)
    (block,) = re.findall(rf"```yaml {kind}\n(.*?)```", PAGE, flags=re.DOTALL)
    (suite,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    if make is machines_as_parquet:
        block = block.replace('["*.csv"]', '["*.parquet"]')
        block = block.replace(
            '{type: csv, separator: ",", encoding: utf-8, columns: null}', "{type: parquet, columns: null}"
        )
    blocks = yaml.safe_load(block)
    (root / "tasks" / "mine").mkdir()
    (root / "tasks" / "mine" / "params.yaml").write_bytes((root / "tasks" / base / "params.yaml").read_bytes())
    (root / "tasks" / "mine" / "expectations.json").write_text(suite)
    (root / "incoming").mkdir()
    make(root / "incoming")
    use(root, "mine", blocks, targets=("tflite-int8",))

    done = call(root, "dvc", "repro")

    assert stages_run(done.stdout)[-1] == "package"
    assert (root / "models" / "bundle" / f"{blocks['name']}.tar.zst").is_file()
