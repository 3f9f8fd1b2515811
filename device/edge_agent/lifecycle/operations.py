"""What `edge-agent` does, one function each: takes the configuration, returns what `--json` prints.

Whatever changes something holds the one lock. Modules that are slow to import are imported where they are needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, BusyError, NoReleaseError, ServiceError, TrialError
from edge_agent.core.fault_points import point
from edge_agent.core.progress import size
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.switching import activate, fitting
from edge_agent.lifecycle.trial_rules import require_not_bad

Result = dict[str, Any]
Say = Callable[[str], None]


def install(
    config: Config, release: str, progress: Callable[[int, int], None] | None = None, say: Say = lambda text: None
) -> Result:
    """Fetch, verify and unpack a release into a slot; nothing is switched."""
    from edge_agent.storage import slots
    from edge_agent.update import trust

    layout = config.layout
    # Two locks: a download may take hours, and a release on trial must be able to go back meanwhile.
    with state.locked(layout, file=layout.install_lock):
        known = state.load(layout)
        require_not_bad(known, release)
        say("asking the repository")
        repository = trust.Repository(config, known, verified=partial(state.keep_trusted_time, layout))
        offer = repository.find(release)
        with state.locked(layout):
            manifest = slots.find(layout, offer)
        changed = manifest is None
        if manifest is None:
            say(f"downloading {size(offer.length)}")
            archive = repository.download(offer, progress)
            say("unpacking")
            with state.locked(layout):
                manifest = slots.install(config, offer, archive)
        for archive in layout.incoming.glob("*.tar.zst"):  # also one of an install that was given up
            archive.unlink()
        current = state.load(layout).current
    if changed and current == release:  # it was damaged: the service may have nothing to serve
        control_client.reconcile(layout)
    return {
        "release": release,
        "changed": changed,
        "sha256": offer.sha256,
        "targets": sorted(manifest["targets"]),
        "current": current,
    }


def deploy(
    config: Config,
    release: str,
    selftest: bool = True,
    progress: Callable[[int, int], None] | None = None,
    say: Say = lambda text: None,
) -> Result:
    """Install and activate: one call for who drives a fleet."""
    installed = install(config, release, progress, say)
    switched = activate(config, release, selftest, say)
    return {
        **switched,
        "changed": installed["changed"] or switched["changed"],
        "installed": installed["changed"],
        "sha256": installed["sha256"],
    }


def confirm(config: Config, release: str | None = None, force: bool = False) -> Result:
    """End the trial of the current release: it stays. Only where the service runs it and it is healthy, or by force."""
    layout = config.layout
    with state.locked(layout):
        known = state.load(layout)
        if known.current is None:
            raise NoReleaseError(str(layout.state_file), "no release is current", "one on trial", "activate one first")
        if release is not None and release != known.current:
            raise NoReleaseError(
                release, f"{known.current} is current", "the current release", "see: edge-agent status"
            )
        if known.trial is None:
            return {"release": known.current, "changed": False}
        if not force:
            _healthy(config, known.current)
        point("confirm.before")
        state.save(layout, known.confirmed())
        point("confirm.after")
    return {"release": known.current, "changed": True}


def _healthy(config: Config, release: str) -> None:
    """Raises ServiceError, TrialError unless the service has loaded `release` and it does what it should."""
    found = control_client.call(config.layout, "GET", "/status")
    if found is None:
        raise ServiceError(
            str(config.layout.control_socket),
            "no service runs, so nothing is known of this release's health",
            f"a service that has loaded {release}",
            "start it: systemctl start edge-agent; or confirm all the same: --force",
        )
    loaded = (found["loaded"] or {}).get("release")
    if loaded != release:
        raise ServiceError("the service", f"has loaded {loaded or 'no release'}", release, "see: edge-agent status")
    if not found["healthy"]:
        raise TrialError(release, found["reason"], "a healthy release", "wait, or go back: edge-agent rollback")


def forget(config: Config, release: str) -> Result:
    """A release that failed here may be tried again."""
    with state.locked(config.layout):
        known = state.load(config.layout)
        changed = release in known.bad
        if changed:
            state.save(config.layout, known.forgotten(release))
    return {"release": release, "changed": changed, "reason": known.bad.get(release)}


def forget_time(config: Config) -> Result:
    """No longer believe the time at which metadata was last verified here. The clock has to be right now: it alone
    decides what is expired. Versions of the metadata that is trusted still only go up.
    """
    with state.locked(config.layout):
        known = state.load(config.layout)
        if known.trusted_time is not None:
            state.save(config.layout, dataclasses.replace(known, trusted_time=None))
    return {"release": None, "changed": known.trusted_time is not None, "reason": known.trusted_time}


def prune(config: Config, keep: int | None = None) -> Result:
    """Remove slots that are neither current nor previous, all but the `keep` newest of them; and begun downloads."""
    from edge_agent.storage import slots

    with state.locked(config.layout):
        slots.recover(config.layout)
        removed = slots.prune(config, state.load(config.layout), keep)
        left = slots.installed(config.layout)
    return {"removed": removed, "installed": left, "incoming_bytes": _given_up(config)}


def _given_up(config: Config) -> int:
    """Remove what downloads that ended have left; its bytes. One that goes on keeps what it has."""
    freed = 0
    with contextlib.suppress(BusyError), state.locked(config.layout, 0.0, config.layout.install_lock):
        for path in config.layout.incoming.glob("*"):
            if path.is_file() and not path.is_symlink():
                freed += path.stat().st_size
            path.unlink()
    return freed


def verify(config: Config, release: str | None = None) -> Result:
    """Every byte of every slot, or of one, against its manifest.

    Without the lock, which a service that starts may need. Only what seems damaged is looked at again under it: that
    a slot goes meanwhile is no damage.
    """
    from edge_agent.storage import slots

    layout, found = config.layout, []
    for name in [release] if release else slots.installed(layout):
        try:
            try:
                manifest = slots.verify(layout, name)
            except AgentError:
                with state.locked(layout):
                    manifest = slots.verify(layout, name)
        except NoReleaseError:
            if release:
                raise
        except AgentError as error:
            found.append({"release": name, "whole": False, "files": None, "fault": error.as_json()})
        else:
            found.append({"release": name, "whole": True, "files": len(manifest["files"]), "fault": None})
    return {"slots": found}


def shadow(
    config: Config,
    release: str,
    samples: int,
    seconds: float,
    selftest: bool = True,
    say: Say = lambda text: None,
) -> Iterator[Result]:
    """Let an installed release see live inputs beside the current one; summaries, the last one when it ended.

    The self-test comes first, in its own process: what dies of this release must not be the service.
    """
    # No lock: nothing is changed, and the group of the service may do this too.
    require_not_bad(state.load(config.layout), release)
    target = fitting(config, release)
    if selftest:
        from edge_agent.inference import selftest as selftests

        say(f"self-test of {target}")
        selftests.run(config, release, target)
    say(f"comparing up to {samples} inputs, at most {seconds:g} s")
    wanted = {"release": release, "samples": samples, "seconds": seconds}
    for line in control_client.stream(config.layout, "/shadow", wanted):
        if "found" in line:
            raise ServiceError(line["where"], line["found"], line["expected"], line["remedy"])
        yield line


def report(config: Config) -> Result:
    """What was counted since the switch, from the service."""
    answer = control_client.call(config.layout, "GET", "/report")
    if answer is None:
        raise ServiceError(
            str(config.layout.control_socket),
            "no service runs",
            "a running agent",
            "start it: systemctl start edge-agent",
        )
    return answer
