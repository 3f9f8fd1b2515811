"""Transfers end: complete, or with a reason, whatever the server, the network or the other end of the cable does."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from edge_agent.core.config import Config
from edge_agent.core.errors import SourceError, TrustError

from tests.support.agent.release_server import (
    Answer,
    Handler,
    ReleaseServer,
    breaks_off_after,
    complete,
    right,
    status,
)
from tests.support.agent.tuf_repository import CONTENT, RELEASE, TufRepository, fetch_in_process, fetched


def partials(config: Config) -> list[Path]:
    return list(config.layout.incoming.glob(".*.partial"))


def test_over_http_with_no_request_too_many(config: Config, server: ReleaseServer, published: TufRepository) -> None:
    assert fetched(config) == CONTENT
    target = published.target_file(RELEASE).relative_to(published.folder)
    expected = ["2.root", "timestamp", "2.snapshot", "2.targets"]
    assert server.requested() == [*(f"/metadata/{name}.json" for name in expected), f"/{target}"]
    assert {headers["Accept-Encoding"] for _, headers in server.requests} == {"identity"}
    server.requests.clear()
    assert fetched(config) == CONTENT
    assert server.requested() == ["/metadata/2.root.json", "/metadata/timestamp.json"]


# --- broken off


@pytest.mark.parametrize("length", [True, False], ids=["declared", "undeclared"])
def test_a_broken_download_goes_on_where_it_broke(config: Config, server: ReleaseServer, length: bool) -> None:
    server.responses["digits"] = [breaks_off_after(30_000, length), right]
    assert fetched(config) == CONTENT
    assert server.ranges() == [None, "bytes=30000-"]
    assert server.requests[-1][1]["If-Range"].startswith('"')
    assert partials(config) == []


def test_attempts_count_from_the_last_progress_on(config: Config, server: ReleaseServer) -> None:
    server.responses["digits"] = [breaks_off_after(10_000)]
    assert fetched(config) == CONTENT
    assert len(server.ranges()) == 10 > config.source.attempts


def test_a_killed_process_leaves_what_it_has_and_the_next_goes_on(config: Config, server: ReleaseServer) -> None:
    # Five requests for metadata and the archive, and the one that would go on after it broke off.
    server.responses["digits"] = [breaks_off_after(40_000)]
    killed = fetch_in_process(config, RELEASE, "download.before_request=kill#6")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert partials(config)[0].stat().st_size == 40_000
    server.responses["digits"] = [right]
    server.requests.clear()
    assert fetched(config) == CONTENT
    assert server.ranges() == ["bytes=40000-"]


@pytest.mark.parametrize("point", ["before_request", "chunk", "before_fsync", "before_rename", "after_rename"])
def test_killed_anywhere_in_a_download_the_next_one_is_whole(config: Config, point: str) -> None:
    # The first five requests are for metadata, each with one chunk.
    at = {"before_request": 5, "chunk": 4}.get(point, 1)
    killed = fetch_in_process(config, RELEASE, f"download.{point}=kill#{at}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert fetched(config) == CONTENT
    assert [path.name for path in config.layout.incoming.iterdir()] == [f"{RELEASE}.tar.zst"]


def test_when_nothing_comes_of_it_the_partial_file_stays(config: Config, server: ReleaseServer) -> None:
    server.responses["digits"] = [breaks_off_after(30_000), status(503)]
    with pytest.raises(SourceError, match="503"):
        fetched(config)
    assert partials(config)[0].stat().st_size == 30_000


# --- servers that do not do ranges, or do them wrong


def shifted(handler: Handler, content: bytes) -> None:
    handler.send(206, content[5:], Content_Range=f"bytes 5-{len(content) - 1}/{len(content)}")


def nonsense(handler: Handler, content: bytes) -> None:
    handler.send(206, content[5:], Content_Range="bytes some")


def beyond_words(handler: Handler, content: bytes) -> None:
    handler.send(206, content[5:], Content_Range=f"bytes {'3' * 5000}-4/*")


UNFIT = {"200": complete(), "other": shifted, "nonsense": nonsense, "beyond words": beyond_words, "416": status(416)}


@pytest.mark.parametrize("answer", UNFIT.values(), ids=UNFIT)
def test_where_it_cannot_go_on_it_starts_from_zero(
    config: Config, server: ReleaseServer, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    server.responses["digits"] = [breaks_off_after(30_000), answer, right]
    assert fetched(config) == CONTENT
    assert server.ranges()[:2] == [None, "bytes=30000-"]
    assert server.ranges()[2:] in ([], [None])
    assert "not what was signed" not in caplog.text  # seen in the answer, not only in what it would have become


def test_another_version_on_the_server_is_not_joined_to_the_first(config: Config, server: ReleaseServer) -> None:
    def other(handler: Handler, content: bytes) -> None:
        handler.send(200, content[:50_000], ETag='"first"', Content_Length=str(len(content)))
        handler.close_connection = True

    server.responses["digits"] = [other, right]  # whose validator is another
    assert fetched(config) == CONTENT
    assert server.requests[-1][1]["If-Range"] == '"first"'


def test_a_partial_file_that_is_wrong_is_started_again_once(config: Config, server: ReleaseServer) -> None:
    server.responses["digits"] = [breaks_off_after(30_000), status(503)]
    with pytest.raises(SourceError):
        fetched(config)
    partials(config)[0].write_bytes(b"?" * 30_000)
    server.responses["digits"] = [right]
    server.requests.clear()
    assert fetched(config) == CONTENT
    assert server.ranges() == ["bytes=30000-", None]


def test_what_is_wrong_from_zero_is_not_asked_for_again(config: Config, server: ReleaseServer) -> None:
    server.responses["digits"] = [complete(lambda content: b"?" + content[1:])]
    with pytest.raises(TrustError, match="digits"):
        fetched(config)
    assert server.ranges() == [None]
    assert list(config.layout.incoming.iterdir()) == []


# --- proxies and files


def test_the_environment_names_the_proxy(
    published: TufRepository, server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    config = published.config(tmp_path / "device", "http://releases.invalid")
    assert fetched(config) == CONTENT
    monkeypatch.setenv("no_proxy", "releases.invalid")
    with pytest.raises(SourceError, match=re.escape("releases.invalid")):
        fetched(config)


def test_a_named_pipe_on_a_stick_does_not_hold_the_device(published: TufRepository, tmp_path: Path) -> None:
    timestamp = published.metadata / "timestamp.json"
    timestamp.unlink()
    os.mkfifo(timestamp)
    with pytest.raises(SourceError, match="not a regular file"):
        fetched(published.config(tmp_path / "device"))


def test_files_of_another_host_are_not_read(published: TufRepository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="files on this device"):
        fetched(published.config(tmp_path / "device", "file://fileserver/releases"))


@pytest.mark.parametrize("url", ["file:///releases%00", "http://[::1", "http://localhost:99999999/"])
def test_what_is_no_address_is_said(published: TufRepository, tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError, match="not a valid address"):
        fetched(published.config(tmp_path / "device", url))


def test_a_download_from_a_directory_goes_on_too(published: TufRepository, tmp_path: Path) -> None:
    config = published.config(tmp_path / "device")
    killed = fetch_in_process(config, RELEASE, "download.before_fsync=kill")
    assert killed.returncode == -signal.SIGKILL
    assert partials(config)
    assert fetched(config) == CONTENT
