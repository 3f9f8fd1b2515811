"""The archive: the same bytes for the same content, and nothing unsafe comes out of one."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest
import zstandard
from edge_agent.storage.archive import ArchiveError, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.files import sha256
from stages.package.archive import BundleError, pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "content"
    (root / "targets" / "onnx-fp32").mkdir(parents=True)
    (root / "manifest.json").write_text('{"a": 1}\n')
    (root / "targets" / "onnx-fp32" / "model.onnx").write_bytes(os.urandom(100_000))
    return root


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def archive_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A .tar.zst with these entries, whatever they are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    return path


def test_what_goes_in_comes_out(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.tar.zst")
    unpack(tmp_path / "a.tar.zst", tmp_path / "out")

    assert content(tmp_path / "out") == content(folder)


def test_the_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.tar.zst")
    copy = tmp_path / "copy"
    for name, data in reversed(content(folder).items()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
        (copy / name).chmod(0o600)
        os.utime(copy / name, (time.time() - 1e6, time.time() - 1e6))

    pack(copy, tmp_path / "b.tar.zst")

    assert sha256(tmp_path / "a.tar.zst") == sha256(tmp_path / "b.tar.zst")


def test_entries_are_sorted_and_without_owner_or_time(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.tar.zst")

    plain = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "a.tar.zst").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == sorted(content(folder))
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, 0, "", "", 0o644)}


@settings(max_examples=20, deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"\A[a-z0-9_-]{1,20}(/[a-z0-9_.-]{1,20}x)?\Z"), st.binary(max_size=2000), min_size=1, max_size=6
    )
)
def test_any_files_survive(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    for name, data in files.items():
        if any((root / "in" / parent).is_file() for parent in Path(name).parents) or (root / "in" / name).is_dir():
            continue
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(data)

    pack(root / "in", root / "a.tar.zst")
    unpack(root / "a.tar.zst", root / "out")

    assert content(root / "out") == content(root / "in")


def test_a_link_is_not_packed_and_the_earlier_archive_stays(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.zst"
    pack(folder, archive)
    before = sha256(archive)
    (folder / "link").symlink_to("/etc/passwd")

    with pytest.raises(BundleError, match="regular files only"):
        pack(folder, archive)

    assert sha256(archive) == before
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = archive_of(tmp_path / "a.tar.zst", (tarfile.TarInfo(name), b"x"))

    with pytest.raises(ArchiveError, match="below the bundle's root"):
        unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = kind, "/etc/passwd"

    with pytest.raises(ArchiveError, match="regular files"):
        unpack(archive_of(tmp_path / "a.tar.zst", (entry, b"")), tmp_path / "out")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    duplicate = archive_of(tmp_path / "a.tar.zst", (tarfile.TarInfo("a"), b"1"), (tarfile.TarInfo("a"), b"2"))

    with pytest.raises(ArchiveError, match="duplicate"):
        unpack(duplicate, tmp_path / "out")


def test_more_content_than_allowed_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    bomb = archive_of(tmp_path / "a.tar.zst", (tarfile.TarInfo("zeros"), bytes(50_000_000)))
    assert bomb.stat().st_size < 5_000

    with pytest.raises(ArchiveError, match=r"more .*content"):
        unpack(bomb, tmp_path / "out", limit_bytes=1_000_000)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 3, 50, -1, -5])
def test_a_truncated_archive_is_refused(folder: Path, tmp_path: Path, keep: int) -> None:
    archive = tmp_path / "a.tar.zst"
    pack(folder, archive)
    archive.write_bytes(archive.read_bytes()[:keep])

    with pytest.raises(ArchiveError, match="complete bundle"):
        unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_what_follows_the_end_is_refused(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.zst"
    pack(folder, archive)
    with archive.open("ab") as stream:
        stream.write(b"more")

    with pytest.raises(ArchiveError, match="further data"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("position", [0.05, 0.3, 0.6, 0.99])
def test_a_flipped_bit_is_noticed(folder: Path, tmp_path: Path, position: float) -> None:
    archive = tmp_path / "a.tar.zst"
    pack(folder, archive)
    data = bytearray(archive.read_bytes())
    data[int(position * len(data))] ^= 1
    archive.write_bytes(data)

    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "out")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_text("<html>not found</html>")

    with pytest.raises(ArchiveError, match="complete bundle"):
        unpack(tmp_path / "a.tar.zst", tmp_path / "out")
