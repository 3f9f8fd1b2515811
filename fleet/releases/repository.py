"""The repository of releases on disk: The Update Framework's four roles, signed and written with python-tuf.

    metadata/  N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    targets/   NAME/VERSION/SHA256.NAME.tar.zst, and the builder's signature beside it

Specification 1.0, consistent snapshots (6.2). What clients read first is written last, each file whole: between any two
writes a client finds a repository that it accepts. What a killed run left unreferenced is written over by the next.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.core import durable
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
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

from fleet.errors import ConfigurationError, KeysError, StorageError, TrustError
from fleet.releases.keys import Keys

ROLES = ("root", "targets", "snapshot", "timestamp")
DAYS: Mapping[str, float] = {"root": 365, "targets": 90, "snapshot": 14, "timestamp": 3}
ROOT_KEYS, ROOT_THRESHOLD = 3, 2
DEVELOPMENT = "x-development"
CHUNK = 1 << 20
# Called with every file that was written, in the order in which clients may see them, and with a progress or none.
Mirror = Callable[[Path, "Progress | None"], None]
# Brings the file of a target that is not here.
Fetch = Callable[[Path], None]
Progress = Callable[[int, int], None]
T = TypeVar("T", bound=Signed)


def exists(folder: Path) -> bool:
    return (folder / "metadata" / "1.root.json").is_file()


class Repository:
    """The repository in `folder` as its timestamp says that it is now. The caller holds the lock to change it.

    `days`: how long what is signed now is good for, by role. `development`: its keys are for trials alone. `mirror`,
    `fetch`: see above. `content`: the bytes of each file of metadata that was read or written, by name: one state of
    it, whatever another process signs meanwhile.
    Raises ConfigurationError, TrustError, KeysError, OSError.
    """

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        days: Mapping[str, float] = DAYS,
        mirror: Mirror | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.folder, self.keys, self.days, self.mirror, self.fetch = folder, keys, {**DAYS, **days}, mirror, fetch
        self.metadata, self.targets_folder = folder / "metadata", folder / "targets"
        self.content: dict[str, bytes] = {}
        if not exists(folder):
            raise ConfigurationError(
                str(folder), "no repository of releases", "metadata/1.root.json", "make one: fleet keys init"
            )
        self.root = self._read("root", f"{self._newest_root()}.root.json", Root)
        self.development = self.root.unrecognized_fields.get(DEVELOPMENT) is True
        self.timestamp = self._read("timestamp", "timestamp.json", Timestamp)
        self.snapshot = self._read("snapshot", f"{self.timestamp.snapshot_meta.version}.snapshot.json", Snapshot)
        self.targets = self._read("targets", f"{self.snapshot.meta['targets.json'].version}.targets.json", Targets)

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: Keys,
        development: bool = False,
        days: Mapping[str, float] = DAYS,
        mirror: Mirror | None = None,
    ) -> Repository:
        """New keys, first versions. The root is written last: without it there is no repository yet."""
        made = cls.__new__(cls)
        made.folder, made.keys, made.days, made.mirror, made.fetch = folder, keys, {**DAYS, **days}, mirror, None
        made.metadata, made.targets_folder, made.content = folder / "metadata", folder / "targets", {}
        durable.make_directory(made.metadata)
        durable.make_directory(made.targets_folder)
        made.root = Root(consistent_snapshot=True)
        made.development = development
        if development:
            made.root.unrecognized_fields[DEVELOPMENT] = True
        for role in ROLES:
            for _ in range(ROOT_KEYS if role == "root" else 1):
                made.root.add_key(keys.make(role), role)
        made.root.roles["root"].threshold = ROOT_THRESHOLD
        made.targets, made.snapshot, made.timestamp = Targets(), Snapshot(), Timestamp()
        for role in ROLES:
            made.role(role).version = 0  # the first one that is written is 1
        made.write(*ROLES[1:])
        made.write_root(made.root)
        return made

    def role(self, name: str) -> Signed:
        signed: Signed = getattr(self, name)
        return signed

    # --- targets

    def add(self, path: str, file: Path, custom: Mapping[str, Any], progress: Progress | None = None) -> TargetFile:
        """Copy `file` to where its digest belongs and list it; nobody sees it before `write`."""
        target = TargetFile.from_file(path, str(file), ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        self.copy_content(target, file, progress)
        self.targets.targets[path] = target
        return target

    def copy_content(self, target: TargetFile, file: Path, progress: Progress | None = None) -> None:
        """Copy a target's content to where clients fetch it, unless it is there."""
        place = self.local_file(target)
        durable.make_directory(place.parent)
        _copy(file, place, None if self.mirror else progress)
        if self.mirror:
            self.mirror(place, progress)

    def local_file(self, target: TargetFile) -> Path:
        parent, _, name = target.path.rpartition("/")
        return self.targets_folder / parent / f"{target.hashes['sha256']}.{name}"

    def remove_unlisted(self, path: str) -> None:
        """Remove what lies beside a listed target and is listed nowhere: a killed run's copies."""
        parent = path.rpartition("/")[0]
        listed = {self.local_file(each) for each in self.targets.targets.values() if each.path.startswith(f"{parent}/")}
        for file in sorted((self.targets_folder / parent).iterdir()):
            if file not in listed:
                file.unlink()

    # --- signing and writing

    def signers(self, role: str, root: Root | None = None) -> list[CryptoSigner]:
        """Who can sign for a role here; at least its threshold. Raises KeysError."""
        known = root or self.root
        said = known.roles[role]
        return self.keys.signers(role, {keyid: _ours(known.keys[keyid]) for keyid in said.keyids}, said.threshold)

    def write(self, *roles: str) -> None:
        """The next version of each of these roles, in the order targets, snapshot, timestamp."""
        signers = {role: self.signers(role) for role in roles}  # a passphrase that is wrong stops it before it begins
        for role in ROLES:
            if role in roles:
                signed = self.role(role)
                signed.version += 1
                content = self._signed(role, signed, signers[role])
                meta = MetaFile.from_data(signed.version, content, ["sha256"])
                if role == "targets":
                    self.snapshot.meta["targets.json"] = meta
                elif role == "snapshot":
                    self.timestamp.snapshot_meta = meta
                self._put("timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json", content)

    def write_root(self, root: Root, signers: list[CryptoSigner] | None = None) -> None:
        """The next version of root, signed by the thresholds of the old and of the new keys. Raises KeysError.

        `signers`: all that sign; None: the new root's, as far as their keys are here.
        """
        signers = signers if signers is not None else self.signers("root", root)
        root.version += 1
        content = self._signed("root", root, signers)
        metadata: Metadata[Root] = Metadata.from_bytes(content)
        try:
            for holder in (self.root, root):
                holder.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise KeysError("role root", str(error), "the threshold of the old and of the new keys", "") from None
        self._put(f"{root.version}.root.json", content)
        self.root = root

    def _signed(self, role: str, signed: Signed, signers: list[CryptoSigner]) -> bytes:
        signed.expires = (datetime.now(UTC) + timedelta(days=self.days[role])).replace(microsecond=0)
        metadata: Metadata[Any] = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(JSONSerializer(compact=False))

    def _put(self, name: str, content: bytes) -> None:
        durable.write_file(self.metadata / name, content)
        self.content[name] = content
        if self.mirror:
            self.mirror(self.metadata / name, None)

    # --- reading

    def _newest_root(self) -> int:
        found = [re.fullmatch(r"([1-9][0-9]*)\.root\.json", path.name) for path in self.metadata.iterdir()]
        return max(int(match[1]) for match in found if match)

    def _read(self, role: str, name: str, kind: type[T]) -> T:
        path = self.metadata / name
        remedy = "restore metadata/ from git or a backup; nothing is signed over what cannot be read"
        try:
            content = path.read_bytes()
            metadata: Metadata[Any] = Metadata.from_bytes(content)
        except FileNotFoundError:
            raise ConfigurationError(str(path), "it is not there", f"metadata of {role}", remedy) from None
        except (RepositoryError, ValueError) as error:
            raise ConfigurationError(str(path), f"damaged ({error})", f"metadata of {role}", remedy) from None
        signed = metadata.signed
        if not isinstance(signed, kind):
            raise ConfigurationError(str(path), f"metadata of {signed.type}", f"metadata of {role}", remedy)
        root = signed if isinstance(signed, Root) else self.root
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise TrustError(str(path), str(error), f"the signatures that root names for {role}", remedy) from None
        self.content[name] = content
        return signed


def _ours(key: Key) -> SSlibKey:
    assert isinstance(key, SSlibKey)
    return key


def _copy(file: Path, place: Path, progress: Progress | None) -> None:
    """A durable copy, whole or not there; nothing to do where these bytes are there already."""
    if place.is_file() and filecmp.cmp(file, place, shallow=False):
        return
    partial, total, done = place.with_name(f".{place.name}.partial"), file.stat().st_size, 0
    try:
        with file.open("rb") as source, partial.open("wb") as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        durable.sync_file(partial)
        partial.replace(place)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(str(place), error.strerror or str(error), "", "make room, then run it again") from None
    durable.sync_directory(place.parent)
