"""What a person reads of a command's result: short, exact, units said. The same facts as `--json`, fewer of them."""

from __future__ import annotations

from typing import Any

from edge_agent.core.progress import size

Result = dict[str, Any]


def render(command: str, result: Result) -> str:
    return {
        "install": install,
        "activate": activate,
        "deploy": activate,
        "confirm": confirm,
        "rollback": rollback,
        "status": status,
        "report": report,
        "verify": verify,
        "prune": prune,
        "forget": forget,
        "shadow": shadow,
        "samples": samples,
    }[command](result)


def install(result: Result) -> str:
    release = result["release"]
    if not result["changed"]:
        return f"{release} is already installed and whole"
    return f"{release} is installed ({', '.join(result['targets'])})\n  next: edge-agent activate {release}"


def activate(result: Result) -> str:
    release, service = result["release"], result["service"]
    if not result["changed"]:
        head = f"{release} is current already" + (", on trial" if result["trial"] else "")
    elif not result["trial"]:
        head = f"{release} is current again, as it was confirmed"
    else:
        head = f"{release} is current, on trial; to go back to: {result['previous'] or 'nothing'}"
    lines = [head]
    if tested := result["selftest"]:
        lines.append(
            f"  self-test: {tested['samples']} golden samples differ by at most {tested['max_difference']:.2g} "
            f"(allowed {tested['tolerance']:g}), p95 {tested['latency_ms']['p95']:.3f} ms, "
            f"{tested['memory_mb']:.1f} MB"
        )
    lines.append(f"  service:   {_loaded(service)}")
    return "\n".join(lines)


def _loaded(service: Result) -> str:
    if not service["running"]:
        return "not running; it starts with this release"
    loaded = service["loaded"]
    return f"has loaded {loaded['release']} ({loaded['target']}, sha256 {loaded['sha256'][:12]})" if loaded else "idle"


def confirm(result: Result) -> str:
    return f"{result['release']} is confirmed" + ("" if result["changed"] else " already")


def rollback(result: Result) -> str:
    if not result["changed"]:
        return f"{result['release']} is current already"
    return (
        f"{result['release']} is current {'again' if not result['trial'] else 'now, on trial'}; left: "
        f"{result['left'] or 'nothing'}\n  service:   {_loaded(result['service'])}"
    )


def forget(result: Result) -> str:
    if result["release"] is None:
        return f"trusted time {result['reason'] or '(none was kept)'} forgotten; the clock decides what is expired"
    if not result["changed"]:
        return f"{result['release']} is not marked as bad"
    return f"{result['release']} may be tried again (it was bad: {result['reason']})"


def prune(result: Result) -> str:
    removed = ", ".join(result["removed"]) or "nothing"
    return f"removed:   {removed}\ninstalled: {', '.join(result['installed']) or 'nothing'}"


def verify(result: Result) -> str:
    if not result["slots"]:
        return "nothing is installed"
    lines = []
    for slot in result["slots"]:
        if slot["whole"]:
            lines.append(f"{slot['release']}: whole, {slot['files']} files")
        else:
            fault = slot["fault"]
            expected = f"; expected {fault['expected']}" if fault["expected"] else ""
            lines.append(f"{slot['release']}: DAMAGED: {fault['where']}: {fault['found']}{expected}")
            lines.append(f"  remedy: edge-agent install {slot['release']}")
    return "\n".join(lines)


def status(result: Result) -> str:
    device, service, trial = result["device"], result["service"], result["trial"]
    rows = [
        ("device", f"{device['id']} ({device['type']}, {device['architecture']})"),
        ("current", (result["current"] or "none") + (" (on trial)" if trial else "")),
        ("previous", result["previous"] or "none"),
        ("loaded", _service(service)),
    ]
    if trial:
        rows.append(("trial", _trial(trial, service)))
    rows += [("bad", f"{release}: {reason}") for release, reason in sorted(result["bad"].items())]
    rows.append(("installed", ", ".join(result["installed"]) or "nothing"))
    rows.append(("disk", f"{disk['free_bytes'] / 1e9:.1f} GB free" if (disk := result["disk"]) else "no state yet"))
    return _table(rows)


def _service(service: Result) -> str:
    if service["fault"]:
        return f"unknown: the service does not answer ({service['fault']['found']})"
    if not service["running"]:
        return "nothing: no service runs"
    loaded = service["loaded"]
    if not loaded:
        return f"nothing: {service['reason']}"
    health = "healthy" if service["healthy"] else f"NOT healthy: {service['reason']}"
    return f"{loaded['release']} ({loaded['target']}, sha256 {loaded['sha256'][:12]}), {health}"


def _trial(trial: Result, service: Result) -> str:
    started = f"started {trial['starts']} of {trial['starts_allowed']} times"
    seen = service.get("trial")
    if not seen:
        return f"since {trial['since']}, {started}"
    return f"{seen['reason']}; {seen['left_seconds']:.0f} s left; {started}"


def report(result: Result) -> str:
    return _table(list(_flat(result)))


def _flat(value: Any, path: str = "") -> Any:
    """Every leaf of nested objects by its dotted path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    elif path == "http":
        for line in value:
            yield f"http {line['method']} {line['path']} {line['code']}", line["count"]
    else:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shadow(result: Result) -> str:
    agreement, latency = result["agreement"], result["latency_ms"]
    share = (
        f"{agreement['share']:.1%} ({agreement['low']:.1%} to {agreement['high']:.1%}, 95% interval)"
        if agreement["share"] is not None
        else "unknown: no input came"
    )
    rows = [
        ("candidate", f"{result['release']} ({result['target']})"),
        ("beside", result["current"]),
        ("inputs", f"{result['samples']} compared, {result['dropped']} dropped, {result['errors']} failed"),
        ("agreement", share),
    ]
    for name in ("current", "candidate"):
        found = latency[name]
        shown = "unknown" if found["p50"] is None else f"p50 {found['p50']:.3f} ms, p95 {found['p95']:.3f} ms"
        rows.append((f"latency {name}", shown))
    rows.append(("ended", result["ended"] or "no"))
    return _table(rows)


def samples(result: Result) -> str:
    return (
        f"{result['samples']} samples, {result['labelled']} of them labelled, are in {result['file']} "
        f"({size(result['size_bytes'])}, {result['lines']} lines)"
    )


def _table(rows: list[tuple[str, Any]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
