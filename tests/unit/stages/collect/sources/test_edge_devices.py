"""Samples that devices captured, from a small server with the agent's interface."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Cut, Stall, Status, WebServer
from tests.support.stages.collect import IMAGE, SERIES, configure, provenance, read_snapshot, refuse, succeed

SINCE = "2026-01-01T00:00:00Z"


def sample(number: int, label: str | None = "0", **more: Any) -> dict[str, Any]:
    values = {"flow": 1 + number / 2, "pressure": 2}
    return {"id": number, "time": f"2026-01-01T00:00:{number:02d}Z", "label": label, "values": values} | more


def device(web: WebServer, name: str, *samples: dict[str, Any] | bytes) -> str:
    """Return the URL of a device that exports `samples`, or only those after `since`."""

    def export(query: dict[str, list[str]]) -> bytes:
        since = query.get("since", [""])[0]
        lines = [s if isinstance(s, bytes) else json.dumps(s).encode() for s in samples]
        new = [line for line, s in zip(lines, samples, strict=True) if isinstance(s, bytes) or s["time"] >= since]
        return b"".join(line + b"\n" for line in new)

    web.put(f"/{name}/samples", export, "application/x-ndjson")
    return f"{web.url}/{name}"


def source(devices: dict[str, str], since: str | None = None) -> dict[str, Any]:
    return {"type": "edge_devices", "devices": devices, "since": since}


def test_labelled_samples_of_all_devices_in_order(workspace: Path, web: WebServer) -> None:
    first = device(web, "pi-1", sample(3, "1"), sample(1), sample(2, None), sample(4, group="pump-9"))
    second = device(web, "pi-2", sample(1, "1"))
    configure(workspace, fleet=source({"pi-1": first, "pi-2": second + "/"}))

    succeed()

    rows = read_snapshot("fleet").select(["machine", "state", "flow"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("pi-1", "0", 1.5), ("pi-1", "1", 2.5), ("pump-9", "0", 3.0), ("pi-2", "1", 1.5),
    ]  # fmt: skip
    assert str(read_snapshot("fleet")["time"][0].as_py()) == "2026-01-01 00:00:01"
    content = (json.dumps(sample(1, "1")) + "\n").encode()
    assert provenance()["sources"]["fleet"]["origins"][1] == {
        "url": second + "/", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
    }  # fmt: skip


def test_samples_that_are_left_out_are_counted_and_named(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    first = device(web, "pi-1", sample(1), sample(2, None), sample(1, "1"), sample(3, None))
    second = device(web, "pi-2", sample(1, "1"), sample(2, None))
    configure(workspace, fleet=source({"pi-1": first, "pi-2": second}))

    succeed()

    assert read_snapshot("fleet")["state"].to_pylist() == ["1", "1"]
    assert provenance()["sources"]["fleet"].get("left_out") == [
        {"reason": "no label", "count": 3, "first": ["pi-1/2", "pi-1/3", "pi-2/2"]},
        {"reason": "replaced by a later sample with the same id", "count": 1, "first": ["pi-1/1"]},
    ]
    assert "fleet: 3 left out (no label): pi-1/2, pi-1/3, pi-2/2\n" in capsys.readouterr().out


def test_only_newer_samples_are_requested(workspace: Path, web: WebServer) -> None:
    url = device(web, "pi-1", sample(1), sample(2))
    configure(workspace, fleet=source({"pi-1": url}, "2026-01-01T01:00:02+01:00"))

    succeed()

    assert web.requests_for("/pi-1/samples")[0].query == {"since": ["2026-01-01T00:00:02Z"]}
    assert read_snapshot("fleet")["flow"].to_pylist() == [2.0]


def test_images_are_read_as_values(workspace: Path, web: WebServer) -> None:
    url = device(web, "pi-1", sample(1, values=list(range(24))))
    configure(workspace, data=IMAGE, fleet=source({"pi-1": url}))

    succeed()

    assert read_snapshot("fleet").to_pylist() == [
        {"machine": "pi-1", "state": "0", "values": [float(i) for i in range(24)]}
    ]


def test_a_request_to_a_device_is_retried(workspace: Path, web: WebServer) -> None:
    url = device(web, "pi-1", sample(1), sample(2))
    web.fail("/pi-1/samples", Status(503), Cut(40))
    configure(workspace, fleet=source({"pi-1": url}))

    succeed()

    assert len(read_snapshot("fleet")) == 2


def test_a_label_may_be_the_name_of_its_class(workspace: Path, web: WebServer) -> None:
    url = device(web, "pi-1", sample(1, "faulty"), sample(2, "0"), sample(3, "normal"))
    configure(workspace, fleet=source({"pi-1": url}))

    succeed()

    assert read_snapshot("fleet")["state"].to_pylist() == ["1", "0", "0"]


def test_an_ambiguous_label_is_refused(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    data = SERIES | {"classes": {"0": "1", "1": "2"}}
    configure(workspace, data=data, fleet=source({"pi-1": device(web, "pi-1", sample(1, "1"))}))

    assert "the label of one class and the name of another" in refuse(capsys)


def test_every_silent_device_is_reported(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    urls = {name: device(web, name, sample(1)) for name in ("pi-1", "pi-2", "pi-3")}
    web.fail("/pi-1/samples", *[Stall(0)] * 3)
    web.fail("/pi-3/samples", Status(404))
    configure(workspace, fleet=source(urls))

    message = refuse(capsys)

    assert f"{urls['pi-1']}/samples: no response for 0.3 s; 3 attempt(s)" in message
    assert f"{urls['pi-3']}/samples: HTTP 404 Not Found" in message
    assert "pi-2" not in message


@pytest.mark.parametrize(
    ("samples", "data", "words"),
    [
        ([sample(1, None)], SERIES, "no labelled sample from pi-1"),
        ([], SERIES, "no labelled sample from pi-1"),
        ([b"not json"], SERIES, "a line is not a sample (JSONDecodeError"),
        ([b"[1]"], SERIES, "a line is not a sample (TypeError"),
        ([b"[" * 200_000], SERIES, "a line is not a sample (RecursionError"),
        ([sample(1, values=[10**400] * 24)], IMAGE, "a line is not a sample (OverflowError"),
        ([b'{"id": 1}'], SERIES, "a line is not a sample (KeyError('label'))"),
        ([sample(1, values=[1, 2])], SERIES, "a line is not a sample (TypeError"),
        ([sample(1, values=["x"])], IMAGE, "a line is not a sample (ValueError"),
        ([b"\xc3("], SERIES, "a line is not a sample (UnicodeDecodeError"),
        ([sample(1), sample(2, values={"flow": "x", "pressure": 1})], SERIES, "values of several types"),
    ],
)
def test_an_invalid_sample_is_refused(
    workspace: Path,
    web: WebServer,
    capsys: pytest.CaptureFixture[str],
    samples: list[Any],
    data: dict[str, Any],
    words: str,
) -> None:
    configure(workspace, data=data, fleet=source({"pi-1": device(web, "pi-1", *samples)}))

    assert words in refuse(capsys)


def test_since_needs_a_zone(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, fleet=source({"pi-1": "http://127.0.0.1:9"}, SINCE.removesuffix("Z")))

    assert "collect.sources.fleet.since" in refuse(capsys)
