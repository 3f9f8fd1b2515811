"""Where the repository of releases lies: a folder, or any object store that fsspec knows (`s3://bucket/prefix`).

A store is worked on through a local copy of its metadata; each file that was written goes up at once, in the order in
which clients may see it, the timestamp last. Objects are replaced whole, so a client never reads half of one. Two
publishers at a time: the lock is this machine's; from another one, the second finds a timestamp that it did not start
from, and stops before it replaces it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from edge_agent.core import durable

from fleet import locks
from fleet.errors import BusyError, ConfigurationError, SourceError, TrustError
from fleet.releases.repository import Fetch, Mirror, Progress

CACHE = "~/.cache/edge-ai-workflow/releases"
TIMESTAMP = "metadata/timestamp.json"
BEGINNINGS = (TIMESTAMP, "metadata/1.root.json")  # a store that holds neither holds no repository


@dataclass(frozen=True)
class Storage:
    """The local folder that is worked on, what brings its files to where they belong, and archives from there."""

    folder: Path
    mirror: Mirror | None = None
    fetch: Fetch | None = None


def is_url(where: str) -> bool:
    return "://" in where


def absolute_location(where: str) -> str:
    """The same place, for a process that works in another folder."""
    return where if is_url(where) else str(Path(where).resolve())


@contextlib.contextmanager
def repository_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """The one lock of a repository; waited for so many seconds. Raises BusyError."""
    durable.make_directory(folder)
    path = folder / ".lock"
    busy = BusyError(str(path), "another process holds it", "free", "wait for it, then run again")
    with locks.exclusive(path, busy, wait_s):
        yield


@contextlib.contextmanager
def open_storage(where: str, write: bool, wait_s: float = 0.0) -> Iterator[Storage]:
    """Work on the repository at `where`, under its lock where it is to be changed, waited for so many seconds.

    Raises BusyError, SourceError, ConfigurationError, OSError.
    """
    if not is_url(where):
        folder = Path(where)
        with repository_lock(folder, wait_s) if write else contextlib.nullcontext():
            yield Storage(folder)
        return
    name = hashlib.sha256(where.rstrip("/").encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path(CACHE).expanduser().parents[1]) / Path(
        *Path(CACHE).parts[2:]
    )
    with repository_lock(folder / name, wait_s):
        store = _ObjectStore(where, folder / name)
        store.fetch()
        yield Storage(folder / name, store.put if write else None, store.get)


class _ObjectStore:
    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        try:
            # No listing is kept: what another publisher wrote a moment ago has to be seen.
            self.files, self.base = fsspec.core.url_to_fs(url.rstrip("/"), use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(url, str(error), "a folder, or a URL that fsspec opens", "s3://...") from None
        self.started_from: bytes | None = None

    def fetch(self) -> None:
        """The store's metadata, as the whole content of the local copy's."""
        local = self.folder / "metadata"
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir(parents=True)

        if any(self._try(partial(self._read, name)) is not None for name in BEGINNINGS):
            self._try(lambda: self._copy_metadata(local))
        timestamp = local / "timestamp.json"
        self.started_from = timestamp.read_bytes() if timestamp.is_file() else None

    def _read(self, name: str) -> bytes | None:
        """None where the store says that there is none: `exists` of some backends says so of a store out of reach."""
        try:
            return bytes(self.files.cat_file(f"{self.base}/{name}"))
        except FileNotFoundError:
            return None

    def _copy_metadata(self, local: Path) -> None:
        listed = self.files.find(f"{self.base}/metadata")
        if not listed:
            raise OSError(f"{self.base}/metadata cannot be listed")
        for remote in listed:
            (local / remote.rpartition("/")[2]).write_bytes(self.files.cat_file(remote))

    def get(self, file: Path) -> None:
        """A target, whose name begins with its sha256: whole, or as it was. Raises SourceError, TrustError, OSError."""
        durable.make_directory(file.parent)
        incoming = file.with_name(f".{file.name}.partial")
        remote = f"{self.base}/{file.relative_to(self.folder).as_posix()}"
        self._try(lambda: self.files.get_file(remote, str(incoming)))
        with incoming.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.name.partition(".")[0]:
            incoming.unlink()
            raise TrustError(
                f"{self.url}: {remote}",
                f"sha256 {found}",
                "that of its name",
                "remove it from the store, then publish the same bytes again: fleet publish",
            )
        durable.sync_file(incoming)
        incoming.replace(file)
        durable.sync_directory(file.parent)

    def put(self, file: Path, progress: Progress | None) -> None:
        name = file.relative_to(self.folder).as_posix()
        remote = f"{self.base}/{name}"
        if name == TIMESTAMP:
            found = self._try(lambda: self._read(name))
            if found != self.started_from:
                raise BusyError(f"{self.url}/{name}", "another publisher wrote it meanwhile", "", "run it again")
        elif name.startswith("targets/") and self._there(remote, file):
            return
        self._try(lambda: self.files.put_file(str(file), remote, callback=_Callback(progress)))
        if name == TIMESTAMP:
            self.started_from = file.read_bytes()

    def _there(self, remote: str, file: Path) -> bool:
        """A target's name is its digest: one of the right size was uploaded whole."""
        return bool(self._try(lambda: self.files.exists(remote) and self.files.size(remote) == file.stat().st_size))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # each backend has exceptions of its own
            raise SourceError(
                self.url,
                f"{type(error).__name__}: {str(error)[:300]}",
                "a store that can be read and written",
                "check the address, the credentials and the network, then run it again",
            ) from None


class _Callback(fsspec.callbacks.Callback):  # type: ignore[misc]  # fsspec has no types
    def __init__(self, progress: Progress | None) -> None:
        super().__init__()
        self.progress = progress

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        if self.progress and self.size:
            self.progress(self.value, self.size)
