"""Check that the MQTT topics in the configuration are valid (MQTT 5.0, section 4.7)."""

from __future__ import annotations

from collections.abc import Iterator

LONGEST_BYTES = 65535
WILDCARDS = frozenset("+#")


def topic_faults(topic_in: str, topic_out: str) -> Iterator[tuple[str, str]]:
    """Check two MQTT topics, and yield each fault as a pair of the field's name and a description of the fault.

    `topic_in` is the topic filter for requests, and `topic_out` is the topic for responses.
    """
    for name, text in (("topic_in", topic_in), ("topic_out", topic_out)):
        if not text:
            yield name, "empty: name a topic, or leave mqtt.host empty"
        elif "\0" in text or len(text.encode(errors="replace")) > LONGEST_BYTES:
            yield name, f"{text[:80]!r} is not a valid topic: it has a zero byte or more than {LONGEST_BYTES} bytes"
    levels = _filter(topic_in).split("/")
    mixed = any(level not in WILDCARDS and WILDCARDS & set(level) for level in levels)
    if levels[0] == "$share" or mixed or "#" in levels[:-1]:
        yield "topic_in", f"{topic_in[:80]!r} is not a topic filter: `+` must be a whole level, and `#` the last level"
    if WILDCARDS & set(topic_out):
        yield "topic_out", f"{topic_out[:80]!r} has a wildcard, so it names more than one topic"
    elif topic_out and _matches(levels, topic_out):
        yield (
            "topic_out",
            f"{topic_out[:80]!r} matches topic_in ({topic_in[:80]!r}): every response would be read as a request",
        )


def _filter(topic_in: str) -> str:
    """Return the topic filter of `topic_in`, which can be a shared subscription (MQTT 5.0, section 4.8.2).

    The filter of the shared subscription `$share/GROUP/FILTER` is FILTER. Any other `topic_in` is returned unchanged.
    """
    start, _, remainder = topic_in.partition("/")
    group, _, shared = remainder.partition("/")
    return shared if start == "$share" and group and shared and not WILDCARDS & set(group) else topic_in


def _matches(levels: list[str], topic: str) -> bool:
    parts = topic.split("/")
    if topic.startswith("$") and levels[0] in WILDCARDS:
        return False
    if levels[-1] == "#":  # `a/#` matches `a` too
        levels, parts = levels[:-1], parts[: len(levels) - 1]
    return len(levels) == len(parts) and all(level in ("+", part) for level, part in zip(levels, parts, strict=True))
