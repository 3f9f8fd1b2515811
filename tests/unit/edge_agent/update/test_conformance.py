"""The client that the TUF conformance suite runs, tested through its command line.

The suite itself is theupdateframework/tuf-conformance. These cases cover the command and the rules that are visible
only in HTTP requests and in the folders (CLIENT-CLI.md).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Snapshot, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from tests.support.agent.release_server import ReleaseServer, complete, serving, status
from tests.support.agent.tuf_repository import TufRepository

pytestmark = pytest.mark.slow  # each starts the client several times

CLIENT = Path(__file__).with_name("tuf_conformance_client")


class Device:
    """The suite's view of a client: a command, a folder of metadata, a folder of targets."""

    def __init__(self, folder: Path, repository: TufRepository, server: ReleaseServer) -> None:
        self.repository, self.server = repository, server
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir(parents=True)
        self.targets.mkdir()
        assert self.run("init", str(repository.root_file)) == 0

    def run(self, command: str, *more: str, **options: str) -> int:
        settings = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        line = [sys.executable, str(CLIENT), "--metadata-dir", str(self.metadata), *settings, command, *more]
        return subprocess.run(line, capture_output=True, timeout=60, check=False).returncode

    def refresh(self) -> int:
        return self.run("refresh", metadata_url=f"{self.server.url}/metadata/")

    def download(self, name: str) -> int:
        return self.run(
            "download",
            metadata_url=f"{self.server.url}/metadata/",
            target_name=name,
            target_base_url=f"{self.server.url}/targets/",
            target_dir=str(self.targets),
        )

    def versions(self) -> dict[str, int]:
        files = self.metadata.glob("*.json")
        return {file.stem: Metadata.from_bytes(file.read_bytes()).signed.version for file in files}

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.iterdir())]


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    return TufRepository(tmp_path / "repository")


@pytest.fixture
def device(repository: TufRepository, tmp_path: Path) -> Iterator[Device]:
    with serving(repository.folder) as server:
        yield Device(tmp_path / "client", repository, server)


def targets(repository: TufRepository) -> Targets:
    role = repository.signed["targets"]
    assert isinstance(role, Targets)
    return role


def offer(repository: TufRepository, name: str, content: bytes) -> None:
    """List a target of any name, and store its content where a client requests it."""
    target = TargetFile.from_data(name, content, ["sha256"])
    targets(repository).targets[name] = target
    folder, _, file = name.rpartition("/")
    path = repository.targets / folder / f"{target.hashes['sha256']}.{file}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    repository.release()


def delegate(repository: TufRepository, signers: dict[str, CryptoSigner], *graph: tuple[str, str, list[str]]) -> None:
    """Add roles that delegate to other roles, all with version 1 and without targets."""
    roles = {"targets": targets(repository)}
    for delegator, name, paths in graph:
        roles.setdefault(name, Targets(expires=datetime.now(UTC) + timedelta(days=9)))
        parent = roles[delegator]
        if parent.delegations is None:
            parent.delegations = Delegations({}, {})
        assert parent.delegations.roles is not None
        parent.delegations.roles[name] = DelegatedRole(name, [], 1, False, paths)
        signer = signers.setdefault(name, CryptoSigner.generate_ecdsa())
        parent.add_key(signer.public_key, name)
    snapshot = repository.signed["snapshot"]
    assert isinstance(snapshot, Snapshot)
    for name, role in roles.items():
        if name != "targets":
            metadata = Metadata(role)
            metadata.sign(signers[name])
            (repository.metadata / f"1.{name}.json").parent.mkdir(parents=True, exist_ok=True)
            (repository.metadata / f"1.{quote(name, '')}.json").write_bytes(metadata.to_bytes(JSONSerializer()))
            snapshot.meta[f"{name}.json"] = MetaFile(1)
    repository.release()


def test_init_requests_nothing_and_refresh_only_what_it_needs(device: Device) -> None:
    assert device.server.requests == []
    assert device.versions() == {"root": 1}
    assert device.refresh() == 0
    expected = ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert device.server.requested() == [f"/metadata/{name}.json" for name in expected]
    assert device.versions() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def test_metadata_is_kept_byte_for_byte(device: Device) -> None:
    device.repository.rotate("root")
    device.repository.release()
    assert device.refresh() == 0
    assert (device.metadata / "root.json").read_bytes() == (device.repository.metadata / "2.root.json").read_bytes()
    timestamp = (device.repository.metadata / "timestamp.json").read_bytes()
    assert (device.metadata / "timestamp.json").read_bytes() == timestamp


def test_a_failed_refresh_is_one_exit_code_and_leaves_what_was_trusted(device: Device) -> None:
    assert device.refresh() == 0
    device.repository.renew("timestamp", days=-1)
    assert device.refresh() == 1
    assert device.versions()["timestamp"] == 1


def test_an_invalid_pinned_root_causes_no_request(device: Device, tmp_path: Path) -> None:
    invalid_root = tmp_path / "wrong.json"
    invalid_root.write_bytes(device.repository.root_file.read_bytes().replace(b'"version":1', b'"version":9'))
    device.run("init", str(invalid_root))
    assert device.refresh() == 1
    assert device.server.requests == []


@pytest.mark.parametrize("name", ["file.txt", "path/to/a/file.txt", "a file?#%.txt", "../out", "\u00e4/\u00f6"])
def test_a_target_of_any_name_stays_in_its_folder(device: Device, name: str) -> None:
    content = name.encode()
    target = TargetFile.from_data(name, content, ["sha256"])
    targets(device.repository).targets[name] = target
    device.repository.release()
    device.server.otherwise = content
    device.server.responses["root"] = [status(404)]
    assert device.download(name) == 0
    assert device.downloaded() == [content]
    assert sorted(path.name for path in device.targets.parent.iterdir()) == ["metadata", "targets"]


def test_a_target_is_downloaded_once_and_a_new_one_takes_its_place(device: Device) -> None:
    offer(device.repository, "file.txt", b"first")
    assert device.download("file.txt") == 0
    assert device.download("file.txt") == 0
    assert len(device.server.requested("/targets/")) == 1
    offer(device.repository, "file.txt", b"second")
    assert device.download("file.txt") == 0
    assert device.downloaded() == [b"second"]


def test_a_substituted_target_is_not_kept(device: Device) -> None:
    offer(device.repository, "file.txt", b"signed")
    device.server.responses["file"] = [complete(lambda content: b"forged")]
    assert device.download("file.txt") == 1
    assert device.downloaded() == []
    assert len(device.server.requested("/targets/")) == 1


def test_a_target_that_is_not_listed_fails_after_the_refresh(device: Device) -> None:
    assert device.download("nothing") == 1
    assert device.versions() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def test_delegations_are_requested_in_order_and_once(device: Device) -> None:
    graph = [("targets", "A", ["*"]), ("targets", "B", ["*"]), ("A", "C", ["*.doc"]), ("A", "D", ["*"])]
    delegate(device.repository, {}, *graph, ("D", "A", ["*"]), ("D", "B", ["*"]))
    assert device.download("missing") == 1
    assert device.server.requested("/metadata/")[4:] == [f"/metadata/1.{name}.json" for name in "ADB"]
    assert {"A", "D", "B"} < device.versions().keys()
    device.server.requests.clear()
    assert device.download("missing") == 1
    assert len(device.server.requests) == 2


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role", "a b", "%2e"])
def test_a_special_role_name_is_quoted_in_address_and_file(device: Device, role: str) -> None:
    delegate(device.repository, {}, ("targets", role, ["*"]))
    assert device.download("missing") == 1
    assert f"/metadata/1.{quote(role, '')}.json" in device.server.requested()
    assert (device.metadata / f"{quote(role, '')}.json").is_file()
    assert len(device.versions()) == 5
