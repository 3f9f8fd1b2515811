"""A snapshot is complete or absent: concurrent sources, combined failures, interruptions."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.collect import stage as collect
from tests.support.servers import Stall, Status, WebServer, free_port
from tests.support.stages.collect import (
    RETRY,
    ROWS,
    SERIES,
    SYNTHETIC,
    cloud,
    command,
    configure,
    digests,
    provenance,
    read_snapshot,
    refuse,
    start,
    succeed,
)

pytestmark = pytest.mark.slow  # each starts the command line


def polled(url: str, samples: int = 1) -> dict[str, Any]:
    return {"type": "sensors", "http": {"url": url, "interval_s": 0.0, "samples": samples}, "columns": None}


def test_default_task_is_collected_by_its_command_line(workspace: Path) -> None:
    done = command()

    assert (done.returncode, done.stderr) == (0, "")
    assert "digits: 1797 rows" in done.stdout
    assert read_snapshot("digits").column_names == ["sample_id", "digit", "values"]
    assert provenance()["sources"]["digits"]["rows"] == 1797


def test_help_is_quick_and_names_what_is_written() -> None:
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "stages.collect", "--help"], capture_output=True, text=True, check=True
    )
    after = os.times()

    assert "data/provenance.json" in done.stdout
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 1.0  # of processor time: what else the machine does is not ours


def test_provenance_has_the_origin_of_each_row(workspace: Path, web: WebServer) -> None:
    url = web.put("/rows.csv", ROWS.encode(), "text/csv")
    configure(workspace, plant=cloud(url), made=SYNTHETIC)

    succeed()

    record = provenance()
    assert record["snapshot"] == "2026-11-01T00:00:00+00:00"
    plant = record["sources"]["plant"]
    assert plant["origins"] == [{"url": url, "sha256": hashlib.sha256(ROWS.encode()).hexdigest(), "bytes": len(ROWS)}]
    assert (plant["type"], plant["rows"], record["sources"]["made"]["rows"]) == ("cloud", 2, 100)
    assert plant["time"].endswith("+00:00")


def test_sources_are_read_concurrently(workspace: Path, web: WebServer) -> None:
    """Two servers respond only after both got a request, so sequential reading would never end."""
    requests: list[str] = []

    def meet(me: str) -> Any:
        def answer(_query: object) -> bytes:
            requests.append(me)
            while len(set(requests)) < 2 and not web.closing.wait(0.01):
                pass
            return b'{"machine": "m1", "flow": 1.0, "pressure": 2.0, "state": "0"}'

        return answer

    sources = {name: polled(web.put(f"/{name}", meet(name), "application/json")) for name in ("a", "b")}
    configure(workspace, retry=RETRY | {"timeout_s": 10.0}, **sources)

    succeed()

    assert sorted(requests) == ["a", "b"]


def test_two_failures_are_reported_together_and_no_snapshot_is_written(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(workspace, made=SYNTHETIC)
    succeed()
    removed = web.put("/gone", b"")
    web.fail("/gone", *[Status(503)] * 3)
    configure(workspace, made=SYNTHETIC | {"rows": 60}, first=polled(removed), second=cloud("nowhere"))

    message = refuse(capsys)

    assert f"source first: {removed}: HTTP 503 Service Unavailable; 3 attempt(s)" in message
    assert "source second: nowhere: " in message
    assert "source made" not in message


def test_the_same_files_give_the_same_bytes(workspace: Path) -> None:
    (workspace / "rows").mkdir()
    for name in ("b", "a", "c"):
        (workspace / "rows" / f"{name}.csv").write_text(ROWS.replace("m1", name))
    configure(workspace, local=cloud("rows"))
    succeed()
    first = (collect.SNAPSHOT / "local/part-00000.parquet").read_bytes()

    succeed()

    assert (collect.SNAPSHOT / "local/part-00000.parquet").read_bytes() == first
    assert read_snapshot("local")["machine"].to_pylist() == ["a", "a", "b", "b", "c", "c"]


def test_a_new_snapshot_collects_new_data(workspace: Path) -> None:
    configure(workspace, made=SYNTHETIC)
    succeed()
    first = read_snapshot("made")["time"][0].as_py()
    path = workspace / "tasks/digits/params.yaml"
    path.write_text(path.read_text().replace("2026-11-01T00:00:00Z", "2026-11-02T00:00:00+02:00"))

    succeed()

    assert (read_snapshot("made")["time"][0].as_py() - first).total_seconds() == 22 * 3600


def test_a_source_that_is_no_longer_configured_is_removed(workspace: Path) -> None:
    configure(workspace, made=SYNTHETIC, more=SYNTHETIC)
    succeed()
    configure(workspace, made=SYNTHETIC)

    succeed()

    assert [p.name for p in collect.SNAPSHOT.iterdir()] == ["made"]


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interruption_keeps_the_last_snapshot(
    workspace: Path, web: WebServer, how: signal.Signals, code: int
) -> None:
    configure(workspace, made=SYNTHETIC)
    succeed()
    before = digests()
    slow = web.put("/slow.csv", ROWS.encode() * 1000)
    web.fail("/slow.csv", Stall(100))
    configure(workspace, retry=RETRY | {"timeout_s": 60.0}, made=SYNTHETIC | {"rows": 99}, slow=cloud(slow))
    process = start()
    assert process.stdout is not None
    assert process.stdout.readline() == "made: 198 rows from 1 origin(s)\n"
    while not web.requests_for("/slow.csv"):
        assert process.poll() is None
        time.sleep(0.01)

    process.send_signal(how)
    _, message = process.communicate(timeout=30)

    assert process.returncode == code, message
    assert "Traceback" not in message
    kept = {name: content for name, content in digests().items() if ".partial" not in name}
    assert kept == before
    configure(workspace, made=SYNTHETIC)
    succeed()
    assert digests().keys() == before.keys()


def test_a_full_disk_is_reported_with_the_other_failures(workspace: Path) -> None:
    """A limit on the file size simulates a full disk: the write fails in the kernel."""
    configure(workspace, made=SYNTHETIC)
    succeed()
    before = digests()
    configure(workspace, made=SYNTHETIC | {"rows": 100_000}, second=cloud("nowhere"))

    done = subprocess.run(
        [sys.executable, "-m", "stages.collect"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "source made: " in done.stderr
    assert "File too large" in done.stderr
    assert "free disk space" in done.stderr
    assert "source second: nowhere" in done.stderr
    assert digests() == before


def test_a_terminal_shows_a_progress_bar(workspace: Path, web: WebServer) -> None:
    configure(workspace, plant=cloud(web.put("/rows.csv", ROWS.encode(), "text/csv")))
    terminal, other = os.openpty()

    process = subprocess.Popen(
        [sys.executable, "-m", "stages.collect"], stdout=other, env=os.environ | {"TERM": "xterm"}
    )
    os.close(other)
    output = b""
    while True:
        try:
            output += os.read(terminal, 65536)
        except OSError:  # Linux reports a closed terminal this way
            break
    os.close(terminal)

    assert process.wait() == 0
    assert "━".encode() in output
    assert f"{len(ROWS)}/{len(ROWS)} bytes".encode() in output


def test_a_port_where_nothing_listens(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    configure(workspace, down=polled(url))

    message = refuse(capsys)

    assert url in message
    assert "check that the source is running and reachable" in message


def test_series_keep_their_types(workspace: Path) -> None:
    (workspace / "rows.csv").write_text(ROWS)
    configure(workspace, local=cloud("rows.csv"))

    succeed()

    types = dict(zip(read_snapshot("local").column_names, read_snapshot("local").schema.types, strict=True))
    assert types == {
        "machine": pa.string(),
        "time": pa.timestamp("us"),
        "flow": pa.float64(),
        "pressure": pa.float64(),
        "state": pa.string(),
    }
    assert SERIES["label"] in types
