"""Which releases may be installed: what The Update Framework's current metadata names, and nothing else.

Specification 1.0, section 5, as python-tuf implements it (tufclient.py). Nothing here checks a signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from tuf.api.metadata import TargetFile

from edge_agent import RELEASED
from edge_agent.core import durable, space
from edge_agent.core.config import Config
from edge_agent.core.errors import ConfigurationError, NoReleaseError, TrustError
from edge_agent.core.release import EXPECTED, LONGEST, parse_release
from edge_agent.core.state import State
from edge_agent.update.fetch import Fetcher, Progress
from edge_agent.update.offer import Offer
from edge_agent.update.partial_download import PartialFile
from edge_agent.update.tufclient import Client

SHA256 = re.compile(r"[0-9a-f]{64}")


def split(release: str) -> tuple[str, str]:
    """Name and version of a release. Raises NoReleaseError where it is not NAME@VERSION."""
    found = parse_release(release)
    if found is None:
        raise NoReleaseError(
            f"release {release[:LONGEST]!r}",
            "not the name of a release",
            EXPECTED,
            "name one that was published",
        )
    return found["name"], found["version"]


def target_path(release: str) -> str:
    """Where a release's archive is among the repository's targets. Raises NoReleaseError."""
    name, version = split(release)
    return f"{name}/{version}/{name}.tar.zst"


class Repository:
    """The repository of releases that the configuration names.

    `verified` is called with the time at which all metadata was current, as soon as a refresh has succeeded.

    All methods raise TrustError, SourceError, ConfigurationError and OSError; what was trusted or installed before
    stays as it was. The caller holds the lock.
    """

    def __init__(self, config: Config, state: State, verified: Callable[[datetime], None] | None = None) -> None:
        self.config, self.layout = config, config.layout
        # A new device has verified nothing yet; that the agent itself exists is what it knows of the time.
        floor = datetime.fromisoformat(RELEASED[1].replace("Z", "+00:00")), "when this agent was released"
        kept = _time(state.trusted_time, self.layout.state_file)
        if kept is not None and kept >= floor[0]:
            floor = kept, "when metadata was last verified here"
        self._floor, self._verified = floor, verified
        self._client: Client | None = None  # that of the last refresh which succeeded
        self._found: dict[str, TargetFile] = {}

    def refresh(self) -> datetime:
        """Bring the metadata up to date.

        Returns the time at which all of it was current, for `State.trusted_time`. A refresh that fails gives none: a
        clock that is far ahead must not push that time forward, or the device would refuse everything ever after.
        """
        durable.make_directory(self.layout.state)
        self._client = None
        fetcher = Fetcher(self.config.source)
        client = Client(self.layout.tuf, Path(self.config.paths.root), fetcher, *self._floor)
        reference = client.refresh()
        if self._verified:
            self._verified(reference)
        self._client = client
        return reference

    def find(self, release: str) -> Offer:
        """The release as the metadata has it; refreshes first if nothing has. Raises NoReleaseError for a bad name."""
        (name, version), path = split(release), target_path(release)
        if self._client is None:
            self.refresh()
        assert self._client is not None
        info = self._client.target(path)
        if info is None:
            raise TrustError(
                release,
                f"the repository offers no target {path}: withdrawn, or never published",
                "a release that the current metadata names",
                "install another release; to leave one that runs here: edge-agent rollback",
            )
        digest, custom = info.hashes.get("sha256", ""), info.unrecognized_fields.get("custom", {})
        if not SHA256.fullmatch(digest):
            raise TrustError(release, f"digests {sorted(info.hashes)}", "a sha256 among them", "publish it again")
        if not isinstance(custom, dict) or custom.get("version", version) != version:
            raise TrustError(release, f"custom data {str(custom)[:200]}", f"version {version}", "publish it again")
        self._found[digest] = info
        return Offer(release, name, version, path, info.length, digest, custom)

    def download(self, offer: Offer, progress: Progress | None = None) -> Path:
        """The archive, verified and flushed, in `layout.incoming`; goes on where an earlier call broke off.

        `progress(bytes, of)` after each chunk. Raises StorageError before the first request where it has no room.
        """
        assert self._client is not None, "call `find` first"
        info, incoming = self._found[offer.sha256], self.layout.incoming
        durable.make_directory(incoming)
        archive, partial = incoming / f"{offer.release}.tar.zst", PartialFile(info, incoming)
        partial.remove_others()
        have = max((path.stat().st_size for path in (archive, partial.path) if path.is_file()), default=0)
        free, needed = space.free_bytes(incoming), max(0, offer.length - have)
        reserve = int(self.config.install.reserve_mb * 1e6)
        space.require_space(
            incoming,
            free,
            needed + reserve if needed else 0,
            found=f"{free} bytes free",
            expected=f"{needed} for {offer.release} and {reserve} that stay free (`install.reserve_mb`)",
            remedy="edge-agent prune, or make room",
        )
        return self._client.download(info, partial, archive, progress)


def _time(text: str | None, where: Path) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(
            f"{where}: trusted_time", repr(text), "an ISO 8601 time", "correct it to the last time that was right"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)
