"""Sign and verify the files of a bundle with OpenSSF Model Signing, for the one builder that the signing policy names.

The library runs in a separate environment, `.venv-signing` (constraints-signing.txt), for two reasons. First, the
library needs a newer version of typing-extensions than the TFLite converter allows. Second, the builder's private key
must never be opened in a process that has loaded the training libraries.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import ExtensionNotFound, ObjectIdentifier, load_der_x509_certificate
from edge_agent.core import durable
from jsonschema import Draft202012Validator
from securesystemslib.signer import SSlibKey

from fleet.errors import ConfigurationError, KeysError, StorageError, TrustError
from fleet.releases.keys import BUILDER, Keys, passphrase_of

POLICY = "policy.json"
SCHEMA_FILE = Path(__file__).with_name("policy.schema.json")
VARIABLE = "FLEET_SIGNING_PYTHON"
ENVIRONMENT = Path(__file__).parents[2] / ".venv-signing" / "bin" / "python"
PROGRAM = Path(__file__).with_name("sign_worker.py")
TIMEOUT_S = 300
# Source Repository Digest: github.com/sigstore/fulcio, docs/oid-info.md.
SOURCE_DIGEST = ObjectIdentifier("1.3.6.1.4.1.57264.1.13")
PREDICATE = "https://model_signing/signature/v1.0"


class Request(TypedDict, total=False):
    """The JSON object that sign_worker.py reads from stdin.

    sign_worker.py cannot import this package, so it contains a copy of this class.
    """

    action: str
    folder: str
    signature: str
    ignore: list[str]
    key: str
    passphrase: str | None
    identity: str
    issuer: str


@dataclass(frozen=True)
class SigningPolicy:
    """The signing policy: it names the only accepted builder by a public key or by an identity (policy.schema.json).

    Attributes:
        public_key: The builder's public key, ECDSA on the curve P-256, in PEM format; empty if the builder has an
            identity.
        identity: The identity in the builder's certificate, which is the URL of a workflow or an e-mail address; empty
            if the builder has a key.
        issuer: The OpenID Connect provider that vouches for the identity; empty if the builder has a key.
        ignore: Paths below a bundle's root that are not signed. Each signature file also contains such a list, which
            the signer chose. `verify` requires that the two lists are equal.
    """

    public_key: str = ""
    identity: str = ""
    issuer: str = ""
    ignore: tuple[str, ...] = ()

    @property
    def keyid(self) -> str:
        """The id of the builder's public key. Raises ValueError if `public_key` is not a valid key."""
        return str(SSlibKey.from_crypto(load_pem_public_key(self.public_key.encode())).keyid)

    @property
    def builder(self) -> str:
        """The builder as the metadata of a release records it: `key:` followed by the key's id, or the identity."""
        return f"key:{self.keyid}" if self.public_key else self.identity

    def save(self, path: Path) -> None:
        """Write the signing policy to a JSON file. Raises OSError."""
        keyless = {"identity": self.identity, "issuer": self.issuer}
        builder = {"public_key": self.public_key} if self.public_key else keyless
        content = {"schema_version": 1, "builder": builder, "ignore": list(self.ignore)}
        durable.make_directory(path.parent)
        durable.write_file(path, (json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> SigningPolicy:
        """Read and validate the JSON file of a signing policy. Raises ConfigurationError."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                str(path),
                error.strerror or str(error),
                "a readable signing policy",
                "run fleet keys init, or pass another file with --policy FILE",
            ) from None
        except ValueError as error:
            raise ConfigurationError(
                str(path), f"not JSON ({error})", SCHEMA_FILE.name, "restore it from git"
            ) from None
        faults = list(Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).iter_errors(value))
        if faults:
            field = ".".join(map(str, faults[0].absolute_path)) or "file"
            raise ConfigurationError(f"{path}: {field}", faults[0].message, SCHEMA_FILE.name, "correct the field")
        policy = cls(**value["builder"], ignore=tuple(value["ignore"]))
        if policy.public_key:
            try:
                policy.keyid  # noqa: B018  (raises for an invalid key)
            except ValueError:
                raise ConfigurationError(
                    f"{path}: builder.public_key",
                    "not a public key in PEM format",
                    "the public key of the builder in PEM format",
                    "correct the field",
                ) from None
        return policy


def sign(folder: Path, signature: Path, policy: SigningPolicy, keys: Keys) -> None:
    """Sign the files below a folder with the key or the identity of the policy's builder.

    If the builder has an identity, the CI system must provide an OpenID Connect token for it, and Sigstore must be
    reachable.

    Args:
        folder: The unpacked bundle.
        signature: The signature file to write, which must be outside `folder`.
        policy: The signing policy, which names the builder.
        keys: The private keys. They must include the builder's key if the policy contains a key.

    Raises:
        KeysError: The builder's key is missing, or signing failed.
        TrustError: Signing wrote no signature file.
        ConfigurationError: The signing environment is missing.
    """
    request = _request("sign", folder, signature, policy)
    if policy.public_key:
        keys.load(BUILDER, policy.keyid)  # raises a specific error for a missing key or a wrong passphrase
        request["key"] = str(keys.path(BUILDER, policy.keyid))
        request["passphrase"] = passphrase_of(BUILDER)
    _run(request, f"{folder.name}: signing")
    if not signature.is_file():
        raise TrustError(
            str(signature),
            "the signing program ended without writing this file",
            "a signature file",
            "sign the bundle again",
        )


def verify(folder: Path, signature: Path, policy: SigningPolicy) -> None:
    """Check that the policy's builder signed exactly the files below a folder.

    Paths that the policy ignores are not checked.

    Args:
        folder: The unpacked bundle.
        signature: The file that contains the signature.
        policy: The signing policy, which names the builder.

    Raises:
        TrustError: The signature is not valid.
        ConfigurationError: The signing environment is missing.
    """
    serialization = _serialization(signature)
    expected = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted(policy.ignore),
    }
    actual = {name: serialization.get(name) for name in expected}
    actual["ignore_paths"] = sorted(serialization.get("ignore_paths", []))
    if actual != expected:
        differences = {name: actual[name] for name in expected if actual[name] != expected[name]}
        raise TrustError(
            str(signature),
            f"the signature was made with the options {json.dumps(differences)[:300]}",
            f"{json.dumps({name: expected[name] for name in differences})}, which the signing policy requires",
            "do not publish this bundle; build and sign the model yourself",
        )
    request = _request("verify", folder, signature, policy)
    if not policy.public_key:
        request |= {"identity": policy.identity, "issuer": policy.issuer}
        _run(request, str(signature))
        return
    public = signature.with_name(f".{signature.name}.pub.pem")
    public.write_text(policy.public_key, encoding="utf-8")
    try:
        request["key"] = str(public)
        _run(request, str(signature))
    finally:
        public.unlink()


def _request(action: str, folder: Path, signature: Path, policy: SigningPolicy) -> Request:
    return {"action": action, "folder": str(folder), "signature": str(signature), "ignore": list(policy.ignore)}


def _serialization(signature: Path) -> Mapping[str, Any]:
    """Return the hashing options that a signature file states (in-toto, DSSE).

    The caller has not verified the signature yet, so the options can be forged.
    """
    try:
        bundle = json.loads(signature.read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        if statement["predicateType"] != PREDICATE:
            raise ValueError(f"the predicate type is {statement['predicateType']}")
        serialization = dict(statement["predicate"]["serialization"])
        if not all(isinstance(path, str) for path in serialization.get("ignore_paths", [])):
            raise ValueError("ignore_paths")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrustError(
            str(signature),
            f"not a signature of a bundle ({type(error).__name__}: {error})",
            f"a signature that the model-signing library made ({PREDICATE})",
            "sign the bundle again",
        ) from None
    return serialization


def source_commit(signature: Path) -> str | None:
    """Return the commit from which a CI system built a bundle, as the certificate in the signature file states it.

    Return None if the file has no such certificate. Trust this commit only after `verify` has checked that the
    certificate belongs to the policy's builder.
    """
    try:
        material = json.loads(signature.read_text(encoding="utf-8"))["verificationMaterial"]
        raw = (material.get("certificate") or material["x509CertificateChain"]["certificates"][0])["rawBytes"]
        certificate = load_der_x509_certificate(base64.b64decode(raw))
        value = certificate.extensions.get_extension_for_oid(SOURCE_DIGEST).value
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ExtensionNotFound):
        return None
    match = re.fullmatch(rb"\x0c.([0-9a-f]{40}|[0-9a-f]{64})", value.public_bytes(), re.DOTALL)  # DER, UTF8String
    return match[1].decode() if match else None


def interpreter() -> Path:
    """Return the path of the Python interpreter that has model-signing installed. Raises ConfigurationError."""
    path = Path(os.environ.get(VARIABLE) or ENVIRONMENT)
    if not path.is_file():
        raise ConfigurationError(
            str(path),
            "the file does not exist",
            "a Python interpreter that has model-signing",
            f"run make setup, or set {VARIABLE} to such an interpreter",
        )
    return path


def _run(request: Request, where: str) -> None:
    command = [str(interpreter()), "-I", str(PROGRAM)]
    try:
        result = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrustError(
            where,
            f"no response within {TIMEOUT_S} s",
            "a response from the signing program",
            "check that Sigstore is reachable",
        ) from None
    except OSError as error:
        raise StorageError(
            command[0], error.strerror or str(error), "a Python interpreter that can run", "run make setup"
        ) from None
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1][:500]
        if "No module named" in reason:
            raise ConfigurationError(
                command[0], reason, "a Python interpreter that has model-signing", "run make setup"
            )
        if request["action"] == "sign":
            raise KeysError(
                where,
                reason,
                "a key or an identity that can sign",
                "check the builder's key, or the identity that CI provides",
            )
        raise TrustError(
            where,
            f"the signature does not verify ({reason})",
            "a signature of exactly these files by the builder in the signing policy",
            "build and sign the bundle again; if you received the bundle from somebody else, find out who changed it",
        )
