"""Slots: one folder for each completely installed release.

A slot is filled under a temporary name, verified, flushed to the disk, and renamed. Before a slot is removed, it gets a
temporary name again. So a folder without a leading dot is always a complete release, even after a power cut. The caller
holds `state.locked`. This module does not decide which release is current, and does not change the state.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.core import durable
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, FitError, NoReleaseError, TrustError
from edge_agent.core.fault_points import point
from edge_agent.core.layout import Layout
from edge_agent.core.release import parse_release, precedence
from edge_agent.core.space import free_bytes
from edge_agent.storage import archive as archives
from edge_agent.storage import manifest as manifests
from edge_agent.storage import release_file, target_selection
from edge_agent.update.offer import Offer

MB = 1_000_000


def install(config: Config, offer: Offer, archive: Path) -> dict[str, Any]:
    """Unpack the archive of an offered release into its slot, and return the manifest.

    If the release has an undamaged slot, the slot is not changed. A damaged slot is replaced; a running model that was
    loaded from this slot keeps its open files. If the release is refused or the installation fails, no part of the
    release remains on the disk.

    Args:
        config: The configuration.
        offer: The release as the repository offers it.
        archive: The release's archive, which the update client has verified.

    Raises:
        FitError: The release does not fit this device.
        TrustError: The archive is not a bundle, or different content is installed under the same version.
        StorageError: The release does not fit on the disk.
        OSError: The disk fails.
    """
    layout = config.layout
    recover(layout)
    durable.make_directory(layout.releases)
    installed_manifest = find(layout, offer)
    if installed_manifest is not None:
        return installed_manifest
    limit = int(config.install.limit_mb * MB)
    inspection, manifest = _inspect(archive, offer, limit)
    free = free_bytes(layout.releases)
    target_selection.select_target(config, manifest, free - inspection.disk_bytes)
    target_selection.require_space(config, offer.release, free, inspection.disk_bytes)
    partial = layout.partial(offer.release)
    try:
        point("install.before_unpack")
        archives.unpack(archive, partial / "bundle", limit)
        try:
            manifests.verify(partial / "bundle", manifest)
        except manifests.ManifestError as error:
            raise _refused(error, manifest["name"]) from None
        release_file.write(partial, offer, sha256(inspection.member).hexdigest())
        point("install.before_files_fsync")
        durable.sync_tree(partial)
        point("install.after_files_fsync")
        point("install.before_rename")
        if layout.slot(offer.release).exists():
            _set_aside(layout, offer.release)
            point("install.set_aside")
        partial.rename(layout.slot(offer.release))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    point("install.after_rename")
    durable.sync_directory(layout.releases)
    point("install.after_directory_fsync")
    recover(layout)
    return manifest


def find(layout: Layout, offer: Offer) -> dict[str, Any] | None:
    """Return the manifest of the offered release, or None if the release is not installed or its slot is damaged.

    Raises TrustError if different content is installed under the same version.
    """
    try:
        manifest = verify(layout, offer.release)
    except (NoReleaseError, TrustError):
        return None
    installed_sha256 = release_file.read(layout.slot(offer.release)).sha256
    if installed_sha256 != offer.sha256:
        raise TrustError(
            offer.release,
            f"the repository offers sha256 {offer.sha256}, but {installed_sha256} is installed",
            "the same content for the same version",
            "publish the new content under a new version",
        )
    durable.sync_directory(layout.releases)  # an interrupted installation may have omitted this flush
    return manifest


def verify(layout: Layout, release: str) -> dict[str, Any]:
    """Check every byte of an installed release, and return its manifest.

    Raises NoReleaseError if the release is not installed, and TrustError if its slot is damaged.
    """
    slot = layout.slot(release)
    if parse_release(release) is None or not slot.is_dir():
        others = ", ".join(installed(layout)) or "none"
        raise NoReleaseError(release, "not installed", f"one of: {others}", f"edge-agent install {release}")
    try:
        content = (slot / "bundle" / manifests.MANIFEST).read_bytes()
        record = release_file.read(slot)
        if record.release != release or sha256(content).hexdigest() != record.manifest_sha256:
            raise ValueError(f"{manifests.MANIFEST} or {release_file.NAME} has changed since the installation")
        manifest = manifests.read(slot / "bundle")
        manifests.verify(slot / "bundle", manifest)
    except (manifests.ManifestError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise TrustError(
            str(slot), f"damaged ({error})", "files that are as they were installed", f"edge-agent install {release}"
        ) from None
    return manifest


def installed(layout: Layout) -> list[str]:
    """Return the installed releases, the lowest version first."""
    if not layout.releases.is_dir():
        return []
    return sorted((p.name for p in layout.releases.iterdir() if parse_release(p.name) and p.is_dir()), key=precedence)


def remove(layout: Layout, release: str) -> None:
    """Remove the slot of a release. Raises NoReleaseError, OSError."""
    if parse_release(release) is None or not layout.slot(release).is_dir():
        raise NoReleaseError(release, "not installed", "an installed release", "see: edge-agent status")
    point("prune.before_remove")
    _set_aside(layout, release)
    durable.sync_directory(layout.releases)
    recover(layout)
    point("prune.after_remove")


def prune(config: Config, state: State, keep: int | None = None) -> list[str]:
    """Remove all unused slots except the `keep` slots with the highest versions, and return the removed releases.

    Args:
        config: The configuration.
        state: The agent's state. The slots of its current, previous and trial releases are in use.
        keep: Number of unused slots to keep; None means `install.keep` of the configuration.

    Raises:
        OSError: A slot cannot be removed.
    """
    recover(config.layout)
    used = {state.current, state.previous, state.trial.release if state.trial else None}
    unused = [release for release in installed(config.layout) if release not in used]
    kept = config.install.keep if keep is None else keep
    removed = unused[: max(len(unused) - kept, 0)]
    for release in removed:
        remove(config.layout, release)
    return removed


def recover(layout: Layout) -> list[str]:
    """Remove the temporary folders that an interrupted command left, and return their names."""
    if not layout.releases.is_dir():
        return []
    temporary = [path for path in layout.releases.iterdir() if path.name.startswith(".")]
    for path in temporary:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return sorted(path.name for path in temporary)


def _set_aside(layout: Layout, release: str) -> None:
    """Rename a slot to a temporary name, so that `recover` removes it."""
    aside = layout.releases / f".{release}.removed"
    if aside.exists():
        shutil.rmtree(aside)
    layout.slot(release).rename(aside)


def _inspect(archive: Path, offer: Offer, limit: int) -> tuple[archives.Inspection, dict[str, Any]]:
    """Inspect the archive of an offered release, and check that its manifest names this release.

    Returns the inspection and the manifest. Raises TrustError.
    """
    inspection = archives.inspect(archive, manifests.MANIFEST, limit)
    try:
        manifest = manifests.check(json.loads(inspection.member))
    except ValueError as error:
        raise TrustError(f"{offer.release}: {manifests.MANIFEST}", f"not JSON ({error})", "JSON in UTF-8") from None
    except manifests.ManifestError as error:
        raise _refused(error, offer.release) from None
    if parse_release(offer.release) is None or offer.release != f"{manifest['name']}@{offer.version}":
        raise TrustError(
            f"{offer.release}: {manifests.MANIFEST}: name",
            f"found {manifest['name']!r}",
            f"the name in the release {offer.release}",
            "publish the bundle again, under the name in its manifest",
        )
    return inspection, manifest


def _refused(error: manifests.ManifestError, release: str) -> AgentError:
    where = ": ".join(part for part in (release, Path(error.file).name, error.field) if part)
    if isinstance(error, manifests.UnknownVersionError):
        needed = f"version {error.agent_version} or newer" if error.agent_version else "a newer version"
        return FitError(where, f"found {error.found}", error.expected, f"install {needed} of the agent on this device")
    return TrustError(where, f"found {error.found}", error.expected, "build and publish the bundle again")
