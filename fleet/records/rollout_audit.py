"""The audit trail of rollouts: who changed what on which device, when, with what result. Read as CSV by `fleet audit`.

Each line of a rollout's audit.jsonl has the fields below and is never changed (fleet/audit_log.py). A line that was
edited, or that a power cut left incomplete, is shown as such in every query: it may concern any device, at any time.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet import audit_log
from fleet.records.rollout_folder import Record

FIELDS = ("time", "fleet", "rollout", "by", "commit", "action", "device", "release", "result", "seconds", "detail")
ALWAYS = ("time", "by", "action")
CUT, STRANGE = "cut short", "not readable"
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")  # as audit_log.now writes it
SHOWN = 200  # characters of a line that cannot be read


def append(
    to: Record,
    action: str,
    *,
    result: str,
    device: str | None = None,
    release: str | None = None,
    seconds: float | None = None,
    detail: str = "",
    devices: Sequence[str] = (),
) -> None:
    """One line of this rollout. `devices`: of a wave, where it is about all of them."""
    audit_log.append(
        to.folder / audit_log.FILE,
        action,
        fleet=to.plan["fleet"],
        rollout=to.id,
        commit=to.plan.get("commit"),
        device=device,
        release=release,
        result=result,
        seconds=None if seconds is None else round(seconds, 3),
        detail=detail,
        devices=list(devices),
    )


def since(at: str | None) -> float | None:
    """Seconds since a time that the records have; None where there is none, or where the clock was set back."""
    if at is None or not _is_time(at):
        return None
    passed = (datetime.now(UTC) - _time(at)).total_seconds()
    return passed if passed >= 0 else None


def read(records: Iterable[Record], *more: Path) -> list[dict[str, Any]]:
    """Every line of these rollouts, and of the files `more`, by time.

    A line that has none stands where it stood: after the one before it in its file.
    """
    placed = []
    for lines in [*(of(each.folder / audit_log.FILE, each.id) for each in records), *map(of, more)]:
        known = list(lines)
        at = next((line["time"] for line in known if line["time"]), "")
        for line in known:
            at = line["time"] or at
            placed.append((at, line))
    return [line for _, line in sorted(placed, key=lambda each: each[0])]


def of(path: Path, rollout: str | None = None) -> Iterator[dict[str, Any]]:
    """Every line of one file, which need not be there.

    Of one that is cut or that is not what `append` writes, `result` says so and `detail` has its text.
    """
    # NOTE: splitlines would also break a line at characters that JSON allows in a text.
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
    for text in texts if texts[-1] else texts[:-1]:
        try:
            found = json.loads(text)
            wrong = "" if _is_line(found) else STRANGE
        except (ValueError, RecursionError):
            found, wrong = None, CUT
        if wrong:
            found = {"rollout": rollout, "result": wrong, "detail": text[:SHOWN]}
        yield {**{name: found.get(name) for name in FIELDS}, "devices": found.get("devices") or []}


def _is_line(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    texts = {name: value.get(name) for name in FIELDS if name != "seconds"}
    seconds, devices = value.get("seconds"), value.get("devices", [])
    return (
        isinstance(devices, list)
        and all(isinstance(each, str) for each in devices)
        and all(isinstance(text, str) or (text is None and name not in ALWAYS) for name, text in texts.items())
        and (seconds is None or type(seconds) is int or (type(seconds) is float and math.isfinite(seconds)))
        and _is_time(value["time"])
    )


def _is_time(text: str) -> bool:
    try:
        return bool(TIME.fullmatch(text) and _time(text))
    except ValueError:
        return False


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def select(
    lines: Iterable[dict[str, Any]],
    device: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[dict[str, Any]]:
    """Lines about a device or its wave, from `since` on and before `until`; and every one that cannot be read."""
    for line in lines:
        if line["time"] is None:
            yield line
            continue
        at = _time(line["time"])
        about = device is None or line["device"] == device or device in line["devices"]
        if about and (since is None or at >= since) and (until is None or at < until):
            yield line


def as_csv(lines: Iterable[dict[str, Any]]) -> str:
    """RFC 4180, with a header. Neither a spreadsheet nor a terminal obeys what devices and people said.

    A text that a spreadsheet would take for a formula has an apostrophe before it; what a terminal would obey is '?'.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _harmless(line.get(name)) for name in FIELDS})
    return stream.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def plain(text: str) -> str:
    """`text` without what a terminal would obey; lines and tabs stay."""
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)
