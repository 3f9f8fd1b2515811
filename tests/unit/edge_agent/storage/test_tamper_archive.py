"""A signed archive may still be wrong: a stolen key, a broken build. It is refused before it costs memory or disk."""

from __future__ import annotations

import dataclasses
import io
import random
import shutil
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config, Install
from edge_agent.core.errors import AgentError, TrustError
from edge_agent.storage import slots
from edge_agent.storage.archive import HEADERS, LONGEST_NAME, MOST_ENTRIES, ArchiveError, inspect, unpack
from edge_agent.update.trust import Repository

from tests.support.agent.bundles import Bundle, bundle
from tests.support.agent.tuf_repository import TufRepository

RUNS, WANTED = "pump@1.0.0", "pump@1.1.0"
Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"x", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(entries: list[Entry], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as out:
        for info, content in entries:
            out.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def packed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return bundle(folder, seed=1), bundle(folder, seed=2)


@pytest.fixture
def good(bundles: tuple[Bundle, Bundle]) -> list[Entry]:
    """The entries of a release that would install."""
    raw = zstandard.ZstdDecompressor().stream_reader(bundles[1].archive.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(raw.read()), mode="r:") as source:
        return [entry(info.name, source.extractfile(info).read()) for info in source]  # type: ignore[union-attr]


@dataclasses.dataclass
class Device:
    repository: TufRepository
    config: Config

    def install(self, release: str) -> None:
        repository = Repository(self.config, State())
        repository.refresh()
        offer = repository.find(release)
        slots.install(self.config, offer, repository.download(offer))


@pytest.fixture
def device(tmp_path: Path, bundles: tuple[Bundle, Bundle]) -> Device:
    repository = TufRepository(tmp_path / "repository")
    repository.publish(RUNS, bundles[0].archive)
    config = dataclasses.replace(repository.config(tmp_path / "device"), install=Install(reserve_mb=0.0, limit_mb=8.0))
    device = Device(repository, config)
    device.install(RUNS)
    state.save(config.layout, State(current=RUNS))
    return device


def kept(config: Config) -> dict[str, bytes]:
    files = [config.layout.state_file, *config.layout.releases.rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


# --- the archive as it is, and with one thing changed

MODEL = "targets/onnx-fp32/model.onnx"


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[list[Entry]], bytes]:
    def spoil(good: list[Entry]) -> bytes:
        assert name in [info.name for info, _ in good]
        return packed(tar([entry(i.name, change(c)) if i.name == name else (i, c) for i, c in good]))

    return spoil


def without(name: str) -> Callable[[list[Entry]], bytes]:
    return lambda good: packed(tar([(info, content) for info, content in good if info.name != name]))


def and_(*more: Entry, kind: int = tarfile.USTAR_FORMAT) -> Callable[[list[Entry]], bytes]:
    return lambda good: packed(tar([*good, *more], kind))


def renamed(good: list[Entry]) -> bytes:
    return packed(tar([entry(f"{i.name}x" if i.name == MODEL else i.name, c) for i, c in good]))


def special(kind: bytes, to: str = "") -> Callable[[list[Entry]], bytes]:
    return and_(entry("special", b"", type=kind, linkname=to, devmajor=1, devminor=3))


def linked_instead(kind: bytes, to: str) -> Callable[[list[Entry]], bytes]:
    return lambda good: packed(
        tar([entry(MODEL, b"", type=kind, linkname=to) if i.name == MODEL else (i, c) for i, c in good])
    )


def bomb(good: list[Entry]) -> bytes:
    return packed(tar([*good, entry("zeros", bytes(40_000_000))]))


def extended_header(good: list[Entry]) -> bytes:
    """A header of a header: tarfile would read all of it into memory."""
    return packed(tar([entry("././@PaxHeader", bytes(7_000_000), type=tarfile.XHDTYPE), *good]))


def long_name_header(good: list[Entry]) -> bytes:
    return packed(tar([entry("././@LongLink", bytes(7_000_000), type=tarfile.GNUTYPE_LONGNAME), *good]))


def negative_size(good: list[Entry]) -> bytes:
    header = bytearray(tar([entry("negative", b"")])[:512])
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return packed(bytes(header) + tar(good))


def window(good: list[Entry]) -> bytes:
    """A frame that asks for a window of 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(tar(good)) + stream.flush()


CASES: dict[str, tuple[Callable[[list[Entry]], bytes], str]] = {
    "modified": (changed(MODEL, lambda it: it[:-1] + bytes([it[-1] ^ 1])), "sha256"),
    "shortened": (changed(MODEL, lambda it: it[:-1]), "bytes"),
    "emptied": (changed("golden/inputs.npy", lambda it: b""), "0 bytes"),
    "missing": (without("golden/inputs.npy"), "nothing"),
    "without manifest": (without("manifest.json"), "manifest"),
    "manifest of garbage": (changed("manifest.json", lambda it: b"\xff{"), "manifest"),
    "manifest of another name": (changed("manifest.json", lambda it: it.replace(b'"pump"', b'"pomp"')), "pomp"),
    "extra": (and_(entry("extra.bin")), "does not list"),
    "renamed": (renamed, "model.onnx"),
    "symbolic link": (special(tarfile.SYMTYPE, "/etc/passwd"), "special"),
    "symbolic link for a file": (linked_instead(tarfile.SYMTYPE, "/etc/passwd"), "model.onnx"),
    "hard link": (special(tarfile.LNKTYPE, MODEL), "special"),
    "character device": (special(tarfile.CHRTYPE), "special"),
    "block device": (special(tarfile.BLKTYPE), "special"),
    "named pipe": (special(tarfile.FIFOTYPE), "special"),
    "folder": (special(tarfile.DIRTYPE), "special"),
    "sparse": (special(tarfile.GNUTYPE_SPARSE), "special|complete"),
    "contiguous": (special(tarfile.CONTTYPE), "special"),
    "up and out": (and_(entry("../../out")), "below the bundle's root"),
    "up in between": (and_(entry("golden/../../../out")), "below the bundle's root"),
    "absolute": (and_(entry("/tmp/out")), "below the bundle's root"),  # noqa: S108  (never written)
    "the root itself": (and_(entry(".")), "below the bundle's root"),
    "twice": (and_(entry("a"), entry("a")), "duplicate"),
    "twice in other words": (and_(entry("golden//b"), entry("golden/./b")), "duplicate"),
    "the model twice": (and_(entry(MODEL)), "duplicate"),
    "file, then folder": (and_(entry("a"), entry("a/b")), "as a file and as a folder"),
    "folder, then file": (and_(entry("a/b/c"), entry("a/b"), entry("a/b")), "as a file and as a folder"),
    "long name": (and_(entry("n" * (LONGEST_NAME + 1)), kind=tarfile.PAX_FORMAT), "below the bundle's root"),
    "long GNU name": (and_(entry("n/" * 200 + "n"), kind=tarfile.GNU_FORMAT), "below the bundle's root"),
    "line break in a name": (and_(entry("a\nb")), "below the bundle's root"),
    "name that is not text": (and_(entry("a\udcff", b"")), "below the bundle's root"),
    "too many": (and_(*(entry(f"many/{n}", b"") for n in range(MOST_ENTRIES))), "entries"),
    "bomb": (bomb, "bytes of content|more content"),
    "bomb in an extended header": (extended_header, f"more than {HEADERS} bytes of headers"),
    "bomb in a long name": (long_name_header, f"more than {HEADERS} bytes of headers"),
    "negative size": (negative_size, "not a complete bundle|bytes of content|manifest"),
    "window": (window, "not a complete bundle"),
    "truncated": (lambda good: packed(tar(good))[:-20], "ends early"),
    "truncated tar": (lambda good: packed(tar(good)[:3000]), "complete bundle|manifest|nothing"),
    "something after the frame": (lambda good: packed(tar(good)) + b"more", "further data"),
    "a second frame": (lambda good: packed(tar(good)) + packed(tar([entry("b")])), "further data"),
    "something after the tar": (lambda good: packed(tar(good) + bytes(20_000) + b"more"), "further data"),
    "damaged checksum": (lambda good: packed(tar(good))[:-1] + b"?", "not a complete bundle"),
    "empty": (lambda good: b"", "ends early"),
    "not compressed": (tar, "not a complete bundle"),
    "no tar": (lambda good: packed(b"hello" * 1000), "not a complete bundle"),
    "nothing in it": (lambda good: packed(tar([])), "manifest"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_spoiled_archive_leaves_the_device_as_it_was(device: Device, good: list[Entry], name: str) -> None:
    spoil, reason = CASES[name]
    before = kept(device.config)
    device.repository.publish(WANTED, spoil(good))
    with pytest.raises(AgentError, match=reason) as refusal:
        device.install(WANTED)
    assert isinstance(refusal.value, TrustError)
    assert kept(device.config) == before
    assert slots.installed(device.config.layout) == [RUNS]
    assert not device.config.layout.partial(WANTED).exists()


def test_the_archive_that_the_cases_start_from_installs(device: Device, good: list[Entry]) -> None:
    device.repository.publish(WANTED, packed(tar(good)))
    device.install(WANTED)
    assert slots.installed(device.config.layout) == [RUNS, WANTED]


def test_what_unpack_refuses_inspect_refuses_in_the_same_words(good: list[Entry], tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.zst"
    for name, (spoil, _) in CASES.items():
        archive.write_bytes(spoil(good))
        reasons = [str(reason) for reason in _both(archive, tmp_path / "out")]
        assert len(reasons) < 2 or reasons[0] == reasons[1], name


def _both(archive: Path, out: Path) -> Iterator[ArchiveError]:
    for read in (lambda: inspect(archive, "manifest.json", 8_000_000), lambda: unpack(archive, out, 8_000_000)):
        try:
            read()
        except ArchiveError as refusal:
            if "no manifest.json" not in refusal.found:
                yield refusal
    if out.exists():
        shutil.rmtree(out)


@pytest.mark.parametrize("spoil", [bomb, extended_header, long_name_header, window])
def test_a_bomb_costs_little_memory(good: list[Entry], tmp_path: Path, spoil: Callable[[list[Entry]], bytes]) -> None:
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(spoil(good))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            unpack(archive, tmp_path / "out", 30_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_whatever_is_flipped_in_the_tar_the_answer_is_a_reason(good: list[Entry], tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311  (the same attacks each time)
    original, archive = tar(good), tmp_path / "a.tar.zst"
    headers = [at for at in range(0, len(original), 512) if original[at + 257 : at + 262] == b"ustar"]
    for _ in range(400):
        content = bytearray(original)
        for _ in range(chance.choice((1, 2, 8))):
            at = chance.choice(headers)
            content[at + chance.randrange(512)] = chance.randrange(256)
            content[at + 148 : at + 156] = b" " * 8  # with a correct checksum, or reading would end there
            content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        archive.write_bytes(packed(bytes(content)))
        for _ in _both(archive, tmp_path / "out"):
            pass
