"""Real releases in a real repository, built quickly.

releases = Releases(tmp_path)
releases.publish("pump@1.0.0")
device = Device(tmp_path / "device", releases.repository)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.lifecycle import operations
from edge_agent.update.offer import Offer

from stages.core.files import sha256
from tests.support.agent.bundles import Bundle, bundle
from tests.support.agent.cli import Device
from tests.support.agent.tuf_repository import TufRepository

OLD, NEW = "pump@1.0.0", "pump@1.1.0"


class Releases:
    """A repository below `folder`, and the bundles that were published there, by release."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = TufRepository(folder / "repository")
        self.bundles: dict[str, Bundle] = {}

    def publish(self, release: str, **changes: Any) -> Bundle:
        """Build a bundle (see `bundle`) and publish it. Its weights differ from those of earlier releases."""
        name, _, _ = release.partition("@")
        changes = {"name": name, "seed": len(self.bundles) + 1, **changes}
        built = bundle(self.folder / "built" / release, **changes)
        self.repository.publish(release, built.archive)
        self.bundles[release] = built
        return built

    def offer(self, release: str, **changes: Any) -> Offer:
        """Return the offer for a published release, without a client."""
        name, _, version = release.partition("@")
        content = self.bundles[release].archive
        fields = {
            "release": release,
            "name": name,
            "version": version,
            "path": f"{name}/{version}/{name}.tar.zst",
            "length": content.stat().st_size,
            "sha256": sha256(content),
            "custom": {"version": version, "commit": "0" * 40},
        }
        return Offer(**{**fields, **changes})


def two_releases(tmp_path: Path) -> Releases:
    """Publish `OLD` and `NEW`."""
    releases = Releases(tmp_path)
    releases.publish(OLD)
    releases.publish(NEW)
    return releases


def bare_device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    """Yield a device of that repository, with nothing installed."""
    device = Device(tmp_path / "device", releases.repository)
    yield device
    device.remove()


@contextmanager
def confirmed_device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    """Yield a device of that repository, on which `OLD` is confirmed."""
    device = Device(tmp_path / "device", releases.repository)
    operations.deploy(device.config, OLD, selftest=False)
    operations.confirm(device.config, force=True)
    yield device
    device.remove()
