"""A bundle becomes a release: the real command line, a real git repository, the device's own code to read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from edge_agent.core.errors import TrustError as DeviceTrustError

from fleet.cli import releases
from fleet.releases.git_tags import TagRegistry
from stages.core.files import sha256
from tests.support.agent.bundles import bundle
from tests.support.fleet.publishing import Publisher, Reader, three_bundles

pytestmark = pytest.mark.slow
bundles = pytest.fixture(three_bundles, scope="module")


@pytest.fixture(scope="module")
def published(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher with pump@1.0.0 and development keys, to be copied."""
    folder = tmp_path_factory.mktemp("published")
    result = Publisher(folder / "work").run("publish", bundles[0], "--version", "1.0.0")
    assert result["state"] == "published"
    return folder


@pytest.fixture
def publisher(published: Path, tmp_path: Path) -> Publisher:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return Publisher(tmp_path / "work")


def device(publisher: Publisher, name: str = "device") -> Reader:
    pin = publisher.releases / "metadata" / "1.root.json"
    return Reader(pin, publisher.folder.parent / name, publisher.releases.as_uri())


def test_a_bundle_becomes_a_release_that_a_device_installs(publisher: Publisher, bundles: list[Path]) -> None:
    commit = publisher.git("rev-parse", "HEAD")

    assert device(publisher).fetch("pump@1.0.0") == bundles[0].read_bytes()
    offer = device(publisher).refresh().find("pump@1.0.0")
    builder = json.loads((publisher.releases / "policy.json").read_text())["builder"]
    assert set(offer.custom) == {"version", "commit", "time", "builder"}
    assert (offer.custom["version"], offer.custom["commit"]) == ("1.0.0", commit)
    assert offer.custom["builder"].startswith("key:") and "BEGIN PUBLIC KEY" in builder["public_key"]
    assert publisher.git("cat-file", "-t", "pump@v1.0.0") == "tag"  # annotated
    assert publisher.git("rev-parse", "pump@v1.0.0^{commit}") == commit
    assert sha256(bundles[0]) in publisher.git("tag", "--list", "--format=%(contents)")


def test_the_same_bytes_again_are_nothing_to_do(publisher: Publisher, bundles: list[Path]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in publisher.releases.rglob("*") if path.is_file())

    for options in (["--version", "1.0.0"], ["--bump", "minor"], []):
        assert publisher.run("publish", bundles[0], *options)["state"] == "unchanged"

    assert sorted((path, path.stat().st_mtime_ns) for path in publisher.releases.rglob("*") if path.is_file()) == before


def test_other_bytes_under_a_used_version_are_refused(publisher: Publisher, bundles: list[Path]) -> None:
    publisher.commit()

    refused = publisher.run("publish", bundles[1], "--version", "1.0.0", code=5)

    assert sha256(bundles[0]) in refused["found"] and sha256(bundles[1]) in refused["expected"]
    assert device(publisher).fetch("pump@1.0.0") == bundles[0].read_bytes()


def test_versions_are_bumped_from_the_highest_that_was_ever_used(publisher: Publisher, bundles: list[Path]) -> None:
    publisher.commit()
    assert publisher.run("publish", bundles[1], "--bump", "minor")["release"] == "pump@1.1.0"
    publisher.run("release", "withdraw", "pump@1.1.0", "--reason", "too warm")
    publisher.commit()
    assert publisher.run("publish", bundles[2])["release"] == "pump@1.1.1"

    found = publisher.run("release", "list")["releases"]

    assert [(each["release"], each["state"]) for each in found] == [
        ("pump@1.1.1", "published"),
        ("pump@1.1.0", "withdrawn"),
        ("pump@1.0.0", "published"),
    ]
    assert found[1]["reason"] == "too warm" and found[0]["metrics"] == {"onnx-fp32": {}}
    shown = publisher.run("release", "show", "pump@1.1.1")
    assert (shown["sha256"], shown["length"]) == (sha256(bundles[2]), bundles[2].stat().st_size)
    assert publisher.run("release", "show", "pump@9.0.0", code=6)["remedy"]


def test_what_is_withdrawn_is_refused_by_devices_and_never_used_again(
    publisher: Publisher, bundles: list[Path]
) -> None:
    assert device(publisher).fetch("pump@1.0.0")

    publisher.run("release", "withdraw", "pump@1.0.0", "--reason", "wrong labels")

    with pytest.raises(DeviceTrustError, match="withdrawn"):
        device(publisher).fetch("pump@1.0.0")
    again = publisher.run("release", "withdraw", "pump@1.0.0", "--reason", "another")
    assert again["reason"] == "wrong labels"
    assert "withdrawn" in publisher.run("publish", bundles[0], "--version", "1.0.0", code=5)["found"]
    lines = [json.loads(line) for line in (publisher.releases / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["init", "publish", "withdraw"]
    assert lines[2]["reason"] == "wrong labels"


def test_a_commit_stands_for_one_version_and_for_what_was_built(publisher: Publisher, bundles: list[Path]) -> None:
    taken = publisher.run("publish", bundles[1], "--version", "1.1.0", code=5)
    assert "registered as pump@v1.0.0" in taken["found"]

    (publisher.folder / "recipe").write_text("changed")
    changed = publisher.run("publish", bundles[1], code=5)
    assert "files with uncommitted changes: recipe" in changed["found"]

    unnamed = publisher.run("publish", bundles[1], "--no-tag")
    assert (unnamed["release"], unnamed["commit"], unnamed["tag"]) == ("pump@1.0.1", None, None)


def test_a_commit_is_named_only_where_it_built_the_bundle(
    publisher: Publisher, bundles: list[Path], tmp_path: Path
) -> None:
    """Given a bundle that was built elsewhere: not the commit that happens to be checked out."""
    built = publisher.commit()
    publisher.commit()
    publisher.run("sign", bundles[1], tmp_path / "signature")
    signed = ["publish", str(bundles[1]), "--signature", str(tmp_path / "signature")]

    assert "not in" in publisher.run(*signed, "--commit", "0" * 40, code=5)["found"]
    unnamed = publisher.run(*signed, "--version", "1.1.0")
    assert (unnamed["commit"], unnamed["tag"]) == (None, None) and "contains no commit" in unnamed["warnings"][0]
    publisher.run("sign", bundles[2], tmp_path / "other")
    named = publisher.run("publish", bundles[2], "--signature", tmp_path / "other", "--commit", built[:12])
    assert named["commit"] == built == publisher.git("rev-parse", f"{named['tag']}^{{commit}}")


def test_a_commit_has_built_what_its_lock_names(publisher: Publisher, bundles: list[Path], tmp_path: Path) -> None:
    folder = publisher.folder / "bundle"
    folder.mkdir()
    shutil.copy(bundles[0], folder)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], cwd=publisher.folder, check=True)
    stages = {"stages": {"package": {"cmd": "true", "outs": ["bundle"]}}}
    (publisher.folder / "dvc.yaml").write_text(json.dumps(stages))
    subprocess.run(["dvc", "commit", "--quiet", "--force"], cwd=publisher.folder, check=True)
    publisher.git("add", "--force", "dvc.lock")
    commit = publisher.commit()
    registry = TagRegistry(publisher.folder)
    assert registry.is_built_by(commit, folder / bundles[0].name) is True
    assert publisher.run("publish", bundles[0], "--version", "1.0.0")["state"] == "unchanged"
    (folder / bundles[0].name).write_bytes(bundle(tmp_path / "new", seed=4).archive.read_bytes())
    refused = publisher.run("publish", folder / bundles[0].name, "--version", "2.0.0", code=5)
    assert "has a different digest" in refused["found"]


def test_a_reason_does_not_write_on_the_terminal() -> None:
    withdrawn = releases.ReleaseWithdrawn.model_construct(
        release="a@1.0.0", reason="x\n\x1b[2Jb@2.0.0  fine", warnings=[]
    )

    assert releases._withdraw_text(withdrawn).isprintable()


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0/../../x", "01.0.0", "1.0.0-", "1.0.0 ", "latest", ""])
def test_what_is_no_version_is_refused(publisher: Publisher, bundles: list[Path], version: str) -> None:
    assert publisher.run("publish", bundles[1], f"--version={version}", code=5)["error"] == "VersionError"


def test_what_is_no_whole_bundle_is_refused(publisher: Publisher, bundles: list[Path], tmp_path: Path) -> None:
    half = tmp_path / "half.tar.zst"
    half.write_bytes(bundles[1].read_bytes()[:5000])
    for path in (half, tmp_path, tmp_path / "nothing"):
        refused = publisher.run("publish", path, code=4)
        assert str(path) in refused["where"] and refused["remedy"]


def test_a_bundle_is_signed_in_one_place_and_published_in_another(
    publisher: Publisher, bundles: list[Path], tmp_path: Path
) -> None:
    publisher.commit()
    publisher.run("sign", bundles[1], tmp_path / "signature")
    publisher.run("sign", bundles[2], tmp_path / "other")
    for path in publisher.keys.glob("builder.*"):
        path.unlink()

    assert publisher.run("publish", bundles[1], code=13)["where"].endswith(".pem")
    assert "does not verify" in publisher.run("publish", bundles[1], "--signature", tmp_path / "other", code=3)["found"]
    assert publisher.run("publish", bundles[1], "--signature", tmp_path / "signature")["release"] == "pump@1.0.1"

    kept = next((publisher.releases / "targets" / "pump" / "1.0.1").glob("*.sig"))
    assert kept.read_bytes() == (tmp_path / "signature").read_bytes()


def test_development_keys_are_marked_and_warned_of(publisher: Publisher) -> None:
    root = json.loads((publisher.releases / "metadata" / "1.root.json").read_text())

    assert root["signed"]["x-development"] is True
    assert any("development keys" in warning for warning in publisher.run("release", "list")["warnings"])


def test_what_expires_soon_is_warned_of_and_renewed(publisher: Publisher) -> None:
    soon = publisher.run("release", "refresh", "--all", "--root", "--root-days", "9", "--targets-days", "3")
    said = " ".join(soon["warnings"])
    assert "root expires in 9.0 days" in said and "targets expires in 3.0 days" in said
    assert soon["signed"] == ["root", "targets", "snapshot", "timestamp"]

    renewed = publisher.run("release", "refresh", "--all", "--root")

    assert not any("expire" in warning for warning in renewed["warnings"])
    assert device(publisher).fetch("pump@1.0.0")


def test_a_clone_lists_releases_without_their_archives_and_brings_one_back(
    publisher: Publisher, bundles: list[Path]
) -> None:
    shutil.rmtree(publisher.releases / "targets")
    assert publisher.run("release", "list")["releases"][0]["metrics"] is None

    assert publisher.run("publish", bundles[0])["state"] == "unchanged"

    assert device(publisher).fetch("pump@1.0.0") == bundles[0].read_bytes()


def test_killed_at_any_step_a_publication_leaves_what_devices_accept_and_goes_on(
    publisher: Publisher, bundles: list[Path], tmp_path: Path
) -> None:
    publisher.commit()
    publisher.run("sign", bundles[1], tmp_path / "signature")
    untouched = tmp_path / "untouched"
    shutil.copytree(publisher.folder, untouched)
    publish = ["publish", bundles[1], "--signature", tmp_path / "signature", "--commit", "HEAD", "--bump", "minor"]

    steps = 0
    runs = publisher.killed_at_each_step(*publish, again=True)
    for steps in runs:
        assert device(publisher, f"device-{steps}").fetch("pump@1.0.0") == bundles[0].read_bytes()
        assert next(runs) == steps  # run again
        assert publisher.git("tag", "--list").split() == ["pump@v1.0.0", "pump@v1.1.0"]
        assert device(publisher, f"device-{steps}").fetch("pump@1.1.0") == bundles[1].read_bytes()
        archives = publisher.releases / "targets" / "pump" / "1.1.0"
        assert len([path for path in archives.iterdir() if not path.name.startswith(".")]) == 2
        for part in ("releases", ".git"):
            shutil.rmtree(publisher.folder / part)
            shutil.copytree(untouched / part, publisher.folder / part)

    assert steps >= 8


@pytest.mark.parametrize(
    ("command", "least"), [("keys rotate --role root", 2), ("release withdraw pump@1.0.1 --reason bad", 3)]
)
@pytest.mark.exhaustive
def test_killed_at_any_step_other_operations_leave_what_devices_accept(
    publisher: Publisher, bundles: list[Path], command: str, least: int
) -> None:
    publisher.commit()
    publisher.run("publish", bundles[1])

    steps = 0
    for steps in publisher.killed_at_each_step(*command.split()):
        assert device(publisher, f"device-{steps}").fetch("pump@1.0.0") == bundles[0].read_bytes()

    assert steps >= least
    assert device(publisher).fetch("pump@1.0.0") == bundles[0].read_bytes()


@pytest.mark.exhaustive
def test_killed_at_any_step_a_first_publication_goes_on(bundles: list[Path], tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "work")
    for _ in publisher.killed_at_each_step("keys", "init"):
        pass

    publisher.run("publish", bundles[0], "--version", "1.0.0")

    assert device(publisher).fetch("pump@1.0.0") == bundles[0].read_bytes()
