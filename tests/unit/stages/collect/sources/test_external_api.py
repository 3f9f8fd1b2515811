"""Pages over HTTP up to the last one; secrets that stay on their host; invalid URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers import Cut, Redirect, Status, WebServer
from tests.support.stages.collect import archived, configure, paged, provenance, read_snapshot, refuse, succeed


def test_pages_are_followed_to_the_last(workspace: Path, web: WebServer) -> None:
    """Also with a page without rows, a field of later pages, and whole numbers followed by decimal ones."""
    first = web.put_json("/1", {"data": {"rows": [{"m": "m1", "f": 1, "p": 2.5}]}, "links": {"next": "/2?page=2"}})
    web.put_json("/2", {"data": {"rows": []}, "links": {"next": web.url + "/3"}})
    web.put_json("/3", {"data": {"rows": [{"m": "m2", "f": 1.5, "p": None, "extra": "x"}]}, "links": {"next": None}})
    columns = {"m": "machine", "f": "flow", "p": "pressure", "extra": "note"}
    configure(workspace, plant=paged(first, next="links.next", columns=columns))

    succeed()

    assert read_snapshot("plant").to_pylist() == [
        {"machine": "m1", "flow": 1.0, "pressure": 2.5, "note": None},
        {"machine": "m2", "flow": 1.5, "pressure": None, "note": "x"},
    ]
    assert web.requests_for("/2")[0].query == {"page": ["2"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"data": {"rows": [{"x": 1}]}, "next": "/rows"}', "the pages link back to it"),
        (b'{"data": {"items": []}}', "no list of objects at 'data.rows'"),
        (b'{"data": {"rows": [1, 2]}}', "no list of objects at 'data.rows'"),
        (b'{"data": {"rows": []}}', "no rows received"),
        (b'{"data": {"rows": [{"x": 1}, {"x": "a"}]}}', "field x holds values of several types: 1 (int64) and 'a'"),
        (b'{"data": {"rows": [{"x": 99999999999999999999}]}}', "field x: 99999999999999999999 cannot be stored"),
        (b'{"data": {"rows": [{"x": "a\\ud800"}]}}', "field x: 'a\\ud800' cannot be stored"),
        (b'{"data": {"rows": [{"x\\ud800": 1}]}}', "the name of the field 'x\\ud800' has an unpaired surrogate"),
        (b'{"data": {"rows": [{"x": 1}]}, "next": {"a": 1}}', "found {'a': 1} at 'next'"),
        (b'{"data": {"rows": [{"x": 1}]}, "next": "/\\ud800"}', "found '/\\ud800' at 'next'"),
        (b'{"data": {"rows": ' + b"[" * 200_000, "not JSON"),
        (b'{"data": {"rows": [{"x": {}}]}}', "cannot be stored as parquet"),
        (b'{"data": {"rows"', "not JSON"),
        ('{"data": "é"}'.encode("latin-1"), "not JSON"),
        (b"", "no list of objects"),
    ],
    ids=["circle", "other path", "no objects", "empty", "mixed", "too large", "half", "half a name", "next an object",
         "next half", "too deep", "nested", "cut", "latin-1", "nothing"],
)  # fmt: skip
def test_pages_that_are_refused(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    configure(workspace, plant=paged(web.put("/rows", content, "application/json"), next="next"))

    message = refuse(capsys)

    assert f"{web.url}/rows" in message or "parquet" in message
    assert words in message


def test_secrets_come_from_the_environment_and_are_never_stored(
    workspace: Path, web: WebServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_TOKEN", "Bearer t0psecret")
    url = web.put_json("/rows", {"data": {"rows": [{"machine": "m1"}]}})
    hidden = url.replace("//", "//me:t0psecret@") + "?year=2025&api_key=t0psecret&sig=t0psecret"
    source = paged(hidden) | {"headers_env": {"X-Plant": "PLANT_TOKEN"}}
    configure(workspace, plant=source)

    succeed()

    assert web.requests_for("/rows")[0].headers["x-plant"] == "Bearer t0psecret"
    assert web.requests_for("/rows")[0].query["api_key"] == ["t0psecret"]
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

    here, there = web.requests_for("/rows")
    assert here.headers["x-plant"] == "Bearer t0psecret"
    assert "x-plant" not in there.headers
    assert "x-plant" not in web.requests_for("/next")[0].headers


def test_a_variable_that_is_not_set(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = paged("http://127.0.0.1:9/") | {"headers_env": {"X-Plant": "PLANT_TOKEN_NOT_SET"}}
    configure(workspace, plant=source)

    message = refuse(capsys)

    assert "environment variable PLANT_TOKEN_NOT_SET is not set" in message
    assert "remedy:   export this variable" in message


@pytest.mark.parametrize("url", ["plant.example/rows", "ftp://plant.example/rows", "http://"])
def test_an_invalid_url_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    configure(workspace, plant=archived(url))

    message = refuse(capsys)

    assert "http:// or https://" in message


def test_whole_numbers_beyond_double_precision_are_rounded(workspace: Path, web: WebServer) -> None:
    content = b'{"data": {"rows": [{"flow": 1152921504606846977}, {"flow": 1.5}, {"flow": null}]}}'
    configure(workspace, plant=paged(web.put("/rows", content, "application/json")))

    succeed()

    assert read_snapshot("plant")["flow"].to_pylist() == [2.0**60, 1.5, None]
