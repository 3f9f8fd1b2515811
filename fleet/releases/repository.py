"""Read, sign and write the repository of releases: the metadata of the four roles of The Update Framework (TUF).

    metadata/  N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    targets/   NAME/VERSION/SHA256.NAME.tar.zst, and next to it the builder's signature

The repository follows the TUF specification 1.0 with consistent snapshots (section 6.2). Each file is written
atomically, and after all files that it refers to, so clients find a valid repository at any time. A run that is killed
can leave files to which no metadata refers. The next run overwrites these files.
"""

from __future__ import annotations

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

from fleet.errors import ConfigurationError, KeysError, TrustError
from fleet.releases import file_copies
from fleet.releases.file_copies import Progress
from fleet.releases.keys import Keys

ROLES = ("root", "targets", "snapshot", "timestamp")
DAYS: Mapping[str, float] = {"root": 365, "targets": 90, "snapshot": 14, "timestamp": 3}
ROOT_KEYS, ROOT_THRESHOLD = 3, 2
DEVELOPMENT = "x-development"
# A function that is called with every written file, in the order in which clients may see the files, and optionally
# with a progress callback.
Mirror = Callable[[Path, "Progress | None"], None]
# A function that downloads a target's file if the local folder lacks it.
Fetch = Callable[[Path], None]
T = TypeVar("T", bound=Signed)


def exists(folder: Path) -> bool:
    """Return whether a folder contains a repository, that is, the file metadata/1.root.json."""
    return (folder / "metadata" / "1.root.json").is_file()


class Repository:
    """The repository of releases in a folder, in the version to which its timestamp.json refers.

    A caller that writes must hold the repository's lock. The methods raise ConfigurationError, TrustError, KeysError
    and OSError.

    Attributes:
        development: Whether the repository's keys are development keys.
        content: The bytes of each metadata file that was read or written, by file name. The files form one consistent
            version of the repository, even if another process signs new metadata at the same time.
    """

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        days: Mapping[str, float] = DAYS,
        mirror: Mirror | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        """Read and verify the metadata of a repository.

        Args:
            folder: The local folder that contains the repository.
            keys: The private keys that sign new metadata.
            days: The validity of new signatures in days, by role. A role without an entry gets its default from DAYS.
            mirror: A function that uploads each written file to an object store; None if there is no object store.
            fetch: A function that downloads an archive that the local folder lacks; None if there is no object store.
        """
        self.folder, self.keys, self.days, self.mirror, self.fetch = folder, keys, {**DAYS, **days}, mirror, fetch
        self.metadata, self.targets_folder = folder / "metadata", folder / "targets"
        self.content: dict[str, bytes] = {}
        if not exists(folder):
            raise ConfigurationError(
                str(folder),
                "no repository of releases",
                "metadata/1.root.json",
                "create a repository: fleet keys init",
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
        """Create a repository with new keys.

        The root metadata is written last, because a folder counts as a repository only if it contains root metadata.

        Args:
            folder: The local folder of the new repository.
            keys: The folder in which the new private keys are stored.
            development: Whether to mark the new keys as development keys.
            days: The validity of signatures in days, by role. A role without an entry gets its default from DAYS.
            mirror: A function that uploads each written file to an object store; None if there is no object store.
        """
        repository = cls.__new__(cls)
        repository.folder, repository.keys, repository.days = folder, keys, {**DAYS, **days}
        repository.mirror, repository.fetch = mirror, None
        repository.metadata, repository.targets_folder, repository.content = folder / "metadata", folder / "targets", {}
        durable.make_directory(repository.metadata)
        durable.make_directory(repository.targets_folder)
        repository.root = Root(consistent_snapshot=True)
        repository.development = development
        if development:
            repository.root.unrecognized_fields[DEVELOPMENT] = True
        for role in ROLES:
            for _ in range(ROOT_KEYS if role == "root" else 1):
                repository.root.add_key(keys.make(role), role)
        repository.root.roles["root"].threshold = ROOT_THRESHOLD
        repository.targets, repository.snapshot, repository.timestamp = Targets(), Snapshot(), Timestamp()
        for role in ROLES:
            repository.role(role).version = 0  # so that the first write creates version 1
        repository.write(*ROLES[1:])
        repository.write_root(repository.root)
        return repository

    def role(self, name: str) -> Signed:
        signed: Signed = getattr(self, name)
        return signed

    # --- targets

    def add(self, path: str, file: Path, custom: Mapping[str, Any], progress: Progress | None = None) -> TargetFile:
        """Copy a file into the repository, and list it as a target.

        Clients see the target only after the caller has called `write`.

        Args:
            path: The target's path in the repository, which devices request.
            file: The local file to copy.
            custom: The content of the target's `custom` field, which is signed together with the target.
            progress: A function that is called with the number of copied bytes and the total number of bytes.
        """
        target = TargetFile.from_file(path, str(file), ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        self.copy_content(target, file, progress)
        self.targets.targets[path] = target
        return target

    def copy_content(self, target: TargetFile, file: Path, progress: Progress | None = None) -> None:
        """Copy a target's file to the path from which clients download it.

        If this path already has the same content, nothing is copied.

        Args:
            target: The target's entry in the metadata.
            file: The local file to copy.
            progress: A function that is called with the number of copied bytes and the total number of bytes.
        """
        destination = self.local_file(target)
        durable.make_directory(destination.parent)
        file_copies.copy(file, destination, None if self.mirror else progress)
        if self.mirror:
            self.mirror(destination, progress)

    def local_file(self, target: TargetFile) -> Path:
        """Return the path of a target's file in the local folder."""
        parent, _, name = target.path.rpartition("/")
        return self.targets_folder / parent / f"{target.hashes['sha256']}.{name}"

    def remove_unlisted(self, path: str) -> None:
        """Remove from the folder of a target all files that the metadata does not list.

        A run that was killed can leave such files. `path` is the target's path in the repository.
        """
        parent = path.rpartition("/")[0]
        listed = {self.local_file(each) for each in self.targets.targets.values() if each.path.startswith(f"{parent}/")}
        for file in sorted((self.targets_folder / parent).iterdir()):
            if file not in listed:
                file.unlink()

    # --- signing and writing

    def signers(self, role: str, root: Root | None = None) -> list[CryptoSigner]:
        """Return a signer for each available private key of a role.

        `root` is the root metadata that lists the role's keys; None selects the repository's current root metadata.
        Raises KeysError if fewer keys are available than the role's threshold requires.
        """
        keys, definition = (root or self.root).keys, (root or self.root).roles[role]
        public = {keyid: _as_sslib_key(keys[keyid]) for keyid in definition.keyids}
        return self.keys.signers(role, public, definition.threshold)

    def write(self, *roles: str) -> None:
        """Sign and write a new metadata version for each of these roles, in the order targets, snapshot, timestamp."""
        signers = {role: self.signers(role) for role in roles}  # fail on a wrong passphrase before the first write
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
        """Sign and write the next version of the root metadata. Raises KeysError.

        The new version needs enough signatures by old root keys to reach the old threshold, and enough by new root keys
        to reach the new threshold. `signers` are the keys that sign the new version; None selects the available keys
        that `root` lists.
        """
        signers = signers if signers is not None else self.signers("root", root)
        root.version += 1
        content = self._signed("root", root, signers)
        metadata: Metadata[Root] = Metadata.from_bytes(content)
        try:
            for holder in (self.root, root):
                holder.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise KeysError(
                "role root",
                str(error),
                "enough signatures of the old keys and of the new keys",
                "pass the folder that contains the root keys: --keys",
            ) from None
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
        matches = [re.fullmatch(r"([1-9][0-9]*)\.root\.json", path.name) for path in self.metadata.iterdir()]
        return max(int(match[1]) for match in matches if match)

    def _read(self, role: str, name: str, kind: type[T]) -> T:
        path = self.metadata / name
        remedy = "restore metadata/ from git or a backup; unreadable metadata is never replaced"
        try:
            content = path.read_bytes()
            metadata: Metadata[Any] = Metadata.from_bytes(content)
        except FileNotFoundError:
            raise ConfigurationError(
                str(path), "the file does not exist", f"metadata of the role {role}", remedy
            ) from None
        except (RepositoryError, ValueError) as error:
            raise ConfigurationError(
                str(path), f"corrupted ({error})", f"metadata of the role {role}", remedy
            ) from None
        signed = metadata.signed
        if not isinstance(signed, kind):
            raise ConfigurationError(
                str(path), f"metadata of the role {signed.type}", f"metadata of the role {role}", remedy
            )
        root = signed if isinstance(signed, Root) else self.root
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise TrustError(
                str(path), str(error), f"signatures of the keys that root lists for {role}", remedy
            ) from None
        self.content[name] = content
        return signed


def _as_sslib_key(key: Key) -> SSlibKey:
    assert isinstance(key, SSlibKey)
    return key
