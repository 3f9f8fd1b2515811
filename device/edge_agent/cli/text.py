"""Format the result of a command as short text with units, for operators. `--json` prints the complete result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from edge_agent.core.progress import size
from edge_agent.inference.selftest import SelfTestResult
from edge_agent.lifecycle.control_messages import ServiceModel, ShadowSummary, TrialProgress
from edge_agent.lifecycle.results import (
    ActivateResult,
    ConfirmResult,
    ForgetResult,
    InstallResult,
    PruneResult,
    RollbackResult,
    SamplesResult,
    ServiceSummary,
    StatusResult,
    TrialStatus,
    VerifyResult,
)
from edge_agent.lifecycle.unwritten import UnwrittenState


@singledispatch
def render(result: Any) -> str:
    """Format the result of a command as text. A result whose class has no format of its own is shown as a table."""
    return _table(list(_leaves(result)))


@render.register
def _install(result: InstallResult) -> str:
    if not result.changed:
        return f"{result.release} is already installed and undamaged"
    return f"{result.release} is installed ({', '.join(result.targets)})\n  next: edge-agent activate {result.release}"


@render.register
def _activate(result: ActivateResult) -> str:
    if not result.changed:
        head = f"{result.release} is already current" + (", on trial" if result.trial else "")
    elif not result.trial:
        head = f"{result.release} is current again; it was confirmed before"
    else:
        head = f"{result.release} is current, on trial; a rollback returns to: {result.previous or 'nothing'}"
    lines = [head]
    if result.selftest:
        lines.append(f"  self-test: {_selftest(result.selftest)}")
    lines.append(f"  service:   {_service_model(result.service)}")
    return "\n".join([*lines, *_unwritten_lines(result.unwritten)])


def _selftest(result: SelfTestResult) -> str:
    warning = f"; samples are computed one by one: {result.joining_fault}" if result.joining_fault else ""
    return (
        f"{result.samples} golden samples differ by at most {result.max_difference:.2g} "
        f"(allowed {result.tolerance:g}), p95 {result.latency_ms.p95:.3f} ms, {result.memory_mb:.1f} MB{warning}"
    )


def _service_model(service: ServiceModel) -> str:
    if not service.running:
        return "not running; it starts with this release"
    loaded = service.loaded
    return f"has loaded {loaded.release} ({loaded.target}, sha256 {loaded.sha256[:12]})" if loaded else "idle"


@render.register
def _confirm(result: ConfirmResult) -> str:
    return f"{result.release} is {'' if result.changed else 'already '}confirmed"


@render.register
def _rollback(result: RollbackResult) -> str:
    if not result.changed:
        return f"{result.release} is already current"
    standing = "current now, on trial" if result.trial else "current again"
    lines = [
        f"{result.release} is {standing}; current before: {result.left or 'nothing'}",
        f"  service:   {_service_model(result.service)}",
    ]
    return "\n".join([*lines, *_unwritten_lines(result.unwritten)])


def _unwritten_lines(unwritten: UnwrittenState | None) -> list[str]:
    return [] if unwritten is None else [f"  NOT YET WRITTEN TO THE DISK: {_unwritten(unwritten)}"]


def _unwritten(unwritten: UnwrittenState) -> str:
    return f"{unwritten.reason}; the agent tries again each second; until then, {unwritten.after_reboot}"


@render.register
def _forget(result: ForgetResult) -> str:
    if result.release is None:
        return f"removed the trusted time: {result.reason or 'none'}; metadata is now checked against the clock alone"
    if not result.changed:
        return f"{result.release} is not marked as bad"
    return f"{result.release} may be installed and activated again (it was marked as bad: {result.reason})"


@render.register
def _prune(result: PruneResult) -> str:
    removed = ", ".join(result.removed) or "nothing"
    return f"removed:   {removed}\ninstalled: {', '.join(result.installed) or 'nothing'}"


@render.register
def _verify(result: VerifyResult) -> str:
    if not result.slots:
        return "nothing is installed"
    lines = []
    for slot in result.slots:
        if slot.fault is None:
            lines.append(f"{slot.release}: undamaged, {slot.files} files")
        else:
            expected = f"; expected {slot.fault.expected}" if slot.fault.expected else ""
            lines.append(f"{slot.release}: DAMAGED: {slot.fault.where}: {slot.fault.found}{expected}")
            lines.append(f"  remedy: edge-agent install {slot.release}")
    return "\n".join(lines)


@render.register
def _status(result: StatusResult) -> str:
    device, disk = result.device, result.disk
    rows = [
        ("device", f"{device.id} ({device.type}, {device.architecture})"),
        ("current", (result.current or "none") + (" (on trial)" if result.trial else "")),
        ("previous", result.previous or "none"),
        ("loaded", _service(result.service)),
    ]
    if result.trial:
        rows.append(("trial", _trial(result.trial, result.service.trial)))
    rows += [("bad", f"{release}: {reason}") for release, reason in sorted(result.bad.items())]
    if result.unwritten:
        rows.append(("not written", _unwritten(result.unwritten)))
    rows.append(("installed", ", ".join(result.installed) or "nothing"))
    rows.append(("disk", f"{disk.free_bytes / 1e9:.1f} GB free" if disk else "no state yet"))
    return _table(rows)


def _service(service: ServiceSummary) -> str:
    if service.fault:
        return f"unknown: the service does not respond ({service.fault.found})"
    if not service.running:
        return "nothing: no service is running"
    loaded = service.loaded
    if not loaded:
        return f"nothing: {service.reason}"
    health = "healthy" if service.healthy else f"NOT healthy: {service.reason}"
    return f"{loaded.release} ({loaded.target}, sha256 {loaded.sha256[:12]}), {health}"


def _trial(trial: TrialStatus, progress: TrialProgress | None) -> str:
    starts = f"started {trial.starts} of {trial.starts_allowed} times"
    if progress is None:
        return f"since {trial.since}, {starts}"
    return f"{progress.reason}; {progress.left_seconds:.0f} s left; {starts}"


@render.register
def _shadow(result: ShadowSummary) -> str:
    agreement = result.agreement
    share = (
        f"{agreement.share:.1%} ({agreement.low:.1%} to {agreement.high:.1%}, 95% interval)"
        if agreement.share is not None
        else "unknown: no input arrived"
    )
    rows = [
        ("candidate", f"{result.release} ({result.target})"),
        ("current", result.current),
        ("inputs", f"{result.samples} compared, {result.dropped} dropped, {result.errors} failed"),
        ("agreement", share),
    ]
    for name, latency in (("current", result.latency_ms.current), ("candidate", result.latency_ms.candidate)):
        shown = "unknown" if latency.p50 is None else f"p50 {latency.p50:.3f} ms, p95 {latency.p95:.3f} ms"
        rows.append((f"latency {name}", shown))
    rows.append(("ended", result.ended or "no"))
    return _table(rows)


@render.register
def _samples(result: SamplesResult) -> str:
    return (
        f"wrote {result.samples} samples, {result.labelled} of them labelled, to {result.file} "
        f"({size(result.size_bytes)}, {result.lines} lines)"
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the text of every value in nested JSON objects, such as `latency_ms.p50` and `1.2`.

    The list `http` of request counts becomes one row for each method, path and status code.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
    elif path == "http":
        for line in value:
            yield f"http {line['method']} {line['path']} {line['code']}", str(line["count"])
    else:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
