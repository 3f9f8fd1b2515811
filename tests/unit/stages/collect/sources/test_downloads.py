"""Downloads over HTTP: retries, resumption, checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Cut, Redirect, Stall, Status, WebServer
from tests.support.stages.collect import (
    CSV,
    LARGE,
    RETRY,
    ROWS,
    archived,
    configure,
    read_snapshot,
    refuse,
    sha256,
    succeed,
    tar,
)


def test_transient_failures_are_retried(workspace: Path, web: WebServer) -> None:
    url = web.put("/rows", tar(("rows.csv", ROWS)))
    web.fail("/rows", Status(503), Status(429))
    configure(workspace, plant=archived(url))

    succeed()

    assert len(web.requests_for("/rows")) == 3


@pytest.mark.parametrize("fault", [Cut(60_000), Stall(60_000)])
def test_an_interrupted_download_is_resumed(workspace: Path, web: WebServer, fault: Cut | Stall) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", fault)
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    _, second = web.requests_for("/rows")
    assert second.headers["range"] == "bytes=60000-"
    assert web.sent["/rows"] == len(LARGE)
    assert len(read_snapshot("plant")) == 2


def test_the_next_run_resumes_a_failed_download(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    configure(workspace, retry=RETRY | {"attempts": 1}, plant=archived(url, sha256(LARGE)))
    message = refuse(capsys)

    succeed()

    assert "60000 bytes, which the next run continues" in message
    assert web.sent["/rows"] == len(LARGE)


def test_a_file_that_changed_between_the_parts_is_downloaded_again(workspace: Path, web: WebServer) -> None:
    """If-Range: half of the old file and half of the new one must not be joined."""
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    new = tar(("rows.csv", ROWS.replace("m1", "m9")), ("filler.bin", "y" * 100_000), mode="w")
    web.after("/rows", lambda: web.put("/rows", new))
    configure(workspace, plant=archived(url, sha256(new)))

    succeed()

    assert read_snapshot("plant")["machine"].to_pylist() == ["m9", "m9"]


def test_without_ranges_the_complete_file_is_downloaded(workspace: Path, web: WebServer) -> None:
    web.ranges = False
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    assert web.sent["/rows"] == 60_000 + len(LARGE)


def test_an_interruption_after_the_last_byte_downloads_nothing_again(workspace: Path, web: WebServer) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    configure(workspace, plant=archived(url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _killed)
        with pytest.raises(pytest.fail.Exception, match="interrupted"):
            succeed()
    sent = web.sent["/rows"]

    succeed()

    assert web.sent["/rows"] == sent
    assert web.requests_for("/rows")[-1].headers["range"] == f"bytes={len(LARGE)}-"


def _killed(_path: Path, _target: Path) -> Path:
    raise KeyboardInterrupt


def test_wrong_checksum(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = web.put("/rows", LARGE)
    configure(workspace, plant=archived(url, sha256(b"other")))

    message = refuse(capsys)

    assert f"{url}: the SHA-256 is {sha256(LARGE)}" in message
    assert f"expected: {sha256(b'other')}" in message
    assert not list((workspace / ".work/collect/plant").glob("*.partial"))  # or the next run would go on from it


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Status(503)] * 3, "HTTP 503 Service Unavailable; 3 attempt(s)"),
        ([Status(404)], "HTTP 404 Not Found"),
        ([Status(401)], "correct the URL or the permissions"),
        ([Stall(0)] * 3, "no response for 0.3 s; 3 attempt(s)"),
        ([Cut(10)] * 3, "3 attempt(s)"),
        ([Redirect("/rows")] * 11, "redirected 10 times"),
        ([Redirect("ftp://elsewhere/")] * 3, "ftp://elsewhere"),
    ],
    ids=["503", "404", "401", "silent", "truncated", "redirects", "leads elsewhere"],
)
def test_server_that_fails(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], faults: list[Any], words: str
) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", *faults)
    configure(workspace, plant=archived(url))

    message = refuse(capsys)

    assert f"source plant: {url}: " in message
    assert words in message


def test_login_page_instead_of_data(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, plant=archived(web.put("/rows", b"<html>log in</html>", "text/html; charset=utf-8")))

    message = refuse(capsys)

    assert "content type text/html" in message
    assert "headers_env" in message


def test_a_stored_archive_with_the_expected_digest_is_not_downloaded_again(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = web.put("/rows", LARGE)
    invalid = CSV | {"columns": {"no such column": "machine"}}
    configure(workspace, plant=archived(url, sha256(LARGE), format=invalid))
    refuse(capsys)
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    assert len(web.requests_for("/rows")) == 1
