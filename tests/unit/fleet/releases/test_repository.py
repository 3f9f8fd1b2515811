"""The repository of releases, written by fleet and read by the device's own code, also between any two writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core.errors import TrustError as DeviceTrustError

from fleet.errors import BusyError, ConfigurationError, KeysError, TrustError
from fleet.releases.keys import Keys
from fleet.releases.repository import ROLES, Repository
from fleet.releases.repository_storage import repository_lock
from fleet.releases.rotation import rotate
from tests.support.agent.release_server import serving
from tests.support.fleet.publishing import Reader

CONTENT = b"an archive's bytes " * 50_000
CUSTOM = {"version": "1.0.0", "commit": None, "time": "2026-01-01T00:00:00Z", "builder": "key:0"}


def path(version: str) -> str:
    return f"pump/{version}/pump.tar.zst"


class Site:
    """A repository with pump@1.0.0, and devices that read it: one that has read it before, and new ones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, Keys(folder / "keys")
        self.releases = folder / "releases"
        self.archive = folder / "archive"
        self.archive.write_bytes(CONTENT)
        self.repository = Repository.create(self.releases, self.keys)
        self.publish("1.0.0")
        self.pin = folder / "pin.json"
        shutil.copy(self.releases / "metadata" / "1.root.json", self.pin)
        self.old = self.reader("old")
        self.old.refresh()
        self.looks = 0

    def reader(self, name: str) -> Reader:
        return Reader(self.pin, self.folder / name, self.releases.as_uri())

    def open(self, mirror: Any = None, **days: float) -> Repository:
        self.repository = Repository(self.releases, self.keys, days, mirror)
        return self.repository

    def publish(self, version: str) -> None:
        self.repository.add(path(version), self.archive, {**CUSTOM, "version": version})
        self.repository.write("targets", "snapshot", "timestamp")

    def observed(self) -> Repository:
        """The repository, with devices that read it after each of its writes."""
        self.open(self.look)
        return self.repository

    def look(self, *_: Any) -> None:
        self.looks += 1
        assert self.old.fetch("pump@1.0.0") == CONTENT
        assert self.reader(f"new-{self.looks}").fetch("pump@1.0.0") == CONTENT


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_device_reads_it_from_a_folder_and_over_http(site: Site) -> None:
    assert site.reader("pushed").fetch("pump@1.0.0") == CONTENT

    with serving(site.releases) as server:
        device = Reader(site.pin, site.folder / "pulling", server.url)
        repository = device.refresh()
        offer = repository.find("pump@1.0.0")
        assert offer.custom == CUSTOM
        assert repository.download(offer).read_bytes() == CONTENT


def test_devices_accept_what_they_find_between_any_two_writes_of_a_publication(site: Site) -> None:
    site.observed()

    site.publish("1.1.0")

    assert site.looks == 4  # archive, targets, snapshot, timestamp
    assert site.old.fetch("pump@1.1.0") == CONTENT


@pytest.mark.parametrize(("role", "writes"), [("root", 1), ("targets", 5), ("snapshot", 4), ("timestamp", 3)])
def test_devices_follow_a_new_key_between_any_two_writes(site: Site, role: str, writes: int) -> None:
    old, new = rotate(site.observed(), role)

    assert site.looks == writes
    assert old not in site.open().root.roles[role].keyids and new in site.repository.root.roles[role].keyids
    site.keys.path(role, old).unlink()
    site.publish("1.1.0")
    assert site.old.fetch("pump@1.1.0") == CONTENT
    assert len(site.repository.root.keys) == 6  # every key has a role


def test_every_key_of_root_can_be_replaced_one_after_the_other(site: Site) -> None:
    first = set(site.repository.root.roles["root"].keyids)
    for keyid in sorted(first):
        rotate(site.open(), "root", keyid)

    assert first.isdisjoint(site.repository.root.roles["root"].keyids)
    site.look()


@pytest.mark.parametrize("role", ROLES)
def test_a_lost_key_can_be_replaced(site: Site, role: str) -> None:
    lost = site.repository.root.roles[role].keyids[0]
    site.keys.path(role, lost).unlink()

    rotate(site.observed(), role, lost if role == "root" else None)

    assert lost not in site.repository.root.keys
    site.look()


def test_an_interrupted_rotation_continues(site: Site) -> None:
    old = site.repository.root.roles["targets"].keyids[0]

    class PowerCutError(Exception):
        pass

    for stop in range(1, 5):  # the first root, targets, snapshot, timestamp, the second root
        count = 0

        def cut(*_: Any) -> None:
            nonlocal count
            count += 1
            if count == stop:  # noqa: B023
                raise PowerCutError

        with pytest.raises(PowerCutError):
            rotate(site.open(cut), "targets")
        site.look()
        if stop < 4:
            assert site.open().root.roles["targets"].keyids[0] == old
    assert len(site.open().root.roles["targets"].keyids) == 1


def test_expired_metadata_is_refused_until_it_is_signed_again(site: Site) -> None:
    site.open(timestamp=-1).write("timestamp")
    with pytest.raises(DeviceTrustError, match="expired"):
        site.reader("new").refresh()

    site.open().write("snapshot", "timestamp")

    site.look()


def test_a_delisted_target_is_refused(site: Site) -> None:
    site.publish("1.1.0")
    site.old.fetch("pump@1.1.0")

    del site.open().targets.targets[path("1.1.0")]
    site.observed().write("targets", "snapshot", "timestamp")  # targets was not written, so it is unchanged
    assert site.old.fetch("pump@1.1.0") == CONTENT
    del site.repository.targets.targets[path("1.1.0")]
    site.repository.write("targets", "snapshot", "timestamp")

    with pytest.raises(DeviceTrustError, match="withdrawn"):
        site.old.fetch("pump@1.1.0")
    site.look()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _edit(file: Path) -> None:
    content = json.loads(file.read_bytes())
    content["signed"]["expires"] = "2099-01-01T00:00:00Z"
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["1.root.json", "2.targets.json", "2.snapshot.json", "timestamp.json"])
@pytest.mark.parametrize(
    ("spoil", "error"), [(_cut, ConfigurationError), (_edit, TrustError), (Path.unlink, ConfigurationError)]
)
def test_corrupted_metadata_is_never_replaced(
    site: Site, name: str, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    spoil(site.releases / "metadata" / name)

    with pytest.raises(error) as caught:
        site.open()

    assert "remedy" in str(caught.value) or name == "1.root.json"


def test_a_missing_key_is_reported_before_the_first_write(site: Site) -> None:
    before = sorted(site.releases.rglob("*"))
    site.keys.path("timestamp", site.repository.root.roles["timestamp"].keyids[0]).unlink()

    with pytest.raises(KeysError, match="role timestamp"):
        site.open().write("targets", "snapshot", "timestamp")

    assert sorted(site.releases.rglob("*")) == before


def test_a_second_writer_is_refused(site: Site) -> None:
    with repository_lock(site.releases), pytest.raises(BusyError, match=r"\.lock"), repository_lock(site.releases):
        pass
    with repository_lock(site.releases):
        pass


def test_a_corrupted_archive_is_written_again(site: Site) -> None:
    target = site.repository.targets.targets[path("1.0.0")]
    file = site.repository.local_file(target)
    file.write_bytes(b"x" + CONTENT[1:])

    site.repository.copy_content(target, site.archive)

    site.look()
