"""A device trusts the right releases of a repository, whatever its clock, its disk and its power supply do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edge_agent.core import fault_points
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config, Install
from edge_agent.core.errors import ConfigurationError, NoReleaseError, SourceError, StorageError, TrustError
from edge_agent.update.trust import Repository
from tuf.api.metadata import Metadata

from tests.support.agent.tuf_repository import CONTENT, RELEASE, TufRepository, fetch_in_process


@pytest.fixture
def config(published: TufRepository, tmp_path: Path) -> Config:
    return published.config(tmp_path / "device")


def refreshed(config: Config, state: State | None = None) -> Repository:
    repository = Repository(config, state or State())
    repository.refresh()
    return repository


def versions(config: Config) -> dict[str, int]:
    """Return the trusted version of each role; raise an error for an incomplete file."""
    files = config.layout.tuf.glob("*.json")
    return {file.stem: Metadata.from_bytes(file.read_bytes()).signed.version for file in files}


def test_a_release_is_found_and_downloaded(config: Config, published: TufRepository) -> None:
    progress: list[tuple[int, int]] = []
    repository = refreshed(config)
    offer = repository.find(RELEASE)
    archive = repository.download(offer, lambda done, total: progress.append((done, total)))
    assert (offer.name, offer.version, offer.length) == ("digits", "1.2.0", len(CONTENT))
    assert offer.path == "digits/1.2.0/digits.tar.zst"
    assert offer.custom == {"version": "1.2.0", "commit": "0" * 40}
    assert archive.read_bytes() == CONTENT
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert list(config.layout.incoming.iterdir()) == [archive]


def test_a_complete_archive_is_not_downloaded_again(config: Config, published: TufRepository) -> None:
    repository = refreshed(config)
    archive = repository.download(repository.find(RELEASE))
    published.target_file(RELEASE).unlink()
    again = refreshed(config)
    assert again.download(again.find(RELEASE)) == archive
    archive.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(SourceError, match="no such file"):
        again.download(again.find(RELEASE))


@pytest.mark.parametrize("release", ["digits@9.9.9", "other@1.2.0"])
def test_what_was_never_published_is_refused(config: Config, release: str) -> None:
    with pytest.raises(TrustError, match="withdrawn, or never published"):
        refreshed(config).find(release)


def test_what_was_withdrawn_is_refused_though_its_archive_is_still_there(
    config: Config, published: TufRepository
) -> None:
    refreshed(config).find(RELEASE)
    archive = published.target_file(RELEASE)
    published.withdraw(RELEASE)
    assert archive.is_file()
    with pytest.raises(TrustError, match="withdrawn, or never published") as refusal:
        refreshed(config).find(RELEASE)
    assert "edge-agent rollback" in refusal.value.remedy


@pytest.mark.parametrize(
    "release",
    [
        *("", "digits", "digits@", "@1.0.0", "digits@1.0", "digits@01.0.0", "Digits@1.0.0", "digits@1.0.0@1.0.0"),
        *("../x@1.0.0", "a@1.0.0/../../b", "digits@1.0.0\n", "digits@1.0.0-", "d" * 200 + "@1.0.0", "d@\u0661.0.0"),
    ],
)
def test_an_invalid_release_name_never_becomes_a_path(config: Config, release: str) -> None:
    with pytest.raises(NoReleaseError, match="not the name of a release"):
        refreshed(config).find(release)


def test_versions_as_semver_has_them_are_names(config: Config, published: TufRepository) -> None:
    for version in ("0.0.1", "1.2.0-rc.1", "1.2.0-0a", "1.2.0+build.7", "10.20.30-a.b-c+d"):
        published.publish(f"digits@{version}")
        repository = refreshed(config)
        repository.download(repository.find(f"digits@{version}"))


def test_custom_data_of_another_version_is_refused(config: Config, published: TufRepository) -> None:
    published.publish(RELEASE, custom={"version": "1.3.0"})
    with pytest.raises(TrustError, match=r"1\.3\.0"):
        refreshed(config).find(RELEASE)


def test_too_little_space_is_reported_before_the_first_request(config: Config, published: TufRepository) -> None:
    full = dataclasses.replace(config, install=Install(reserve_mb=1e9))
    repository = refreshed(full)
    published.target_file(RELEASE).unlink()
    with pytest.raises(StorageError, match="bytes free"):
        repository.download(repository.find(RELEASE))


def test_the_partial_file_of_another_release_is_removed(config: Config) -> None:
    other = config.layout.incoming / f".{'0' * 64}.partial"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x" * 1000)
    repository = refreshed(config)
    repository.download(repository.find(RELEASE))
    assert not other.exists()


# --- clocks


def test_the_last_trusted_time_decides_where_the_clock_is_behind(config: Config, published: TufRepository) -> None:
    """Fails if python-tuf no longer uses the time that the agent sets."""
    ahead = datetime.now(UTC) + timedelta(days=20)
    state = State(trusted_time=ahead.isoformat())
    assert Repository(config, state).refresh() == ahead
    published.renew("timestamp", days=10)
    Repository(config, State()).refresh()
    with pytest.raises(TrustError) as refusal:
        Repository(config, state).refresh()
    expires = published.signed["timestamp"].expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"timestamp expired at {expires}" in refusal.value.found
    assert f"earlier than {ahead:%Y-%m-%dT%H:%M:%SZ}" in refusal.value.found
    assert "timedatectl" in refusal.value.remedy
    assert "NTP" in refusal.value.remedy


def test_a_clock_that_is_right_again_is_used(config: Config) -> None:
    before = datetime.now(UTC)
    earlier = State(trusted_time=(before - timedelta(days=9)).isoformat())
    assert before <= Repository(config, earlier).refresh() <= datetime.now(UTC)


def test_an_invalid_trusted_time_is_a_fault_of_the_state(config: Config) -> None:
    with pytest.raises(ConfigurationError, match="trusted_time"):
        Repository(config, State(trusted_time="yesterday"))


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_expiry_names_the_role_and_the_time(config: Config, published: TufRepository, role: str) -> None:
    refreshed(config)
    published.renew(role, days=-2)
    expires = published.signed[role].expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(TrustError) as refusal:
        Repository(config, State()).refresh()
    assert f"the role {role} expired at {expires}" in refusal.value.found
    assert "this device's clock shows" in refusal.value.found
    assert f"publish a new {role}" in refusal.value.remedy


# --- power cuts and damaged disks


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.mark.parametrize("damage", [emptied, cut, zeroed])
def test_no_damaged_file_prevents_a_refresh(
    config: Config,
    published: TufRepository,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    published.rotate("timestamp")
    published.release()
    refreshed(config)
    files = sorted(config.layout.tuf.rglob("*.json"))
    assert len(files) == 6
    for file in files:
        undamaged = file.read_bytes()
        file.write_bytes(damage(undamaged))
        caplog.clear()
        refreshed(config).find(RELEASE)
        assert file.read_bytes() == undamaged, file
        assert f"{file} is damaged" in caplog.text


@pytest.mark.parametrize("point", [name for name in fault_points.POINTS if name.startswith("trust.")])
def test_killed_anywhere_in_a_refresh_every_file_is_complete_and_replay_is_refused(
    config: Config, published: TufRepository, tmp_path: Path, point: str
) -> None:
    refreshed(config)
    before, old = versions(config), published.copy(tmp_path / "old")
    published.rotate("snapshot")
    published.release()
    for time in (1, 3):
        killed = fetch_in_process(config, RELEASE, f"{point}=kill#{time}")
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
        now = versions(config)
        assert all(now[role] >= version for role, version in before.items())
        before = now
    refreshed(config).find(RELEASE)
    assert not list(config.layout.state.glob(".tuf.partial"))
    published.restore(old)
    with pytest.raises(TrustError, match="version"):
        Repository(config, State()).refresh()


def test_a_full_disk_in_a_refresh_leaves_what_was_trusted(
    config: Config, published: TufRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed(config)
    before = versions(config)
    published.release()
    monkeypatch.setenv(fault_points.VARIABLE, "trust.before_fsync=nospace#1")
    monkeypatch.setattr(fault_points, "_passed", {})
    with pytest.raises(OSError, match="No space left"):
        Repository(config, State()).refresh()
    assert versions(config) == before
    monkeypatch.delenv(fault_points.VARIABLE)
    refreshed(config)


# --- the pinned root and its successors


def test_the_pinned_root_leads_to_the_current_one_also_without_the_roots_between(
    config: Config, published: TufRepository
) -> None:
    for role in ("root", "timestamp", "root"):
        published.rotate(role)
    published.release()
    refreshed(config)
    assert versions(config)["root"] == 4
    for version in (2, 3):
        (published.metadata / f"{version}.root.json").unlink()
    refreshed(config).find(RELEASE)


def test_a_new_root_is_kept_although_the_refresh_failed(config: Config, published: TufRepository) -> None:
    refreshed(config)
    published.rotate("timestamp")  # the timestamp that is there was signed by the key before
    with pytest.raises(TrustError, match="signed by 0/1"):
        Repository(config, State()).refresh()
    assert versions(config)["root"] == 2


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_an_invalid_pinned_root_is_a_fault_of_the_configuration(
    config: Config, tmp_path: Path, content: bytes | None
) -> None:
    pinned = tmp_path / "pinned.json"
    if content is not None:
        pinned.write_bytes(content)
    invalid = dataclasses.replace(config, paths=dataclasses.replace(config.paths, root=str(pinned)))
    with pytest.raises(ConfigurationError, match=r"pinned\.json"):
        Repository(invalid, State()).refresh()


def test_a_pinned_root_with_too_few_signatures_is_refused(config: Config, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.json"
    root = json.loads(Path(config.paths.root).read_text())
    root["signatures"] = root["signatures"][:1]
    pinned.write_text(json.dumps(root))
    invalid = dataclasses.replace(config, paths=dataclasses.replace(config.paths, root=str(pinned)))
    with pytest.raises(ConfigurationError, match="signed by 1/2"):
        Repository(invalid, State()).refresh()


def test_a_medium_that_is_not_mounted_is_reported(config: Config, published: TufRepository) -> None:
    shutil.copy(published.root_file, published.folder.parent / "root.json")
    paths = dataclasses.replace(config.paths, root=str(published.folder.parent / "root.json"))
    shutil.rmtree(published.folder)
    with pytest.raises(SourceError, match="medium is mounted"):
        Repository(dataclasses.replace(config, paths=paths), State()).refresh()
