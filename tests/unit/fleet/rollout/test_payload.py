"""The repository is opened again when a wave is: what was withdrawn, signed anew or has expired since it began."""

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
    """`fleet wave open`, as a playbook calls it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))

    def run(begun: PreflightResult, devices: list[str], where: str | Path = root.parent / "releases") -> Json:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"devices": devices})))
        capsys.readouterr()
        assert main.main(["--json", "wave", "open", "--record", begun.record, "--repository", str(where)]) == 0
        said: Json = json.loads(capsys.readouterr().out)
        return said

    return run


def repository(root: Path, **days: float) -> Repository:
    return Repository(root.parent / "releases", Keys(root.parent / "keys"), days)


def withdraw(root: Path) -> None:
    there = repository(root)
    there.targets.targets.pop(target_path(*NEW.split("@")))
    catalog.withdrawals(there)[NEW] = {"reason": "burns", "time": "", "length": 1, "sha256": "0" * 64, "custom": {}}
    there.write("targets", "snapshot", "timestamp")


def packed(begun: PreflightResult) -> dict[str, bytes]:
    """What devices are brought: name -> content."""
    with tarfile.open(folder(begun) / rollout_folder.PUSH) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}


def signed(content: dict[str, bytes], name: str) -> Any:
    return json.loads(content[f"repository/metadata/{name}"])["signed"]


def pauses(root: Path, begun: PreflightResult, said: Json) -> str:
    """Nothing is touched, the trail has a line, and the rollout waits. Why."""
    assert not said["go"] and not said["packed"]
    state = controller(begun).state
    assert state.status == "paused" and state.reason == said["reason"]
    assert not any(state.devices[name].touched for name in REST)
    last = list(rollout_audit.read(rollout_folder.rollouts("farm", root)))[-1]
    assert (last.action, last.result, last.devices) == ("pause", "paused", REST)
    assert last.detail == said["reason"]
    assert controller(begun).close({}).status == "paused"
    return str(said["reason"])


def test_what_was_withdrawn_meanwhile_goes_no_further(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    through_canary(begun)
    withdraw(root)

    why = pauses(root, begun, opened(begun, REST))

    assert f"{NEW}: withdrawn: burns" in why and "declare another one" in why


def test_what_was_signed_anew_is_brought(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    before = packed(begun)
    through_canary(begun)
    repository(root).write("snapshot", "timestamp")

    said = opened(begun, REST)

    assert said["go"] and said["packed"]
    timestamp = signed(packed(begun), "timestamp.json")
    assert timestamp["version"] == signed(before, "timestamp.json")["version"] + 1
    named = timestamp["meta"]["snapshot.json"]["version"]
    assert signed(packed(begun), f"{named}.snapshot.json")["version"] == named
    archives = [{n: c for n, c in each.items() if n.endswith(".tar.zst")} for each in (before, packed(begun))]
    assert archives[0] == archives[1]


def test_a_new_root_is_brought(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    rotation.renew_root(repository(root))

    assert opened(begun, CANARY)["packed"]
    assert signed(packed(begun), "2.root.json")["version"] == 2


def test_no_archive_is_read_where_nothing_was_signed(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    (archive,) = (root.parent / "releases").rglob("*.tar.zst")
    archive.unlink()

    said = opened(begun, CANARY)

    assert said["go"] and not said["packed"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_expired_metadata_waits_for_a_refresh(root: Path, opened: Callable[..., Json], role: str) -> None:
    begun = begin(root)
    through_canary(begun)
    repository(root, **{role: -1.0}).write("snapshot", "timestamp")

    why = pauses(root, begun, opened(begun, REST))

    assert f"{role}: expired 1.0 days ago" in why and expiry.RENEW[role] in why


def test_a_release_of_other_bytes_goes_no_further(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    plan = folder(begun) / "plan.json"
    said = json.loads(plan.read_text())
    (archive,) = (root.parent / "releases").rglob("*.tar.zst")
    said["releases"][NEW]["sha256"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    plan.write_text(json.dumps(said))
    through_canary(begun)
    there = repository(root)
    there.add(target_path(*NEW.split("@")), bundle(root.parent / "other", seed=5).archive, {"version": "1.1.0"})
    there.write("targets", "snapshot", "timestamp")

    assert NEW in (why := pauses(root, begun, opened(begun, REST))) and "began with: --repository" in why


def test_earlier_metadata_than_devices_were_brought_is_not_taken(root: Path, opened: Callable[..., Json]) -> None:
    earlier = shutil.copytree(root.parent / "releases", root.parent / "earlier")
    repository(root).write("timestamp")
    begun = begin(root)
    through_canary(begun)

    assert "timestamp: version 2" in pauses(root, begun, opened(begun, REST, earlier))


def test_a_store_out_of_reach_is_waited_for(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    through_canary(begun)
    url = f"http://127.0.0.1:{free_port()}/releases"

    assert url in (why := pauses(root, begun, opened(begun, REST, url))) and "network" in why


def test_a_store_is_opened_again(root: Path, opened: Callable[..., Json]) -> None:
    url = (root.parent / "releases").as_uri()
    begun = begin(root, changed={"repository": url})
    said = opened(begun, CANARY, url)
    assert said["go"] and not said["packed"]
    assert controller(begun).judge_wave({"a": done()}, {}).status == "pass"
    withdraw(root)

    assert "withdrawn: burns" in pauses(root, begun, opened(begun, REST, url))


def test_a_store_that_another_process_works_on_is_waited_for(
    root: Path, opened: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (root.parent / "releases").as_uri()
    begun = begin(root, changed={"repository": url})
    through_canary(begun)
    (cache,) = (root.parent / "cache").rglob(".lock")
    monkeypatch.setattr(payload, "LOCK_S", 0.3)

    with repository_lock(cache.parent):
        why = pauses(root, begun, opened(begun, REST, url))

    assert "locked by another process" in why


def test_the_plan_names_the_repository_and_not_a_copy_of_it(
    root: Path, opened: Callable[..., Json], capsys: pytest.CaptureFixture[str]
) -> None:
    url = (root.parent / "releases").as_uri()
    named = ["--inventory", str(declared(root)), "--rollouts", str(root), "--repository", url]
    assert main.main(["--json", "wave", "plan", *named]) == 0

    assert json.loads(capsys.readouterr().out)["repository"] == absolute_location(url)


def test_what_is_signed_while_it_is_packed_is_not_mixed_in(root: Path, tmp_path: Path) -> None:
    there = repository(root)
    repository(root).write("snapshot", "timestamp")

    payload.write_archive(there, [NEW], tmp_path / "push.tar")

    with tarfile.open(tmp_path / "push.tar") as tar:
        names = tar.getnames()
        timestamp = json.load(tar.extractfile("repository/metadata/timestamp.json"))
    named = timestamp["signed"]["meta"]["snapshot.json"]["version"]
    assert f"repository/metadata/{named}.snapshot.json" in names


def test_a_pause_ends_where_the_metadata_is_signed_anew(root: Path, opened: Callable[..., Json]) -> None:
    begun = begin(root)
    repository(root, timestamp=-1.0).write("timestamp")
    assert not opened(begun, CANARY)["go"]
    repository(root).write("timestamp")

    resumed = begin(root, changed={"resumes": folder(begun).name})

    assert resumed.status == "resumed" and opened(resumed, CANARY)["go"]
    assert controller(resumed).judge_wave({"a": done()}, {}).status == "pass"
    expires = signed(packed(resumed), "timestamp.json")["expires"]
    assert datetime.fromisoformat(expires) > datetime.now(UTC) + timedelta(days=1)
