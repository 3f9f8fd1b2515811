"""A configuration is right, or its faults are told: no value of it becomes a traceback later."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_agent.core import config
from edge_agent.core.errors import ConfigurationError

FAULTS = {
    "serve.listen": ['"127.0.0.1:99999"', f'"127.0.0.1:{"9" * 5000}"'],
    "serve.metrics_listen": ['"0.0.0.0:65536"', f'"{"a" * 64}:9100"', '"a\\u0000b:9100"'],
    "serve.body_limit_mb": ["inf", "nan", "1e308"],
    "serve.feedback_window": [str(10**30)],
    "install.reserve_mb": ["inf", "nan"],
    "install.limit_mb": ["nan", "1e303"],
    "trial.seconds": ["nan", "inf"],
    "trial.deadline_s": ["nan", "1e300"],
    "trial.error_share": ["nan"],
    "selftest.timeout_s": ["inf", "1e10"],
    "source.timeout_s": ["nan"],
    "capture.max_age_days": ["1e9", "-inf"],
    "paths.state": ['"/var/\\u0000"'],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FAULTS.items() for value in values])
def test_a_value_that_nothing_can_be_done_with_is_refused(tmp_path: Path, name: str, value: str) -> None:
    block, _, field = name.partition(".")
    file = tmp_path / "config.toml"
    file.write_text(f"[{block}]\n{field} = {value}\n")

    with pytest.raises(ConfigurationError) as error:
        config.load(file)

    assert error.value.where == str(file)
    assert f"1 fault(s)\n  {name}: " in error.value.found


def test_what_is_nested_beyond_reading_is_no_toml(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"device = {'[' * 50_000}")

    with pytest.raises(ConfigurationError, match="not TOML"):
        config.load(file)


def test_ports_and_limits_at_their_ends_are_taken() -> None:
    serve = {"listen": "[::1]:65535", "metrics_listen": "pump-3.plant.example:0", "request_timeout_s": 2_000_000.0}

    assert config.parse({"serve": serve}).serve.listen == "[::1]:65535"


@pytest.mark.parametrize(
    ("asked", "told", "field"),
    [
        ("a", "", "topic_out"),
        ("", "b", "topic_in"),
        ("a", "c/#", "topic_out"),
        ("a", "c/+/d", "topic_out"),
        ("b/#/c", "d", "topic_in"),
        ("b/c#", "d", "topic_in"),
        ("b+/c", "d", "topic_in"),
        ("$share/g", "d", "topic_in"),
        ("a\0", "d", "topic_in"),
        ("a", "d" * 65536, "topic_out"),
        ("plant/x", "plant/x", "topic_out"),
        ("plant/+", "plant/x", "topic_out"),
        ("plant/#", "plant/x/y", "topic_out"),
        ("plant/#", "plant", "topic_out"),
        ("$share/group/plant/#", "plant/x", "topic_out"),
        ("#", "plant/x", "topic_out"),
    ],
)
def test_topics_that_cannot_work_are_refused(asked: str, told: str, field: str) -> None:
    """An answer that is heard as a request is answered for ever; a filter that no broker takes is never asked."""
    with pytest.raises(ConfigurationError) as error:
        config.parse({"mqtt": {"host": "broker", "topic_in": asked, "topic_out": told}})

    assert f"1 fault(s)\n  mqtt.{field}: " in error.value.found


@pytest.mark.parametrize(
    ("asked", "told"),
    [("plant/+/asked", "plant/told"), ("plant/#", "planted"), ("+", "a/b"), ("#", "$told"), ("$share/g/a", "b")],
)
def test_topics_that_do_not_meet_are_taken(asked: str, told: str) -> None:
    assert config.parse({"mqtt": {"host": "broker", "topic_in": asked, "topic_out": told}}).mqtt.topic_out == told
