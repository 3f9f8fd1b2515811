"""Whatever is sent, the agent responds as openapi.json describes, never with a 5xx status, and keeps running."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from edge_agent.api.web import OPENAPI_FILE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.agent.http_server import Agent, npy, serving
from tests.support.agent.serving import RELEASE, device, installed

pytestmark = pytest.mark.slow  # schemathesis takes seconds to import
pytest_plugins = ["schemathesis.pytest.plugin"]  # for `schema.parametrize`; pyproject.toml leaves it out elsewhere

SHAPE = (2, 16)
TYPES = ("application/json", "application/octet-stream", "application/x-npy")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "160"))  # more of them: make test-all
calm = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
schema = schemathesis.openapi.from_dict(json.loads(OPENAPI_FILE.read_text()))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    config = device(
        tmp_path_factory.mktemp("agent"),
        serve={"body_limit_mb": 0.2, "request_timeout_s": 0.5},
        capture={"enabled": True, "rate": 1.0, "limit_mb": 0.5},
    )
    with serving(config, installed(config)) as running:
        yield running
        zeros = {"input": np.zeros(SHAPE).tolist()}
        assert running.ask("POST", "/predict", zeros).json["release"] == RELEASE
        assert running.statistics.report()["errors"] == 0


@schema.parametrize()
@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_requests_that_the_description_suggests(case: schemathesis.Case, agent: Agent) -> None:
    """Send valid requests, and requests that violate each rule of the description."""
    answer = case.call(base_url=agent.url)

    assert answer.status_code < 500
    if answer.headers.get("content-type") != ["application/octet-stream"]:
        case.validate_response(
            answer,
            checks=[schemathesis.checks.status_code_conformance, schemathesis.checks.content_type_conformance,
                    schemathesis.checks.response_schema_conformance],
        )  # fmt: skip


numbers = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3), st.integers(10**400, 10**401)
)
nested = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=17) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=40,
)  # fmt: skip
almost = st.lists(st.lists(st.lists(st.floats(width=32), min_size=15, max_size=16), min_size=1, max_size=3), max_size=3)
named = st.dictionaries(st.sampled_from(["input", "inputs", "id", "label"]), nested | almost, max_size=3)
valid = npy(np.zeros((2, *SHAPE), np.float32))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a valid .npy file with some bytes replaced, and truncated."""
    content = bytearray(valid)
    for place, value in draw(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), max_size=4)):
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))])


bodies = st.one_of((named | nested).map(lambda value: json.dumps(value).encode()), damaged(), st.binary(max_size=300))


@calm
@given(body=bodies, kind=st.sampled_from(TYPES), path=st.sampled_from(["/predict", "/feedback"]))
@example(body=b"[" * 100_000, kind=TYPES[0], path="/predict")
@example(body=b'{"a":' * 30_000, kind=TYPES[0], path="/feedback")
@example(body=valid[:10] + b"(" * 118, kind=TYPES[2], path="/predict")
def test_bodies(agent: Agent, body: bytes, kind: str, path: str) -> None:
    answer = agent.ask("POST", path, body, kind)

    assert answer.status in {200, 400, 404, 413, 415, 422}
    if answer.status != 200:
        assert answer.json["detail"]


lines = st.lists(
    st.sampled_from([
        b"POST /predict HTTP/1.1", b"GET /metrics HTTP/1.0", b"Host: a", b"Content-Length: 5", b"Content-Length: x",
        b"Transfer-Encoding: chunked", b"Content-Type: application/json", b"Connection: close", b"", b"5", b"\x00\xff",
        b"Expect: 100-continue", b"Upgrade: websocket", b"Content-Encoding: gzip", b"\t", b": ", b"Range: bytes=0-",
    ]) | st.binary(max_size=30),
    max_size=10,
)  # fmt: skip


@calm
@given(lines)
def test_bytes_that_are_almost_http(agent: Agent, parts: list[bytes]) -> None:
    answered = agent.raw(b"\r\n".join(parts) + b"\r\n\r\n", end=True)

    for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answered):
        assert status < b"500", answered[:300]
