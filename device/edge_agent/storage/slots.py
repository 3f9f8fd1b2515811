"""Installed releases: one folder each, complete or not there.

A slot is filled beside its place, verified, flushed to the disk, and renamed into place; it is renamed away before it
is removed. So a folder without a leading dot is always a whole release, whenever the power went. Callers hold
`state.locked`. What is current is not decided here: nothing in this module changes the state.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.core import durable
from edge_agent.core.config import Config
from edge_agent.core.errors import NoReleaseError, TrustError
from edge_agent.core.fault_points import point
from edge_agent.core.layout import Layout
from edge_agent.core.release import parse_release, precedence
from edge_agent.core.space import free_bytes
from edge_agent.core.state import State
from edge_agent.storage import archive as archives
from edge_agent.storage import manifest, release_file, target_selection
from edge_agent.update.offer import Offer

MB = 1_000_000


def install(config: Config, offer: Offer, archive: Path) -> dict[str, Any]:
    """Put the offered release, whose verified archive is `archive`, into its slot; its manifest.

    Installed already: nothing to do. There but damaged: replaced, whole; a model that runs from it keeps its files.
    What is refused, or fails, leaves nothing. Raises FitError, TrustError, StorageError, OSError.
    """
    layout = config.layout
    recover(layout)
    durable.make_directory(layout.releases)
    there = find(layout, offer)
    if there is not None:
        return there
    limit = int(config.install.limit_mb * MB)
    contents, described = _inspected(archive, offer, limit)
    free = free_bytes(layout.releases)
    target_selection.select_target(config, described, free - contents.disk_bytes)
    target_selection.require_space(config, offer.release, free, contents.disk_bytes)
    partial = layout.partial(offer.release)
    try:
        point("install.before_unpack")
        archives.unpack(archive, partial / "bundle", limit)
        try:
            manifest.verify(partial / "bundle", described)
        except manifest.ManifestError as error:
            raise _refused(error, described["name"]) from None
        release_file.write(partial, offer, sha256(contents.member).hexdigest())
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
    return described


def find(layout: Layout, offer: Offer) -> dict[str, Any] | None:
    """The manifest of the offered release where it is installed and whole; None where it has to be installed.

    Raises TrustError where the slot holds, whole, something else that was released under the same version.
    """
    try:
        described = verify(layout, offer.release)
    except (NoReleaseError, TrustError):
        return None
    installed = release_file.read(layout.slot(offer.release))["sha256"]
    if installed != offer.sha256:
        raise TrustError(
            offer.release,
            f"the repository offers sha256 {offer.sha256}, installed is {installed}",
            "one content for one version, for ever",
            "publish the new content under a new version",
        )
    durable.sync_directory(layout.releases)  # the run that renamed it may have ended before it did this
    return described


def verify(layout: Layout, release: str) -> dict[str, Any]:
    """The manifest of an installed release, every file of which is there to the byte.

    Raises NoReleaseError where it is not installed, TrustError where it is damaged.
    """
    slot = layout.slot(release)
    if parse_release(release) is None or not slot.is_dir():
        there = ", ".join(installed(layout)) or "none"
        raise NoReleaseError(release, "not installed", f"one of: {there}", f"edge-agent install {release}")
    try:
        told = release_file.read(slot)
        content = (slot / "bundle" / manifest.MANIFEST).read_bytes()
        release_file.verify(told)
        if told["release"] != release or sha256(content).hexdigest() != told["manifest_sha256"]:
            raise ValueError(f"{manifest.MANIFEST} or {release_file.NAME} has changed since it was installed")
        described = manifest.read(slot / "bundle")
        manifest.verify(slot / "bundle", described)
    except (manifest.ManifestError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise TrustError(
            str(slot), f"damaged ({error})", "what was installed, to the byte", f"edge-agent install {release}"
        ) from None
    return described


def installed(layout: Layout) -> list[str]:
    """The releases that have a slot, oldest version first."""
    if not layout.releases.is_dir():
        return []
    return sorted((p.name for p in layout.releases.iterdir() if parse_release(p.name) and p.is_dir()), key=precedence)


def remove(layout: Layout, release: str) -> None:
    """Remove a slot. Raises NoReleaseError, OSError."""
    if parse_release(release) is None or not layout.slot(release).is_dir():
        raise NoReleaseError(release, "not installed", "an installed release", "see edge-agent status")
    point("prune.before_remove")
    _set_aside(layout, release)
    durable.sync_directory(layout.releases)
    recover(layout)
    point("prune.after_remove")


def prune(config: Config, state: State, keep: int | None = None) -> list[str]:
    """Remove slots that nothing needs; which ones. Stays: the current, the previous and the tried release, and of the
    others the `keep` (configuration: install.keep) of the highest versions.
    """
    recover(config.layout)
    needed = {state.current, state.previous, state.trial.release if state.trial else None}
    others = [release for release in installed(config.layout) if release not in needed]
    kept = config.install.keep if keep is None else keep
    removed = others[: max(len(others) - kept, 0)]
    for release in removed:
        remove(config.layout, release)
    return removed


def recover(layout: Layout) -> list[str]:
    """Drop what an interrupted run left: slots that were being filled or removed; their names."""
    if not layout.releases.is_dir():
        return []
    left = [path for path in layout.releases.iterdir() if path.name.startswith(".")]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return sorted(path.name for path in left)


def _set_aside(layout: Layout, release: str) -> None:
    """Give a slot a name that `recover` drops."""
    aside = layout.releases / f".{release}.removed"
    if aside.exists():
        shutil.rmtree(aside)
    layout.slot(release).rename(aside)


def _inspected(archive: Path, offer: Offer, limit: int) -> tuple[archives.Inspection, dict[str, Any]]:
    """What the archive holds, and its manifest, which must be that of the offered release. Raises TrustError."""
    contents = archives.inspect(archive, manifest.MANIFEST, limit)
    try:
        described = manifest.check(json.loads(contents.member))
    except ValueError as error:
        raise TrustError(f"{offer.release}: {manifest.MANIFEST}", f"no JSON ({error})", "JSON in UTF-8") from None
    except manifest.ManifestError as error:
        raise _refused(error, offer.release) from None
    if parse_release(offer.release) is None or offer.release != f"{described['name']}@{offer.version}":
        raise TrustError(
            f"{offer.release}: {manifest.MANIFEST}: name",
            f"found {described['name']!r}",
            f"the name of the release, NAME@VERSION: {offer.release}",
            "publish the bundle under its own name",
        )
    return contents, described


def _refused(error: manifest.ManifestError, release: str) -> TrustError:
    where = ": ".join(part for part in (release, Path(error.file).name, error.field) if part)
    return TrustError(where, f"found {error.found}", error.expected, "build and publish the bundle again")
