"""The commands of `edge-agent` that change installed releases. Each function returns the result of one command.

The module `switching` has the commands `activate` and `rollback`, `status` has the command `status`, and `inspection`
has the commands that change no files. Every function here holds the lock while it changes files. Modules that take long
to import are imported inside the functions that use them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import BusyError, NoReleaseError, ServiceError, TrialError
from edge_agent.core.fault_points import point
from edge_agent.core.progress import size
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.results import (
    ConfirmResult,
    DeployResult,
    ForgetResult,
    InstallResult,
    PruneResult,
)
from edge_agent.lifecycle.switching import ReportStep, activate
from edge_agent.lifecycle.trial_rules import require_not_bad


def install(
    config: Config,
    release: str,
    progress: Callable[[int, int], None] | None = None,
    report_step: ReportStep = lambda text: None,
) -> InstallResult:
    """Download, verify and unpack a release into a slot, without switching to it.

    Args:
        config: The configuration.
        release: The release to install, as NAME@VERSION.
        progress: A function to call after each chunk, with the number of downloaded bytes and the total number.
        report_step: A function to call with the name of each step when the step begins.

    Raises:
        TrialError: The release failed on this device before.
        TrustError: The release is not signed or was withdrawn, its metadata has expired, or its content differs from
            what was signed.
        FitError: The release is not built for this device.
        SourceError: The repository cannot be reached.
        StorageError: The release does not fit on the disk.
    """
    from edge_agent.storage import slots
    from edge_agent.update import trust

    layout = config.layout
    # The download holds only the install lock: it may take hours, and a release on trial must be able to roll back
    # during that time.
    with state.locked(layout, file=layout.install_lock):
        known_state = state.load(layout)
        require_not_bad(known_state, release)
        report_step("refreshing the repository's metadata")
        repository = trust.Repository(config, known_state, verified=partial(state.keep_trusted_time, layout))
        offer = repository.find(release)
        with state.locked(layout):
            manifest = slots.find(layout, offer)
        changed = manifest is None
        if manifest is None:
            report_step(f"downloading {size(offer.length)}")
            archive = repository.download(offer, progress)
            report_step("unpacking")
            with state.locked(layout):
                manifest = slots.install(config, offer, archive)
        for archive in layout.incoming.glob("*.tar.zst"):  # also archives of interrupted installations
            archive.unlink()
        current = state.load(layout).current
    if changed and current == release:  # the slot was damaged before, so the service may have no model loaded
        control_client.reconcile(layout)
    return InstallResult(
        release=release, changed=changed, sha256=offer.sha256, targets=sorted(manifest["targets"]), current=current
    )


def deploy(
    config: Config,
    release: str,
    selftest: bool = True,
    progress: Callable[[int, int], None] | None = None,
    report_step: ReportStep = lambda text: None,
) -> DeployResult:
    """Install a release and switch to it in one call, for rollouts.

    Args:
        config: The configuration.
        release: The release to install, as NAME@VERSION.
        selftest: False skips the self-test.
        progress: A function to call after each chunk, with the number of downloaded bytes and the total number.
        report_step: A function to call with the name of each step when the step begins.

    Raises:
        AgentError: An error of `install` or `activate`.
    """
    installed = install(config, release, progress, report_step)
    activated = activate(config, release, selftest, report_step)
    return DeployResult(
        release=activated.release,
        changed=installed.changed or activated.changed,
        previous=activated.previous,
        trial=activated.trial,
        service=activated.service,
        selftest=activated.selftest,
        unwritten=activated.unwritten,
        installed=installed.changed,
        sha256=installed.sha256,
    )


def confirm(config: Config, release: str | None = None, force: bool = False) -> ConfirmResult:
    """End the trial of the current release and keep the release.

    Args:
        config: The configuration.
        release: The release to confirm, which must be the current release; None means the current release.
        force: True confirms the release without checking that the service has loaded it and is healthy.

    Raises:
        NoReleaseError: No release is current, or `release` is not the current release.
        ServiceError: No service is running, or the service has loaded another release.
        TrialError: The release is not healthy.
    """
    layout = config.layout
    with state.locked(layout):
        known_state = state.load(layout)
        current = known_state.current
        if current is None:
            raise NoReleaseError(
                str(layout.state_file),
                "the device has no current release",
                "a current release that is on trial",
                "activate a release first: edge-agent activate RELEASE",
            )
        if release is not None and release != current:
            raise NoReleaseError(
                release,
                f"{current} is the current release",
                "the name of the current release",
                "see: edge-agent status",
            )
        if known_state.trial is None:
            return ConfirmResult(current, changed=False)
        if not force:
            _require_healthy(config, current)
        point("confirm.before")
        state.save(layout, known_state.confirmed())
        point("confirm.after")
    return ConfirmResult(current, changed=True)


def _require_healthy(config: Config, release: str) -> None:
    """Raise ServiceError or TrialError unless the service has loaded `release` and is healthy."""
    service = control_client.status(config.layout)
    if service is None:
        raise ServiceError(
            str(config.layout.control_socket),
            "no service is running, so the health of the release is unknown",
            f"a service that has loaded {release}",
            "start it: systemctl start edge-agent; or confirm without a check: --force",
        )
    loaded = service.loaded.release if service.loaded else None
    if loaded != release:
        raise ServiceError(
            "the service",
            f"has loaded {loaded or 'no release'}",
            release,
            "see: edge-agent status",
        )
    if not service.healthy:
        raise TrialError(release, str(service.reason), "a healthy release", "wait, or roll back: edge-agent rollback")


def forget(config: Config, release: str) -> ForgetResult:
    """Remove the mark of a bad release, so that the release can be installed and activated again."""
    with state.locked(config.layout):
        known_state = state.load(config.layout)
        changed = release in known_state.bad
        if changed:
            state.save(config.layout, known_state.forgotten(release))
    return ForgetResult(release, changed, known_state.bad.get(release))


def forget_time(config: Config) -> ForgetResult:
    """Discard the trusted time, which is the time at which metadata was last verified on this device.

    Afterwards the expiry of metadata is compared with the device's clock alone, so the clock must be right. Metadata
    with a lower version than the trusted metadata is still refused.
    """
    with state.locked(config.layout):
        known_state = state.load(config.layout)
        if known_state.trusted_time is not None:
            state.save(config.layout, dataclasses.replace(known_state, trusted_time=None))
    return ForgetResult(None, known_state.trusted_time is not None, known_state.trusted_time)


def prune(config: Config, keep: int | None = None) -> PruneResult:
    """Remove interrupted downloads, and all unused slots except the `keep` slots with the highest versions.

    The slots of the current release, the previous release and the release on trial are in use. If `keep` is None, the
    number `install.keep` of the configuration applies.
    """
    from edge_agent.storage import slots

    with state.locked(config.layout):
        slots.recover(config.layout)
        removed = slots.prune(config, state.load(config.layout), keep)
        installed = slots.installed(config.layout)
    return PruneResult(removed, installed, _remove_interrupted_downloads(config))


def _remove_interrupted_downloads(config: Config) -> int:
    """Remove the files of interrupted downloads, and return their total size in bytes.

    Nothing is removed while an installation is running.
    """
    freed = 0
    with contextlib.suppress(BusyError), state.locked(config.layout, 0.0, config.layout.install_lock):
        for path in config.layout.incoming.glob("*"):
            if path.is_file() and not path.is_symlink():
                freed += path.stat().st_size
            path.unlink()
    return freed
