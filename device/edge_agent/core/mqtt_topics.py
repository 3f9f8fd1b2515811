"""Topics of MQTT 5 (section 4.7), as a configuration has to name them."""

from __future__ import annotations

from collections.abc import Iterator

LONGEST_BYTES = 65535
WILD = frozenset("+#")


def topic_faults(asked: str, told: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the filter `asked`, where requests come from, and the topic `told`, where answers go: the
    name of the field, and the fault.
    """
    for name, text in (("topic_in", asked), ("topic_out", told)):
        if not text:
            yield name, "empty: name a topic, or leave mqtt.host empty"
        elif "\0" in text or len(text.encode(errors="replace")) > LONGEST_BYTES:
            yield name, f"{text[:80]!r} is no topic: at most {LONGEST_BYTES} bytes, none of them 0"
    levels = _filter(asked).split("/")
    if levels[0] == "$share" or any(level not in WILD and WILD & set(level) for level in levels) or "#" in levels[:-1]:
        yield "topic_in", f"{asked[:80]!r} is no topic filter: `+` is one whole level, `#` is the last one"
    if WILD & set(told):
        yield "topic_out", f"{told[:80]!r} names more than one topic"
    elif told and _matches(levels, told):
        yield "topic_out", f"{told[:80]!r} is heard on topic_in ({asked[:80]!r}): every answer would be asked again"


def _filter(asked: str) -> str:
    """The filter of a shared subscription, `$share/GROUP/FILTER` (4.8.2), or what else was asked for."""
    start, _, rest = asked.partition("/")
    group, _, own = rest.partition("/")
    return own if start == "$share" and group and own and not WILD & set(group) else asked


def _matches(levels: list[str], topic: str) -> bool:
    parts = topic.split("/")
    if topic.startswith("$") and levels[0] in WILD:
        return False
    if levels[-1] == "#":  # it stands for the level above it too
        levels, parts = levels[:-1], parts[: len(levels) - 1]
    return len(levels) == len(parts) and all(level in ("+", part) for level, part in zip(levels, parts, strict=True))
