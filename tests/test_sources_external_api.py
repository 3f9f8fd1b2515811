"""Archives and pages over HTTP: patience, resume, checksum, and everything that an archive may hold."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collect_fixtures import ARCHIVE, CSV, RETRY, ROWS, configure, provenance, refuse, succeed, taken
from tests.serving import Cut, Redirect, Stall, Status, WebServer, web_server


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def tar(*members: tuple[str, str] | tarfile.TarInfo, mode: Any = "w:gz") -> bytes:
    """A tar archive of (name, text) and of members as they are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1].encode())
                archive.addfile(info, io.BytesIO(member[1].encode()))
    return packed.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return packed.getvalue()


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archived(url: str, digest: str | None = None, **files: Any) -> dict[str, Any]:
    return {"type": "external_api", "url": url, "sha256": digest, "archive": ARCHIVE | files}


def paged(url: str, **pages: Any) -> dict[str, Any]:
    return {"type": "external_api", "url": url, "pages": {"rows": "data.rows", "next": None, "columns": None} | pages}


LARGE = tar(("rows.csv", ROWS), ("filler.bin", "x" * 100_000), mode="w")


@pytest.mark.parametrize("content", [tar(("a/rows.csv", ROWS)), tar(("./a/rows.csv", ROWS), mode="w:xz"),
                                     zipped(("a/rows.csv", ROWS))], ids=["tar.gz", "tar.xz", "zip"])  # fmt: skip
def test_archive_is_unpacked(workspace: Path, web: WebServer, content: bytes) -> None:
    url = web.put("/rows", content)
    configure(workspace, plant=archived(url, sha256(content)))

    succeed()

    assert taken("plant")["flow"].to_pylist() == [1.5, 1.6]
    assert provenance()["sources"]["plant"]["origins"] == [
        {"url": url, "sha256": sha256(content), "bytes": len(content)}
    ]


def test_the_path_of_a_file_says_what_its_columns_do_not(workspace: Path, web: WebServer) -> None:
    rows = ROWS.replace("machine,", "").replace("m1,", "")
    url = web.put("/rows", tar(("data/p2/1.csv", rows), ("data/p1/1.csv", rows), ("note.txt", "no rows")))
    configure(workspace, plant=archived(url, select=["data/*.csv"], path=r"data/(?P<machine>\w+)/"))

    succeed()

    assert taken("plant")["machine"].to_pylist() == ["p1", "p1", "p2", "p2"]


def test_passing_failures_are_waited_out(workspace: Path, web: WebServer) -> None:
    url = web.put("/rows", tar(("rows.csv", ROWS)))
    web.fail("/rows", Status(503), Status(429))
    configure(workspace, plant=archived(url))

    succeed()

    assert len(web.asked("/rows")) == 3


@pytest.mark.parametrize("fault", [Cut(60_000), Stall(60_000)])
def test_broken_download_goes_on_where_it_ended(workspace: Path, web: WebServer, fault: Cut | Stall) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", fault)
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    _, second = web.asked("/rows")
    assert second.headers["range"] == "bytes=60000-"
    assert web.sent["/rows"] == len(LARGE)
    assert len(taken("plant")) == 2


def test_the_next_run_goes_on_where_the_last_one_failed(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    configure(workspace, retry=RETRY | {"attempts": 1}, plant=archived(url, sha256(LARGE)))
    said = refuse(capsys)

    succeed()

    assert "60000 bytes, from which the next run goes on" in said
    assert web.sent["/rows"] == len(LARGE)


def test_a_file_that_changed_between_the_parts_is_fetched_anew(workspace: Path, web: WebServer) -> None:
    """If-Range: half of the old file and half of the new one are no file."""
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    new = tar(("rows.csv", ROWS.replace("m1", "m9")), ("filler.bin", "y" * 100_000), mode="w")
    web.after("/rows", lambda: web.put("/rows", new))
    configure(workspace, plant=archived(url, sha256(new)))

    succeed()

    assert taken("plant")["machine"].to_pylist() == ["m9", "m9"]


def test_a_server_without_ranges_is_asked_for_the_whole(workspace: Path, web: WebServer) -> None:
    web.ranges = False
    url = web.put("/rows", LARGE)
    web.fail("/rows", Cut(60_000))
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    assert web.sent["/rows"] == 60_000 + len(LARGE)


def test_an_interruption_after_the_last_byte_fetches_nothing_again(workspace: Path, web: WebServer) -> None:
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
    assert web.asked("/rows")[-1].headers["range"] == f"bytes={len(LARGE)}-"


def _killed(_path: Path, _target: Path) -> Path:
    raise KeyboardInterrupt


def test_wrong_checksum(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = web.put("/rows", LARGE)
    configure(workspace, plant=archived(url, sha256(b"other")))

    said = refuse(capsys)

    assert f"{url}: SHA-256 {sha256(LARGE)}" in said
    assert f"expected: {sha256(b'other')}" in said
    assert not list((workspace / ".work/collect/plant").glob("*.partial"))  # or the next run would go on from it


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Status(503)] * 3, "HTTP 503 Service Unavailable; 3 attempt(s)"),
        ([Status(404)], "HTTP 404 Not Found"),
        ([Status(401)], "mend the URL or rights"),
        ([Stall(0)] * 3, "no answer for 0.3 s; 3 attempt(s)"),
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

    said = refuse(capsys)

    assert f"source plant: {url}: " in said
    assert words in said


def test_login_page_instead_of_data(workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, plant=archived(web.put("/rows", b"<html>log in</html>", "text/html; charset=utf-8")))

    said = refuse(capsys)

    assert "content type text/html" in said
    assert "headers_env" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not packed", "10 bytes that are no archive"),
        (LARGE[:600], "cannot be unpacked"),
        (tar(("rows.csv", ROWS * 50))[:-40], "cannot be unpacked"),
        (tar(("../rows.csv", ROWS)), "'../rows.csv' leads out of the archive"),
        (tar(("a/../../rows.csv", ROWS)), "leads out of the archive"),
        (tar(("/tmp/rows.csv", ROWS)), "leads out of the archive"),  # noqa: S108 - what must be refused
        (tar(("rows.csv", ROWS), ("../note.txt", "not selected, but not to be trusted")), "leads out of the archive"),
        (tar(link("rows.csv", "/etc/passwd")), "'rows.csv' is a link or a device"),
        (tar(link("rows.csv", "/etc/passwd", tarfile.LNKTYPE)), "'rows.csv' is a link or a device"),
        (tar(link("rows.csv", "", tarfile.FIFOTYPE)), "'rows.csv' is a link or a device"),
        (tar(("rows.csv", ROWS), ("./rows.csv", ROWS)), "'./rows.csv' is there twice"),
        (zipped(("../rows.csv", ROWS)), "'../rows.csv' leads out of the archive"),
        (zipped(("/rows.csv", ROWS)), "leads out of the archive"),
        (zipped((zip_link("rows.csv"), "/etc/passwd")), "'rows.csv' is a link or a device"),
        (zipped(("rows.csv", ROWS)).replace(b"m1", b"m2", 1)[:-60], "no archive"),
        (tar(("rows.txt", ROWS)), "none of 1 files matches *.csv; the first are rows.txt"),
        (tar(), "none of 0 files matches"),
    ],
    ids=["no archive", "cut tar", "cut gzip", "parent", "hidden parent", "absolute", "parent, not selected", "symlink",
         "hard link", "pipe", "twice", "zip parent", "zip absolute", "zip symlink", "cut zip", "no match", "empty"],
)  # fmt: skip
def test_archive_that_is_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    configure(workspace, plant=archived(web.put("/rows", content)))

    said = refuse(capsys)

    assert words in said
    assert "expected: " in said
    assert "remedy: " in said


def test_a_zip_that_is_encrypted_or_damaged(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = bytearray(zipped(("rows.csv", ROWS)))
    damaged = bytes(whole[:45]) + b"\xff\xff\xff" + bytes(whole[48:])
    central = whole.find(b"PK\x01\x02")
    whole[6] |= 1
    whole[central + 8] |= 1
    for content, words in ((bytes(whole), "encrypted"), (damaged, "cannot be unpacked")):
        configure(workspace, plant=archived(web.put("/rows", content)))

        assert words in refuse(capsys)


def test_a_link_that_is_not_selected_does_no_harm(workspace: Path, web: WebServer) -> None:
    content = tar(("rows.csv", ROWS), link("latest", "rows.csv"))
    configure(workspace, plant=archived(web.put("/rows", content)))

    succeed()

    assert len(taken("plant")) == 2


def test_pages_are_followed_to_the_last(workspace: Path, web: WebServer) -> None:
    """Also through a page without rows, a field that comes later, and whole numbers that become finer ones."""
    first = web.put_json("/1", {"data": {"rows": [{"m": "m1", "f": 1, "p": 2.5}]}, "links": {"next": "/2?page=2"}})
    web.put_json("/2", {"data": {"rows": []}, "links": {"next": web.url + "/3"}})
    web.put_json("/3", {"data": {"rows": [{"m": "m2", "f": 1.5, "p": None, "extra": "x"}]}, "links": {"next": None}})
    columns = {"m": "machine", "f": "flow", "p": "pressure", "extra": "note"}
    configure(workspace, plant=paged(first, next="links.next", columns=columns))

    succeed()

    assert taken("plant").to_pylist() == [
        {"machine": "m1", "flow": 1.0, "pressure": 2.5, "note": None},
        {"machine": "m2", "flow": 1.5, "pressure": None, "note": "x"},
    ]
    assert web.asked("/2")[0].query == {"page": ["2"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"data": {"rows": [{"x": 1}]}, "next": "/rows"}', "the pages lead back to it"),
        (b'{"data": {"items": []}}', "no list of objects at 'data.rows'"),
        (b'{"data": {"rows": [1, 2]}}', "no list of objects at 'data.rows'"),
        (b'{"data": {"rows": []}}', "no rows came"),
        (b'{"data": {"rows": [{"x": 1}, {"x": "a"}]}}', "a field holds values of several types"),
        (b'{"data": {"rows": [{"x": 99999999999999999999}]}}', "a field holds values of several types"),
        (b'{"data": {"rows": [{"x": {}}]}}', "not to be kept as parquet"),
        (b'{"data": {"rows"', "not JSON"),
        ('{"data": "é"}'.encode("latin-1"), "not JSON"),
        (b"", "no list of objects"),
    ],
    ids=["circle", "other path", "no objects", "empty", "mixed", "too large", "nested", "cut", "latin-1", "nothing"],
)
def test_pages_that_are_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    configure(workspace, plant=paged(web.put("/rows", content, "application/json"), next="next"))

    said = refuse(capsys)

    assert f"{web.url}/rows" in said or "parquet" in said
    assert words in said


def test_secrets_come_from_the_environment_and_stay_out_of_everything(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_TOKEN", "Bearer t0psecret")
    url = web.put_json("/rows", {"data": {"rows": [{"machine": "m1"}]}})
    hidden = url.replace("//", "//me:t0psecret@") + "?year=2025&api_key=t0psecret&sig=t0psecret"
    source = paged(hidden) | {"headers_env": {"X-Plant": "PLANT_TOKEN"}}
    configure(workspace, plant=source)

    succeed()

    assert web.asked("/rows")[0].headers["x-plant"] == "Bearer t0psecret"
    assert web.asked("/rows")[0].query["api_key"] == ["t0psecret"]
    assert provenance()["sources"]["plant"]["origins"][0]["url"] == f"{url}?year=2025&api_key=***&sig=***"
    for fault in (Status(500), Status(403), Cut(3), Redirect(hidden)):
        web.fail("/rows", *[fault] * 11)
        assert "t0psecret" not in refuse(capsys)
        web.faults["/rows"].clear()


def test_a_secret_header_goes_to_the_configured_host_alone(
    workspace: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_TOKEN", "Bearer t0psecret")
    web.put_json("/next", {"data": {"rows": [{"machine": "m2"}]}})
    elsewhere = web.url.replace("127.0.0.1", "localhost")
    url = web.put_json("/rows", {"data": {"rows": [{"machine": "m1"}]}, "next": f"{elsewhere}/next"})
    web.fail("/rows", Redirect(f"{elsewhere}/rows"))
    source = paged(url) | {"headers_env": {"X-Plant": "PLANT_TOKEN"}}
    source["pages"] |= {"next": "next"}
    configure(workspace, plant=source)

    succeed()

    here, there = web.asked("/rows")
    assert here.headers["x-plant"] == "Bearer t0psecret"
    assert "x-plant" not in there.headers
    assert "x-plant" not in web.asked("/next")[0].headers


def test_a_damaged_checksum_at_the_end_of_an_archive_is_noticed(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tar(("rows.csv", ROWS))
    damaged = whole[:-8] + bytes(byte ^ 0xFF for byte in whole[-8:-4]) + whole[-4:]
    configure(workspace, plant=archived(web.put("/rows", damaged)))

    assert "cannot be unpacked" in refuse(capsys)


def test_what_macos_adds_to_an_archive_is_passed_over(workspace: Path, web: WebServer) -> None:
    content = zipped(("rows.csv", ROWS), ("__MACOSX/._rows.csv", "\x00\x05\x16\x07"), ("._rows.csv", "\x00"))
    configure(workspace, plant=archived(web.put("/rows", content)))

    succeed()


def test_a_variable_that_is_not_set(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = paged("http://127.0.0.1:9/") | {"headers_env": {"X-Plant": "PLANT_TOKEN_NOT_SET"}}
    configure(workspace, plant=source)

    said = refuse(capsys)

    assert "environment variable PLANT_TOKEN_NOT_SET is not set" in said
    assert "remedy:   export it" in said


@pytest.mark.parametrize("url", ["plant.example/rows", "ftp://plant.example/rows", "http://"])
def test_what_is_no_url(workspace: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    configure(workspace, plant=archived(url))

    said = refuse(capsys)

    assert "http:// or https://" in said


def test_a_kept_archive_of_the_known_digest_is_not_fetched_again(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = web.put("/rows", LARGE)
    wrong = CSV | {"columns": {"no such column": "machine"}}
    configure(workspace, plant=archived(url, sha256(LARGE), format=wrong))
    refuse(capsys)
    configure(workspace, plant=archived(url, sha256(LARGE)))

    succeed()

    assert len(web.asked("/rows")) == 1
