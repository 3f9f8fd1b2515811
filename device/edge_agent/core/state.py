"""Read and write state.json, the file with the state of the agent, and lock the agent's files.

If state.json cannot be written, a rollback is kept in memory instead (kept_state.py) until the file can be written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.core import agent_state, durable, kept_state, locks
from edge_agent.core.agent_state import SCHEMA_VERSION, State
from edge_agent.core.errors import BusyError, ConfigurationError
from edge_agent.core.kept_state import KeptState
from edge_agent.core.layout import Layout

# Disk space that is allocated in advance for each of state.json and its copy, so that a full disk can be written.
RESERVE_BYTES = 65536


def format_time(moment: datetime) -> str:
    """Format a time as text in ISO 8601, in UTC and with whole seconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """Return the present time as text in ISO 8601, UTC."""
    return format_time(datetime.now(timezone.utc))


def load(layout: Layout) -> State:
    """Return the state in state.json, or the kept state that could not be written there.

    If there is no state.json yet, return an empty state. Raises ConfigurationError if the file is damaged.
    """
    on_disk = _content(layout)
    unwritten = kept_state.find(layout, on_disk or "")
    if unwritten is not None:
        return _parse(layout, unwritten.content)
    return State() if on_disk is None else _parse(layout, on_disk)


def load_written(layout: Layout) -> State:
    """Return the state in state.json, which a reboot returns to, even if a kept state replaces it.

    Raises ConfigurationError if the file is damaged.
    """
    on_disk = _content(layout)
    return State() if on_disk is None else _parse(layout, on_disk)


def kept(layout: Layout) -> KeptState | None:
    """Return the kept state that `load` returns because it could not be written, or None if state.json applies."""
    return kept_state.find(layout, _content(layout) or "")


def _content(layout: Layout) -> str | None:
    """Return the content of state.json, or None if there is no such file yet."""
    try:
        return layout.state_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _damaged(layout, error) from None


def _parse(layout: Layout, content: str) -> State:
    try:
        return agent_state.parse(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(layout, error) from None


def _damaged(layout: Layout, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        str(layout.state_file),
        f"not a state that this agent wrote ({error})",
        f"JSON with schema_version {SCHEMA_VERSION}",
        "restart the service, which restores the last copy; if there is no copy, move the file away (the agent "
        "then starts without a release), and activate an installed release: edge-agent activate RELEASE",
    )


def save(layout: Layout, state: State) -> None:
    """Write the state to state.json so that it survives a power cut, then update the symbolic link `current`.

    If this function raises OSError, state.json has either the old or the new state, and `load` can read it.
    """
    durable.make_directory(layout.state)
    content = agent_state.to_text(state)
    durable.write_file(layout.state_file, content.encode(), "state", RESERVE_BYTES)
    with contextlib.suppress(OSError):  # if the copy cannot be written, an older copy is good enough
        durable.write_file(_copy(layout), f"{kept_state.digest(content)}\n{content}".encode(), "", RESERVE_BYTES)
    show_current(layout, state)
    with contextlib.suppress(OSError):  # a kept state no longer applies, because state.json has changed
        kept_state.discard(layout)


def save_or_keep(layout: Layout, state: State, in_process: bool = False) -> None:
    """Write the state to state.json; if the disk cannot be written, keep the state in memory. Use it for rollbacks.

    The caller must hold the lock. `settle` writes a kept state later, and `kept` returns it until then.

    Args:
        layout: The paths of the agent's files.
        state: The new state.
        in_process: Whether this process keeps the state if the run folder cannot be written either. Only the service
            does this, because other processes do not know the state then.

    Raises:
        OSError: The state could neither be written nor kept.
    """
    try:
        save(layout, state)
    except OSError as error:
        keep(layout, state, error, in_process)


def keep(layout: Layout, state: State, error: OSError, in_process: bool = False) -> None:
    """Keep a state in memory that could not be written.

    Args:
        layout: The paths of the agent's files.
        state: The state that could not be written.
        error: The error of the write, which is raised again if the run folder cannot be written either.
        in_process: Whether this process keeps the state in this case (see `save_or_keep`).
    """
    reason = " ".join((error.strerror or str(error)).split())
    unwritten = KeptState(agent_state.to_text(state), kept_state.digest(_content(layout) or ""), reason)
    try:
        kept_state.keep(layout, unwritten)
    except OSError:
        if not in_process:
            raise error from None
        kept_state.keep_in_process(layout, unwritten)


def settle(layout: Layout) -> bool:
    """Try again to write a kept state, and allocate the disk space for the next write. Return whether it was written.

    The service calls this function regularly. Nothing happens while another process holds the lock.
    """
    if kept(layout) is None and _reserved(layout):
        return False
    with contextlib.suppress(BusyError, OSError), locked(layout, wait_s=0.0):
        if kept(layout) is not None:
            save(layout, load(layout))
            return True
        for path in (layout.state_file, _copy(layout)):
            durable.reserve(path, RESERVE_BYTES)
    return False


def _reserved(layout: Layout) -> bool:
    return all(durable.is_reserved(path, RESERVE_BYTES) for path in (layout.state_file, _copy(layout)))


def load_unchanged(layout: Layout, earlier: State) -> State:
    """Read state.json again, and check that no other process has changed the releases since `earlier` was read.

    The caller must hold the lock. Raises BusyError if another process has changed the current release, the previous
    release or the bad releases, and ConfigurationError if state.json is damaged.
    """
    state = load(layout)
    if (state.current, state.previous, state.bad) != (earlier.current, earlier.previous, earlier.bad):
        raise BusyError(
            str(layout.state_file),
            f"changed by another process during this command; {state.current or 'no release'} is now current",
            f"{earlier.current or 'no release'} as the current release, and an otherwise unchanged state",
            "check edge-agent status, then run the command again",
        )
    return state


def keep_trusted_time(layout: Layout, verified: datetime) -> None:
    """Store `verified`, a time at which all metadata was valid, as `trusted_time` unless the stored time is later.

    If the device's clock shows a time before `trusted_time`, the agent uses `trusted_time` instead.
    """
    moment = format_time(verified)
    with locked(layout):
        state = load(layout)
        if state.trusted_time is None or moment > state.trusted_time:
            save(layout, replace(state, trusted_time=moment))


def restore(layout: Layout) -> None:
    """If state.json is damaged, replace it with its last copy, and keep the damaged file as state.json.damaged.

    Raises ConfigurationError if state.json is damaged and the copy is missing or damaged too.
    """
    try:
        load(layout)
    except ConfigurationError:
        try:
            checksum, _, content = _copy(layout).read_text(encoding="utf-8").partition("\n")
        except (FileNotFoundError, ValueError):
            checksum, content = "", ""
        if checksum != kept_state.digest(content):
            raise
        damaged = layout.state_file.read_bytes()
        durable.write_file(layout.state_file.with_name(f"{layout.state_file.name}.damaged"), damaged)
        durable.write_file(layout.state_file, content.encode())


def _copy(layout: Layout) -> Path:
    """Return the path of the copy of state.json. The first line of the copy is the sha256 of the following lines."""
    return layout.state_file.with_name(f"{layout.state_file.name}.copy")


def show_current(layout: Layout, state: State) -> None:
    """Make the symbolic link `current` point to the slot of the current release, or remove the link if there is none.

    The link is for operators; the agent does not read it.
    """
    target = f"releases/{state.current}" if state.current else None
    with contextlib.suppress(OSError):
        if str(layout.current_link.readlink()) == target:
            return
    if target is None:
        layout.current_link.unlink(missing_ok=True)
    else:
        durable.replace_link(layout.current_link, target)


@contextlib.contextmanager
def locked(layout: Layout, wait_s: float = 10.0, file: Path | None = None) -> Iterator[None]:
    """Within the block, hold the lock that a process must hold while it changes the agent's files.

    The kernel releases the lock when the process ends, even after a crash. On a read-only file system, a process that
    only reads can hold the lock too.

    Args:
        layout: The paths of the agent's files.
        wait_s: Maximum time to wait for the lock, in seconds.
        file: The lock file, such as `layout.install_lock`; None means `layout.lock`.

    Raises:
        BusyError: Another process still holds the lock after `wait_s` seconds.
    """
    durable.make_directory(layout.state)
    lock = file or layout.lock
    with locks.open_file(lock) as stream:
        if not locks.acquire(stream, wait_s):
            stream.seek(0)
            holder = (stream.read() or b"").decode(errors="replace").strip() or "another process"
            raise BusyError(
                str(lock), f"held by {holder}", f"a free lock within {wait_s:g} s", "wait, then run the command again"
            )
        with contextlib.suppress(OSError):  # the holder's name is for a message only: do not fail on a full disk
            stream.truncate(0)
            stream.write(f"process {os.getpid()}".encode())
        yield
