"""python-tuf's client, made to survive power cuts and wrong clocks; its errors as this agent's, with a remedy.

The metadata that is trusted so far stays in one folder. The client works on a copy beside it, and what it accepted
comes over file by file, flushed, also after a refresh that failed: a new root counts even so (specification, 5.3.9).
It renames without a flush itself, and a power cut would leave empty files, with which the protection against older
metadata would be gone without a word.
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

# The order in which the client itself replaces them: after a power cut between two the older part is still consistent.
ORDER = ("root.json", "timestamp.json", "snapshot.json", "targets.json")
SET_CLOCK = "set the clock (`timedatectl`; NTP needs the network, a battery-backed RTC does not)"
log = logging.getLogger(__name__)


class Client:
    """The current metadata of one repository, and what it vouches for. `refresh` comes first.

    `metadata`: the folder of trusted metadata. `root`: the pinned root file. `floor`: no time earlier than this one is
    believed, and `since` says what is known of it. Raises TrustError, SourceError, ConfigurationError, OSError.
    """

    def __init__(
        self, metadata: Path, root: Path, fetcher: Fetcher, floor: datetime | None = None, since: str = ""
    ) -> None:
        self.metadata, self.root, self.fetcher, self.floor, self._since = metadata, root, fetcher, floor, since
        self._work = metadata.with_name(f".{metadata.name}.partial")
        self._updater: Updater | None = None
        self._clock = self._reference = datetime.now(timezone.utc)

    def refresh(self) -> datetime:
        """Bring the metadata up to date. Returns the time at which all of it was found to be current."""
        self._updater = None
        self._clock = datetime.now(timezone.utc)
        self._reference = max(self._clock, self.floor or self._clock)
        if self._reference > self._clock:
            log.warning("%s; that time is used: %s", self._behind(), SET_CLOCK)
        pinned = self._pinned()
        self.fetcher.documents.clear()
        point("trust.before_refresh")
        with self._explained(), self._working():
            updater = self._new(pinned)
            set_reference_time(updater, self._reference)
            updater.refresh()
            point("trust.after_refresh")
        self._updater = updater
        return self._reference

    def target(self, path: str) -> TargetFile | None:
        """What the current metadata, delegated roles included, says of a target; None where it names none."""
        assert self._updater is not None, "call `refresh` first"
        with self._explained(), self._working():
            return self._updater.get_targetinfo(path)

    def download(
        self, info: TargetFile, partial: PartialFile, destination: Path, progress: Progress | None = None
    ) -> Path:
        """The target's content, verified and flushed, as `destination`; nothing to do where it is there already.

        It is downloaded into `partial`, which lies in the folder of `destination`, and goes on there after a break.
        """
        assert self._updater is not None, "call `refresh` first"
        if self._updater.find_cached_target(info, str(destination)):
            return destination
        with self._explained():
            try:
                self._transfer(info, partial, progress)
            except (tuf.RepositoryError, tuf.DownloadLengthMismatchError):
                partial.discard()
                # What was put together from several answers may be wrong though each was right; one answer may not.
                if not self.fetcher.resumed:
                    raise
                log.warning("%s: what was resumed is not what was signed; once more from zero", info.path)
                try:
                    self._transfer(info, partial, progress)
                except (tuf.RepositoryError, tuf.DownloadLengthMismatchError):
                    partial.discard()
                    raise
        partial.complete(destination)
        return destination

    def _transfer(self, info: TargetFile, partial: PartialFile, progress: Progress | None) -> None:
        assert self._updater is not None
        with self.fetcher.keep(partial, progress):
            # The client verifies the partial file, then copies it. The copy would be a second write of the whole
            # archive to a memory card, and not flushed: it goes nowhere, and the verified file itself is renamed.
            self._updater.download_target(info, os.devnull)

    def _pinned(self) -> bytes:
        try:
            return self.root.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                str(self.root), error.strerror or str(error), "the pinned root of trust (`paths.root`)", _PROVISION
            ) from None

    def _new(self, pinned: bytes) -> Updater:
        source = self.fetcher.source
        try:
            return Updater(
                str(self._work), source.metadata_url, None, source.targets_url, self.fetcher, bootstrap=pinned
            )
        except tuf.RepositoryError as error:
            raise ConfigurationError(
                str(self.root), _one_line(error), "root metadata, signed by the threshold of keys in it", _PROVISION
            ) from None

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """A copy of the trusted metadata to work on; what has changed in it comes over at the end, also on errors."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        for path in sorted(self.metadata.rglob("*.json")):
            content = path.read_bytes()
            if not _readable(content):
                log.warning(
                    "%s is damaged; what it protected from, older metadata, is compared with nothing once", path
                )
            copy = self._work / path.relative_to(self.metadata)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
        try:
            yield
        finally:
            self._take_over()
            shutil.rmtree(self._work, ignore_errors=True)

    def _take_over(self) -> None:
        found = [path.relative_to(self._work) for path in self._work.rglob("*.json")]
        # The history of roots comes first: the chain from the pinned root to the current one goes through it.
        rank = {name: place for place, name in enumerate(ORDER)}
        for name in sorted(found, key=lambda name: (len(name.parts) == 1, rank.get(name.name, len(ORDER)), str(name))):
            content, path = (self._work / name).read_bytes(), self.metadata / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                durable.make_directory(path.parent)
                durable.write_file(path, content, faults="trust")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What python-tuf raises, as what this agent raises."""
        try:
            yield
        except tuf.ExpiredMetadataError as error:
            raise self._expired(error) from None
        except tuf.DownloadLengthMismatchError as error:
            raise TrustError(self.fetcher.url, _one_line(error), "no more than was signed", _OTHER_COPY) from None
        except tuf.DownloadHTTPError as error:
            raise SourceError(self.fetcher.url, _one_line(error), "the file", _SOURCE) from None
        except UnreachableError as error:
            raise SourceError(error.url, error.found, "an answer", _SOURCE) from None
        except tuf.DownloadError as error:
            raise SourceError(self.fetcher.url, _one_line(error), "the file", _SOURCE) from None
        except tuf.RepositoryError as error:
            expected, remedy = next(told for kind, told in _REFUSED if isinstance(error, kind))
            raise TrustError(self.fetcher.url, _one_line(error), expected, remedy) from None

    def _expired(self, error: tuf.ExpiredMetadataError) -> TrustError:
        """Says which role, since when, by which clock: the exception itself only has the role."""
        match = re.fullmatch(r"(?:Final |New )?(.+?)(?:\.json)? is expired", str(error))
        role = match[1] if match else "metadata"
        known = {path.name: path.read_bytes() for path in self.metadata.glob("*.json")}
        known |= {re.sub(r"^\d+\.", "", name): content for name, content in self.fetcher.documents.items()}
        since = ""
        with contextlib.suppress(KeyError, tuf.RepositoryError):
            since = f" since {stamp(Metadata.from_bytes(known[f'{role}.json']).signed.expires)}"
        clock = self._behind() if self._reference > self._clock else f"this device's clock says {stamp(self._clock)}"
        forget = ""
        if self._reference > self._clock:
            forget = "; if it is right, and was ahead once, edge-agent forget --trusted-time"
        return TrustError(
            self.fetcher.source.metadata_url,
            f"the metadata of the role {role} is expired{since}; {clock}",
            "metadata that is current",
            f"publish a new {role} in the repository; if the clock is wrong, {SET_CLOCK}{forget}",
        )

    def _behind(self) -> str:
        assert self.floor is not None
        return f"this device's clock says {stamp(self._clock)}, earlier than {stamp(self.floor)}, {self._since}"


def set_reference_time(updater: Updater, when: datetime) -> None:
    """Let `updater` judge expiry at `when`.

    python-tuf takes the time once, in the constructor of its metadata set, and has no parameter for it. To set the
    attribute afterwards is the least bad of three ways: to replace the module's `datetime` would reach into other
    threads, and to subclass the set would copy more of what is private. Should the attribute go away, this fails
    instead of using a clock that is behind; a test of trust.py sees whether the time set is the time used.
    """
    trusted = updater._trusted_set
    if not isinstance(getattr(trusted, "reference_time", None), datetime):
        raise RuntimeError("this version of python-tuf keeps its reference time elsewhere")
    trusted.reference_time = when


def stamp(when: datetime) -> str:
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _readable(content: bytes) -> bool:
    try:
        Metadata.from_bytes(content)
    except tuf.RepositoryError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


_PROVISION = "put the repository's root.json there, from a place you trust"
_SOURCE = "check `source` in the configuration, the network, or that the files were pushed or the stick is mounted"
_OTHER_COPY = "nothing was changed here; fetch from the repository itself instead of a copy, and tell its owner"
_REFUSED: tuple[tuple[type[Exception], tuple[str, str]], ...] = (
    (
        tuf.UnsignedMetadataError,
        ("signatures by as many of the trusted keys as the threshold says", _OTHER_COPY),
    ),
    (
        tuf.BadVersionNumberError,
        (
            "versions that only go up, and files of one publication",
            "an old or half-copied repository: bring the copy up to date; if it is, somebody replays old metadata",
        ),
    ),
    (tuf.LengthOrHashMismatchError, ("the bytes that were signed", _OTHER_COPY)),
    (tuf.RepositoryError, ("metadata of The Update Framework, as signed", _OTHER_COPY)),
)
