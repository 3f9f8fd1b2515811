"""Switch the device to another release and put that release on trial, or roll back to an earlier release.

The lock is held while state.json is read or written. The lock is free while a model is tested or loaded, so that a
service that starts during that time does not have to wait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import NoReleaseError, ServiceError, TrialError
from edge_agent.core.fault_points import point
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.control_messages import ServiceModel
from edge_agent.lifecycle.results import ActivateResult, RollbackResult
from edge_agent.lifecycle.trial_rules import require_not_bad
from edge_agent.lifecycle.unwritten import unwritten

ReportStep = Callable[[str], None]


def activate(
    config: Config, release: str, selftest: bool = True, report_step: ReportStep = lambda text: None
) -> ActivateResult:
    """Self-test a release, switch to it, put it on trial, and wait until the service answers requests with it.

    If another release is on trial and `release` is the previous release, `release` becomes current again
    without a trial, because it was confirmed on this device before.

    Args:
        config: The configuration.
        release: An installed release, as NAME@VERSION.
        selftest: False skips the self-test.
        report_step: A function to call with the name of each step when the step begins.

    Raises:
        NoReleaseError: The release is not installed.
        SelfTestError: The self-test failed, and the current release is unchanged.
        TrialError: The release failed on this device before, or the service could not load it.
        ServiceError: The service does not respond, or could not load a release that needs no trial.
        BusyError: Another process changed the current release during the self-test, or holds the lock.
    """
    with state.locked(config.layout):
        known_state = state.load(config.layout)
        restored = known_state.trial is not None and known_state.previous == release and release not in known_state.bad
        if restored:
            _restore(config, known_state, release, None)
    if known_state.current == release or restored:
        return ActivateResult(
            release=release,
            changed=restored,
            previous=None if restored else known_state.previous,
            trial=known_state.trial is not None and not restored,
            service=_require_loaded(config, release, "current again" if restored else "current"),
            selftest=None,
            unwritten=unwritten(config),
        )
    require_not_bad(known_state, release)
    return _switch_on_trial(config, known_state, release, selftest, report_step)


def _switch_on_trial(
    config: Config,
    known_state: State,
    release: str,
    selftest: bool,
    report_step: ReportStep = lambda text: None,
    reason: str | None = None,
) -> ActivateResult:
    """Self-test a release, switch to it, put it on trial, and make the service load it.

    `known_state` is the state that the caller read before it decided to switch. If `reason` is given, the release that
    was current before the switch is marked as bad for this reason.
    """
    layout = config.layout
    target = installed_target(config, release)
    measurements = None
    if selftest:
        from edge_agent.inference import selftest as selftests

        report_step(f"self-test of {target}")
        measurements = selftests.run(config, release, target)
    report_step("switching")
    with state.locked(layout):
        unchanged = state.load_unchanged(layout, known_state)
        if not layout.slot(release).is_dir():
            remedy = f"edge-agent install {release}"
            raise NoReleaseError(release, "was removed during the self-test", "an installed release", remedy)
        switched = unchanged.switched(release, state.now(), reason)
        point("activate.before_switch")
        state.save(layout, switched)
    point("activate.after_switch")
    point("activate.before_notify")
    try:
        service = control_client.reconcile(layout)
    except ServiceError as error:
        outcome = f"{error.found}; {release} is now current and on trial, and is rolled back unless the trial succeeds"
        raise ServiceError(error.where, outcome, error.expected, error.remedy) from None
    point("activate.after_notify")
    if service.error:
        failure = f"not loaded: {service.error}"
        with state.locked(layout):
            current_state = state.load(layout)
            if current_state.trial == switched.trial:  # otherwise the service has already rolled back
                state.save_or_keep(layout, current_state.rolled_back(failure))
        control_client.reconcile(layout)
        outcome = f"the agent rolled back to {switched.previous or 'no release'}"
        if kept := unwritten(config):
            outcome += f", but could not write this to {layout.state_file} yet ({kept.reason}): {kept.after_reboot}"
        raise TrialError(release, failure, "a model that loads", f"see the log for the cause; {outcome}")
    return ActivateResult(
        release=release,
        changed=True,
        previous=switched.previous,
        trial=True,
        service=service,
        selftest=measurements,
        unwritten=None,
    )


def rollback(
    config: Config,
    to: str | None = None,
    reason: str | None = None,
    report_step: ReportStep = lambda text: None,
) -> RollbackResult:
    """Roll back to the previous release or to another installed release. A rollback needs no network.

    A release that was confirmed on this device before becomes current without a trial. Any other release is
    self-tested and put on trial, as `activate` does.

    A return to a release that was confirmed before needs no disk: if state.json cannot be written, the rollback is in
    effect until a reboot, and the service writes it as soon as possible. The result then has `unwritten`.

    Args:
        config: The configuration.
        to: The installed release to return to; None means the previous release.
        reason: The reason why the replaced release is marked as bad; if None, that release is not marked as bad.
        report_step: A function to call with the name of each step when the step begins.

    Raises:
        NoReleaseError: There is no previous release, or `to` is not installed.
        TrialError: The requested release failed on this device before.
        TrustError: The slot of the requested release is damaged.
        ServiceError: The service does not respond, or could not load the requested release.
    """
    layout = config.layout
    with state.locked(layout):
        known_state = state.load(layout)
        requested = to or known_state.previous
        if requested is None:
            confirmed = [
                release
                for release in known_state.proven
                if release != known_state.current and known_state.was_confirmed(release)
            ]
            raise NoReleaseError(
                str(layout.state_file),
                "there is no previous release to roll back to",
                f"an earlier release; confirmed on this device: {', '.join(confirmed) or 'none'}",
                "name an installed release: edge-agent rollback --to RELEASE",
            )
        require_not_bad(known_state, requested)
        unchanged, confirmed_before = requested == known_state.current, known_state.was_confirmed(requested)
        if confirmed_before and not unchanged:
            _restore(config, known_state, requested, reason)
    if unchanged:
        service, trial = control_client.reconcile(layout), known_state.trial is not None
    elif confirmed_before:
        service, trial = _require_loaded(config, requested, "current again"), False
    else:
        service, trial = _switch_on_trial(config, known_state, requested, True, report_step, reason).service, True
    point("rollback.after")
    return RollbackResult(
        release=requested,
        left=None if unchanged else known_state.current,
        changed=not unchanged,
        trial=trial,
        service=service,
        unwritten=unwritten(config),
    )


def _restore(config: Config, known_state: State, release: str, reason: str | None) -> None:
    """Roll back to a release that was confirmed on this device, without a trial. The caller holds the lock.

    If `reason` is given, the replaced release is marked as bad for this reason. If state.json cannot be written, the
    rollback is kept in memory. Raises the errors of `slots.verify` and `state.save_or_keep`.
    """
    from edge_agent.storage import slots

    slots.verify(config.layout, release)
    point("rollback.before")
    previous = known_state.previous if known_state.previous != release else None
    restored = dataclasses.replace(known_state.rolled_back(reason), current=release, previous=previous)
    state.save_or_keep(config.layout, restored)
    point("rollback.after_state")


def _require_loaded(config: Config, release: str, description: str) -> ServiceModel:
    """Make the service load the current release. Raises ServiceError if the service cannot load it.

    `description` describes the release in the error message, such as "current again".
    """
    service = control_client.reconcile(config.layout)
    if service.error:
        raise ServiceError(
            release,
            f"{description}, but not loaded: {service.error}",
            "a service that has loaded this release",
            f"if the slot is damaged, repair it: edge-agent install {release}; otherwise {control_client.REMEDY}",
        )
    return service


def installed_target(config: Config, release: str) -> str:
    """Verify an installed release, and return the name of the target that this device runs.

    Raises TrustError, NoReleaseError, FitError, and SelfTestError if the release's drift reference is invalid.
    """
    from edge_agent.inference import drift_reference
    from edge_agent.storage import slots, target_selection

    manifest = slots.verify(config.layout, release)
    target = target_selection.select_target(config, manifest, None)
    drift_reference.read(release, config.layout.bundle(release), manifest)
    return target
