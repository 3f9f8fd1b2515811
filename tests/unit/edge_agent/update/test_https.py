"""HTTPS: the server's certificate is verified, by the system's authorities or those that SSL_CERT_FILE names."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from edge_agent.core.errors import SourceError

from tests.support.agent.release_server import (
    Answer,
    ReleaseServer,
    breaks_off_after,
    drips,
    drips_headers,
    right,
    serving,
    silent,
)
from tests.support.agent.tuf_repository import CONTENT, TufRepository, fetched

pytestmark = pytest.mark.slow  # each makes certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost`, its own authority, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def server(published: TufRepository, certificate: Path) -> Iterator[ReleaseServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(published.folder, context) as server:
        yield server


def test_with_its_authority_a_server_is_believed_to_be_itself(
    published: TufRepository, server: ReleaseServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetched(published.config(tmp_path / "device", server.url, timeout_s=0.5)) == CONTENT


def test_without_it_nothing_is_asked_and_nothing_tried_again(
    published: TufRepository, server: ReleaseServer, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"TLS failed.*self.signed certificate"):
        fetched(published.config(tmp_path / "device", server.url, timeout_s=0.5))
    assert server.requests == []


def test_another_name_than_the_certificate_has_is_refused(
    published: TufRepository, server: ReleaseServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(SourceError, match="TLS failed"):
        fetched(published.config(tmp_path / "device", server.url.replace("localhost", "127.0.0.1"), timeout_s=0.5))
    assert server.requests == []


@pytest.mark.parametrize("answer", [drips, drips_headers, silent])
def test_a_slow_server_is_given_up_here_too(
    published: TufRepository,
    server: ReleaseServer,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.responses["digits"] = [answer]
    with pytest.raises(SourceError, match=r"3 time\(s\)"):
        fetched(published.config(tmp_path / "device", server.url, timeout_s=0.5))


def test_a_broken_download_goes_on_here_too(
    published: TufRepository, server: ReleaseServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.responses["digits"] = [breaks_off_after(50_000), right]
    assert fetched(published.config(tmp_path / "device", server.url, timeout_s=0.5)) == CONTENT
    assert server.ranges() == [None, "bytes=50000-"]
