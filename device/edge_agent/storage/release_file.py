"""Write and read release.json of a slot: the repository's description of the release, and digests that reveal damage.

The digests reveal only accidental damage. A process that may write to the slot can change the digests too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.update.offer import Offer

NAME = "release.json"


@dataclass(frozen=True)
class ReleaseRecord:
    """The content of release.json that the agent uses.

    Attributes:
        release: The release, as NAME@VERSION.
        sha256: SHA-256 digest of the archive that was installed, in hexadecimal digits.
        manifest_sha256: SHA-256 digest of the manifest that was installed, in hexadecimal digits.
        custom: Version, commit, publication time and builder of the release, from the repository's metadata.
    """

    release: str
    sha256: str
    manifest_sha256: str
    custom: dict[str, Any]


def write(slot: Path, offer: Offer, manifest_sha256: str) -> None:
    """Write release.json into a slot, without flushing the file to the disk.

    Args:
        slot: The folder of the slot.
        offer: The release as the repository offers it.
        manifest_sha256: SHA-256 digest of the manifest in the slot, in hexadecimal digits.
    """
    value = {
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
    value["own_sha256"] = _digest(value)
    (slot / NAME).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(slot: Path) -> ReleaseRecord:
    """Read release.json of an installed release, and check it against the digest that it contains.

    Raises OSError if the file cannot be read, and ValueError, KeyError, TypeError or AttributeError if it is damaged.
    """
    value: dict[str, Any] = json.loads((slot / NAME).read_text(encoding="utf-8"))
    if value.pop("own_sha256") != _digest(value):
        raise ValueError(f"{NAME} has changed since it was written")
    return ReleaseRecord(value["release"], value["sha256"], value["manifest_sha256"], value["custom"])


def _digest(value: dict[str, Any]) -> str:
    """Return the SHA-256 digest of `value`, the content of release.json without the field `own_sha256`."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
