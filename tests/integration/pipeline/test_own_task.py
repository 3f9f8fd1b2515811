"""Users build a task of their own with parameters alone, by the exact blocks of docs/how-to/your-own-task.md."""

from __future__ import annotations

import re
import wave
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from tests.support.stages.clone import REPOSITORY, call, fresh_clone, quick, report, stages_run

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs/how-to/your-own-task.md").read_text()


def write_presses(folder: Path, presses: int = 8, rows: int = 240) -> None:
    """Write CSV files of presses, as on the page. A worn press vibrates more."""
    random = np.random.default_rng(3)
    start = np.datetime64("2026-10-01T08:00:00", "s")
    for number in range(presses):
        worn = (np.arange(rows) // 60) % 2 == 1
        vibration = random.normal(0.1, 0.02, rows) + 0.3 * worn
        times = [f"{moment}Z" for moment in start + np.arange(rows)]
        heat = random.normal(40, 1, rows)
        table = pa.table({"when": times, "vibration": vibration, "heat": heat, "state": np.where(worn, "worn", "ok")})
        pa.csv.write_csv(table, folder / f"press-{number:02d}.csv")


def write_presses_as_parquet(folder: Path) -> None:
    write_presses(folder)
    for path in folder.glob("*.csv"):
        pa.parquet.write_table(pa.csv.read_csv(path), path.with_suffix(".parquet"))
        path.unlink()


def write_pictures(folder: Path) -> None:
    random = np.random.default_rng(4)
    for name, colour in (("rust", (150, 70, 30)), ("clean", (120, 120, 130))):
        (folder / name).mkdir()
        for number in range(40):
            noise = random.normal(0, 25, (24, 20, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.{'png' if number % 2 else 'jpg'}")


def write_sounds(folder: Path) -> None:
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


def clone_with_own_task(folder: Path, kind: str, base: str, write_data: Any) -> tuple[Path, str]:
    """Clone into `folder` and add the page's task, based on the task `base`, with data. Return clone and task name."""
    folder.mkdir(exist_ok=True)
    root = fresh_clone(folder)
    (block,) = re.findall(rf"```yaml {kind}\n(.*?)```", PAGE, flags=re.DOTALL)
    (suite,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    if write_data is write_presses_as_parquet:
        block = block.replace('["*.csv"]', '["*.parquet"]')
        block = block.replace(
            '{type: csv, separator: ",", encoding: utf-8, columns: null}', "{type: parquet, columns: null}"
        )
    blocks = yaml.safe_load(block)
    (root / "tasks" / "mine").mkdir()
    (root / "tasks" / "mine" / "params.yaml").write_bytes((root / "tasks" / base / "params.yaml").read_bytes())
    (root / "tasks" / "mine" / "expectations.json").write_text(suite)
    (root / "incoming").mkdir()
    write_data(root / "incoming")
    quick(root, "mine", blocks, targets=("tflite-int8",))
    return root, blocks["name"]


@pytest.mark.parametrize(
    ("kind", "base", "write_data"),
    [
        pytest.param("series", "pump", write_presses, id="csv"),
        pytest.param("image", "digits", write_pictures, id="images", marks=pytest.mark.exhaustive),
        pytest.param("audio", "spoken-digits", write_sounds, id="sounds", marks=pytest.mark.exhaustive),
    ],
)
def test_a_task_of_the_user_needs_parameters_only(kind: str, base: str, write_data: Any, tmp_path: Path) -> None:
    root, name = clone_with_own_task(tmp_path, kind, base, write_data)

    done = call(root, "dvc", "repro")

    assert stages_run(done.stdout)[-2:] == ["package", "enforce"]
    assert (root / "models" / "bundle" / f"{name}.tar.zst").is_file()


@pytest.mark.exhaustive
def test_twelve_presses_pass_the_gate_of_the_page_with_the_copied_training_parameters(tmp_path: Path) -> None:
    """Replace only the blocks on the page, and train with the full parameters."""
    root, name = clone_with_own_task(tmp_path, "series", "pump", partial(write_presses, presses=12, rows=300))
    path = root / "tasks" / "mine" / "params.yaml"
    blocks = [
        yaml.safe_load(block) for block in re.findall(r"```yaml (?:series|gate)\n(.*?)```", PAGE, flags=re.DOTALL)
    ]
    copied = yaml.safe_load((root / "tasks" / "pump" / "params.yaml").read_text())
    path.write_text(yaml.safe_dump(copied | blocks[0] | blocks[1], sort_keys=False))

    call(root, "dvc", "repro")

    assert report(root, "gate.json")["passed"]
    assert (root / "models" / "bundle" / f"{name}.tar.zst").is_file()


@pytest.mark.exhaustive
def test_parquet_files_are_prepared_to_the_same_samples_as_csv_files(tmp_path: Path) -> None:
    """Later stages read only data/prepared, so their results cannot differ."""
    prepared = []
    for write_data in (write_presses, write_presses_as_parquet):
        root, _ = clone_with_own_task(tmp_path / write_data.__name__, "series", "pump", write_data)
        call(root, "dvc", "repro", "prepare")
        prepared.append({path.name: path.read_bytes() for path in (root / "data/prepared/train").iterdir()})

    assert prepared[0] == prepared[1]
