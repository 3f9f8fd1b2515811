"""Create and load private keys, which are kept outside git.

Each key is one PEM file (PKCS #8, RFC 5958) with mode 0600, optionally encrypted. The file is named ROLE.KEYID.pem. The
keys of the repository's roles are Ed25519 keys, which securesystemslib uses to sign. The builder's key is an ECDSA key
on the curve P-256, because OpenSSF Model Signing requires this type.
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
    """Return the default folder of private keys.

    It is the folder in the environment variable FLEET_KEYS or, if this variable is not set, DEFAULT.
    """
    return Path(environment.get("FLEET_KEYS") or DEFAULT).expanduser()


@dataclass(frozen=True)
class Keys:
    """The private keys in `folder`. Methods that read a key raise KeysError if the key is missing or unreadable."""

    folder: Path

    def path(self, role: str, keyid: str) -> Path:
        return self.folder / f"{role}.{keyid}.pem"

    def has(self, role: str, keyid: str) -> bool:
        return self.path(role, keyid).is_file()

    def make(self, role: str) -> SSlibKey:
        """Create a key pair for a role, write the private key durably, and return the public key."""
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
        """Return a signer for each available private key of a role.

        Args:
            role: The role of the keys.
            public: The public keys of the role, by key id.
            threshold: The number of signatures that the role requires.

        Raises:
            KeysError: Fewer than `threshold` private keys are available.
        """
        available = [keyid for keyid in public if self.has(role, keyid)]
        if len(available) < threshold:
            missing = [str(self.path(role, keyid)) for keyid in public if keyid not in available]
            raise KeysError(
                f"role {role}",
                f"{len(available)} of its private keys can be found; missing: {', '.join(missing)}",
                f"{threshold} available private keys out of {len(public)}",
                "pass the folder of these keys (--keys, FLEET_KEYS), or connect the medium that they are stored on",
            )
        return [self.signer(role, public[keyid]) for keyid in available]

    def signer(self, role: str, key: SSlibKey) -> CryptoSigner:
        return CryptoSigner(self.load(role, key.keyid), key)

    def load(self, role: str, keyid: str) -> PrivateKeyTypes:
        path = self.path(role, keyid)
        try:
            content, mode = path.read_bytes(), path.stat().st_mode
        except FileNotFoundError:
            raise KeysError(
                str(path),
                f"there is no private key for the role {role}",
                f"the key {keyid}",
                "pass the folder of this key (--keys, FLEET_KEYS), or connect the medium that it is stored on",
            ) from None
        except OSError as error:
            raise KeysError(
                str(path), error.strerror or str(error), "a readable file", "make yourself the owner of the file"
            ) from None
        if mode & 0o077:
            raise KeysError(
                str(path), f"mode {mode & 0o777:04o}, which lets other users read it", "mode 0600", f"chmod 600 {path}"
            )
        try:
            private = load_pem_private_key(content, None)
        except TypeError:  # encrypted
            private = self._decrypt(role, path, content)
        except (ValueError, UnsupportedAlgorithm):
            raise _invalid(path) from None
        actual = SSlibKey.from_crypto(private.public_key()).keyid
        if actual != keyid:
            raise KeysError(
                str(path), f"the file contains the private key {actual}", keyid, "restore the file from a backup"
            )
        return private

    @staticmethod
    def _decrypt(role: str, path: Path, content: bytes) -> PrivateKeyTypes:
        passphrase = passphrase_of(role)
        if passphrase is None and sys.stdin.isatty():
            passphrase = getpass.getpass(f"passphrase of {path.name}: ")
        if not passphrase:
            raise KeysError(
                str(path),
                "the key is encrypted, and no passphrase is given",
                "the passphrase of the key",
                f"set {_variable(role)} or {VARIABLE}",
            )
        try:
            return load_pem_private_key(content, passphrase.encode())
        except ValueError:
            raise KeysError(
                str(path),
                "the passphrase does not decrypt the key",
                "the passphrase that the key was created with",
                f"correct {_variable(role)} or {VARIABLE}",
            ) from None


def _invalid(path: Path) -> KeysError:
    return KeysError(
        str(path), "not a private key", "a private key in PEM format (PKCS #8)", "restore the file from a backup"
    )


def _variable(role: str) -> str:
    return f"{VARIABLE}_{role.upper()}"


def passphrase_of(role: str) -> str | None:
    """Return the passphrase that encrypts the private keys of a role; None if no passphrase is set.

    The environment variable for this role takes precedence over the variable for all roles.
    """
    return os.environ.get(_variable(role)) or os.environ.get(VARIABLE) or None


def _write_private(path: Path, content: bytes) -> None:
    """Write a private key durably to a file that other users can never read."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    partial.rename(path)
    durable.sync_directory(path.parent)
