"""Samples that were captured before the device's clock was right are exported, with the right or an unknown time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.ring import Ring, records, segments
from edge_agent.monitoring.samples import export_lines

from tests.support.agent.http_server import serving
from tests.support.agent.serving import device, installed
from tests.support.stages.collect import SERIES, configure, read_snapshot, succeed

THIS_BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
UNSET = "1970-01-01T00:02:00+00:00"
MAX_AGE_DAYS = 30.0
STEPS = 4
Store = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store a sample in the ring as the agent does. `kind` is `series` of four steps, one each second, or `image`."""
    return lambda number, kind="image", label=None, **when: store_in(tmp_path / "ring", number, kind, label, **when)


def store_in(folder: Path, number: int, kind: str = "image", label: str | None = None, **when: Any) -> None:
    series = kind == "series"
    ring = Ring(folder, 1 << 20, MAX_AGE_DAYS)
    channels, axes = (["vibration", "current"], ["time", "channel"]) if series else (["grey"], ["channel", "time"])
    described = {"kind": kind, "axes": axes, "channels": channels, "rate_hz": 1.0 if series else None}
    rest = {"release": "pump@1.0.0", "predicted": "fine", "confidence": 0.9, "reason": "rate", "input": described}
    values = np.full((STEPS, len(channels)), number, "<f4")
    ring.append({"id": str(number), **when, **rest, "shape": list(values.shape)}, values.tobytes())
    if label is not None:
        ring.append({"of": str(number), "label": label}, b"")
    ring.close()


def exported(tmp_path: Path, since: datetime | None = None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(tmp_path / "ring", since, MAX_AGE_DAYS)]


def test_a_sample_has_the_right_time_once_the_clock_is_right_in_the_same_boot(tmp_path: Path, store: Store) -> None:
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    store(1, time=UNSET, boot=THIS_BOOT, uptime_s=uptime - 100)
    right = datetime.now(UTC) - timedelta(seconds=100)

    rows = exported(tmp_path)

    assert len(rows) == 1
    assert abs(datetime.fromisoformat(rows[0]["time"]) - right) < timedelta(seconds=5)
    assert len(exported(tmp_path, right - timedelta(seconds=50))) == 1
    assert exported(tmp_path, right + timedelta(seconds=50)) == []


def test_a_later_sample_of_the_same_boot_shows_the_right_time(tmp_path: Path, store: Store) -> None:
    """The clock of a device without a battery continues where it stopped at the last shutdown."""
    now = datetime.now(UTC).replace(microsecond=0)
    store(1, time=(now - timedelta(days=3)).isoformat(), boot="other", uptime_s=60.0)
    store(2, time=(now - timedelta(seconds=40)).isoformat(), boot="other", uptime_s=100.0)
    store(3, time=(now - timedelta(seconds=29)).isoformat(), boot="other", uptime_s=110.0)

    times = [datetime.fromisoformat(row["time"]) for row in exported(tmp_path)]

    assert times == [now - timedelta(seconds=seconds) for seconds in (79, 40, 29)]


def test_an_unknown_time_is_null(tmp_path: Path, store: Store) -> None:
    store(1, time=UNSET, boot="other", uptime_s=100.5)
    store(2, "series", "worn", time=UNSET, boot="other", uptime_s=200.0)
    store(3, time=UNSET)  # of an older agent

    rows = exported(tmp_path, datetime(2026, 1, 1, tzinfo=UTC))

    assert [(row["id"], row["time"], row.get("boot"), row.get("uptime_s")) for row in rows] == [
        ("1", None, "other", 100.5),
        *((f"2-{step}", None, "other", 197.0 + step) for step in range(STEPS)),
        ("3", None, None, None),
    ]
    assert rows[1]["label"] == "worn"


def test_a_clock_that_goes_back_hides_no_labelled_series(tmp_path: Path, store: Store) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    spans = {1: 0, 2: -3600, 3: -3602, 4: -3604, 5: 4}  # the end of each series; 3 overlaps with 2
    for number, seconds in spans.items():
        store(number, "series", "worn", time=(now + timedelta(seconds=seconds)).isoformat())

    assert [row["id"] for row in exported(tmp_path)][::STEPS] == ["1-0", "2-0", "4-0", "5-0"]


def test_the_age_of_a_file_counts_from_when_the_clock_is_right(tmp_path: Path, store: Store) -> None:
    store(1, time=UNSET)
    (first,) = segments(tmp_path / "ring")
    os.utime(first, (120, 120))

    store(2, time=datetime.now(UTC).isoformat())

    assert [row["id"] for row in exported(tmp_path)] == ["1", "2"]
    os.utime(first, (time.time() - (MAX_AGE_DAYS + 1) * 86400,) * 2)
    assert [row["id"] for row in exported(tmp_path)] == ["2"], "the sample is older than max_age_days"


def test_a_captured_sample_has_its_boot_and_its_uptime(tmp_path: Path) -> None:
    config = device(tmp_path, capture={"enabled": True, "rate": 1.0})
    with serving(config, installed(config)) as agent:
        agent.ask("POST", "/predict", np.zeros((1, 2, 16), np.float32).tobytes(), "application/octet-stream")
        assert isinstance(agent.capture, Capture)
        agent.capture.wait()
        (path,) = segments(config.layout.samples)
        ((described, _),) = records(path)

    assert described.get("boot") == THIS_BOOT
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - described["uptime_s"] < 60


def test_the_pipeline_reads_samples_with_an_unknown_time(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = device(tmp_path_factory.mktemp("device"), capture={"enabled": True, "rate": 0.0})
    for number, shown in enumerate((UNSET, datetime.now(UTC).isoformat())):
        store_in(config.layout.samples, number, "series", "worn", time=shown, boot=f"boot-{number}", uptime_s=9.0)
    channels = {"vibration": {"unit": "g"}, "current": {"unit": "A"}}
    with serving(config, installed(config)) as agent:
        fleet = {"type": "edge_devices", "devices": {"pi-1": agent.url}, "since": "2026-01-01T00:00:00Z"}
        classes = {"a": "fine", "b": "worn", "c": "broken"}
        configure(workspace, data=SERIES | {"channels": channels, "classes": classes}, fleet=fleet)
        succeed()

    rows = read_snapshot("fleet").to_pylist()
    assert sorted((row["current"], row["time"] is None, row["state"]) for row in rows) == [
        *[(0.0, True, "b")] * STEPS,
        *[(1.0, False, "b")] * STEPS,
    ]
    assert set(rows[0]) == {"machine", "time", "state", "vibration", "current"}
