"""Servers that fail, are slow or never finish are requested again only as often as that can help."""

from __future__ import annotations

import gzip
import socket
import time
from pathlib import Path

import pytest
from edge_agent.core.config import Config
from edge_agent.core.errors import SourceError, TrustError

from tests.support.agent.release_server import (
    Answer,
    Handler,
    ReleaseServer,
    drips,
    drips_headers,
    endless,
    right,
    silent,
    status,
)
from tests.support.agent.tuf_repository import CONTENT, TufRepository, fetched

pytestmark = pytest.mark.slow  # each waits for a server that fails


@pytest.mark.parametrize("number", [500, 502, 503, 504, 429])
def test_a_server_that_recovers_is_requested_again(config: Config, server: ReleaseServer, number: int) -> None:
    server.responses["timestamp"] = [status(number), status(number), right]
    assert fetched(config) == CONTENT
    assert len(server.requested("timestamp")) == 3


@pytest.mark.parametrize("kind", ["root", "timestamp", "snapshot", "digits"])
def test_a_server_that_keeps_failing_is_abandoned(config: Config, server: ReleaseServer, kind: str) -> None:
    server.responses[kind] = [status(500)]
    with pytest.raises(SourceError, match="the server answered 500"):
        fetched(config)
    assert len(server.requested(kind)) >= config.source.attempts
    assert len(server.requested(kind)) <= config.source.attempts


@pytest.mark.parametrize("number", [400, 401, 403, 404, 410])
@pytest.mark.parametrize("kind", ["timestamp", "digits"])
def test_a_missing_file_is_requested_once(config: Config, server: ReleaseServer, kind: str, number: int) -> None:
    server.responses[kind] = [status(number)]
    with pytest.raises(SourceError, match=f"the server answered {number}") as error:
        fetched(config)
    assert kind in error.value.where
    assert len(server.requested(f"{kind}.")) == 1


def test_a_server_decides_how_long_to_wait(config: Config, server: ReleaseServer) -> None:
    server.responses["timestamp"] = [status(429, Retry_After="1"), right]
    since = time.monotonic()
    assert fetched(config) == CONTENT
    assert time.monotonic() - since >= 1


@pytest.mark.parametrize("value", ["86400", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_but_not_for_hours(config: Config, server: ReleaseServer, value: str) -> None:
    server.responses["timestamp"] = [status(503, Retry_After=value)]
    with pytest.raises(SourceError, match=r"requested a pause of [0-9]+ s"):
        fetched(config)
    assert len(server.requested("timestamp")) == 1


@pytest.mark.parametrize("kind", ["timestamp", "digits"])
@pytest.mark.parametrize("answer", [drips, drips_headers, silent])
def test_a_slow_server_is_given_up(config: Config, server: ReleaseServer, kind: str, answer: Answer) -> None:
    server.responses[kind] = [answer]
    since = time.monotonic()
    with pytest.raises(SourceError, match=r"3 time\(s\)"):
        fetched(config)
    assert time.monotonic() - since < 10 * config.source.timeout_s


def test_nobody_there(published: TufRepository, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = published.config(tmp_path / "device", f"http://127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(SourceError, match=r"refused.*3 time\(s\)"):
            fetched(config)


@pytest.mark.parametrize("kind", ["root", "timestamp", "snapshot", "digits"])
def test_endless_data_is_cut(config: Config, server: ReleaseServer, kind: str) -> None:
    server.responses[kind] = [endless]
    with pytest.raises(TrustError, match=r"more than the [0-9]+ bytes"):
        fetched(config)
    assert len(server.requested(kind)) == 1


def test_compressed_answers_are_not_unpacked(config: Config, server: ReleaseServer) -> None:
    def packed(handler: Handler, content: bytes) -> None:
        handler.send(200, gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    server.responses["timestamp"] = [packed]
    with pytest.raises(TrustError):
        fetched(config)


def test_redirects_are_followed_but_not_for_ever(config: Config, server: ReleaseServer) -> None:
    target = server.folder / "elsewhere.bin"
    target.write_bytes(CONTENT)
    server.responses["digits"] = [status(302, Location="/elsewhere.bin")]
    assert fetched(config) == CONTENT
    server.responses["timestamp"] = [status(302, Location="/metadata/timestamp.json")]
    with pytest.raises(SourceError, match="redirects"):
        fetched(config)


@pytest.mark.parametrize("kind", ["timestamp", "digits"])
def test_a_length_that_is_no_number_says_nothing(config: Config, server: ReleaseServer, kind: str) -> None:
    server.responses[kind] = [lambda handler, content: handler.send(200, content, Content_Length="9" * 5000)]
    assert fetched(config) == CONTENT
