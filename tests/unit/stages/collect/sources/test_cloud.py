"""Objects in an S3 store, on a web server and in a local folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.servers import Cut, Redirect, Stall, Status, WebServer, free_port, s3_store
from tests.support.stages.collect import ARCHIVE, ROWS, configure, provenance, read_snapshot, refuse, succeed


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_store() as url:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = boto3.client("s3", endpoint_url=url)
        store.create_bucket(Bucket="plant")
        for name, content in (("2026/b.csv", ROWS.replace("m1", "b")), ("2026/a.csv", ROWS), ("2026/note.txt", "no")):
            store.put_object(Bucket="plant", Key=name, Body=content.encode())
        store.put_object(Bucket="plant", Key="2026/", Body=b"")  # how consoles make a folder
        yield url


def cloud(url: str | Path, endpoint_url: str | None = None, **files: Any) -> dict[str, Any]:
    return {"type": "cloud", "url": str(url), "endpoint_url": endpoint_url, "files": ARCHIVE | files}


def lay(root: Path, **files: bytes | str) -> None:
    """Files under `root`; `__` in a name stands for `/`, the last `_` for the dot."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(("url", "rows"), [("s3://plant/2026", 4), ("s3://plant/2026/a.csv", 2)])
def test_objects_of_an_s3_store(workspace: Path, endpoint: str, url: str, rows: int) -> None:
    configure(workspace, plant=cloud(url, endpoint))

    succeed()

    message = provenance()["sources"]["plant"]
    assert (message["rows"], len(read_snapshot("plant"))) == (rows, rows)
    assert message["origins"][0] == {
        "url": "s3://plant/2026/a.csv",
        "sha256": hashlib.sha256(ROWS.encode()).hexdigest(),
        "bytes": len(ROWS),
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://plant/2027", "it does not exist"),
        ("s3://nobody/2026", "s3://nobody/2026: "),
        ("s3://", "s3://"),
        ("s3://plant/2026/note.txt", "none of 1 files matches *.csv"),
    ],
)
def test_missing_objects_are_reported(
    workspace: Path, endpoint: str, capsys: pytest.CaptureFixture[str], url: str, words: str
) -> None:
    configure(workspace, plant=cloud(url, endpoint))

    message = refuse(capsys)

    assert words in message
    assert "remedy: " in message


def test_a_missing_or_forbidden_store_is_reported(
    workspace: Path, endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(workspace, plant=cloud("s3://plant/2026", f"http://127.0.0.1:{free_port()}"))
    assert "Could not connect" in refuse(capsys)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(workspace))
    configure(workspace, plant=cloud("s3://plant/2026", endpoint))
    assert "AWS_ACCESS_KEY_ID" in refuse(capsys)


def test_an_object_of_a_web_server_is_retried(workspace: Path, web: WebServer) -> None:
    url = web.put("/a/rows.csv", ROWS.encode(), "text/csv")
    web.fail("/a/rows.csv", Status(503), Cut(20), Redirect("/a/rows.csv"))
    configure(workspace, plant=cloud(url + "?sig=t0psecret", select=["rows.csv"]))

    succeed()

    assert len(read_snapshot("plant")) == 2
    assert provenance()["sources"]["plant"]["origins"][0]["url"] == f"{url}?sig=***"


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Status(503)] * 3, "HTTP 503 Service Unavailable; 3 attempt(s)"),
        ([Status(403)], "HTTP 403 Forbidden"),
        ([Status(404)], "rows.csv"),
        ([Stall(10)] * 3, "no response for 0.3 s; 3 attempt(s)"),
        ([Cut(10)] * 3, "3 attempt(s)"),
        ([Redirect("/rows.csv")] * 33, "redirected 10 times"),
    ],
    ids=["503", "403", "404", "silent", "truncated", "redirects"],
)
def test_web_server_that_fails(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], faults: list[Any], words: str
) -> None:
    url = web.put("/rows.csv", ROWS.encode())
    web.fail("/rows.csv", *faults)
    configure(workspace, plant=cloud(f"{url}?token=t0psecret"))

    message = refuse(capsys)

    assert f"source plant: {url}?token=***" in message
    assert words in message
    assert "t0psecret" not in message


@pytest.mark.parametrize("url", ["nosuch://a/b", "http://127.0.0.1:99999/x.csv", "nowhere"])
def test_urls_that_cannot_be_opened_are_refused(workspace: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    configure(workspace, plant=cloud(url))

    assert f"source plant: {url}" in refuse(capsys)


def test_names_with_spaces_and_letters_of_any_language(workspace: Path, web: WebServer) -> None:
    url = web.put("/Gr%C3%B6%C3%9Fe%20a.csv", ROWS.encode())
    (workspace / "rows").mkdir()
    (workspace / "rows" / "Größe a.csv").write_text(ROWS)
    configure(workspace, near=cloud("rows", select=["Größe*"]), far=cloud(url, select=["Größe a.csv"]))

    succeed()

    assert provenance()["sources"]["near"]["origins"][0]["url"] == "rows/Größe a.csv"
    assert len(read_snapshot("far")) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "b.csv: it is a pipe, a socket or a device"),
        (lambda path: path.symlink_to("nowhere.csv"), "b.csv: it is a broken link"),
    ],
    ids=["pipe", "link"],
)
def test_a_pipe_or_broken_link_is_refused_without_waiting(
    workspace: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], words: str
) -> None:
    lay(workspace / "rows", a_csv=ROWS)
    make(workspace / "rows" / "b.csv")
    configure(workspace, plant=cloud("rows"))

    message = refuse(capsys)

    assert words in message
    assert "exclude it" in message and "AWS" not in message


@pytest.mark.skipif(os.sep != "/", reason="paths of POSIX systems")
def test_a_local_folder_has_no_absolute_path_in_the_provenance(workspace: Path) -> None:
    lay(workspace / "rows", a_csv=ROWS)
    configure(workspace, plant=cloud("rows/"))

    succeed()

    assert provenance()["sources"]["plant"]["origins"][0]["url"] == "rows/a.csv"
