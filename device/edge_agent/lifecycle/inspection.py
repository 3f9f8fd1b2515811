"""The commands of `edge-agent` that inspect releases and the service, and change no files: verify, shadow and report.

Modules that take long to import are imported inside the functions that use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, NoReleaseError, ServiceError
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.control_messages import ShadowSummary
from edge_agent.lifecycle.results import SlotCheck, VerifyResult
from edge_agent.lifecycle.switching import ReportStep, installed_target
from edge_agent.lifecycle.trial_rules import require_not_bad


def verify(config: Config, release: str | None = None) -> VerifyResult:
    """Check the files of all installed releases, or only of `release`, byte for byte against their manifests.

    The first check does not hold the lock, because a service that starts may need the lock. A slot that seems damaged
    is checked again while the lock is held, because another process may have removed the slot during the first check.

    Raises:
        NoReleaseError: `release` is not installed.
    """
    from edge_agent.storage import slots

    layout = config.layout
    checks = []
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
            checks.append(SlotCheck(name, whole=False, files=None, fault=error))
        else:
            checks.append(SlotCheck(name, whole=True, files=len(manifest["files"]), fault=None))
    return VerifyResult(checks)


def shadow(
    config: Config,
    release: str,
    samples: int,
    seconds: float,
    selftest: bool = True,
    report_step: ReportStep = lambda text: None,
) -> Iterator[ShadowSummary]:
    """Compare an installed release with the current release on live inputs, and yield a summary each second.

    The self-test runs before the comparison, in a separate process, so that a release that crashes does not crash the
    service.

    Args:
        config: The configuration.
        release: The installed release to compare, as NAME@VERSION.
        samples: Number of inputs after which the comparison ends.
        seconds: Maximum duration of the comparison in seconds.
        selftest: False skips the self-test.
        report_step: A function to call with the name of each step when the step begins.

    Raises:
        ServiceError: No service is running, or the service refuses the candidate or stops responding.
        TrialError: The release failed on this device before.
        SelfTestError: The self-test failed.
    """
    # This command changes no files, so it needs no lock, and members of the service's group may run it too.
    require_not_bad(state.load(config.layout), release)
    target = installed_target(config, release)
    if selftest:
        from edge_agent.inference import selftest as selftests

        report_step(f"self-test of {target}")
        selftests.run(config, release, target)
    report_step(f"comparing up to {samples} inputs, at most {seconds:g} s")
    yield from control_client.shadow(config.layout, release, samples, seconds)


def report(config: Config) -> dict[str, Any]:
    """Return the service's statistics since the switch to the loaded release, as JSON. Raises ServiceError."""
    response = control_client.report(config.layout)
    if response is None:
        raise ServiceError(
            str(config.layout.control_socket),
            "no service is running",
            "a running service",
            "start it: systemctl start edge-agent",
        )
    return response
