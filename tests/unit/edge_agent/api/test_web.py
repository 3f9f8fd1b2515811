"""The agent's HTTP interface with valid and invalid requests; a real server, real connections."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.api.web import OPENAPI_FILE
from edge_agent.inference.engine import LoadedRelease
from edge_agent.monitoring.prometheus import MetricsExporter
from openapi_spec_validator import validate

from tests.support.agent.http_server import Agent, npy, serving
from tests.support.agent.serving import RELEASE, Backend, behaving, device, installed

SHAPE = (2, 16)
RAW, NPY = "application/octet-stream", "application/x-npy"
ZEROS = np.zeros(SHAPE).tolist()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    config = device(
        tmp_path_factory.mktemp("agent"),
        serve={"body_limit_mb": 0.1, "request_timeout_s": 0.5, "feedback_window": 8},
    )
    with serving(config, installed(config)) as running:
        yield running


def loaded(agent: Agent) -> LoadedRelease:
    assert agent.engine.loaded is not None
    return agent.engine.loaded


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *SHAPE)).astype(np.float32)


def test_the_description_is_openapi(agent: Agent) -> None:
    described = agent.ask("GET", "/openapi.json").json

    validate(described)
    assert described == json.loads(OPENAPI_FILE.read_text())
    routes = {route.resource.canonical for route in loaded_routes(agent)}
    assert routes | {"/samples"} == set(described["paths"])


def loaded_routes(agent: Agent) -> Any:
    from edge_agent.api import web

    metrics = MetricsExporter(agent.statistics, agent.health.condition)
    app = web.create_application(agent.engine, agent.statistics, agent.statistics.config, metrics)
    return app.router.routes()


@pytest.mark.parametrize("form", ["json", "raw", "npy", "npy in Fortran's order"])
def test_samples_in_every_form(agent: Agent, form: str) -> None:
    x = samples(3)
    body: dict[str, tuple[Any, str]] = {
        "json": ({"inputs": x.tolist()}, "application/json"),
        "raw": (x.tobytes(), RAW),
        "npy": (npy(x), NPY),
        "npy in Fortran's order": (npy(np.asfortranarray(x)), NPY),
    }

    answer = agent.ask("POST", "/predict", *body[form])

    expected = loaded(agent).model.predict(x)
    assert answer.status == 200
    assert (answer.json["release"], answer.json["model_sha256"]) == (RELEASE, loaded(agent).sha256)
    for prediction, row in zip(answer.json["predictions"], expected, strict=True):
        assert list(prediction["probabilities"]) == list(loaded(agent).classes)
        np.testing.assert_allclose(list(prediction["probabilities"].values()), row, atol=1e-6)
        assert prediction["class"] == loaded(agent).classes[int(row.argmax())]
        assert prediction["confidence"] == max(prediction["probabilities"].values())
    assert len({prediction["id"] for prediction in answer.json["predictions"]}) == 3


def test_one_sample(agent: Agent) -> None:
    x = samples(1)

    (one,) = agent.ask("POST", "/predict", {"input": x[0].tolist()}).json["predictions"]

    np.testing.assert_allclose(list(one["probabilities"].values()), loaded(agent).model.predict(x)[0], atol=1e-6)


def test_an_answer_in_binary(agent: Agent) -> None:
    x = samples(4)

    answer = agent.ask("POST", "/predict", x.tobytes(), RAW, Accept=RAW)

    probabilities = np.frombuffer(answer.content, "<f4").reshape(4, 3)
    np.testing.assert_allclose(probabilities, loaded(agent).model.predict(x), atol=1e-6)
    assert answer.headers["edge-agent-release"] == RELEASE
    prefix, _, first = answer.headers["edge-agent-first-id"].rpartition("-")
    last = {"id": f"{prefix}-{int(first) + 3}", "label": "worn"}
    assert agent.ask("POST", "/feedback", last).json["predicted"] == loaded(agent).classes[probabilities[3].argmax()]


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_chunks_and_many_requests_on_one_connection(agent: Agent) -> None:
    text = json.dumps({"input": ZEROS}).encode()
    chunked = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (text[:9], text[9:])) + b"0\r\n\r\n"
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as stream:
        stream.sendall(request * 20)
        content = b""
        while content.count(b"HTTP/1.1 200 OK") < 20 or not content.endswith(b"}"):
            part = stream.recv(1 << 16)
            assert part, content[-200:]
            content += part


def test_feedback(agent: Agent) -> None:
    number = agent.ask("POST", "/predict", {"input": ZEROS}).json["predictions"][0]["id"]
    before = agent.statistics.report()["feedback"]

    first = agent.ask("POST", "/feedback", {"id": number, "label": "broken"})
    agent.ask("POST", "/feedback", {"id": number, "label": "broken"})
    predicted = first.json["predicted"]
    corrected = agent.ask("POST", "/feedback", {"id": number, "label": predicted})

    assert first.json == {"id": number, "release": RELEASE, "predicted": predicted, "correct": predicted == "broken"}
    assert corrected.json["correct"] is True
    after = agent.statistics.report()["feedback"]
    assert (after["n"], after["correct"]) == (before["n"] + 1, before["correct"] + 1)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [({"id": "none-1", "label": "worn"}, 404, "unknown prediction"), ({"id": 1, "label": "worn"}, 422, "strings"),
     ({"id": "a"}, 422, "strings"), ({"id": "a", "label": "worn", "more": 1}, 422, "unknown names"),
     (b"[", 400, "not valid JSON"), (b"{}", 415, "feedback must be JSON")],
)  # fmt: skip
def test_invalid_feedback_is_refused(agent: Agent, body: Any, status: int, words: str) -> None:
    kind = "text/plain" if body == b"{}" else "application/json"

    answer = agent.ask("POST", "/feedback", body, kind)

    assert (answer.status, words in answer.json["detail"]) == (status, True)


def test_feedback_with_an_unknown_class_or_for_an_old_prediction(agent: Agent) -> None:
    number = agent.ask("POST", "/predict", {"input": ZEROS}).json["predictions"][0]["id"]

    refused = agent.ask("POST", "/feedback", {"id": number, "label": "green"})
    assert (refused.status, refused.json["expected"]) == (422, ["fine", "worn", "broken"])
    agent.ask("POST", "/predict", samples(8).tobytes(), RAW)
    assert agent.ask("POST", "/feedback", {"id": number, "label": "worn"}).status == 404


def test_health_and_information(agent: Agent) -> None:
    agent.call(agent.health.probe())
    healthy = {"release": RELEASE, "reason": "healthy"}
    assert agent.ask("GET", "/healthz").json == {"status": "ok", "golden": True, **healthy}
    assert agent.ask("GET", "/readyz").json == {"status": "ready", **healthy}
    info = agent.ask("GET", "/info").json
    assert (info["model_sha256"], info["input"]["shape"]) == (loaded(agent).sha256, list(SHAPE))
    assert info["device"] == {"id": "pi-1", "type": "generic"}


def test_without_a_release(tmp_path: Path) -> None:
    with serving(device(tmp_path)) as agent:
        assert agent.ask("GET", "/healthz").status == 200
        for method, path in (("GET", "/readyz"), ("POST", "/predict"), ("POST", "/feedback")):
            answer = agent.ask(method, path, {"id": "a", "label": "b"} if method == "POST" else None)
            assert (answer.status, answer.json["detail"]) == (503, "no release is loaded")
        assert agent.ask("GET", "/info").json["release"] is None
        assert b"edge_agent_trial 0.0" in agent.ask("GET", "/metrics").content


def test_a_broken_and_a_hanging_model(tmp_path: Path) -> None:
    config = device(tmp_path, serve={"request_timeout_s": 0.3})
    real = installed(config)
    hanging = Backend(lambda x: x[:, 0, :3], held=True)
    with serving(config, behaving(real, Backend(lambda x: np.full((len(x), 3), np.nan)))) as agent:
        answer = agent.ask("POST", "/predict", {"input": ZEROS})
        assert (answer.status, answer.json["release"]) == (500, "other@1.0.0")
        agent.call(agent.health.probe())
        for path in ("/healthz", "/readyz"):
            failed = agent.ask("GET", path)
            assert (failed.status, failed.json["reason"]) == (503, "golden_samples_wrong")
        assert agent.statistics.report()["error_reasons"] == {"output": 1}
        agent.call(agent.engine.swap(behaving(real, hanging)))
        late = agent.ask("POST", "/predict", {"input": ZEROS})
        assert (late.status, "no result within" in late.json["detail"]) == (500, True)
        behind = agent.ask("POST", "/predict", {"input": ZEROS})
        assert (behind.status, behind.headers["retry-after"]) == (429, "1")
        agent.call(agent.health.probe())
        alive = agent.ask("GET", "/healthz")  # a restart is the task of the watchdog
        assert (alive.status, alive.json["reason"]) == (200, "model_hangs")
        unready = agent.ask("GET", "/readyz")
        assert (unready.status, unready.json["reason"]) == (503, "model_hangs")
        agent.call(agent.engine.swap(real))
        hanging.go.set()
        assert agent.ask("POST", "/predict", {"input": ZEROS}).status == 200


def test_requests_beyond_the_models_speed_are_refused_and_not_lost(tmp_path: Path) -> None:
    config = device(tmp_path, serve={"queue": 4})
    slow = Backend(lambda x: x[:, 0, :3], held=True)
    with serving(config, behaving(installed(config), slow)) as agent, ThreadPoolExecutor(12) as clients:
        pending = [clients.submit(agent.ask, "POST", "/predict", {"input": ZEROS}) for _ in range(12)]
        for _ in zip(range(8), as_completed(pending), strict=False):
            pass
        slow.go.set()
        statuses = sorted(future.result().status for future in pending)
        assert statuses == [200] * 4 + [429] * 8
        assert agent.statistics.http["/predict", "POST", 429] == 8
