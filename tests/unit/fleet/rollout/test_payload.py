"""The payload is checked again before each wave: a release was withdrawn, or metadata was signed or has expired."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.cli import main
from fleet.records import rollout_audit, rollout_folder
from fleet.releases import catalog, expiry, rotation
from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from fleet.releases.repository_storage import absolute_location, repository_lock
from fleet.rollout import payload
from fleet.rollout.step_results import PreflightResult
from tests.support.agent.bundles import bundle
from tests.support.fleet.rollouts import NEW, Json, begin, controller, declared, done, folder, through_canary
from tests.support.servers import free_port

CANARY, REST = ["a"], ["b", "c", "d"]


@pytest.fixture
def opened(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Json]:
    """Return a function that runs `fleet wave open` as a playbook does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))

    def run(started: PreflightResult, devices: list[str], where: str | Path = root.parent / "releases") -> Json:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"devices": devices})))
        capsys.readouterr()
        assert main.main(["--json", "wave", "open", "--record", started.record, "--repository", str(where)]) == 0
        opening: Json = json.loads(capsys.readouterr().out)
        return opening

    return run


def repository(root: Path, **days: float) -> Repository:
    return Repository(root.parent / "releases", Keys(root.parent / "keys"), days)


def withdraw(root: Path) -> None:
    changed_repository = repository(root)
    changed_repository.targets.targets.pop(target_path(*NEW.split("@")))
    catalog.withdrawals(changed_repository)[NEW] = {
        "reason": "burns",
        "time": "",
        "length": 1,
        "sha256": "0" * 64,
        "custom": {},
    }
    changed_repository.write("targets", "snapshot", "timestamp")


def packed(started: PreflightResult) -> dict[str, bytes]:
    """Return the content of the payload by file name."""
    with tarfile.open(folder(started) / rollout_folder.PUSH) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}


def signed(content: dict[str, bytes], name: str) -> Any:
    return json.loads(content[f"repository/metadata/{name}"])["signed"]


def pauses(root: Path, started: PreflightResult, opening: Json) -> str:
    """Check that no device was touched and that the pause is recorded; return its reason."""
    assert not opening["go"] and not opening["packed"]
    state = controller(started).state
    assert state.status == "paused" and state.reason == opening["reason"]
    assert not any(state.devices[name].touched for name in REST)
    last = list(rollout_audit.read(rollout_folder.rollouts("farm", root)))[-1]
    assert (last.action, last.result, last.devices) == ("pause", "paused", REST)
    assert last.detail == opening["reason"]
    assert controller(started).close({}).status == "paused"
    return str(opening["reason"])


def test_a_release_that_was_withdrawn_is_not_delivered_further(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    through_canary(started)
    withdraw(root)

    reason = pauses(root, started, opened(started, REST))

    assert f"{NEW}: withdrawn: burns" in reason and "declare a different release" in reason


def test_metadata_that_was_signed_again_is_delivered(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    before = packed(started)
    through_canary(started)
    repository(root).write("snapshot", "timestamp")

    opening = opened(started, REST)

    assert opening["go"] and opening["packed"]
    timestamp = signed(packed(started), "timestamp.json")
    assert timestamp["version"] == signed(before, "timestamp.json")["version"] + 1
    version = timestamp["meta"]["snapshot.json"]["version"]
    assert signed(packed(started), f"{version}.snapshot.json")["version"] == version
    archives = [{n: c for n, c in each.items() if n.endswith(".tar.zst")} for each in (before, packed(started))]
    assert archives[0] == archives[1]


def test_a_new_root_is_delivered(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    rotation.renew_root(repository(root))

    assert opened(started, CANARY)["packed"]
    assert signed(packed(started), "2.root.json")["version"] == 2


def test_no_archive_is_read_where_nothing_was_signed(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    (archive,) = (root.parent / "releases").rglob("*.tar.zst")
    archive.unlink()

    opening = opened(started, CANARY)

    assert opening["go"] and not opening["packed"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_expired_metadata_waits_for_a_refresh(root: Path, opened: Callable[..., Json], role: str) -> None:
    started = begin(root)
    through_canary(started)
    repository(root, **{role: -1.0}).write("snapshot", "timestamp")

    reason = pauses(root, started, opened(started, REST))

    assert f"{role}: expired 1.0 days ago" in reason and expiry.RENEW[role] in reason


def test_a_release_with_other_bytes_is_not_delivered_further(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    plan = folder(started) / "plan.json"
    opening = json.loads(plan.read_text())
    (archive,) = (root.parent / "releases").rglob("*.tar.zst")
    opening["releases"][NEW]["sha256"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    plan.write_text(json.dumps(opening))
    through_canary(started)
    changed_repository = repository(root)
    changed_repository.add(
        target_path(*NEW.split("@")), bundle(root.parent / "other", seed=5).archive, {"version": "1.1.0"}
    )
    changed_repository.write("targets", "snapshot", "timestamp")

    assert (
        NEW in (reason := pauses(root, started, opened(started, REST))) and "the rollout began: --repository" in reason
    )


def test_metadata_older_than_that_of_devices_is_refused(root: Path, opened: Callable[..., Json]) -> None:
    earlier = shutil.copytree(root.parent / "releases", root.parent / "earlier")
    repository(root).write("timestamp")
    started = begin(root)
    through_canary(started)

    assert "timestamp: version 2" in pauses(root, started, opened(started, REST, earlier))


def test_an_unreachable_repository_pauses_the_rollout(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    through_canary(started)
    url = f"http://127.0.0.1:{free_port()}/releases"

    assert url in (reason := pauses(root, started, opened(started, REST, url))) and "network" in reason


def test_a_remote_repository_is_opened_again(root: Path, opened: Callable[..., Json]) -> None:
    url = (root.parent / "releases").as_uri()
    started = begin(root, changed={"repository": url})
    opening = opened(started, CANARY, url)
    assert opening["go"] and not opening["packed"]
    assert controller(started).judge_wave({"a": done()}, {}).status == "pass"
    withdraw(root)

    assert "withdrawn: burns" in pauses(root, started, opened(started, REST, url))


def test_a_repository_that_another_process_holds_pauses_the_rollout(
    root: Path, opened: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (root.parent / "releases").as_uri()
    started = begin(root, changed={"repository": url})
    through_canary(started)
    (cache,) = (root.parent / "cache").rglob(".lock")
    monkeypatch.setattr(payload, "LOCK_S", 0.3)

    with repository_lock(cache.parent):
        reason = pauses(root, started, opened(started, REST, url))

    assert "locked by another process" in reason


def test_the_plan_names_the_repository_and_not_a_copy_of_it(
    root: Path, opened: Callable[..., Json], capsys: pytest.CaptureFixture[str]
) -> None:
    url = (root.parent / "releases").as_uri()
    version = ["--inventory", str(declared(root)), "--rollouts", str(root), "--repository", url]
    assert main.main(["--json", "wave", "plan", *version]) == 0

    assert json.loads(capsys.readouterr().out)["repository"] == absolute_location(url)


def test_metadata_that_is_signed_during_packing_is_not_mixed_in(root: Path, tmp_path: Path) -> None:
    changed_repository = repository(root)
    repository(root).write("snapshot", "timestamp")

    payload.write_archive(changed_repository, [NEW], tmp_path / "push.tar")

    with tarfile.open(tmp_path / "push.tar") as tar:
        names = tar.getnames()
        timestamp = json.load(tar.extractfile("repository/metadata/timestamp.json"))
    version = timestamp["signed"]["meta"]["snapshot.json"]["version"]
    assert f"repository/metadata/{version}.snapshot.json" in names


def test_a_pause_ends_after_the_metadata_is_signed_again(root: Path, opened: Callable[..., Json]) -> None:
    started = begin(root)
    repository(root, timestamp=-1.0).write("timestamp")
    assert not opened(started, CANARY)["go"]
    repository(root).write("timestamp")

    resumed = begin(root, changed={"resumes": folder(started).name})

    assert resumed.status == "resumed" and opened(resumed, CANARY)["go"]
    assert controller(resumed).judge_wave({"a": done()}, {}).status == "pass"
    expires = signed(packed(resumed), "timestamp.json")["expires"]
    assert datetime.fromisoformat(expires) > datetime.now(UTC) + timedelta(days=1)
