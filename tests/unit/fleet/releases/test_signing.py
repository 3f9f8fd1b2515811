"""Signatures of bundles and the signing policy, with the real library in its separate environment."""

from __future__ import annotations

import ast
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.errors import ConfigurationError, KeysError, TrustError
from fleet.releases import signing
from fleet.releases.keys import BUILDER, Keys
from fleet.releases.signing import SigningPolicy

pytestmark = pytest.mark.slow  # each starts the signing environment


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def policy(keys: Keys) -> SigningPolicy:
    return SigningPolicy(public_key=str(keys.make(BUILDER).keyval["public"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pump"
    (root / "targets").mkdir(parents=True)
    (root / "manifest.json").write_text("{}")
    (root / "targets" / "model.onnx").write_bytes(bytes(range(256)))
    return root


def refused(folder: Path, signature: Path, policy: SigningPolicy, words: str) -> None:
    with pytest.raises(TrustError, match=words) as caught:
        signing.verify(folder, signature, policy)
    assert "remedy" in str(caught.value)


def test_a_signed_bundle_verifies_and_any_change_is_refused(folder: Path, policy: SigningPolicy, keys: Keys) -> None:
    signature = folder.parent / "signature"
    signing.sign(folder, signature, policy, keys)
    signing.verify(folder, signature, policy)
    model = folder / "targets" / "model.onnx"
    content = model.read_bytes()

    model.write_bytes(content[:-1] + b"x")
    refused(folder, signature, policy, "Hash mismatch for 'targets/model.onnx'")
    model.unlink()
    refused(folder, signature, policy, "Missing files.*targets/model.onnx")
    model.write_bytes(content)
    for name in ("extra", ".gitignore", ".git/config", "targets/model.onnx.sig"):
        extra = folder / name
        extra.parent.mkdir(exist_ok=True)
        extra.touch()
        refused(folder, signature, policy, f"Extra files.*{name}")
        extra.unlink()
    signing.verify(folder, signature, policy)


def test_a_signature_of_another_key_is_refused(folder: Path, policy: SigningPolicy, keys: Keys) -> None:
    signature = folder.parent / "signature"
    signing.sign(folder, signature, policy, keys)

    refused(folder, signature, SigningPolicy(public_key=str(keys.make(BUILDER).keyval["public"])), "does not verify")


def test_a_signature_does_not_choose_its_exceptions(folder: Path, policy: SigningPolicy, keys: Keys) -> None:
    """Signed with the right key, over a list of exceptions that the policy does not have."""
    signature = folder.parent / "signature"
    lax = SigningPolicy(public_key=policy.public_key, ignore=("targets",))
    signing.sign(folder, signature, lax, keys)
    (folder / "targets" / "model.onnx").write_bytes(b"another model")

    refused(folder, signature, policy, r'ignore_paths": \["targets"\]')

    signing.verify(folder, signature, lax)
    strict = folder.parent / "strict"
    signing.sign(folder, strict, policy, keys)
    refused(folder, strict, lax, r'made with the options \{"ignore_paths": \[\]\}')


def test_an_edited_statement_is_refused(folder: Path, policy: SigningPolicy, keys: Keys) -> None:
    signature = folder.parent / "signature"
    signing.sign(folder, signature, policy, keys)
    bundle = json.loads(signature.read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))

    def rewrite() -> None:
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        signature.write_text(json.dumps(bundle))

    statement["predicate"]["resources"].pop()
    rewrite()
    refused(folder, signature, policy, "does not verify")
    statement["predicate"]["serialization"]["hash_type"] = "md5"
    rewrite()
    refused(folder, signature, policy, 'hash_type": "md5"')
    statement["predicateType"] = "https://slsa.dev/provenance/v1"
    rewrite()
    refused(folder, signature, policy, "predicate type is https://slsa")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"dsseEnvelope": {"payload": "!"}}', b'"text"'])
def test_an_invalid_signature_file_is_refused(folder: Path, policy: SigningPolicy, content: bytes) -> None:
    signature = folder.parent / "signature"
    signature.write_bytes(content)

    refused(folder, signature, policy, "not a signature of a bundle")


def test_the_builders_key_is_opened_with_its_passphrase(
    folder: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_KEY_PASSPHRASE_BUILDER", "correct horse")
    policy = SigningPolicy(public_key=str(keys.make(BUILDER).keyval["public"]))
    signature = folder.parent / "signature"
    signing.sign(folder, signature, policy, keys)
    signing.verify(folder, signature, policy)

    monkeypatch.setenv("FLEET_KEY_PASSPHRASE_BUILDER", "wrong")
    with pytest.raises(KeysError, match="does not decrypt the key"):
        signing.sign(folder, folder.parent / "second", policy, keys)
    keys.path(BUILDER, policy.keyid).unlink()
    with pytest.raises(KeysError, match="no private key for the role builder"):
        signing.sign(folder, folder.parent / "second", policy, keys)
    assert not (folder.parent / "second").exists()


def test_an_identity_is_pinned_without_a_key(folder: Path, keys: Keys, policy: SigningPolicy) -> None:
    """Keyless signing needs a CI system's token and Sigstore's servers; without them it fails and signs nothing."""
    keyless = SigningPolicy(
        identity="https://github.com/o/r/.github/workflows/ci.yml@refs/heads/main", issuer="https://o.test"
    )
    signature = folder.parent / "signature"

    with pytest.raises(KeysError, match="signing"):
        signing.sign(folder, signature, keyless, keys)

    assert not signature.exists()
    signing.sign(folder, signature, policy, keys)  # with a key, although the policy requires an identity
    refused(folder, signature, keyless, "does not verify")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"builder": {}}, "builder"),
        ({"builder": {"public_key": "x", "identity": "y", "issuer": "https://z"}}, "builder"),
        ({"builder": {"public_key": "no PEM"}}, "not a public key"),
        ({"ignore": [""]}, "ignore.0"),
        ({"more": 1}, "'more' was unexpected"),
    ],
)
def test_a_policy_is_checked(tmp_path: Path, policy: SigningPolicy, change: dict[str, Any], words: str) -> None:
    file = tmp_path / "policy.json"
    policy.save(file)
    assert SigningPolicy.load(file) == policy
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    with pytest.raises(ConfigurationError, match=words):
        SigningPolicy.load(file)


def test_a_missing_environment_is_reported_with_its_remedy(
    folder: Path, policy: SigningPolicy, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIGNING_PYTHON", "/nowhere/python")

    with pytest.raises(ConfigurationError, match="make setup"):
        signing.sign(folder, folder.parent / "signature", policy, keys)


def test_the_commit_is_read_from_the_certificate(tmp_path: Path) -> None:
    """Fulcio writes the commit for GitHub's workflows; a signature by a key has none."""
    commit, key = "0123456789abcdef0123456789abcdef01234567", ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    for value, expected in ((b"\x0c\x28" + commit.encode(), commit), (b"\x0c\x04main", None)):
        extension = x509.UnrecognizedExtension(signing.SOURCE_DIGEST, value)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now).add_extension(extension, False)
        raw = base64.b64encode(builder.sign(key, SHA256()).public_bytes(Encoding.DER)).decode()
        for material in (
            {"certificate": {"rawBytes": raw}},
            {"x509CertificateChain": {"certificates": [{"rawBytes": raw}]}},
        ):
            (tmp_path / "signature").write_text(json.dumps({"verificationMaterial": material}))
            assert signing.source_commit(tmp_path / "signature") == expected
    for content in ("{", "[]", '{"verificationMaterial": {"publicKey": {"hint": "x"}}}'):
        (tmp_path / "signature").write_text(content)
        assert signing.source_commit(tmp_path / "signature") is None


def test_both_sides_of_the_signing_environment_declare_the_same_request() -> None:
    """sign_worker.py cannot import this package, so it repeats the definition."""

    def fields_of(source: Path) -> dict[str, str]:
        (request,) = (
            node
            for node in ast.parse(source.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef) and node.name == "Request"
        )
        return {
            ast.unparse(field.target): ast.unparse(field.annotation)
            for field in request.body
            if isinstance(field, ast.AnnAssign)
        }

    assert fields_of(signing.PROGRAM) == fields_of(Path(signing.__file__))
