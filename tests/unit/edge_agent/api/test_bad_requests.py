"""Bad requests get a 4xx with a reason, never a 5xx; a real server, real connections."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.agent.http_server import Agent, npy, serving
from tests.support.agent.serving import device, installed

SHAPE = (2, 16)
RAW, NPY = "application/octet-stream", "application/x-npy"
ZEROS = np.zeros(SHAPE).tolist()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    config = device(tmp_path_factory.mktemp("agent"), serve={"body_limit_mb": 0.1, "request_timeout_s": 0.5})
    with serving(config, installed(config)) as running:
        yield running


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *SHAPE)).astype(np.float32)


def npy_of(*axes: str) -> bytes:
    """Return a .npy file of one sample with a header whose shape begins with `axes`."""
    shape = ", ".join([*axes, *map(str, SHAPE[len(axes) - 1 :])])
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape})}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4 * math.prod(SHAPE))


DEEP = b'{"inputs": ' + b"[" * 30000 + b"]" * 30000 + b"}"
# body, content type, status, words of the problem
BAD = {
    "not JSON": (b"{", "application/json", 400, "not valid JSON"),
    "empty": (b"", "application/json", 400, "not valid JSON"),
    "not UTF-8": (b'{"inputs": "\xff"}', "application/json", 400, "utf-8"),
    "UTF-16": (json.dumps({"input": ZEROS}).encode("utf-16"), "application/json", 400, "utf-8"),
    "nested deeply": (DEEP, "application/json", 400, "recursion"),
    "NaN": (b'{"input": [NaN]}', "application/json", 400, "NaN is not a JSON number"),
    "Infinity": (b'{"input": [-Infinity]}', "application/json", 400, "-Infinity is not a JSON number"),
    "duplicate name": (b'{"input": [1], "input": [1]}', "application/json", 400, "duplicate name"),
    "a list": (b"[1, 2]", "application/json", 422, "not a JSON object"),
    "unknown name": ({"input": ZEROS, "inputz": 1}, None, 422, "unknown names"),
    "both names": ({"input": ZEROS, "inputs": [ZEROS]}, None, 422, "exactly one"),
    "no name": ({}, None, 422, "exactly one"),
    "empty batch": ({"inputs": []}, None, 422, "wrong shape"),
    "no batch axis": ({"inputs": ZEROS}, None, 422, "wrong shape"),
    "wrong shape": ({"inputs": [[[0, 0]]]}, None, 422, "wrong shape"),
    "ragged": ({"inputs": [[[0, 0], [0]]]}, None, 422, "different lengths"),
    "many empty lists": ({"inputs": [[]] * 20_000}, None, 422, "more lists"),
    "many objects": ({"inputs": [{}] * 20_000}, None, 422, "more lists, names or objects"),
    "many names": ({f"name {i}": 0 for i in range(6_000)}, None, 422, "more lists, names or objects"),
    "deep and large": (b'{"inputs": ' + b"[" * 90_000, "application/json", 422, "more lists"),
    "more samples than the queue": ({"inputs": [np.zeros(SHAPE, int).tolist()] * 900}, None, 413, "too many samples"),
    "text": ({"inputs": [[["1.0"] * 16] * 2]}, None, 422, "not a number"),
    "null": ({"inputs": [[[None] * 16] * 2]}, None, 422, "not a number"),
    "bool": ({"inputs": [[[True] + [0.5] * 15] * 2]}, None, 422, "not a nested list of numbers"),
    "an object": ({"inputs": {"a": 1}}, None, 422, "not a nested list of numbers"),
    "objects": ({"inputs": [[[{}] * 16] * 2]}, None, 422, "not a number"),
    "beyond float32": ({"inputs": [[[1e39] * 16] * 2]}, None, 422, "not a finite float32"),
    "a huge integer": (b'{"input": [' + b"9" * 9000 + b"]}", "application/json", 422, "wrong shape"),
    "huge integers": (
        b'{"inputs": [[[' + b",".join([b"9" * 400] * 16) + b"],[" + b",".join([b"0"] * 16) + b"]]]}",
        "application/json",
        422,
        "not a finite float32",
    ),
    "not whole samples": (bytes(127), RAW, 422, "not a whole number of float32 samples"),
    "no bytes": (b"", RAW, 422, "not a whole number of float32 samples"),
    "NaN in binary": (np.full((1, *SHAPE), np.nan, "<f4").tobytes(), RAW, 422, "not a finite float32"),
    "not npy": (b"\x93NUMPY", NPY, 400, "not a .npy file"),
    "npy with a strange header": (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, NPY, 400, "not a .npy file"),
    "npy of doubles": (npy(np.zeros((1, *SHAPE))), NPY, 422, "wrong type"),
    "npy of objects": (npy(np.array([{}, None])), NPY, 422, "wrong type"),
    "npy cut": (npy(samples(2))[:-1], NPY, 422, "incomplete"),
    "npy with a larger shape than its data": (npy(samples(1)).replace(b"(1, 2", b"(9, 2"), NPY, 422, "incomplete"),
    "npy of a decimal size with 4299 digits": (npy_of("9" * 4299), NPY, 422, "impossible shape"),
    "npy of a hexadecimal size": (npy_of("0x" + "f" * 8000), NPY, 422, "impossible shape"),
    "npy of a huge second axis": (npy_of("1, 0x" + "f" * 8000, "16"), NPY, 422, "impossible shape"),
    "npy of True samples": (npy_of("True"), NPY, 422, "impossible shape"),
    "npy of a negative size": (npy_of("-1"), NPY, 422, "impossible shape"),
    "another type": (b"x", "text/plain", 415, "not supported"),
    "no type": (b"x", None, 415, "not supported"),
    "another charset": (b"{}", "application/json; charset=latin-1", 415, "encoding is not supported"),
    "too large": (bytes(200_000), RAW, 413, "too large"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_a_reason(agent: Agent, name: str) -> None:
    body, kind, status, words = BAD[name]

    answer = agent.ask("POST", "/predict", body, kind)

    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json
    assert words in problem["detail"]
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["title"]
    assert agent.ask("POST", "/predict", {"input": ZEROS}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "/nothing", 404, None), ("GET", "/predict", 405, "POST"), ("DELETE", "/metrics", 405, "GET,HEAD"),
     ("GET", "/samples", 404, None), ("POST", "/../etc/passwd", 404, None)],
)  # fmt: skip
def test_a_missing_route_is_a_problem(agent: Agent, method: str, path: str, status: int, allow: str | None) -> None:
    answer = agent.ask(method, path)

    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers.get("allow") == allow
    assert path in answer.json["detail"]


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), 400),
        (b"GET / HTTP/9.9.9\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n", 400),
        (HEAD + b"Connection: close\r\n\r\n", 411),
        (HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 415),
        (HEAD + b"Content-Length: 100\r\n\r\n{", 408),
        (HEAD + b"Content-Length: 999999999999\r\n\r\n{", 413),
        (b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 400),
        (HEAD + b"Expect: much\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 417),
    ],
)
def test_garbage_and_slow_clients(agent: Agent, data: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    head, _, body = agent.raw(data).partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == str(status).encode()
    assert b"content-type: application/problem+json" in head.lower()
    assert (json.loads(body)["status"], json.loads(body)["type"]) == (status, "about:blank")
    assert json.loads(body)["detail"]
    assert agent.ask("GET", "/readyz").status == 200
    assert not caplog.records


@pytest.mark.parametrize("data", [b"", b"GET /heal", HEAD])
def test_an_idle_client_is_disconnected(agent: Agent, data: bytes) -> None:
    before = time.monotonic()

    assert agent.raw(data) == b""

    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    "header", [b"Content-Encoding: Identity", b"Content-Type: application/json; charset=UTF8", b"Expect: 100-Continue"]
)
def test_an_equivalent_spelling_is_accepted(agent: Agent, header: bytes) -> None:
    body = json.dumps({"input": ZEROS}).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    kind = b"" if b"Type" in header else b"Content-Type: application/json\r\n"

    assert b"HTTP/1.1 200 OK" in agent.raw(head + kind + header + b"\r\n\r\n" + body)


def test_large_feedback_is_refused(agent: Agent) -> None:
    answer = agent.ask("POST", "/feedback", {"id": [[]] * 20_000, "label": "fine"})

    assert (answer.status, answer.json["detail"]) == (413, "the body is too large")


def test_a_request_that_fills_the_queue_is_answered(agent: Agent) -> None:
    answer = agent.ask("POST", "/predict", {"inputs": np.ones((256, *SHAPE)).round().tolist()})
    spaced = json.dumps({"input": ZEROS}).encode().replace(b",", b" " * 3000 + b",")

    assert answer.status == 200
    assert len(answer.json["predictions"]) == 256
    assert agent.ask("POST", "/predict", spaced, "application/json").status == 200
