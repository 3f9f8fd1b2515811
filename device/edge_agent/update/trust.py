"""Find and download releases. A release may be installed only if the current metadata of the repository lists it.

The rules for metadata are in section 5 of the specification of The Update Framework (TUF), version 1.0. python-tuf
implements the rules and checks the signatures (tufclient.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from tuf.api.metadata import TargetFile

from edge_agent import RELEASED
from edge_agent.core import durable, space
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import ConfigurationError, NoReleaseError, StorageError, TrustError
from edge_agent.core.release import EXPECTED, LONGEST, parse_release
from edge_agent.update.fetch import Fetcher, Progress
from edge_agent.update.offer import Offer
from edge_agent.update.partial_download import PartialFile
from edge_agent.update.tufclient import Client

SHA256 = re.compile(r"[0-9a-f]{64}")


def split_release(release: str) -> tuple[str, str]:
    """Return the name and the version of a release. Raises NoReleaseError if `release` is not NAME@VERSION."""
    match = parse_release(release)
    if match is None:
        raise NoReleaseError(
            f"release {release[:LONGEST]!r}",
            "not the name of a release",
            EXPECTED,
            "name a release that was published",
        )
    return match["name"], match["version"]


def target_path(release: str) -> str:
    """Return the path of a release's archive in the repository's list of targets. Raises NoReleaseError."""
    name, version = split_release(release)
    return f"{name}/{version}/{name}.tar.zst"


class Repository:
    """The repository of releases that the configuration names (`source`).

    All methods raise TrustError, SourceError, ConfigurationError and OSError. After an error, the installed releases
    are unchanged. The trusted metadata is unchanged too, except for metadata that was verified before the error. The
    caller holds `layout.install_lock`.
    """

    def __init__(self, config: Config, state: State, verified: Callable[[datetime], None] | None = None) -> None:
        """Prepare the access to the repository; nothing is downloaded yet.

        Args:
            config: The configuration.
            state: The state of the agent. Its `trusted_time` is used if the device's clock shows an earlier time.
            verified: A function that is called after each successful refresh with the result of `refresh`, or None.
        """
        self.config, self.layout = config, config.layout
        # A new device has verified nothing yet. It knows only that its agent was released before the present time.
        earliest = datetime.fromisoformat(RELEASED[1].replace("Z", "+00:00")), "when this agent was released"
        trusted = _parse_time(state.trusted_time, self.layout.state_file)
        if trusted is not None and trusted >= earliest[0]:
            earliest = trusted, "when metadata was last verified here"
        self._earliest, self._verified = earliest, verified
        self._client: Client | None = None  # the client of the last successful refresh
        self._targets: dict[str, TargetFile] = {}

    def refresh(self) -> datetime:
        """Update the trusted metadata, and return the time at which the metadata was verified to be valid.

        The agent stores this time as `State.trusted_time`. A failed refresh raises an error and returns no time. If it
        returned a time, a clock that is far ahead could advance the trusted time, and the device would then refuse all
        metadata.
        """
        durable.make_directory(self.layout.state)
        self._client = None
        fetcher = Fetcher(self.config.source)
        client = Client(self.layout.tuf, Path(self.config.paths.root), fetcher, *self._earliest)
        reference = client.refresh()
        if self._verified:
            self._verified(reference)
        self._client = client
        return reference

    def find(self, release: str) -> Offer:
        """Return the repository's description of a release. Refresh the metadata first if this has not been done yet.

        Raises TrustError if the metadata does not list the release, and NoReleaseError if the name is invalid.
        """
        (name, version), path = split_release(release), target_path(release)
        if self._client is None:
            self.refresh()
        assert self._client is not None
        info = self._client.target(path)
        if info is None:
            raise TrustError(
                release,
                f"the repository offers no target {path}: withdrawn, or never published",
                "a release that the current metadata lists",
                "install another release; if this one runs here, stop using it: edge-agent rollback",
            )
        digest, custom = info.hashes.get("sha256", ""), info.unrecognized_fields.get("custom", {})
        if not SHA256.fullmatch(digest):
            raise TrustError(
                release, f"digests {sorted(info.hashes)}", "digests that include a sha256", "publish the release again"
            )
        if not isinstance(custom, dict) or custom.get("version", version) != version:
            raise TrustError(
                release, f"custom data {str(custom)[:200]}", f"version {version}", "publish the release again"
            )
        self._targets[digest] = info
        return Offer(release, name, version, path, info.length, digest, custom)

    def download(self, offer: Offer, progress: Progress | None = None) -> Path:
        """Download a release's archive into `layout.incoming`, verify it, flush it to the disk, and return its path.

        An interrupted download is resumed. After each chunk, `progress` is called with the number of downloaded bytes
        and the total number. Raises StorageError before the first request if the archive does not fit on the disk.
        """
        assert self._client is not None, "call `find` first"
        info, incoming = self._targets[offer.sha256], self.layout.incoming
        durable.make_directory(incoming)
        archive, partial = incoming / f"{offer.release}.tar.zst", PartialFile(info, incoming)
        partial.remove_others()
        have = max((path.stat().st_size for path in (archive, partial.path) if path.is_file()), default=0)
        free, needed = space.free_bytes(incoming), max(0, offer.length - have)
        reserve = int(self.config.install.reserve_mb * 1e6)
        error = StorageError(
            str(incoming),
            f"{free} bytes free",
            f"{needed} bytes for {offer.release} and {reserve} to stay free (`install.reserve_mb`)",
            "run edge-agent prune, or free other space",
        )
        space.require_space(free, needed + reserve if needed else 0, error)
        return self._client.download(info, partial, archive, progress)


def _parse_time(text: str | None, where: Path) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(
            f"{where}: trusted_time", repr(text), "a time in ISO 8601", "set it to the last correct time"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
