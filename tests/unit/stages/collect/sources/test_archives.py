"""Archives of other origin: extraction, and refusal of unsafe or invalid content."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from tests.support.servers import WebServer
from tests.support.stages.collect import (
    LARGE,
    ROWS,
    archived,
    configure,
    link,
    provenance,
    read_snapshot,
    refuse,
    sha256,
    succeed,
    tar,
    zip_link,
    zipped,
)


@pytest.mark.parametrize("content", [tar(("a/rows.csv", ROWS)), tar(("./a/rows.csv", ROWS), mode="w:xz"),
                                     zipped(("a/rows.csv", ROWS))], ids=["tar.gz", "tar.xz", "zip"])  # fmt: skip
def test_archive_is_unpacked(workspace: Path, web: WebServer, content: bytes) -> None:
    url = web.put("/rows", content)
    configure(workspace, plant=archived(url, sha256(content)))

    succeed()

    assert read_snapshot("plant")["flow"].to_pylist() == [1.5, 1.6]
    assert provenance()["sources"]["plant"]["origins"] == [
        {"url": url, "sha256": sha256(content), "bytes": len(content)}
    ]


def test_the_path_of_a_file_adds_columns(workspace: Path, web: WebServer) -> None:
    rows = ROWS.replace("machine,", "").replace("m1,", "")
    url = web.put("/rows", tar(("data/p2/1.csv", rows), ("data/p1/1.csv", rows), ("note.txt", "no rows")))
    configure(workspace, plant=archived(url, select=["data/*.csv"], path=r"data/(?P<machine>\w+)/"))

    succeed()

    assert read_snapshot("plant")["machine"].to_pylist() == ["p1", "p1", "p2", "p2"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not packed", "10 bytes were downloaded, but they are not an archive"),
        (LARGE[:600], "cannot be unpacked"),
        (tar(("rows.csv", ROWS * 50))[:-40], "cannot be unpacked"),
        (tar(("../rows.csv", ROWS)), "'../rows.csv' leads out of the archive"),
        (tar(("a/../../rows.csv", ROWS)), "leads out of the archive"),
        (tar(("/tmp/rows.csv", ROWS)), "leads out of the archive"),  # noqa: S108 - what must be refused
        (tar(("rows.csv", ROWS), ("../note.txt", "not selected, but not to be trusted")), "leads out of the archive"),
        (tar(link("rows.csv", "/etc/passwd")), "'rows.csv' is a link or a device"),
        (tar(link("rows.csv", "/etc/passwd", tarfile.LNKTYPE)), "'rows.csv' is a link or a device"),
        (tar(link("rows.csv", "", tarfile.FIFOTYPE)), "'rows.csv' is a link or a device"),
        (tar(("rows.csv", ROWS), ("./rows.csv", ROWS)), "'./rows.csv' is a duplicate"),
        (zipped(("../rows.csv", ROWS)), "'../rows.csv' leads out of the archive"),
        (zipped(("/rows.csv", ROWS)), "leads out of the archive"),
        (zipped((zip_link("rows.csv"), "/etc/passwd")), "'rows.csv' is a link or a device"),
        (zipped(("rows.csv", ROWS)).replace(b"m1", b"m2", 1)[:-60], "not an archive"),
        (tar(("rows.txt", ROWS)), "none of 1 files matches *.csv; the first are rows.txt"),
        (tar(), "the archive contains no files"),
        (gzip.compress(b"\0" * 20_480), "the archive contains no files"),
        (tar(("p.csv", ROWS), ("p.csv/q.csv", ROWS)), "cannot be unpacked"),
        (zipped((f"{'x' * 300}.csv", ROWS)), "cannot be unpacked"),
    ],
    ids=["not an archive", "cut tar", "cut gzip", "parent", "hidden parent", "absolute", "parent, not selected",
         "symlink", "hard link", "pipe", "twice", "zip parent", "zip absolute", "zip symlink", "cut zip",
         "no match", "empty", "zeros", "a file that is a folder", "a long name"],
)  # fmt: skip
def test_archive_that_is_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    configure(workspace, plant=archived(web.put("/rows", content)))

    message = refuse(capsys)

    assert words in message
    assert "expected: " in message
    assert "remedy: " in message


def test_an_encrypted_or_corrupted_zip_is_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    complete = bytearray(zipped(("rows.csv", ROWS)))
    damaged = bytes(complete[:45]) + b"\xff\xff\xff" + bytes(complete[48:])
    central = complete.find(b"PK\x01\x02")
    complete[6] |= 1
    complete[central + 8] |= 1
    for content, words in ((bytes(complete), "encrypted"), (damaged, "cannot be unpacked")):
        configure(workspace, plant=archived(web.put("/rows", content)))

        assert words in refuse(capsys)


def test_a_link_that_is_not_selected_does_no_harm(workspace: Path, web: WebServer) -> None:
    content = tar(("rows.csv", ROWS), link("latest", "rows.csv"))
    configure(workspace, plant=archived(web.put("/rows", content)))

    succeed()

    assert len(read_snapshot("plant")) == 2


def test_a_corrupted_checksum_at_the_end_of_an_archive_is_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    complete = tar(("rows.csv", ROWS))
    damaged = complete[:-8] + bytes(byte ^ 0xFF for byte in complete[-8:-4]) + complete[-4:]
    configure(workspace, plant=archived(web.put("/rows", damaged)))

    assert "cannot be unpacked" in refuse(capsys)


def test_metadata_files_of_macos_are_skipped(workspace: Path, web: WebServer) -> None:
    content = zipped(("rows.csv", ROWS), ("__MACOSX/._rows.csv", "\x00\x05\x16\x07"), ("._rows.csv", "\x00"))
    configure(workspace, plant=archived(web.put("/rows", content)))

    succeed()
