"""Store the repository of releases in a folder or in any object store that fsspec supports (`s3://bucket/prefix`).

For an object store, this module keeps a local copy of the metadata and uploads each file as soon as it is written. The
timestamp is uploaded last, so clients never see an inconsistent repository. Objects are replaced atomically, so clients
never read partial objects. A lock prevents other processes on this machine from publishing at the same time. If a
publisher on a different machine has changed the timestamp in the store, this publisher stops before it replaces the
timestamp.
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
from fleet.releases.file_copies import Progress
from fleet.releases.repository import Fetch, Mirror

CACHE = "~/.cache/edge-ai-workflow/releases"
TIMESTAMP = "metadata/timestamp.json"
FIRST_FILES = (TIMESTAMP, "metadata/1.root.json")  # a store that has neither file contains no repository


@dataclass(frozen=True)
class Storage:
    """The local folder of a repository, and the functions that exchange files with its object store.

    If the repository is in an object store, `fetch` downloads an archive, and `mirror` uploads a written file unless
    the repository was opened only for reading.
    """

    folder: Path
    mirror: Mirror | None = None
    fetch: Fetch | None = None


def is_url(location: str) -> bool:
    """Return whether a location is the URL of an object store rather than a folder."""
    return "://" in location


def absolute_location(location: str) -> str:
    """Return a repository's location as a URL or an absolute path, which is valid in every working directory."""
    return location if is_url(location) else str(Path(location).resolve())


@contextlib.contextmanager
def repository_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a repository until the context ends. Raises BusyError.

    `wait_s` is the number of seconds to wait if another process holds the lock.
    """
    durable.make_directory(folder)
    path = folder / ".lock"
    busy = BusyError(
        str(path),
        "locked by another process",
        "a free lock",
        "wait until that process ends, then run the command again",
    )
    with locks.exclusive(path, busy, wait_s):
        yield


@contextlib.contextmanager
def open_storage(location: str, write: bool, wait_s: float = 0.0) -> Iterator[Storage]:
    """Open the folder or the object store that contains the files of a repository.

    Args:
        location: The location of the repository: a folder, or a URL such as s3://bucket/prefix.
        write: Whether the caller will change the repository, which requires the lock. The local copy of an object store
            is always locked.
        wait_s: The number of seconds to wait if another process holds the lock.

    Raises:
        BusyError: Another process holds the lock.
        SourceError: The object store cannot be reached.
        ConfigurationError: Fsspec cannot open the URL.
        OSError: The local folder cannot be used.
    """
    if not is_url(location):
        folder = Path(location)
        with repository_lock(folder, wait_s) if write else contextlib.nullcontext():
            yield Storage(folder)
        return
    name = hashlib.sha256(location.rstrip("/").encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path(CACHE).expanduser().parents[1]) / Path(
        *Path(CACHE).parts[2:]
    )
    with repository_lock(folder / name, wait_s):
        store = _ObjectStore(location, folder / name)
        store.fetch_metadata()
        yield Storage(folder / name, store.upload if write else None, store.download)


class _ObjectStore:
    """An object store with a local copy of its metadata."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        try:
            # Listings are not cached, so that files that another publisher has just written are visible.
            self.files, self.base = fsspec.core.url_to_fs(url.rstrip("/"), use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                url, str(error), "a folder, or a URL that fsspec can open", "pass a URL such as s3://bucket/prefix"
            ) from None
        self.started_from: bytes | None = None

    def fetch_metadata(self) -> None:
        """Download the metadata from the store, and replace the local copy with it."""
        local = self.folder / "metadata"
        if local.exists():
            shutil.rmtree(local)
        local.mkdir(parents=True)
        if any(self._call(partial(self._read, name)) is not None for name in FIRST_FILES):
            self._call(lambda: self._copy_metadata(local))
        timestamp = local / "timestamp.json"
        self.started_from = timestamp.read_bytes() if timestamp.is_file() else None

    def _read(self, name: str) -> bytes | None:
        """Return an object's bytes; None if the store reports that the object does not exist.

        The function `exists` of fsspec is not used, because some backends return False if the store is offline.
        """
        try:
            return bytes(self.files.cat_file(f"{self.base}/{name}"))
        except FileNotFoundError:
            return None

    def _copy_metadata(self, local: Path) -> None:
        names = self.files.find(f"{self.base}/metadata")
        if not names:
            raise OSError(f"{self.base}/metadata cannot be listed")
        for remote in names:
            (local / remote.rpartition("/")[2]).write_bytes(self.files.cat_file(remote))

    def download(self, file: Path) -> None:
        """Download a target's file atomically, and check that its content has the SHA-256 in the file's name.

        Raises SourceError, TrustError and OSError.
        """
        durable.make_directory(file.parent)
        incoming = file.with_name(f".{file.name}.partial")
        remote = f"{self.base}/{file.relative_to(self.folder).as_posix()}"
        self._call(lambda: self.files.get_file(remote, str(incoming)))
        with incoming.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != file.name.partition(".")[0]:
            incoming.unlink()
            raise TrustError(
                f"{self.url}: {remote}",
                f"sha256 {sha256}",
                "the sha256 in the object's name",
                "remove the object from the store, then publish the same bytes again: fleet publish",
            )
        durable.sync_file(incoming)
        incoming.replace(file)
        durable.sync_directory(file.parent)

    def upload(self, file: Path, progress: Progress | None) -> None:
        """Upload a local file of the repository. Skip a target's file if the store already has a complete copy.

        Raises SourceError, or BusyError if another publisher has changed the timestamp.
        """
        name = file.relative_to(self.folder).as_posix()
        remote = f"{self.base}/{name}"
        if name == TIMESTAMP:
            if self._call(lambda: self._read(name)) != self.started_from:
                raise BusyError(
                    f"{self.url}/{name}",
                    "changed by another publisher",
                    "the timestamp that this process read",
                    "run the command again",
                )
        elif name.startswith("targets/") and self._is_uploaded(remote, file):
            return
        self._call(lambda: self.files.put_file(str(file), remote, callback=_Callback(progress)))
        if name == TIMESTAMP:
            self.started_from = file.read_bytes()

    def _is_uploaded(self, remote: str, file: Path) -> bool:
        """Return whether the store contains the complete file of a target.

        Only the sizes are compared, because the file's name contains the digest of its content.
        """
        return bool(self._call(lambda: self.files.exists(remote) and self.files.size(remote) == file.stat().st_size))

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # each backend raises its own exceptions
            raise SourceError(
                self.url,
                f"{type(error).__name__}: {str(error)[:300]}",
                "a store that can be read and written",
                "check the address, the credentials and the network, then try again",
            ) from None


class _Callback(fsspec.callbacks.Callback):  # type: ignore[misc]  # fsspec has no types
    def __init__(self, progress: Progress | None) -> None:
        super().__init__()
        self.progress = progress

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        if self.progress and self.size:
            self.progress(self.value, self.size)
