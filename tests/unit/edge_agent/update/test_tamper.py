"""Everything between the publisher and the device is hostile: mirrors, sticks, networks, a stolen online key.

Each attack is refused with a reason; the model that runs, the state and what is trusted stay; and once the attack is
over, the release installs.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.errors import AgentError, SourceError, TrustError
from edge_agent.storage import slots
from edge_agent.update.trust import Repository
from tuf.api.metadata import Metadata

from tests.support.agent.attacks import ATTACKS, RUNS, SIGNED, WANTED, World
from tests.support.agent.bundles import Bundle, bundle
from tests.support.agent.tuf_repository import TufRepository


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return bundle(folder, seed=1), bundle(folder, seed=2)


@pytest.fixture
def world(tmp_path: Path, bundles: tuple[Bundle, Bundle]) -> World:
    repository = TufRepository(tmp_path / "repository")
    repository.publish(RUNS, bundles[0].archive)
    config = repository.config(tmp_path / "device", attempts=1)
    device = Repository(config, State())
    now = device.refresh().isoformat()
    offer = device.find(RUNS)
    slots.install(config, offer, device.download(offer))
    state.save(config.layout, State(trusted_time=now).switched(RUNS, now).confirmed())
    before = repository.copy(tmp_path / "before")
    repository.publish(WANTED, bundles[1].archive)
    return World(repository, config, before)


def refused(world: World, kind: type[AgentError], reason: str) -> None:
    """The attempt fails for this reason, and nothing but metadata that the publisher signed has moved, forwards."""
    kept, trusted = world.kept(), world.trusted()
    with pytest.raises(kind, match=reason) as refusal:
        world.attempt()
    assert refusal.value.expected
    assert refusal.value.remedy or kind is TrustError
    assert world.kept() == kept
    assert slots.installed(world.config.layout) == [RUNS]
    for name, content in world.trusted().items():
        old, new = Metadata.from_bytes(trusted[name]).signed, Metadata.from_bytes(content).signed
        assert new == old or new.version > old.version, name


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_does_not_last(
    world: World, tmp_path: Path, bundles: tuple[Bundle, Bundle], name: str
) -> None:
    attack, kind, reason = ATTACKS[name]
    good = world.repository.copy(tmp_path / "good")
    attack(world)
    refused(world, kind, reason)
    refused(world, kind, reason)  # as long as it lasts
    if name in SIGNED:
        return
    world.repository.restore(good)
    if name.startswith(("snapshot", "targets")) and name.endswith(("keys", "unsigned")):
        world.repository.release()  # a timestamp that is trusted names what was refused: the next one ends it
    world.attempt()
    assert slots.installed(world.config.layout) == [RUNS, WANTED]


def test_whatever_is_flipped_the_answer_is_a_reason(world: World, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311  (the same attacks each time)
    good = world.repository.copy(tmp_path / "good")
    kept = world.kept()
    for _ in range(150):
        files = sorted(path for path in world.repository.metadata.glob("*.json") if path.name != "1.root.json")
        file = chance.choice(files)
        content = bytearray(file.read_bytes())
        for _ in range(chance.choice((1, 1, 2, 20))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        file.write_bytes(content)
        try:
            Repository(world.config, State()).refresh()
        except (TrustError, SourceError) as refusal:
            assert refusal.found
        world.repository.restore(good)
    assert world.kept() == kept
    world.attempt()


# --- what has to be accepted


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_keys_rotated_by_the_threshold_are_accepted(world: World, role: str) -> None:
    world.repository.rotate(role)
    world.repository.release()
    world.attempt()
    assert Metadata.from_bytes(world.trusted()["root.json"]).signed.version == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_new_keys_end_a_fast_forward_attack(world: World, role: str) -> None:
    """A thief of the online keys left versions that the publisher would never reach (specification, 5.3.11)."""
    for name in ("targets", "snapshot", "timestamp"):
        world.repository.signed[name].version = 2**31 if name == role else world.repository.signed[name].version + 1
        world.repository.write(name)
    Repository(world.config, State()).refresh()
    for name in ("snapshot", "timestamp"):
        world.repository.rotate(name)
    for name in ("targets", "snapshot", "timestamp"):
        world.repository.signed[name].version = 7
        world.repository.write(name)
    world.attempt()
    assert slots.installed(world.config.layout) == [RUNS, WANTED]
