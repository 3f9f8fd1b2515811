"""Captured samples: which are kept, for how long, after a power cut, and their export to training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.core.errors import StorageError
from edge_agent.core.json_values import to_json
from edge_agent.inference.engine import Engine, LoadedRelease
from edge_agent.monitoring import capture
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.drift_window import DriftWindow
from edge_agent.monitoring.ring import Ring, records, segments
from edge_agent.monitoring.samples import export_lines
from edge_agent.monitoring.service_statistics import ServiceStatistics

from tests.support.agent.http_server import Agent, serving
from tests.support.agent.serving import device, installed, run
from tests.support.stages.collect import SERIES, configure, read_snapshot, succeed

SHAPE = (2, 16)
ALL: dict[str, Any] = {"enabled": True, "rate": 1.0}


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def captured(
    config: Config, loaded: LoadedRelease, xs: list[np.ndarray], labels: dict[int, str] | None = None
) -> list[str]:
    """Offer the predictions of `xs`, label some by their number, and close. Return the ids."""
    ids: list[str] = []

    async def main() -> None:
        engine, statistics, kept = Engine(config.serve), ServiceStatistics(config), Capture(config)
        statistics.attach(engine)
        await engine.swap(loaded)
        for x in xs:
            answer = await engine.predict(x)
            own = statistics.remember(answer)
            kept.offer(own, x, answer)
            ids.extend(own)
        for number, label in (labels or {}).items():
            kept.label(ids[number], label)
        kept.close()
        await engine.close()

    run(main)
    return ids


def held(config: Config) -> list[dict[str, Any]]:
    written = [record for path in segments(config.layout.samples) for record, _ in records(path)]
    return [described for described in written if "id" in described]


def test_nothing_is_captured_by_default(tmp_path: Path) -> None:
    config = device(tmp_path)
    with serving(config, installed(config)) as agent:
        agent.ask("POST", "/predict", samples(1).tobytes(), "application/octet-stream")
        assert agent.ask("GET", "/samples").status == 404
    assert not config.layout.samples.exists()


def test_rate_and_confidence(tmp_path: Path) -> None:
    config = device(tmp_path, capture={"enabled": True, "below_confidence": 0.6, "rate": 0.0})
    loaded, x = installed(config), samples(200)

    captured(config, loaded, [x])

    y = loaded.model.predict(x)
    kept = held(config)
    assert len(kept) == (y.max(axis=1) < 0.6).sum() > 0
    assert {described["reason"] for described in kept} == {"low_confidence"}
    (path,) = segments(config.layout.samples)
    assert path.stat().st_mode & 0o777 == 0o600
    for described, content in records(path):
        row = int(described["id"].rpartition("-")[2])
        np.testing.assert_array_equal(np.frombuffer(content, "<f4").reshape(SHAPE), x[row])
        assert described["predicted"] == loaded.classes[int(y[row].argmax())]


def test_samples_are_captured_during_drift(tmp_path: Path) -> None:
    config = device(tmp_path, capture={"enabled": True, "on_drift": True})
    loaded = installed(config)
    rng = np.random.default_rng(3)
    usual = loaded.golden_inputs[rng.integers(0, len(loaded.golden_inputs), 3000)]
    shifted = usual + 20
    recent = DriftWindow(loaded, window=1000)

    assert not any(recent.add(usual[i : i + 100]).any() for i in range(0, 3000, 100))  # type: ignore[union-attr]
    first = [bool(recent.add(shifted[i : i + 100]).any()) for i in range(0, 1000, 100)]  # type: ignore[union-attr]
    assert first == [False] * 9 + [True]
    assert recent.add(shifted[:50]).all()  # type: ignore[union-attr]
    assert not recent.add(usual[:50]).all()  # type: ignore[union-attr]
    captured(config, loaded, [shifted[i : i + 100] for i in range(0, 1200, 100)])
    assert {described["reason"] for described in held(config)} == {"drift"}
    assert len(held(config)) == 300


def test_the_ring_is_bounded_and_deletes_the_oldest_first(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 40_000, 30)
    for number in range(1000):
        ring.append({"id": str(number)}, bytes(200))
        assert ring.bytes <= 40_000
    ring.close()

    stored = [described["id"] for path in segments(tmp_path / "ring") for described, _ in records(path)]
    assert stored == [str(number) for number in range(1000 - len(stored), 1000)]
    assert 0.8 * 40_000 < sum(path.stat().st_size for path in segments(tmp_path / "ring")) <= 40_000
    again = Ring(tmp_path / "ring", 40_000, 30)
    assert (again.samples, again.bytes) == (ring.samples, ring.bytes) == (len(stored), ring.bytes)


def test_samples_that_are_too_old_are_deleted(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 1600, 1)
    for number in range(8):
        ring.append({"id": str(number)}, bytes(100))  # one segment each
    for path in segments(tmp_path / "ring")[:5]:
        os.utime(path, (time.time() - 2 * 86400,) * 2)

    ring.append({"id": "8"}, bytes(100))

    stored = [described["id"] for path in segments(tmp_path / "ring") for described, _ in records(path)]
    assert stored == ["5", "6", "7", "8"]


def test_an_incomplete_segment_loses_only_its_end(tmp_path: Path) -> None:
    """Cut the file at every byte, as a power cut does, and flip one bit, as a worn card does."""
    folder = tmp_path / "ring"
    ring = Ring(folder, 1 << 20, 30)
    for number in range(3):
        ring.append({"id": str(number)}, bytes(20))
    ring.close()
    (path,) = segments(folder)
    intact = path.read_bytes()
    one = len(intact) // 3
    for size in range(len(intact)):
        path.write_bytes(intact[:size])
        assert len(list(records(path))) == size // one
        turned = bytearray(intact)
        turned[size] ^= 16
        path.write_bytes(turned)
        assert [int(described["id"]) for described, _ in records(path)][: size // one] == list(range(size // one))

    path.write_bytes(intact[:-1])
    following = Ring(folder, 1 << 20, 30)
    following.append({"id": "next"}, b"")
    following.close()
    stored = [described["id"] for path in segments(folder) for described, _ in records(path)]
    assert stored == ["0", "1", "next"]


def test_anything_that_is_not_a_segment_is_ignored(tmp_path: Path) -> None:
    """Opening a pipe would block, and a directory cannot be read; the service still runs and ends."""
    config = device(tmp_path, capture=ALL)
    folder = config.layout.samples
    loaded = installed(config)
    ids = captured(config, loaded, [samples(2)])
    os.mkfifo(folder / "00000003.seg")
    (folder / "00000005.seg").mkdir()
    (folder / "00000006.seg").symlink_to("/dev/zero")
    (folder / "7 of old.seg").write_bytes(b"")

    with serving(config, loaded) as agent:
        for seed in range(2):
            body = samples(1, seed).tobytes()
            assert agent.ask("POST", "/predict", body, "application/octet-stream").status == 200
        agent.capture.wait()  # type: ignore[union-attr]
        rows = lines(agent)

    assert [row["id"].rpartition("-")[0] for row in rows[::16]][:2] == ids
    assert len(rows) == 4 * 16
    assert [path.name for path in segments(folder)] == ["00000000.seg", "00000007.seg"]


def test_a_killed_process_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from edge_agent.monitoring.ring import Ring\n"
        f"ring = Ring(Path({str(tmp_path / 'ring')!r}), 1 << 20, 30)\n"
        "for number in range(50): ring.append({'id': str(number)}, bytes(9))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9

    (path,) = segments(tmp_path / "ring")
    assert len(list(records(path))) == 50


def test_a_failing_disk_loses_samples_but_no_predictions(tmp_path: Path) -> None:
    config = device(tmp_path, capture=ALL)
    loaded = installed(config)
    config.layout.samples.write_text("in the way")
    with serving(config, loaded) as agent:
        for _ in range(3):
            assert agent.ask("POST", "/predict", samples(1).tobytes(), "application/octet-stream").status == 200
        agent.capture.wait()  # type: ignore[union-attr]
        assert b"edge_agent_capture_dropped_total 3.0" in agent.ask("GET", "/metrics").content


def lines(agent: Agent, query: str = "") -> list[dict[str, Any]]:
    answer = agent.ask("GET", f"/samples{query}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.content.splitlines()]


def test_the_export_has_a_line_for_each_step_of_a_series(tmp_path: Path) -> None:
    config = device(tmp_path, capture=ALL)
    x = samples(1)
    with serving(config, installed(config)) as agent:
        number = agent.ask("POST", "/predict", x.tobytes(), "application/octet-stream", Accept="*/*").json
        number = number["predictions"][0]["id"]
        agent.ask("POST", "/feedback", {"id": number, "label": "fine"})
        agent.ask("POST", "/feedback", {"id": number, "label": "worn"})
        rows = lines(agent)
        assert lines(agent, "?since=2199-01-01T00:00:00Z") == []
        assert lines(agent, f"?since={rows[-1]['time']}") == rows
        assert agent.ask("GET", "/samples?since=yesterday").status == 422
        assert agent.ask("GET", "/samples?since=2026-01-01T00:00:00").status == 422

    assert [row["id"] for row in rows] == [f"{number}-{step}" for step in range(16)]
    assert {row["label"] for row in rows} == {"worn"}
    values = [[row["values"]["vibration"], row["values"]["current"]] for row in rows]
    np.testing.assert_array_equal(np.array(values, np.float32).T, x[0])
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert {(after - before).total_seconds() for before, after in pairwise(times)} == {0.01}

    file = tmp_path / "samples.jsonl"
    result = capture.export(config, file)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    assert to_json(result) == {
        "file": str(file),
        "samples": 1,
        "labelled": 1,
        "lines": 16,
        "size_bytes": file.stat().st_size,
    }
    with pytest.raises(StorageError, match="choose another path"):
        capture.export(config, tmp_path / "nowhere" / "samples.jsonl")


def test_labelled_windows_that_overlap_do_not_mix(tmp_path: Path) -> None:
    config = device(tmp_path, capture=ALL)
    ids = captured(config, installed(config), [samples(3)], labels={1: "worn", 2: "fine"})

    rows = [json.loads(line) for line in export_lines(config.layout.samples, None, 30)]

    assert {row["id"].rpartition("-")[0] for row in rows if row["label"] is not None} == {ids[1]}
    assert sum(row["label"] is None for row in rows) == 16


def test_samples_labelled_on_the_device_return_to_training(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The pipeline's source reads from a real agent."""
    channels = {"vibration": {"unit": "g"}, "current": {"unit": "A"}}
    classes = {"a": "fine", "b": "worn", "c": "broken"}
    config = device(tmp_path_factory.mktemp("device"), capture=ALL)
    x = samples(1)
    with serving(config, installed(config)) as agent:
        agent.ask("POST", "/predict", samples(1, seed=5).tobytes(), "application/octet-stream")
        answer = agent.ask("POST", "/predict", x.tobytes(), "application/octet-stream")
        agent.ask("POST", "/feedback", {"id": answer.json["predictions"][0]["id"], "label": "worn"})
        fleet = {"type": "edge_devices", "devices": {"pi-1": agent.url}, "since": "2020-01-01T00:00:00Z"}
        configure(workspace, data=SERIES | {"channels": channels, "classes": classes}, fleet=fleet)

        succeed()

    rows = read_snapshot("fleet").to_pylist()
    np.testing.assert_array_equal(np.array([[r["vibration"], r["current"]] for r in rows], np.float32).T, x[0])
    assert {(row["machine"], row["state"]) for row in rows} == {("pi-1", "b")}
    assert len({row["time"] for row in rows}) == 16
