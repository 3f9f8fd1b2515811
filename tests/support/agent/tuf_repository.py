"""A repository of releases on disk, built with python-tuf's Metadata API, which can also be corrupted on purpose.

`metadata/` and `targets/` are as on a server: consistent snapshots, a threshold of 2 of 3 for root and 1 of 1 for the
other roles.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from edge_agent.core import fault_points
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config, Install, Paths, Source
from edge_agent.update.trust import Repository
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Key,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

CONTENT = b"an archive's bytes " * 5000
RELEASE = "digits@1.2.0"


@cache
def _key(number: int) -> CryptoSigner:
    """Generate each key once per process, which takes longer than the remaining repository."""
    return CryptoSigner.generate_ed25519()


class TufRepository:
    """A repository. `signed` is the next version of each role, `signers` are its keys; `write` publishes one role."""

    def __init__(self, folder: Path, days: float = 30) -> None:
        self.folder, self.metadata, self.targets = folder, folder / "metadata", folder / "targets"
        self._keys = 0
        expires = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
        self.root = Root(version=1, expires=expires + timedelta(days=335), consistent_snapshot=True)
        self.signed: dict[str, Signed] = {
            "root": self.root,
            "timestamp": Timestamp(version=1, expires=expires),
            "snapshot": Snapshot(version=1, expires=expires),
            "targets": Targets(version=1, expires=expires),
        }
        self.signers = {role: self.new_keys(3 if role == "root" else 1) for role in self.signed}
        for role, signers in self.signers.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
        self.root.roles["root"].threshold = 2
        self.metadata.mkdir(parents=True)
        self.targets.mkdir()
        for role in ("root", "targets", "snapshot", "timestamp"):
            self.write(role)
        self.root_file = self.metadata / "1.root.json"

    def new_keys(self, number: int) -> list[CryptoSigner]:
        self._keys += number
        return [_key(place) for place in range(self._keys - number, self._keys)]

    def config(self, state: Path, url: str | None = None, **source: Any) -> Config:
        """Return a configuration with this state directory, which downloads from `url`, or from the folder itself."""
        base = url or self.folder.as_uri()
        settings = {"attempts": 3, "backoff_s": 0.01, "timeout_s": 2.0, **source}
        return Config(
            paths=Paths(state=str(state), run=str(state / "run"), root=str(self.root_file)),
            source=Source(metadata_url=f"{base}/metadata", targets_url=f"{base}/targets", **settings),
            install=Install(reserve_mb=0.0),
        )

    # --- what a publisher does

    def publish(self, release: str, archive: Path | bytes = CONTENT, custom: Mapping[str, Any] | None = None) -> str:
        """List `release` with this archive, store the archive, and return its target path."""
        name, _, version = release.partition("@")
        path = f"{name}/{version}/{name}.tar.zst"
        content = archive if isinstance(archive, bytes) else archive.read_bytes()
        target = TargetFile.from_data(path, content, ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom or {"version": version, "commit": "0" * 40})
        self._targets.targets[path] = target
        file = self.target_file(release)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.release()
        return path

    def withdraw(self, release: str) -> None:
        """Delist `release`; the archive may stay."""
        name, _, version = release.partition("@")
        del self._targets.targets[f"{name}/{version}/{name}.tar.zst"]
        self.release()

    def release(self) -> None:
        """Publish a new version of targets, snapshot and timestamp."""
        for role in ("targets", "snapshot", "timestamp"):
            self.signed[role].version += 1
            self.write(role)

    def renew(self, role: str = "timestamp", days: float = 30) -> None:
        """Publish a new version of `role`, and of the roles that refer to it, which expires after `days`."""
        expires = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
        self.signed[role].expires = expires
        if role == "root":
            self.rotate("root", keys=False)
        else:
            self.release()

    def rotate(self, role: str, keys: bool = True, signers: Iterable[CryptoSigner] | None = None) -> None:
        """Publish a new root with new keys for `role`, signed by the old and the new keys of root, or by `signers`."""
        old = list(self.signers["root"])
        if keys:
            for signer in self.signers[role]:
                self.root.revoke_key(signer.public_key.keyid, role)
            self.signers[role] = self.new_keys(len(self.signers[role]))
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        self.root.version += 1
        both = {signer.public_key.keyid: signer for signer in [*old, *self.signers["root"]]}
        self.write("root", both.values() if signers is None else signers)

    # --- the files

    def write(self, role: str, signers: Iterable[CryptoSigner] | None = None) -> Path:
        """Sign and write the next version of a role, and update the role that refers to it."""
        signed = self.signed[role]
        metadata: Metadata[Any] = Metadata(signed)
        for signer in self.signers[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        content = metadata.to_bytes(JSONSerializer(compact=True))
        file = self.metadata / ("timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json")
        file.write_bytes(content)
        meta = MetaFile.from_data(signed.version, content, ["sha256"])
        if role == "targets":
            self._snapshot.meta["targets.json"] = meta
        if role == "snapshot":
            self._timestamp.snapshot_meta = meta
        return file

    def target_file(self, release: str) -> Path:
        """Return the path of the archive of a listed release; its name starts with its digest."""
        name, _, version = release.partition("@")
        digest = self._targets.targets[f"{name}/{version}/{name}.tar.zst"].hashes["sha256"]
        return self.targets / name / version / f"{digest}.{name}.tar.zst"

    def copy(self, folder: Path) -> Path:
        """Copy the present files, for a later replay, and return the copy."""
        return Path(shutil.copytree(self.folder, folder))

    def restore(self, folder: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(folder, self.folder)

    @property
    def keys(self) -> dict[str, Key]:
        return self.root.keys

    @property
    def _targets(self) -> Targets:
        assert isinstance(self.signed["targets"], Targets)
        return self.signed["targets"]

    @property
    def _snapshot(self) -> Snapshot:
        assert isinstance(self.signed["snapshot"], Snapshot)
        return self.signed["snapshot"]

    @property
    def _timestamp(self) -> Timestamp:
        assert isinstance(self.signed["timestamp"], Timestamp)
        return self.signed["timestamp"]


def one_release(tmp_path: Path) -> TufRepository:
    """Return a repository with `RELEASE`, whose archive is `CONTENT`."""
    repository = TufRepository(tmp_path / "repository")
    repository.publish(RELEASE)
    return repository


def fetched(config: Config, release: str = RELEASE) -> bytes:
    """Refresh, find and download; return the content."""
    repository = Repository(config, State())
    repository.refresh()
    return repository.download(repository.find(release)).read_bytes()


_DEVICE = """
import json, sys
from edge_agent.core import config, agent_state
from edge_agent.update import trust
repository = trust.Repository(config.parse(json.loads(sys.argv[1])), agent_state.State())
repository.refresh()
print(repository.download(repository.find(sys.argv[2])))
"""


def fetch_in_process(config: Config, release: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Refresh, find and download in a separate process, which a fault point (edge_agent.core.fault_points) may kill."""
    environment = {name: value for name, value in os.environ.items() if name != fault_points.VARIABLE}
    if fault:
        environment[fault_points.VARIABLE] = fault
    command = [sys.executable, "-c", _DEVICE, json.dumps(asdict(config)), release]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
