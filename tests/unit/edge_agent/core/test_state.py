"""The state is replaced in one step, read as it was written, and locked by one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core import durable, state
from edge_agent.core.agent_state import State, Trial
from edge_agent.core.errors import BusyError, ConfigurationError
from edge_agent.core.fault_points import POINTS, VARIABLE, point
from edge_agent.core.layout import Layout

ONE, TWO, THREE = "pump@1.0.0", "pump@2.0.0", "pump@3.0.0"
NOW = "2026-01-01T00:00:00Z"
CONFIRMED = State(current=ONE, previous="pump@0.9.0", bad={"pump@0.8.0": "NaN"}, trusted_time=NOW)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "deep" / "state", tmp_path / "run")


def test_a_new_device_has_an_empty_state(layout: Layout) -> None:
    assert state.load(layout) == State()


@pytest.mark.parametrize("kept", [CONFIRMED, CONFIRMED.switched(TWO, NOW).started(), State()])
def test_what_is_saved_is_loaded(layout: Layout, kept: State) -> None:
    state.save(layout, kept)

    assert state.load(layout) == kept


def test_a_switch_is_a_trial_until_it_is_confirmed() -> None:
    switched = CONFIRMED.switched(TWO, NOW)

    assert (switched.current, switched.previous, switched.trial) == (TWO, ONE, Trial(TWO, NOW))
    assert switched.started().started().trial == Trial(TWO, NOW, starts=2)
    assert switched.confirmed() == State(TWO, ONE, None, CONFIRMED.bad, NOW, ("pump@0.9.0", ONE))


def test_what_was_confirmed_here_is_remembered_until_it_is_bad() -> None:
    three = CONFIRMED.switched(TWO, NOW).confirmed().switched(THREE, NOW)

    assert (three.previous, three.proven) == (TWO, ("pump@0.9.0", ONE, TWO))
    assert [three.was_confirmed(release) for release in (ONE, TWO, THREE)] == [True, True, False]
    rolled_back = three.confirmed().rolled_back("wrong answers")
    assert not rolled_back.was_confirmed(THREE)
    assert not rolled_back.forgotten(THREE).was_confirmed(THREE), "a release that failed needs another trial"


def test_a_state_from_before_releases_were_remembered_is_read(layout: Layout) -> None:
    layout.state.mkdir(parents=True)
    old = {"current": ONE, "previous": None, "trial": None, "bad": {}, "trusted_time": None, "schema_version": 1}
    layout.state_file.write_text(json.dumps(old))

    assert state.load(layout) == State(current=ONE)
    assert State(current=ONE).switched(TWO, NOW).was_confirmed(ONE)


def test_a_rollback_records_the_reason_and_restores_the_confirmed_release() -> None:
    state_after = CONFIRMED.switched(TWO, NOW).rolled_back("wrong answers")

    assert (state_after.current, state_after.previous, state_after.trial) == (ONE, None, None)
    assert state_after.bad == {"pump@0.8.0": "NaN", TWO: "wrong answers"}
    assert state_after.forgotten(TWO).bad == CONFIRMED.bad


def test_no_rollback_returns_to_a_release_that_was_never_confirmed() -> None:
    assert CONFIRMED.switched(TWO, NOW).switched(THREE, NOW).previous == ONE


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"schema_version": 1',
        '{"schema_version": 2, "current": null, "previous": null, "trial": null, "bad": {}, "trusted_time": null}',
        '{"schema_version": 1, "current": 5, "previous": null, "trial": null, "bad": {}, "trusted_time": null}',
        '{"schema_version": 1, "current": null, "previous": null, "trial": null, "bad": [], "trusted_time": null}',
        '{"schema_version": 1, "current": null, "trial": {"release": "pump@1.0.0", "since": "x", "starts": 1}}',
        '{"schema_version": 1, "trial": null, "colour": "red"}',
        '{"schema_version": 1, "trial": null, "proven": "pump@1.0.0"}',
        '{"schema_version": 1, "trial": null, "proven": [1]}',
        "\x00" * 100,
        "[" * 100_000,
    ],
)
def test_an_invalid_state_is_refused_with_a_remedy(layout: Layout, content: str) -> None:
    layout.state.mkdir(parents=True)
    layout.state_file.write_text(content)

    with pytest.raises(ConfigurationError, match=r"state\.json[\s\S]*remedy") as refusal:
        state.load(layout)
    assert refusal.value.exit_code == 12


def test_a_damaged_state_is_restored_from_an_undamaged_copy(layout: Layout) -> None:
    state.save(layout, CONFIRMED)
    layout.state_file.write_text("damaged")
    state.restore(layout)
    assert state.load(layout) == CONFIRMED
    assert layout.state_file.with_name("state.json.damaged").read_text() == "damaged", "nothing is lost"

    layout.state_file.write_text("damaged")
    copy = layout.state_file.with_name("state.json.copy")
    copy.write_text(copy.read_text().replace(ONE, THREE))
    with pytest.raises(ConfigurationError, match="edge-agent activate"):
        state.restore(layout)
    assert layout.state_file.read_text() == "damaged"


def test_the_link_for_operators_follows_the_state(layout: Layout) -> None:
    state.save(layout, CONFIRMED)
    assert str(layout.current_link.readlink()) == f"releases/{ONE}"
    state.save(layout, CONFIRMED.switched(TWO, NOW))
    assert str(layout.current_link.readlink()) == f"releases/{TWO}"
    state.save(layout, State())
    assert not layout.current_link.is_symlink()


WRITES = [name for name in POINTS if name.startswith(("state.", "link."))]


@pytest.mark.parametrize("action", ["kill", "error", "nospace"])
@pytest.mark.parametrize("where", WRITES)
def test_an_interrupted_save_leaves_the_old_state_or_the_new_one(layout: Layout, where: str, action: str) -> None:
    new = CONFIRMED.switched(TWO, NOW)
    state.save(layout, CONFIRMED)
    child = os.fork()
    if child == 0:
        os.environ[VARIABLE] = f"{where}={action}"
        try:
            state.save(layout, new)
        except OSError as error:
            os._exit(error.errno or 0)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert status == {"kill": -signal.SIGKILL, "error": 5, "nospace": 28}[action]
    before = where.startswith("state.") and WRITES.index(where) <= WRITES.index("state.before_rename")
    assert state.load(layout) == (CONFIRMED if before else new)
    state.save(layout, new.confirmed())  # its remains do not prevent the next save
    assert state.load(layout) == new.confirmed()
    assert str(layout.current_link.readlink()) == f"releases/{TWO}"


def test_a_fault_point_has_to_be_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "state.before_write=error#2")
    with pytest.raises(AssertionError, match=r"not in fault_points\.POINTS"):
        point("state.between")
    point("state.before_write")
    with pytest.raises(OSError, match=r"state\.before_write"):
        point("state.before_write")


HOLDER = """
import sys
from pathlib import Path
from edge_agent.core import state
from edge_agent.core.layout import Layout
with state.locked(Layout(Path(sys.argv[1]), Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(layout: Layout) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(layout.state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_holder_of_the_lock(layout: Layout, holder: Any) -> None:
    with pytest.raises(BusyError, match=rf"held by process {holder.pid}") as refusal, state.locked(layout, wait_s=0.1):
        raise AssertionError("it was free")
    assert refusal.value.exit_code == 7


def test_the_lock_of_a_process_that_was_killed_is_free(layout: Layout, holder: Any) -> None:
    holder.kill()

    with state.locked(layout, wait_s=10):
        assert layout.lock.read_text() == f"process {os.getpid()}"


def test_a_missing_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    durable.make_directory(tmp_path / "a" / "b" / "c")
    durable.make_directory(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_the_state_is_readable_text(layout: Layout) -> None:
    state.save(layout, CONFIRMED)

    assert json.loads(layout.state_file.read_text())["current"] == ONE
    visible = sorted(path.name for path in layout.state.iterdir() if not path.name.startswith("."))
    assert visible == ["current", "state.json", "state.json.copy"]
