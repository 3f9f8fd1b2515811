"""python-tuf's client, extended to survive power cuts and wrong clocks and to raise the agent's errors.

The trusted metadata is in one folder. The client works on a copy of this folder. Every file that the client accepts is
then copied back and flushed to the disk. This is done even after a failed refresh, because a new root that was accepted
stays valid (specification, 5.3.9). The copy is necessary because python-tuf renames files without a flush. A power cut
could then leave empty files, and the device would not notice if it received older metadata.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient.updater import Updater

from edge_agent.core import durable
from edge_agent.core.errors import ConfigurationError, SourceError, TrustError
from edge_agent.core.fault_points import point
from edge_agent.update.fetch import Fetcher, Progress, UnreachableError
from edge_agent.update.partial_download import PartialFile

# The order in which the files are copied back. If a power cut stops the copying, the files are still consistent.
ORDER = ("root.json", "timestamp.json", "snapshot.json", "targets.json")
SET_CLOCK = "set the clock (`timedatectl`; NTP needs the network, a battery-backed RTC does not)"
log = logging.getLogger(__name__)


class Client:
    """The TUF client of one repository of releases. Call `refresh` before the other methods.

    All methods raise TrustError, SourceError, ConfigurationError and OSError.
    """

    def __init__(
        self, metadata: Path, root: Path, fetcher: Fetcher, earliest: datetime | None = None, origin: str = ""
    ) -> None:
        """Prepare the client; nothing is downloaded yet.

        Args:
            metadata: The folder of the trusted metadata.
            root: The path of the pinned root metadata.
            fetcher: The object that transfers the files.
            earliest: The time that is used instead of the clock if the clock shows an earlier time; None means that the
                clock is always used.
            origin: A description of the time `earliest` for messages, such as "when metadata was last verified here".
        """
        self.metadata, self.root, self.fetcher, self.earliest, self._origin = metadata, root, fetcher, earliest, origin
        self._work = metadata.with_name(f".{metadata.name}.partial")
        self._updater: Updater | None = None
        self._clock = self._reference = datetime.now(timezone.utc)

    def refresh(self) -> datetime:
        """Update the trusted metadata, and return the time at which the metadata was verified to be valid."""
        self._updater = None
        self._clock = datetime.now(timezone.utc)
        self._reference = max(self._clock, self.earliest or self._clock)
        if self._reference > self._clock:
            log.warning("%s; the later time is used: %s", self._clock_behind(), SET_CLOCK)
        pinned = self._pinned_root()
        self.fetcher.documents.clear()
        point("trust.before_refresh")
        with self._agent_errors(), self._working_copy():
            updater = self._new_updater(pinned)
            set_reference_time(updater, self._reference)
            updater.refresh()
            point("trust.after_refresh")
        self._updater = updater
        return self._reference

    def target(self, path: str) -> TargetFile | None:
        """Return the entry of the target `path` in the current metadata, or None if the metadata has no such entry.

        The metadata of delegated roles is searched too.
        """
        assert self._updater is not None, "call `refresh` first"
        with self._agent_errors(), self._working_copy():
            return self._updater.get_targetinfo(path)

    def download(
        self, info: TargetFile, partial: PartialFile, destination: Path, progress: Progress | None = None
    ) -> Path:
        """Download a target, verify it, flush it to the disk, and return its path.

        Args:
            info: The target's entry in the metadata.
            partial: The partial file, in the folder of `destination`. If it exists, the download is resumed.
            destination: The file to create. If this file exists and passes verification, nothing is downloaded.
            progress: A function to call after each chunk, with the number of downloaded bytes and the total number.
        """
        assert self._updater is not None, "call `refresh` first"
        if self._updater.find_cached_target(info, str(destination)):
            return destination
        with self._agent_errors():
            try:
                self._transfer(info, partial, progress)
            except (tuf.RepositoryError, tuf.DownloadLengthMismatchError):
                partial.discard()
                # A file that was assembled from several responses can be wrong although each response was right. Only
                # such a file is downloaded again.
                if not self.fetcher.resumed:
                    raise
                log.warning(
                    "%s: the resumed file differs from the signed file; downloading it again from the start", info.path
                )
                try:
                    self._transfer(info, partial, progress)
                except (tuf.RepositoryError, tuf.DownloadLengthMismatchError):
                    partial.discard()
                    raise
        partial.complete(destination)
        return destination

    def _transfer(self, info: TargetFile, partial: PartialFile, progress: Progress | None) -> None:
        assert self._updater is not None
        with self.fetcher.download_to(partial, progress):
            # The client verifies the partial file and then copies it. Its copy is discarded, because it would write the
            # whole archive to the memory card a second time, without a flush. The caller renames the verified file.
            self._updater.download_target(info, os.devnull)

    def _pinned_root(self) -> bytes:
        try:
            return self.root.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                str(self.root), error.strerror or str(error), "the pinned root of trust (`paths.root`)", _PROVISION
            ) from None

    def _new_updater(self, pinned: bytes) -> Updater:
        source = self.fetcher.source
        try:
            return Updater(
                str(self._work), source.metadata_url, None, source.targets_url, self.fetcher, bootstrap=pinned
            )
        except tuf.RepositoryError as error:
            raise ConfigurationError(
                str(self.root), _one_line(error), "root metadata signed by enough of the keys that it lists", _PROVISION
            ) from None

    @contextlib.contextmanager
    def _working_copy(self) -> Iterator[None]:
        """Make a working copy of the trusted metadata for the `with` block, and then copy the changes back.

        Changes are copied back even after an error.
        """
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        for path in sorted(self.metadata.rglob("*.json")):
            content = path.read_bytes()
            if not _readable(content):
                log.warning("%s is damaged; this refresh cannot detect older metadata of its role", path)
            copy = self._work / path.relative_to(self.metadata)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
        try:
            yield
        finally:
            self._copy_back()
            shutil.rmtree(self._work, ignore_errors=True)

    def _copy_back(self) -> None:
        names = [path.relative_to(self._work) for path in self._work.rglob("*.json")]
        # The history of roots is copied first, because it is the chain from the pinned root to the current root.
        rank = {name: place for place, name in enumerate(ORDER)}
        for name in sorted(names, key=lambda name: (len(name.parts) == 1, rank.get(name.name, len(ORDER)), str(name))):
            content, path = (self._work / name).read_bytes(), self.metadata / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                durable.make_directory(path.parent)
                durable.write_file(path, content, faults="trust")

    @contextlib.contextmanager
    def _agent_errors(self) -> Iterator[None]:
        """Translate errors that python-tuf raises within the `with` block into errors of this agent, with a remedy."""
        try:
            yield
        except tuf.ExpiredMetadataError as error:
            raise self._expired(error) from None
        except tuf.DownloadLengthMismatchError as error:
            raise TrustError(
                self.fetcher.url, _one_line(error), "a file that is not longer than the signed length", _OTHER_COPY
            ) from None
        except tuf.DownloadHTTPError as error:
            raise SourceError(self.fetcher.url, _one_line(error), "the complete file", _SOURCE) from None
        except UnreachableError as error:
            raise SourceError(error.url, error.reason, "a source that sends the file", _SOURCE) from None
        except tuf.DownloadError as error:
            raise SourceError(self.fetcher.url, _one_line(error), "the complete file", _SOURCE) from None
        except tuf.RepositoryError as error:
            expected, remedy = next(texts for kind, texts in _REFUSED if isinstance(error, kind))
            raise TrustError(self.fetcher.url, _one_line(error), expected, remedy) from None

    def _expired(self, error: tuf.ExpiredMetadataError) -> TrustError:
        """Return an error with the role of the expired metadata, the time of expiry and the time of the device's clock.

        python-tuf's own `error` has only the role.
        """
        match = re.fullmatch(r"(?:Final |New )?(.+?)(?:\.json)? is expired", str(error))
        role = match[1] if match else "metadata"
        documents = {path.name: path.read_bytes() for path in self.metadata.glob("*.json")}
        documents |= {re.sub(r"^\d+\.", "", name): content for name, content in self.fetcher.documents.items()}
        since = ""
        with contextlib.suppress(KeyError, tuf.RepositoryError):
            since = f" at {stamp(Metadata.from_bytes(documents[f'{role}.json']).signed.expires)}"
        behind = self._reference > self._clock
        clock = self._clock_behind() if behind else f"this device's clock shows {stamp(self._clock)}"
        forget = ""
        if behind:
            forget = "; if the clock is right now but was ahead before, run edge-agent forget --trusted-time"
        return TrustError(
            self.fetcher.source.metadata_url,
            f"the metadata of the role {role} expired{since}; {clock}",
            "metadata that has not expired",
            f"publish a new {role} in the repository; if the clock is wrong, {SET_CLOCK}{forget}",
        )

    def _clock_behind(self) -> str:
        assert self.earliest is not None
        return f"this device's clock shows {stamp(self._clock)}, earlier than {stamp(self.earliest)}, {self._origin}"


def set_reference_time(updater: Updater, when: datetime) -> None:
    """Make `updater` compare the expiry of metadata with the time `when` instead of the clock.

    python-tuf reads the clock once, in the constructor of its metadata set, and has no parameter for the time. So the
    attribute is set afterwards. The two alternatives are worse: replacing the module's `datetime` would affect other
    threads, and a subclass would have to copy more private code. If a later python-tuf has no such attribute, this
    function raises RuntimeError. A test of trust.py checks that python-tuf uses the time that is set.
    """
    trusted = updater._trusted_set
    if not isinstance(getattr(trusted, "reference_time", None), datetime):
        raise RuntimeError("this version of python-tuf does not store its reference time where the agent sets it")
    trusted.reference_time = when


def stamp(when: datetime) -> str:
    """Return a time in ISO 8601, UTC, with whole seconds."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _readable(content: bytes) -> bool:
    try:
        Metadata.from_bytes(content)
    except tuf.RepositoryError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


_PROVISION = "copy the repository's root.json to this path, from a source that you trust"
_SOURCE = (
    "check `source` in the configuration and the network, or that the files were delivered or the medium is mounted"
)
_OTHER_COPY = (
    "download from the repository itself instead of a copy, and inform the owner of the copy; this device is unchanged"
)
_REFUSED: tuple[tuple[type[Exception], tuple[str, str]], ...] = (
    (
        tuf.UnsignedMetadataError,
        ("signatures by as many trusted keys as the threshold requires", _OTHER_COPY),
    ),
    (
        tuf.BadVersionNumberError,
        (
            "versions that never decrease, and files that were published together",
            "update the copy of the repository: it is old or incomplete, or someone replays old metadata",
        ),
    ),
    (tuf.LengthOrHashMismatchError, ("the bytes that were signed", _OTHER_COPY)),
    (tuf.RepositoryError, ("valid metadata of The Update Framework", _OTHER_COPY)),
)
