"""Attacks on a repository of releases: the change to the repository, and the reason with which a device must refuse.

The attacker has a mirror, a storage medium, the network, or a stolen key.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, SourceError, TrustError
from edge_agent.storage import slots
from edge_agent.update.trust import Repository
from tuf.api.metadata import TargetFile, Targets

from tests.support.agent.tuf_repository import TufRepository

RUNS, WANTED = "pump@1.0.0", "pump@1.1.0"


@dataclass
class World:
    """A publisher, a copy of the repository at the last refresh of the device, and the device, which runs `RUNS`."""

    repository: TufRepository
    config: Config
    before: Path

    def attempt(self) -> None:
        """Do the same as `edge-agent install`."""
        repository = Repository(self.config, state.load(self.config.layout))
        repository.refresh()
        offer = repository.find(WANTED)
        slots.install(self.config, offer, repository.download(offer))

    def kept(self) -> dict[str, bytes]:
        """Return the files that must not change: the state and every installed file."""
        layout = self.config.layout
        files = [layout.state_file, *layout.releases.rglob("*")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    def trusted(self) -> dict[str, bytes]:
        files = self.config.layout.tuf.glob("*.json")
        return {path.name: path.read_bytes() for path in files}

    def file(self, role: str) -> Path:
        version = self.repository.signed[role].version
        return self.repository.metadata / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")


# --- attacks on the metadata and the targets


def signed_by_others(role: str) -> Callable[[World], None]:
    def attack(world: World) -> None:
        world.repository.write(role, world.repository.new_keys(1))
        for after in {"targets": ("snapshot", "timestamp"), "snapshot": ("timestamp",)}.get(role, ()):
            world.repository.write(after)

    return attack


def unsigned(role: str) -> Callable[[World], None]:
    def attack(world: World) -> None:
        world.repository.write(role, [])
        for after in {"targets": ("snapshot", "timestamp"), "snapshot": ("timestamp",)}.get(role, ()):
            world.repository.write(after)

    return attack


def expired(role: str) -> Callable[[World], None]:
    return lambda world: world.repository.renew(role, days=-1)


def root_by_one_of_two(world: World) -> None:
    world.repository.rotate("root", keys=False, signers=world.repository.signers["root"][:1])


def root_by_new_holders_only(world: World) -> None:
    world.repository.rotate("root")
    world.repository.write("root")


def root_by_old_holders_only(world: World) -> None:
    world.repository.rotate("root", signers=list(world.repository.signers["root"]))


def root_by_one_signature_twice(world: World) -> None:
    root_by_one_of_two(world)
    root = json.loads(world.file("root").read_text())
    root["signatures"] *= 2
    world.file("root").write_text(json.dumps(root))


def root_that_skips_a_version(world: World) -> None:
    world.repository.root.version += 1
    world.repository.rotate("root", keys=False)
    world.file("root").rename(world.repository.metadata / "2.root.json")


def old_timestamp(world: World) -> None:
    Repository(world.config, State()).refresh()
    world.file("timestamp").write_bytes((world.before / "metadata" / "timestamp.json").read_bytes())


def old_repository(world: World) -> None:
    Repository(world.config, State()).refresh()
    world.repository.restore(world.before)


def older_version(role: str) -> Callable[[World], None]:
    """Sign newer metadata with a stolen online key, in which the version of one role is older."""

    def attack(world: World) -> None:
        world.repository.signed[role].version = 1
        for name in ("targets", "snapshot", "timestamp"):
            if name != role and name != "targets":
                world.repository.signed[name].version += 1
            world.repository.write(name)

    return attack


def targets_of_another_publication(world: World) -> None:
    world.file("targets").write_bytes((world.before / "metadata" / "2.targets.json").read_bytes())


def one_role_as_another(world: World) -> None:
    world.file("timestamp").write_bytes(world.file("snapshot").read_bytes())


def written(role: str, content: bytes) -> Callable[[World], None]:
    def attack(world: World) -> None:
        world.file(role).write_bytes(content)

    return attack


def next_root(content: bytes) -> Callable[[World], None]:
    def attack(world: World) -> None:
        (world.repository.metadata / "2.root.json").write_bytes(content)

    return attack


def archive(change: Callable[[bytes], bytes]) -> Callable[[World], None]:
    def attack(world: World) -> None:
        file = world.repository.target_file(WANTED)
        file.write_bytes(change(file.read_bytes()))

    return attack


def archive_gone(world: World) -> None:
    world.repository.target_file(WANTED).unlink()


def archive_without_end(world: World) -> None:
    file = world.repository.target_file(WANTED)
    file.unlink()
    file.symlink_to("/dev/zero")


def listed(world: World, **changes: object) -> None:
    targets = world.repository.signed["targets"]
    assert isinstance(targets, Targets)
    path = "pump/1.1.0/pump.tar.zst"
    target = targets.targets[path]
    fields = {"length": target.length, "hashes": target.hashes, "path": path, **changes}
    targets.targets[path] = TargetFile(**fields)  # type: ignore[arg-type]
    world.repository.release()


def digest_as_path(world: World) -> None:
    listed(world, hashes={"sha256": "../../../../etc/passwd"})


def other_digest_only(world: World) -> None:
    listed(world, hashes={"sha512": "0" * 128})


def withdrawn(world: World) -> None:
    world.repository.withdraw(WANTED)


def withdrawn_and_another_path_is_offered(world: World) -> None:
    targets = world.repository.signed["targets"]
    assert isinstance(targets, Targets)
    for path in ("../pump/1.1.0/pump.tar.zst", "/etc/passwd", "pump/1.1.0/../1.1.0/pump.tar.zst"):
        targets.targets[path] = TargetFile.from_data(path, b"x", ["sha256"])
    world.repository.withdraw(WANTED)


ATTACKS: dict[str, tuple[Callable[[World], object], type[AgentError], str]] = {
    **{f"{r} by other keys": (signed_by_others(r), TrustError, r"signed by 0/1") for r in ("timestamp", "snapshot")},
    "targets by other keys": (signed_by_others("targets"), TrustError, "signed by 0/1"),
    **{f"{r} unsigned": (unsigned(r), TrustError, "signed by 0/1") for r in ("timestamp", "snapshot", "targets")},
    **{
        f"{r} expired": (expired(r), TrustError, f"the role {r} expired at .*clock shows")
        for r in ("root", "timestamp", "snapshot", "targets")
    },
    "root by one of two": (root_by_one_of_two, TrustError, "signed by 1/2"),
    "root by the new holders only": (root_by_new_holders_only, TrustError, "signed by 0/2"),
    "root by the old holders only": (root_by_old_holders_only, TrustError, "signed by 0/2"),
    "root by one signature twice": (root_by_one_signature_twice, TrustError, "[Dd]eserialize|signed by 1/2"),
    "root skips a version": (root_that_skips_a_version, TrustError, "version 2"),
    "old timestamp": (old_timestamp, TrustError, "version 2 must be >= 3"),
    "old repository": (old_repository, TrustError, "version 2 must be >= 3"),
    "older snapshot": (older_version("snapshot"), TrustError, "version must be >= 2"),
    "older targets": (older_version("targets"), TrustError, "version"),
    "targets of another publication": (targets_of_another_publication, TrustError, "does not match"),
    "one role as another": (one_role_as_another, TrustError, "timestamp"),
    **{
        f"{role} is {what}": (written(role, content), TrustError, role)
        for role in ("timestamp", "snapshot", "targets")
        for what, content in (
            ("garbage", b"\xff\xfe\0"),
            ("a list", b"[]"),
            ("deep", b"[" * 16_000),
            ("huge", b" " * 6_000_000),
        )
    },
    **{
        f"next root is {what}": (next_root(content), TrustError, r"2\.root")
        for what, content in (("garbage", b"<html>"), ("deep", b"[" * 500_000), ("huge", b" " * 600_000))
    },
    "archive modified": (archive(lambda it: it[:99] + bytes([it[99] ^ 1]) + it[100:]), TrustError, "hash"),
    "archive truncated": (archive(lambda it: it[:-1]), TrustError, "length"),
    "archive longer": (archive(lambda it: it + b"\0"), TrustError, "more than"),
    "archive empty": (archive(lambda it: b""), TrustError, "length 0"),
    "archive gone": (archive_gone, SourceError, "no such file"),
    "archive without end": (archive_without_end, SourceError, "not a regular file"),
    "digest as path": (digest_as_path, TrustError, "digests"),
    "no sha256": (other_digest_only, TrustError, "sha512"),
    "withdrawn": (withdrawn, TrustError, "withdrawn, or never published"),
    "other paths": (withdrawn_and_another_path_is_offered, TrustError, "withdrawn, or never published"),
}


# Signed with the publisher's own keys: the effect lasts until the publisher publishes again.
SIGNED = {name for name in ATTACKS if name.endswith("expired") or name.startswith("older")}
SIGNED |= {"digest as path", "no sha256", "withdrawn", "other paths"}
