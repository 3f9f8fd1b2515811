"""Private keys, outside git: one PEM file (PKCS #8, RFC 5958) each, mode 0600, encrypted where a passphrase is given.

A file is called ROLE.KEYID.pem. Keys of the repository are Ed25519, signed with by securesystemslib; the builder's is
ECDSA on P-256, which is what model signing takes.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from edge_agent.core import durable
from securesystemslib.signer import CryptoSigner, SSlibKey

from fleet.errors import KeysError

DEFAULT = Path("~/.config/edge-ai-workflow/keys")
BUILDER = "builder"
VARIABLE = "FLEET_KEY_PASSPHRASE"


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("FLEET_KEYS") or DEFAULT).expanduser()


@dataclass(frozen=True)
class Keys:
    """The private keys in `folder`. What reads them raises KeysError, which names the key that is not there."""

    folder: Path

    def path(self, role: str, keyid: str) -> Path:
        return self.folder / f"{role}.{keyid}.pem"

    def has(self, role: str, keyid: str) -> bool:
        return self.path(role, keyid).is_file()

    def make(self, role: str) -> SSlibKey:
        """A new key, flushed to the disk before its public half is known to anybody."""
        private: PrivateKeyTypes = generate_ec(SECP256R1()) if role == BUILDER else Ed25519PrivateKey.generate()
        public = SSlibKey.from_crypto(private.public_key())
        passphrase = passphrase_of(role)
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        )
        durable.make_directory(self.folder)
        self.folder.chmod(0o700)
        _write_private(
            self.path(role, public.keyid), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )
        return public

    def signers(self, role: str, public: Mapping[str, SSlibKey], threshold: int) -> list[CryptoSigner]:
        """Those of a role's keys whose private half is here.

        Args:
            role: whose keys they are.
            public: all of them, by id.
            threshold: how many have to be here.
        """
        here = [keyid for keyid in public if self.has(role, keyid)]
        if len(here) < threshold:
            missing = [str(self.path(role, keyid)) for keyid in public if keyid not in here]
            raise KeysError(
                f"role {role}",
                f"{len(here)} of its private keys here; not here: {', '.join(missing)}",
                f"{threshold} of {len(public)}",
                "name the folder they lie in (--keys, FLEET_KEYS), or plug in the medium that they are kept on",
            )
        return [self.signer(role, public[keyid]) for keyid in here]

    def signer(self, role: str, key: SSlibKey) -> CryptoSigner:
        return CryptoSigner(self.load(role, key.keyid), key)

    def load(self, role: str, keyid: str) -> PrivateKeyTypes:
        path = self.path(role, keyid)
        try:
            content, mode = path.read_bytes(), path.stat().st_mode
        except FileNotFoundError:
            raise KeysError(
                str(path),
                f"no private key for {role}",
                f"the key {keyid}",
                "name the folder it lies in (--keys, FLEET_KEYS), or plug in the medium that it is kept on",
            ) from None
        except OSError as error:
            raise KeysError(str(path), error.strerror or str(error), "a readable file", "check its owner") from None
        if mode & 0o077:
            raise KeysError(str(path), f"mode {mode & 0o777:04o}: others may read it", "0600", f"chmod 600 {path}")
        try:
            private = load_pem_private_key(content, None)
        except TypeError:  # encrypted
            private = self._decrypt(role, path, content)
        except (ValueError, UnsupportedAlgorithm):
            raise _damaged(path) from None
        found = SSlibKey.from_crypto(private.public_key()).keyid
        if found != keyid:
            raise KeysError(str(path), f"the key {found}", keyid, "restore the file from where it is backed up")
        return private

    @staticmethod
    def _decrypt(role: str, path: Path, content: bytes) -> PrivateKeyTypes:
        passphrase = passphrase_of(role)
        if passphrase is None and sys.stdin.isatty():
            passphrase = getpass.getpass(f"passphrase of {path.name}: ")
        if not passphrase:
            raise KeysError(
                str(path), "it is encrypted, and no passphrase is given", "one", f"set {_variable(role)} or {VARIABLE}"
            )
        try:
            return load_pem_private_key(content, passphrase.encode())
        except ValueError:
            raise KeysError(
                str(path),
                "the passphrase does not open it",
                "the one it was made with",
                f"correct {_variable(role)} or {VARIABLE}",
            ) from None


def _damaged(path: Path) -> KeysError:
    return KeysError(str(path), "not a private key", "PEM, PKCS #8", "restore the file from where it is backed up")


def _variable(role: str) -> str:
    return f"{VARIABLE}_{role.upper()}"


def passphrase_of(role: str) -> str | None:
    """The role's own, or the one for all; None where none is set."""
    return os.environ.get(_variable(role)) or os.environ.get(VARIABLE) or None


def _write_private(path: Path, content: bytes) -> None:
    """As durable.write_file, but at no moment readable by others."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    partial.rename(path)
    durable.sync_directory(path.parent)
