"""A rollout uses exactly the signed archives of a folder or a store; an unreachable store is reported."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet import errors
from fleet.cli import main
from fleet.errors import FleetError, SourceError, TrustError
from fleet.execution.live_progress import LiveProgress
from fleet.records import rollout_folder
from fleet.releases import repository_storage
from stages.core.files import sha256
from tests.support.agent.bundles import bundle
from tests.support.fleet.rollouts import NEW, Json, declared, folder, then
from tests.support.servers import Status, free_port, web_server

pytestmark = pytest.mark.slow  # each starts the command line


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archive_in(folder: Path) -> Path:
    (archive,) = folder.rglob("*.pump.tar.zst")
    return archive


@pytest.fixture
def plan(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Json]:
    """Run `fleet wave plan` for the devices a to d, which declare NEW, and return its output."""

    def run(where: str, code: int = 0) -> Json:
        inventory = declared(root)
        options = ["--inventory", str(inventory), "--rollouts", str(root), "--repository", where, "--json"]
        assert main.main(["wave", "plan", *options]) == code
        output: Json = json.loads(capsys.readouterr().out)
        return {name: value for name, value in output.items() if name not in ("schema_version", "command")}

    return run


@pytest.mark.parametrize("is_remote", [False, True])
def test_another_valid_archive_in_its_place_stops_the_plan(
    root: Path, plan: Callable[..., Json], is_remote: bool
) -> None:
    """A complete archive, but not the signed one: every device would refuse it, and a good release would fail."""
    releases = root.parent / "releases"
    file = archive_in(releases)
    signed = sha256(file)
    shutil.copy(bundle(root.parent / "other", seed=5).archive, file)

    refused = plan(releases.as_uri() if is_remote else str(releases), code=3)

    assert refused["error"] == "TrustError" and file.name in refused["where"]
    assert sha256(file) in refused["found"] and "publish the same bytes again" in refused["remedy"]
    assert is_remote or signed in refused["expected"]
    assert rollout_folder.rollouts("farm", root) == []


def test_a_missing_archive_is_reported(root: Path, plan: Callable[..., Json]) -> None:
    file = archive_in(root.parent / "releases")
    file.unlink()

    refused = plan(str(root.parent / "releases"), code=9)

    assert refused["where"] == str(file) and "fleet publish" in refused["remedy"]


def test_an_archive_that_changes_after_the_plan_is_not_packed(root: Path, plan: Callable[..., Json]) -> None:
    planned = plan(str(root.parent / "releases"))
    file = archive_in(root.parent / "releases")
    file.write_bytes(b"x" + file.read_bytes()[1:])

    with pytest.raises(TrustError, match="publish the same bytes again"):
        then(root, planned, *"abcd")

    assert rollout_folder.rollouts("farm", root) == [], "no device was changed, and no record is left"


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_corrupted_archive_in_the_cache_is_fetched_again(
    root: Path, plan: Callable[..., Json], cache: Path, content: bytes | None
) -> None:
    """Incomplete after a power cut; or of the right length, with other bytes."""
    url = (root.parent / "releases").as_uri()
    plan(url)
    file = archive_in(cache)
    file.write_bytes(bytes(file.stat().st_size) if content is None else content)

    planned = plan(url)

    assert sha256(file) == planned["releases"][NEW]["sha256"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_rollout_continues_from_the_repository_that_the_run_names(
    root: Path, plan: Callable[..., Json], cache: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """Given that the first machine is lost with its cache; `moved`: the store has another address too."""
    releases = root.parent / "releases"
    started = then(root, plan(releases.as_uri()), *"abcd")
    shutil.rmtree(cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "another"))
    if moved:
        releases = releases.rename(root.parent / "moved")

    planned = plan(releases.as_uri())
    (root / "farm" / planned["resumes"] / rollout_folder.PUSH).unlink()
    resumed = then(root, planned, *"abcd")

    assert (resumed.status, resumed.record) == ("resumed", started.record)
    with tarfile.open(resumed.push) as tar:
        (archive,) = [member for member in tar if member.name.endswith(".tar.zst")]
        content = tar.extractfile(archive)
        assert content and content.read() == archive_in(releases).read_bytes()


def test_a_rollout_does_not_continue_with_other_bytes(root: Path, plan: Callable[..., Json]) -> None:
    """Another repository has a different release of that name: devices would run different models."""
    started = then(root, plan(str(root.parent / "releases")), *"abcd")
    planned = plan(str(root.parent / "releases"))
    file = folder(started) / "plan.json"
    file.write_text(file.read_text().replace(planned["releases"][NEW]["sha256"], "0" * 64))

    with pytest.raises(TrustError, match="the archive's sha256 when rollout"):
        then(root, planned, *"abcd")

    assert rollout_folder.unfinished("farm", root) == rollout_folder.Record(folder(started))


def test_an_unreachable_store_is_not_an_empty_one(plan: Callable[..., Json]) -> None:
    url = f"http://127.0.0.1:{free_port()}/releases"

    refused = plan(url, code=8)

    assert refused["error"] == "SourceError" and refused["where"] == url and "network" in refused["remedy"]


def test_a_server_that_refuses_is_not_an_empty_store(plan: Callable[..., Json]) -> None:
    with web_server() as web:
        web.fail("/releases/metadata/timestamp.json", Status(503))
        assert "503" in plan(f"{web.url}/releases", code=8)["found"]

        nothing = plan(f"{web.url}/releases", code=12)  # its response: not found

    assert "no repository of releases" in nothing["found"] and "fleet keys init" in nothing["remedy"]


def test_a_server_that_lists_nothing_is_not_an_empty_store(plan: Callable[..., Json]) -> None:
    with web_server() as web:
        web.put("/releases/metadata/timestamp.json", b"{}")
        assert "cannot be listed" in plan(f"{web.url}/releases", code=8)["found"]


def test_a_store_without_a_timestamp_is_not_an_empty_one(root: Path, plan: Callable[..., Json]) -> None:
    """Otherwise a publisher would create a new repository over it."""
    (root.parent / "releases" / "metadata" / "timestamp.json").unlink()

    assert "timestamp.json" in plan((root.parent / "releases").as_uri(), code=12)["where"]


def test_an_interrupted_download_leaves_the_cache_unchanged(root: Path, cache: Path) -> None:
    releases = root.parent / "releases"
    with repository_storage.open_storage(releases.as_uri(), write=False) as storage:
        assert storage.fetch
        file = storage.folder / archive_in(releases).relative_to(releases)
        storage.fetch(file)
        archive_in(releases).unlink()
        with pytest.raises(SourceError):
            storage.fetch(file)

    assert sha256(file) == file.name.partition(".")[0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InventoryError("hosts.yml", "no device", "one", "add it"), errors.InventoryError),
        (errors.TrustError("root", "expired"), errors.TrustError),
        (errors.AgentError("x", "y"), FleetError),
    ],
)
def test_the_error_of_a_step_keeps_its_class(error: errors.AgentError, kind: type[FleetError]) -> None:
    live = LiveProgress()
    live.on_step_output(json.dumps({"command": "wave plan", **error.as_json()}))

    failure = live.failure()

    assert type(failure) is kind and failure is not None
    expected: dict[str, Any] = {**error.as_json(), "error": kind.__name__}
    assert failure.as_json() == expected


@pytest.mark.parametrize("name", ["EXIT_DEFECT", "AgentError", "from_json", "nothing", ""])
def test_another_error_becomes_a_fleet_error(name: str) -> None:
    fields = {**FleetError("here", "odd").as_json(), "error": name, "exit_code": 9}

    assert type(errors.from_json(fields)) is FleetError and errors.from_json(fields, ["row"]).exit_code == 9
    assert errors.from_json(fields, ["row"]).found == "odd; row"
