"""release.json of a slot: what the repository said of the release, and the digests that show damage.

Against damage only: whoever may write here may write all of it.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.update.offer import Offer

NAME = "release.json"


def write(slot: Path, offer: Offer, manifest_sha256: str) -> None:
    """Write what is to be kept of an offer that is unpacked in `slot`. Not flushed."""
    release = {
        "schema_version": 1,
        "release": offer.release,
        "name": offer.name,
        "version": offer.version,
        "sha256": offer.sha256,
        "length": offer.length,
        "custom": offer.custom,
        "installed_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "manifest_sha256": manifest_sha256,
    }
    release["own_sha256"] = _digest(release)
    (slot / NAME).write_text(json.dumps(release, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(slot: Path) -> dict[str, Any]:
    """What the repository said of an installed release, and when it was installed. Raises OSError, ValueError."""
    value: dict[str, Any] = json.loads((slot / NAME).read_text(encoding="utf-8"))
    return value


def verify(release: dict[str, Any]) -> None:
    """Check what `read` gave against its own digest, which is taken out of it.

    Raises ValueError where it has changed since `write`; KeyError, TypeError, AttributeError where it was never that.
    """
    if release.pop("own_sha256") != _digest(release):
        raise ValueError(f"{NAME} has changed since it was written")


def _digest(release: dict[str, Any]) -> str:
    """Of the content without this digest."""
    return sha256(json.dumps(release, sort_keys=True).encode()).hexdigest()
