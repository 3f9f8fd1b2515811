"""A configuration is valid, or its faults are reported: no value causes a traceback later."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

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
def test_an_unusable_value_is_refused(tmp_path: Path, name: str, value: str) -> None:
    block, _, field = name.partition(".")
    file = tmp_path / "config.toml"
    file.write_text(f"[{block}]\n{field} = {value}\n")

    with pytest.raises(ConfigurationError) as error:
        config.load(file)

    assert error.value.where == str(file)
    assert f"1 error(s)\n  {name}: " in error.value.found


def test_toml_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"device = {'[' * 50_000}")

    with pytest.raises(ConfigurationError, match="not TOML"):
        config.load(file)


def test_the_largest_ports_and_times_are_accepted() -> None:
    serve = {"listen": "[::1]:65535", "metrics_listen": "pump-3.plant.example:0", "request_timeout_s": 2_000_000.0}

    assert config.parse({"serve": serve}).serve.listen == "[::1]:65535"


@pytest.mark.parametrize(
    ("topic_in", "topic_out", "field"),
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
def test_topics_that_cannot_work_are_refused(topic_in: str, topic_out: str, field: str) -> None:
    """A response that is read as a request would loop for ever; a filter that brokers reject would receive nothing."""
    with pytest.raises(ConfigurationError) as error:
        config.parse({"mqtt": {"host": "broker", "topic_in": topic_in, "topic_out": topic_out}})

    assert f"1 error(s)\n  mqtt.{field}: " in error.value.found


@pytest.mark.parametrize(
    ("topic_in", "topic_out"),
    [("plant/+/asked", "plant/told"), ("plant/#", "planted"), ("+", "a/b"), ("#", "$told"), ("$share/g/a", "b")],
)
def test_topics_that_do_not_overlap_are_accepted(topic_in: str, topic_out: str) -> None:
    assert (
        config.parse({"mqtt": {"host": "broker", "topic_in": topic_in, "topic_out": topic_out}}).mqtt.topic_out
        == topic_out
    )


SCHEMA: dict[str, Any] = json.loads(config.SCHEMA_FILE.read_text(encoding="utf-8"))
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def test_the_schema_has_the_blocks_and_keys_of_the_configuration_in_their_order() -> None:
    blocks = dataclasses.asdict(config.Config())

    assert {name: list(block["properties"]) for name, block in SCHEMA["properties"].items()} == {
        name: list(block) for name, block in blocks.items()
    }
    assert list(SCHEMA["properties"]) == list(blocks)


@pytest.mark.parametrize("block", dataclasses.fields(config.Config), ids=lambda block: block.name)
def test_every_key_has_the_type_of_its_field_and_a_description(block: dataclasses.Field[Any]) -> None:
    keys = SCHEMA["properties"][block.name]["properties"]
    types = typing.get_type_hints(block.default_factory)

    for name, key in keys.items():
        description = key["description"]
        assert description.endswith(".") and not description.endswith(".."), name
        for suffix, unit in (("_s", "second"), ("_mb", "megabyte"), ("_days", "day")):
            assert not name.endswith(suffix) or unit in description, f"{block.name}.{name} lacks its unit"
        if "enum" not in key:
            assert key["type"] == JSON_TYPES.get(types[name], "array"), name


def test_the_defaults_are_valid() -> None:
    defaults = json.loads(json.dumps(dataclasses.asdict(config.Config())))

    assert config.parse(defaults) == config.Config()
