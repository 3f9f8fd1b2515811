"""Which files are read: patterns ignore case, and every file that is not read is counted and named."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.servers import WebServer, s3_store
from tests.support.stages.collect import (
    AUDIO,
    CSV,
    IMAGE,
    ROWS,
    SERIES,
    archived,
    configure,
    provenance,
    read_snapshot,
    refuse,
    succeed,
)
from tests.support.stages.pictures import saved

RESOURCE_FORK = b"\x00\x05\x16\x07 not an image"
FOLDER_PER_CLASS = r"(?P<state>\w+)/(?P<machine>\w+)\.png$"


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def picture(level: int) -> bytes:
    return saved(Image.new("L", (6, 4), level))


def sound(level: int) -> bytes:
    data = np.full(100, level, "<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + form + (
        b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip


def table(level: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"machine": [f"m{level}"], "flow": [float(level)]}), sink)
    return sink.getvalue().to_pybytes()


def rows(level: int) -> bytes:
    return f"machine,flow\nm{level},{level}.0\n".encode()


def left_out(name: str = "plant") -> dict[str, tuple[int, list[str]]]:
    """Return what the provenance says about the files of a source that were not read, by reason."""
    recorded = provenance()["sources"][name].get("left_out", [])
    return {own["reason"]: (own["count"], own["first"]) for own in recorded}


def test_half_the_names_in_capitals(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"rust/{i}.{'png' if i % 2 else 'PNG'}": picture(i) for i in range(6)}
    files |= {f"fine/{i}.png": picture(10 + i) for i in range(6)}
    write(workspace / "photos", files)
    select = {"select": ["*.png"], "path": FOLDER_PER_CLASS, "format": {"type": "images"}}
    configure(workspace, data=IMAGE, plant={"type": "cloud", "url": "photos", "files": select})

    succeed()

    assert read_snapshot("plant")["file"].to_pylist() == sorted(files)
    assert read_snapshot("plant")["state"].to_pylist() == ["fine"] * 6 + ["rust"] * 6
    assert [values[0] for values in read_snapshot("plant")["values"].to_pylist()] == [*range(10, 16), *range(6)]
    assert left_out() == {}
    assert "left out" not in capsys.readouterr().out


def test_resource_forks(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace / "photos", {f"fine/{i}.png": picture(i) for i in range(4)} | {"fine/._0.png": RESOURCE_FORK})
    select = {"select": ["*.png"], "path": FOLDER_PER_CLASS, "format": {"type": "images"}}
    configure(workspace, data=IMAGE, plant={"type": "cloud", "url": "photos", "files": select})

    succeed()

    assert read_snapshot("plant")["file"].to_pylist() == [f"fine/{i}.png" for i in range(4)]
    assert left_out() == {"metadata of macOS": (1, ["fine/._0.png"])}
    assert "plant: 1 left out (metadata of macOS): fine/._0.png" in capsys.readouterr().out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch, s3_store() as url:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(name, "us-east-1")
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="plant")
        yield client, url


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[[int], bytes]]] = {
    "csv": ("csv", SERIES, CSV, rows),
    "parquet": ("parquet", SERIES, {"type": "parquet", "columns": None}, table),
    "images": ("png", IMAGE, {"type": "images"}, picture),
    "wav": ("wav", AUDIO, {"type": "wav"}, sound),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "store", "tar", "zip"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_read_or_named(workspace: Path, web: WebServer, store: Any, place: str, kind: str) -> None:
    """Upper and lower case do not matter. Two paths that differ in nothing else are two files."""
    ending, data, form, make = KINDS[kind]
    read = {f"A/b.{ending}": make(1), f"A/b.{ending.upper()}": make(2), f"a/B.{ending.title()}": make(3)}
    other = {"A/b.txt": b"", ".cache/b." + ending: b"", f"A/._b.{ending}": b"", f"__MACOSX/b.{ending}": b"",
             ".DS_Store": b"", "README": b""}  # fmt: skip
    select = {"select": [f"a/*.{ending}", f"*b.{ending.upper()}"], "path": None, "format": form}
    folder = f"{kind}-{place}"
    if place == "folder":
        write(workspace / folder, read | other)
        source: dict[str, Any] = {"type": "cloud", "url": folder, "files": select}
    elif place == "store":
        for name, content in (read | other).items():
            store[0].put_object(Bucket="plant", Key=f"{folder}/{name}", Body=content)
        source = {"type": "cloud", "url": f"s3://plant/{folder}", "endpoint_url": store[1], "files": select}
    else:
        write(workspace / "packed", read | other)
        web.put(f"/{folder}", pack(workspace / "packed", place))
        source = archived(f"{web.url}/{folder}", **select)
    configure(workspace, data=data, plant=source)

    succeed()

    snapshot = read_snapshot("plant")
    assert len(snapshot) == 3
    if "file" in snapshot.column_names:
        assert snapshot["file"].to_pylist() == sorted(read)
    else:
        assert sorted(snapshot["machine"].to_pylist()) == ["m1", "m2", "m3"]
    assert left_out() == {
        "hidden: a part of the path begins with a dot": (1, [f".cache/b.{ending}"]),
        "matches no pattern of select": (2, ["A/b.txt", "README"]),
        "metadata of macOS": (3, [".DS_Store", f"A/._b.{ending}", f"__MACOSX/b.{ending}"]),
    }


def pack(folder: Path, form: str) -> bytes:
    """Return an archive of all files in a folder."""
    packed = io.BytesIO()
    if form == "tar":
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, ".")
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            for path in folder.rglob("*"):
                archive.write(path, path.relative_to(folder))
    return packed.getvalue()


@pytest.mark.parametrize(("select", "read"), [("*", ["b.csv"]), (".*/*", [".a/x.csv"]), (".a/x.CSV", [".a/x.csv"])])
def test_a_hidden_file_is_read_if_the_pattern_names_the_dot(workspace: Path, select: str, read: list[str]) -> None:
    write(workspace / "rows", {".a/x.csv": rows(1), "b.csv": rows(2)})
    configure(
        workspace, plant={"type": "cloud", "url": "rows", "files": {"select": [select], "path": None, "format": CSV}}
    )

    succeed()

    assert [origin["url"] for origin in provenance()["sources"]["plant"]["origins"]] == [
        f"rows/{name}" for name in read
    ]
    assert sum(count for count, _ in left_out().values()) == 1


def test_a_downloaded_file_may_have_its_ending_in_capitals(workspace: Path, web: WebServer) -> None:
    url = web.put("/ROWS.CSV", ROWS.encode(), "text/csv")
    configure(
        workspace, plant={"type": "cloud", "url": url, "files": {"select": ["rows.csv"], "path": None, "format": CSV}}
    )

    succeed()

    assert len(read_snapshot("plant")) == 2


def test_many_files_are_counted_and_the_first_are_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{i:02d}.txt" for i in range(30)]
    write(workspace / "rows", dict.fromkeys(names, b"") | {"a.csv": rows(1)})
    Path(os.fsdecode(os.fsencode(workspace / "rows") + b"/00-\xff.txt")).touch()
    configure(
        workspace, plant={"type": "cloud", "url": "rows", "files": {"select": ["*.csv"], "path": None, "format": CSV}}
    )

    succeed()

    assert left_out() == {"matches no pattern of select": (31, ["00-\\udcff.txt", *names[:19]])}
    line = "plant: 31 left out (matches no pattern of select): 00-\\udcff.txt, 00.txt, 01.txt and 28 more"
    assert line in capsys.readouterr().out


def test_objects_with_the_same_path_on_this_machine_are_refused(
    workspace: Path, store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("twice/a.csv", "twice//a.csv"):
        store[0].put_object(Bucket="plant", Key=key, Body=rows(1))
    select = {"select": ["*.csv"], "path": None, "format": CSV}
    configure(workspace, plant={"type": "cloud", "url": "s3://plant/twice", "endpoint_url": store[1], "files": select})

    assert "another object has the same path on this machine" in refuse(capsys)


def test_a_link_to_a_folder_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace / "rows", {"a.csv": rows(1)})
    write(workspace / "other", {"b.csv": rows(2)})
    (workspace / "rows/linked").symlink_to(workspace / "other")
    select = {"select": ["*.csv"], "path": None, "format": CSV}
    configure(workspace, plant={"type": "cloud", "url": "rows", "files": select})

    succeed()

    assert left_out() == {"matches no pattern of select": (1, ["linked"])}
    configure(workspace, plant={"type": "cloud", "url": "rows", "files": select | {"select": ["*"]}})
    assert "linked: it is a link to a folder" in refuse(capsys)


def test_a_folder_that_cannot_be_read_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its path is longer than the system allows, so that not even root can list it."""
    write(workspace / "rows", {"a.csv": rows(1)})
    name = "x" * 250
    folder = os.open(workspace / "rows", os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    select = {"select": ["*.csv"], "path": None, "format": CSV}
    configure(workspace, plant={"type": "cloud", "url": "rows", "files": select})

    assert "File name too long" in refuse(capsys)
