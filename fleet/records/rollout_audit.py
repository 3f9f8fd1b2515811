"""The audit trail of rollouts: who changed what on which device, when and with what result. `fleet audit` prints it.

Each line of a rollout's audit.jsonl has the fields in FIELDS and is never changed (fleet/audit_log.py). A line may
be unreadable, because it was edited or a power cut left it incomplete. Every query shows such a line and marks it
as unreadable, because it may concern any device at any time.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fleet import audit_log
from fleet.records.rollout_folder import Record

FIELDS = ("time", "fleet", "rollout", "by", "commit", "action", "device", "release", "result", "seconds", "detail")
REQUIRED = ("time", "by", "action")
INCOMPLETE, UNREADABLE = "cut short", "not readable"
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")  # the format of audit_log.now
SHOWN = 200  # maximum number of characters shown of a line that cannot be read


@dataclass(frozen=True)
class AuditLine:
    """A line of an audit trail. If the line concerns a whole wave, `devices` lists the wave's devices.

    A line that cannot be read has no time. Its `result` is INCOMPLETE or UNREADABLE, and `detail` is the line's text.
    """

    time: str | None = None
    fleet: str | None = None
    rollout: str | None = None
    by: str | None = None
    commit: str | None = None
    action: str | None = None
    device: str | None = None
    release: str | None = None
    result: str | None = None
    seconds: float | None = None
    detail: str | None = None
    devices: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Return the line as `fleet audit --json` prints it."""
        return dict(vars(self))


def append(
    record: Record,
    action: str,
    *,
    result: str,
    device: str | None = None,
    release: str | None = None,
    seconds: float | None = None,
    detail: str = "",
    devices: Sequence[str] = (),
) -> None:
    """Append one line to the audit trail of a rollout.

    Args:
        record: The rollout's record.
        action: What was done, such as deploy.
        result: The result of the action.
        device: The device that the action concerns; None if it does not concern a single device.
        release: The release that the action concerns.
        seconds: The duration of the action in seconds; None if it is not known.
        detail: A human-readable explanation.
        devices: The devices of a wave, if the action concerns the whole wave.
    """
    audit_log.append(
        record.folder / audit_log.FILE,
        action,
        fleet=record.plan.fleet,
        rollout=record.id,
        commit=record.plan.commit,
        device=device,
        release=release,
        result=result,
        seconds=None if seconds is None else round(seconds, 3),
        detail=detail,
        devices=list(devices),
    )


def seconds_since(time: str | None) -> float | None:
    """Return how many seconds ago a recorded time was; None if it is missing, invalid or in the future."""
    if time is None or not _is_time(time):
        return None
    passed = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    return passed if passed >= 0 else None


def read(records: Iterable[Record], *more: Path) -> list[AuditLine]:
    """Read all lines of these rollouts' audit trails and of the files in `more`, sorted by time.

    A line without a time follows the line that precedes it in its file.
    """
    timed = []
    for file in [*(read_file(each.folder / audit_log.FILE, each.id) for each in records), *map(read_file, more)]:
        lines = list(file)
        time = next((line.time for line in lines if line.time), "")
        for line in lines:
            time = line.time or time
            timed.append((time, line))
    return [line for _, line in sorted(timed, key=lambda each: each[0])]


def read_file(path: Path, rollout: str | None = None) -> Iterator[AuditLine]:
    """Read every line of one audit file. A file that does not exist has no lines.

    Args:
        path: The path of the file.
        rollout: The id of the rollout to which the file belongs; it is added to lines that cannot be read.
    """
    # NOTE: splitlines would also split at characters that JSON allows in a string.
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
    for text in texts if texts[-1] else texts[:-1]:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            yield AuditLine(rollout=rollout, result=INCOMPLETE, detail=text[:SHOWN])
            continue
        if _is_line(content):
            yield AuditLine(**{name: content.get(name) for name in FIELDS}, devices=content.get("devices") or [])
        else:
            yield AuditLine(rollout=rollout, result=UNREADABLE, detail=text[:SHOWN])


def _is_line(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    texts = {name: value.get(name) for name in FIELDS if name != "seconds"}
    seconds, devices = value.get("seconds"), value.get("devices", [])
    return (
        isinstance(devices, list)
        and all(isinstance(each, str) for each in devices)
        and all(isinstance(text, str) or (text is None and name not in REQUIRED) for name, text in texts.items())
        and (seconds is None or type(seconds) is int or (type(seconds) is float and math.isfinite(seconds)))
        and _is_time(value["time"])
    )


def _is_time(text: str) -> bool:
    try:
        return bool(TIME.fullmatch(text) and datetime.fromisoformat(text))
    except ValueError:
        return False


def select(
    lines: Iterable[AuditLine],
    device: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[AuditLine]:
    """Select the lines about a device from a period, and every line that cannot be read.

    Args:
        lines: The lines of an audit trail.
        device: The device that the lines must concern, directly or as part of a wave; None allows every device.
        since: The earliest time of the lines; None sets no limit.
        until: The time before which the lines must be; None sets no limit.
    """
    for line in lines:
        if line.time is None:
            yield line
            continue
        time = datetime.fromisoformat(line.time)
        concerns = device is None or line.device == device or device in line.devices
        if concerns and (since is None or time >= since) and (until is None or time < until):
            yield line


def as_csv(lines: Iterable[Mapping[str, object]]) -> str:
    """Convert audit lines to CSV (RFC 4180) that is safe to open in spreadsheets and to print on terminals.

    Each line is a mapping as `AuditLine.as_json` returns it. If a spreadsheet would interpret a text as a formula, the
    text gets a leading apostrophe. Control characters become '?'.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _harmless(line.get(name)) for name in FIELDS})
    return stream.getvalue()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def plain(text: str) -> str:
    """Replace characters that could control a terminal with '?'. Newlines and tabs are kept."""
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)
