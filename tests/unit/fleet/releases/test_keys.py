"""Private keys: their location, their permissions, and errors that name an unusable key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleet.errors import KeysError
from fleet.releases.keys import Keys, default_folder
from fleet.releases.repository import Repository
from fleet.releases.rotation import renew_root, rotate
from tests.support.agent.bundles import bundle
from tests.support.fleet.publishing import Publisher


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("", "_ROOT", "_TARGETS", "_SNAPSHOT", "_TIMESTAMP", "_BUILDER"):
        monkeypatch.delenv(f"FLEET_KEY_PASSPHRASE{role}", raising=False)


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")

    key = keys.make("targets")

    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert keys.path("targets", key.keyid).stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "keys").iterdir()) == [keys.path("targets", key.keyid)]


def test_a_passphrase_encrypts_its_role_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_KEY_PASSPHRASE_ROOT", "correct horse")
    keys = Keys(tmp_path)
    root, targets = keys.make("root"), keys.make("targets")

    assert b"BEGIN ENCRYPTED" in keys.path("root", root.keyid).read_bytes()
    load_pem_private_key(keys.path("targets", targets.keyid).read_bytes(), None)
    keys.signer("root", root)

    monkeypatch.setenv("FLEET_KEY_PASSPHRASE_ROOT", "wrong")
    with pytest.raises(KeysError, match=r"does not decrypt the key.*\n.*\n.*FLEET_KEY_PASSPHRASE_ROOT"):
        keys.signer("root", root)
    monkeypatch.delenv("FLEET_KEY_PASSPHRASE_ROOT")
    with pytest.raises(KeysError, match="no passphrase is given"):
        keys.signer("root", root)
    monkeypatch.setenv("FLEET_KEY_PASSPHRASE", "correct horse")
    keys.signer("root", root)


def test_an_unusable_key_is_reported(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key, other = keys.make("targets"), keys.make("targets")
    path = keys.path("targets", key.keyid)
    content = path.read_bytes()

    def refusal() -> str:
        with pytest.raises(KeysError) as caught:
            keys.signer("targets", key)
        assert str(path) in str(caught.value)
        return str(caught.value)

    path.chmod(0o640)
    assert f"chmod 600 {path}" in refusal()
    path.chmod(0o600)
    path.write_bytes(content[:50])
    assert "not a private key" in refusal()
    path.write_bytes(keys.path("targets", other.keyid).read_bytes())
    assert other.keyid in refusal()
    path.unlink()
    assert "no private key for the role targets" in refusal()


def test_the_environment_names_the_folder() -> None:
    assert default_folder({"FLEET_KEYS": "/media/stick"}) == Path("/media/stick")
    assert default_folder({}) == Path("~/.config/edge-ai-workflow/keys").expanduser()


def test_two_of_three_root_keys_are_enough_and_one_is_not(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    repository = Repository.create(tmp_path / "releases", keys)
    first, second, third = repository.root.roles["root"].keyids
    assert repository.root.roles["root"].threshold == 2

    keys.path("root", first).unlink()
    renew_root(repository)
    assert Repository(tmp_path / "releases", keys).root.version == 2

    keys.path("root", second).unlink()
    with pytest.raises(
        KeysError,
        match=f"1 of its private keys can be found; missing: .*{first}.*{second}.*\n.*2 available private keys",
    ):
        renew_root(repository)
    assert keys.has("root", third)


def test_a_root_key_is_named_as_the_status_shows_it(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "releases", Keys(tmp_path / "keys"))
    _, second, third = repository.root.roles["root"].keyids

    assert rotate(repository, "root", second[:12])[0] == second
    for invalid in ("", "x", second[:12]):
        with pytest.raises(KeysError, match="fleet keys status"):
            rotate(repository, "root", invalid)
    assert third in repository.root.roles["root"].keyids and second not in repository.root.roles["root"].keyids


@pytest.mark.slow
def test_the_command_line_creates_replaces_and_shows_keys(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "work")

    initial = publisher.run("keys", "init", "--root-days", "20")

    assert initial["made"] and not initial["development"]
    assert (publisher.folder / initial["pin"]).is_file()
    assert not publisher.run("keys", "init")["made"]
    roles = {role["role"]: role for role in initial["roles"]}
    assert {name: (role["threshold"], len(role["keys"])) for name, role in roles.items()} == {
        "root": (2, 3),
        "targets": (1, 1),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert [round(roles[name]["days_left"]) for name in roles] == [20, 90, 14, 3]
    assert any("root expires in 20" in warning for warning in initial["warnings"])

    for role in roles:
        rotated = publisher.run("keys", "rotate", "--role", role)
        assert rotated["old"] == roles[role]["keys"][0]["id"]
        assert rotated["new"] in {
            key["id"] for each in rotated["roles"] if each["role"] == role for key in each["keys"]
        }
    builder = publisher.run("keys", "rotate", "--role", "builder")
    assert builder["old"] != builder["new"]

    online = tmp_path / "online"
    online.mkdir()
    for path in publisher.keys.glob("[st][ni]*"):  # snapshot's and timestamp's alone
        path.rename(online / path.name)
    here = {
        role["role"]: [key["here"] for key in role["keys"]]
        for role in publisher.run("keys", "status", "--keys", online)["roles"]
    }
    assert here == {"root": [False] * 3, "targets": [False], "snapshot": [True], "timestamp": [True]}
    assert publisher.run("release", "refresh", "--keys", online)["signed"] == ["snapshot", "timestamp"]
    refused = publisher.run("release", "refresh", "--all", "--keys", online, code=13)
    assert "role targets" in refused["where"]


def test_development_keys_are_marked_in_the_signed_root(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")

    repository = Repository.create(tmp_path / "releases", keys, development=True)

    assert repository.development
    rotate(repository, "root")
    again = Repository(tmp_path / "releases", keys)
    assert again.root.version == 2 and again.root.unrecognized_fields["x-development"] is True


@pytest.mark.slow
def test_an_existing_policy_is_never_written_over(tmp_path: Path) -> None:
    """Given only the policy, as after a clone: no command replaces CI's identity by a new key."""
    publisher = Publisher(tmp_path / "work")
    ci = ["--builder-identity", "https://github.com/o/r/release.yml@refs/heads/main", "--builder-issuer", "https://o.t"]
    publisher.run("keys", "init", *ci)
    pinned = publisher.releases / "policy.json"
    content = pinned.read_bytes()
    shutil.rmtree(publisher.releases / "metadata")
    elsewhere = tmp_path / "elsewhere.json"
    shutil.copy(pinned, elsewhere)
    archive = bundle(tmp_path / "bundle").archive

    for options in ([], ["--policy", str(elsewhere)]):
        refused = publisher.run("publish", archive, *options, code=12)
        assert "release.yml" in refused["found"] and "fleet keys init" in refused["remedy"]
    other = publisher.run("keys", "init", ci[0], "https://another.test", *ci[2:], code=12)
    assert other["where"].endswith("policy.json: builder") and "never overwritten" in other["remedy"]
    assert not (publisher.releases / "metadata").exists()

    assert publisher.run("keys", "init")["made"]
    assert "pins" in publisher.run("keys", "init", ci[0], "https://another.test", *ci[2:], code=12)["found"]
    assert pinned.read_bytes() == elsewhere.read_bytes() == content
