"""Releases in an object store: publish, read and roll out; and a store that does not exist."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from edge_agent.core.errors import TrustError as DeviceTrustError

from fleet.errors import TrustError
from fleet.releases import repository_storage
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from fleet.rollout import payload
from stages.core.files import sha256
from tests.support.fleet.publishing import Publisher, Reader, three_bundles
from tests.support.servers import s3_store

pytestmark = pytest.mark.slow
bundles = pytest.fixture(three_bundles, scope="module")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    with s3_store() as url:
        settings = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="plant")
        yield settings


def test_an_object_store_holds_the_repository(bucket: dict[str, str], bundles: list[Path], tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "work", "s3://plant/releases")
    assert publisher.run("publish", bundles[0], "--version", "1.0.0")["state"] == "published"
    shutil.rmtree(tmp_path / "cache")  # another machine, with the same keys and the same git
    publisher.commit()

    assert publisher.run("publish", bundles[0])["state"] == "unchanged"
    assert publisher.run("publish", bundles[1])["release"] == "pump@1.0.1"
    assert publisher.run("release", "withdraw", "pump@1.0.0", "--reason", "old")["state"] == "withdrawn"
    assert [each["state"] for each in publisher.run("release", "list")["releases"]] == ["published", "withdrawn"]

    store, local = boto3.client("s3"), tmp_path / "mirrored"
    for entry in store.list_objects_v2(Bucket="plant", Prefix="releases/")["Contents"]:
        file = local / entry["Key"].removeprefix("releases/")
        file.parent.mkdir(parents=True, exist_ok=True)
        store.download_file("plant", entry["Key"], str(file))
    reader = Reader(local / "metadata" / "1.root.json", tmp_path / "device", local.as_uri())
    assert reader.fetch("pump@1.0.1") == bundles[1].read_bytes()
    with pytest.raises(DeviceTrustError, match="withdrawn"):
        reader.fetch("pump@1.0.0")


def test_a_rollout_downloads_archives_from_the_store(
    bucket: dict[str, str], bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Publisher(tmp_path / "work", "s3://plant/another").run("publish", bundles[0], "--version", "1.0.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))

    with repository_storage.open_storage("s3://plant/another", write=False) as storage:
        repository = Repository(storage.folder, Keys(tmp_path / "none"), fetch=storage.fetch)
        assert payload.release_info(repository, "pump@1.0.0").sha256 == sha256(bundles[0])
    payload.write_archive(Repository(storage.folder, Keys(tmp_path / "none")), ["pump@1.0.0"], tmp_path / "push.tar")
    with tarfile.open(tmp_path / "push.tar") as tar:
        archives = [member for member in tar if member.name.endswith(".tar.zst")]
        assert [hashlib.sha256(tar.extractfile(each).read()).hexdigest() for each in archives] == [sha256(bundles[0])]

    (archive,) = storage.folder.glob("targets/pump/1.0.0/*.tar.zst")
    boto3.client("s3").put_object(
        Bucket="plant", Key=f"another/{archive.relative_to(storage.folder)}", Body=bundles[1].read_bytes()
    )
    archive.unlink()
    with (
        repository_storage.open_storage("s3://plant/another", write=False) as storage,
        pytest.raises(TrustError, match="the sha256 in the object's name"),
    ):
        payload.release_info(Repository(storage.folder, Keys(tmp_path / "none"), fetch=storage.fetch), "pump@1.0.0")


def test_a_missing_store_is_reported(bucket: dict[str, str], bundles: list[Path], tmp_path: Path) -> None:
    for where, code in (("s3://nobody/releases", 8), ("nothing://x/y", 12)):
        refused = Publisher(tmp_path / "work", where).run("publish", bundles[0], code=code)
        assert where in refused["where"]
