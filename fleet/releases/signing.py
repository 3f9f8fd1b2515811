"""Who built a bundle: OpenSSF Model Signing over the bundle's files, and the policy that says whose signature counts.

The library runs in an environment of its own, `.venv-signing` (constraints-signing.txt): it needs a younger
typing-extensions than the TFLite converter bears, and the key that vouches for a build is not opened in a process that
has also loaded the training libraries.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class SigningPolicy:
    """Whose signature counts: the holder of `public_key` (PEM), or the OIDC `identity` that `issuer` vouches for.

    `ignore`: the paths below a bundle's root that need no signature. A signature file carries a list of its own, which
    whoever wrote the file chose; it has to be this one.
    """

    public_key: str = ""
    identity: str = ""
    issuer: str = ""
    ignore: tuple[str, ...] = ()

    @property
    def keyid(self) -> str:
        return str(SSlibKey.from_crypto(load_pem_public_key(self.public_key.encode())).keyid)

    @property
    def builder(self) -> str:
        """As a release names it: `key:ID`, or the identity."""
        return f"key:{self.keyid}" if self.public_key else self.identity

    def save(self, path: Path) -> None:
        who = {"public_key": self.public_key} if self.public_key else {"identity": self.identity, "issuer": self.issuer}
        content = {"schema_version": 1, "builder": who, "ignore": list(self.ignore)}
        durable.make_directory(path.parent)
        durable.write_file(path, (json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> SigningPolicy:
        """Raises ConfigurationError."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                str(path), error.strerror or str(error), "the policy of who builds", "fleet keys init, or --policy FILE"
            ) from None
        except ValueError as error:
            raise ConfigurationError(str(path), f"no JSON ({error})", SCHEMA_FILE.name, "restore it from git") from None
        faults = list(Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).iter_errors(value))
        if faults:
            field = ".".join(map(str, faults[0].absolute_path)) or "file"
            raise ConfigurationError(f"{path}: {field}", faults[0].message, SCHEMA_FILE.name, "mend it")
        policy = cls(**value["builder"], ignore=tuple(value["ignore"]))
        if policy.public_key:
            try:
                policy.keyid  # noqa: B018  (it raises where the key is none)
            except ValueError:
                raise ConfigurationError(f"{path}: builder.public_key", "no public key", "PEM", "mend it") from None
        return policy


def sign(folder: Path, signature: Path, policy: SigningPolicy, keys: Keys) -> None:
    """Sign every file below `folder`, as the policy's builder, into the new file `signature`.

    Without a key, the identity is the one that the CI system vouches for (ambient OIDC); Sigstore has to be reachable.
    Raises KeysError, TrustError, ConfigurationError.
    """
    asked: dict[str, Any] = {"action": "sign", "folder": str(folder), "signature": str(signature)}
    asked["ignore"] = list(policy.ignore)
    if policy.public_key:
        keys.load(BUILDER, policy.keyid)  # a key that is missing, or that does not open, is named here
        asked |= {"key": str(keys.path(BUILDER, policy.keyid)), "passphrase": passphrase_of(BUILDER)}
    _run(asked, f"{folder.name}: signing")
    if not signature.is_file():
        raise TrustError(str(signature), "the signer wrote nothing", "a signature", "run it again")


def verify(folder: Path, signature: Path, policy: SigningPolicy) -> None:
    """The policy's builder signed exactly the files below `folder`, all but those that the policy ignores.

    Raises TrustError, ConfigurationError.
    """
    stated = _serialization(signature)
    expected = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted(policy.ignore),
    }
    found = {name: stated.get(name) for name in expected}
    found["ignore_paths"] = sorted(stated.get("ignore_paths", []))
    if found != expected:
        wrong = {name: found[name] for name in expected if found[name] != expected[name]}
        raise TrustError(
            str(signature),
            f"it was made with {json.dumps(wrong)[:300]}",
            f"{json.dumps({name: expected[name] for name in wrong})}, as the policy pins it",
            "sign the bundle again; do not publish what came with this signature",
        )
    asked: dict[str, Any] = {"action": "verify", "folder": str(folder), "signature": str(signature)}
    asked["ignore"] = list(policy.ignore)
    if not policy.public_key:
        _run({**asked, "identity": policy.identity, "issuer": policy.issuer}, str(signature))
        return
    public = signature.with_name(f".{signature.name}.pub.pem")
    public.write_text(policy.public_key, encoding="utf-8")
    try:
        _run({**asked, "key": str(public)}, str(signature))
    finally:
        public.unlink()


def _serialization(signature: Path) -> dict[str, Any]:
    """How the files were hashed, as the signed statement (in-toto, in a DSSE envelope) has it. Not yet verified."""
    try:
        bundle = json.loads(signature.read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        if statement["predicateType"] != PREDICATE:
            raise ValueError(f"predicate {statement['predicateType']}")
        found = dict(statement["predicate"]["serialization"])
        if not all(isinstance(path, str) for path in found.get("ignore_paths", [])):
            raise ValueError("ignore_paths")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrustError(
            str(signature), f"not a signature of a model ({type(error).__name__}: {error})", PREDICATE, "sign it again"
        ) from None
    return found


def source_commit(signature: Path) -> str | None:
    """The commit that a CI system built from, as Sigstore's certificate in the signature has it; None where none does.

    It counts only after `verify` has found the certificate to be the policy's builder's.
    """
    try:
        material = json.loads(signature.read_text(encoding="utf-8"))["verificationMaterial"]
        raw = (material.get("certificate") or material["x509CertificateChain"]["certificates"][0])["rawBytes"]
        certificate = load_der_x509_certificate(base64.b64decode(raw))
        value = certificate.extensions.get_extension_for_oid(SOURCE_DIGEST).value
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ExtensionNotFound):
        return None
    found = re.fullmatch(rb"\x0c.([0-9a-f]{40}|[0-9a-f]{64})", value.public_bytes(), re.DOTALL)  # DER, UTF8String
    return found[1].decode() if found else None


def interpreter() -> Path:
    """The Python that has model-signing. Raises ConfigurationError."""
    path = Path(os.environ.get(VARIABLE) or ENVIRONMENT)
    if not path.is_file():
        raise ConfigurationError(
            str(path), "not there", "a Python with model-signing", f"make setup, or set {VARIABLE} to one"
        )
    return path


def _run(asked: dict[str, Any], where: str) -> None:
    command = [str(interpreter()), "-I", str(PROGRAM)]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrustError(where, f"no answer in {TIMEOUT_S} s", "a signature", "is Sigstore reachable?") from None
    except OSError as error:
        raise StorageError(command[0], error.strerror or str(error), "a program", "make setup") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1][:500]
        if "No module named" in said:
            raise ConfigurationError(command[0], said, "a Python with model-signing", "make setup")
        if asked["action"] == "sign":
            raise KeysError(where, said, "a signature", "check the builder's key, or the identity that CI provides")
        raise TrustError(
            where,
            f"it does not verify ({said})",
            "the signature of the policy's builder over exactly these files",
            "build and sign the bundle again; if it came from elsewhere, find out who changed it",
        )
