"""The agent's configuration: one TOML file, checked against config.schema.json and parsed into objects.

This module defines the default of every key. The schema defines the description, unit and limits of every key.
"""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from edge_agent.core import mqtt_topics
from edge_agent.core.errors import ConfigurationError
from edge_agent.core.layout import Layout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = Path("/etc/edge-agent/config.toml")
SCHEMA_FILE = Path(__file__).with_name("config.schema.json")
LAST_PORT = 65535


@dataclass(frozen=True)
class Device:
    """The block `[device]`: the identity of the device, and the targets (exported model files) that it may run."""

    id: str = field(default_factory=socket.gethostname)
    type: str = "generic"
    targets: tuple[str, ...] = ("tflite-int8", "onnx-int8", "tflite-fp32", "onnx-fp32")


@dataclass(frozen=True)
class Paths:
    """The block `[paths]`: the agent's directories, and the file that is the root of trust."""

    state: str = "/var/lib/edge-agent"
    run: str = "/run/edge-agent"
    root: str = "/etc/edge-agent/root.json"


@dataclass(frozen=True)
class Source:
    """The block `[source]`: the addresses of the repository of releases, and the attempts and timeout of a download."""

    metadata_url: str = "file:///var/lib/edge-agent/repository/metadata"
    targets_url: str = "file:///var/lib/edge-agent/repository/targets"
    attempts: int = 5
    backoff_s: float = 1.0
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Install:
    """The block `[install]`: the number of unused slots to keep, and limits on the disk space that bundles may use."""

    keep: int = 1
    reserve_mb: float = 32.0
    limit_mb: float = 1024.0


@dataclass(frozen=True)
class SelfTest:
    """The block `[selftest]`: the maximum duration of a self-test, and the number of inferences that it measures."""

    timeout_s: float = 120.0
    repeats: int = 50


@dataclass(frozen=True)
class TrialRules:
    """The block `[trial]`: the conditions under which the agent confirms a release on trial or rolls it back.

    `lifecycle.trial_rules` applies these conditions.
    """

    confirm: str = "auto"
    seconds: float = 60.0
    inferences: int = 20
    error_share: float = 0.01
    starts: int = 3
    deadline_s: float = 900.0
    probe_interval_s: float = 1.0


@dataclass(frozen=True)
class Serve:
    """The block `[serve]`: the addresses and the limits of the prediction API."""

    listen: str = "127.0.0.1:8650"
    socket: str = ""
    metrics_listen: str = ""
    threads: int = 1
    batch: int = 16
    queue: int = 256
    body_limit_mb: float = 8.0
    request_timeout_s: float = 10.0
    feedback_window: int = 10000


@dataclass(frozen=True)
class Capture:
    """The block `[capture]`: which samples the agent stores for retraining, and for how long; off by default."""

    enabled: bool = False
    rate: float = 0.0
    below_confidence: float = 0.0
    on_drift: bool = False
    limit_mb: float = 64.0
    max_age_days: float = 30.0


@dataclass(frozen=True)
class Mqtt:
    """The block `[mqtt]`: the broker and the topics for predictions over MQTT; off if `host` is empty."""

    host: str = ""
    port: int = 1883
    tls: bool = False
    username: str = ""
    password_env: str = ""
    topic_in: str = ""
    topic_out: str = ""


@dataclass(frozen=True)
class Config:
    """The whole configuration: one field for each block of the file."""

    device: Device = field(default_factory=Device)
    paths: Paths = field(default_factory=Paths)
    source: Source = field(default_factory=Source)
    install: Install = field(default_factory=Install)
    selftest: SelfTest = field(default_factory=SelfTest)
    trial: TrialRules = field(default_factory=TrialRules)
    serve: Serve = field(default_factory=Serve)
    capture: Capture = field(default_factory=Capture)
    mqtt: Mqtt = field(default_factory=Mqtt)

    @property
    def layout(self) -> Layout:
        """Return the paths of the agent's files."""
        return Layout(Path(self.paths.state), Path(self.paths.run))


_BLOCKS: Mapping[str, type] = {
    "device": Device,
    "paths": Paths,
    "source": Source,
    "install": Install,
    "selftest": SelfTest,
    "trial": TrialRules,
    "serve": Serve,
    "capture": Capture,
    "mqtt": Mqtt,
}
assert set(_BLOCKS) == {block.name for block in fields(Config)}


def load(path: Path = DEFAULT_FILE) -> Config:
    """Read and check the configuration file `path`. Raises ConfigurationError if the file is missing or invalid."""
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            str(path),
            error.strerror or str(error),
            "a readable file",
            "name another file: edge-agent --config FILE ...",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            str(path), f"not TOML in UTF-8 ({error})", "a TOML 1.0 file", "correct the syntax of the file"
        ) from None
    return parse(value, str(path))


def parse(value: Mapping[str, Any], where: str = "configuration") -> Config:
    """Check the content of a configuration file, and convert it into a Config.

    `value` has the blocks of the file by name. Raises ConfigurationError if `value` is invalid; the message lists the
    faults and begins with `where`, which is usually the path of the file.
    """
    validator = Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    faults = sorted(validator.iter_errors(value), key=lambda fault: [str(part) for part in fault.absolute_path])
    lines = [f"  {'.'.join(map(str, fault.absolute_path)) or 'file'}: {fault.message}" for fault in faults]
    lines = lines or [f"  {fault}" for fault in _faults_beyond_schema(value)]
    if lines:
        raise ConfigurationError(
            where,
            "\n".join([f"{len(lines)} error(s)", *lines]),
            f"a configuration that matches {SCHEMA_FILE.name}",
            "correct these values",
        )
    blocks = {name: _BLOCKS[name](**_with_tuples(block)) for name, block in value.items()}
    return Config(**blocks)


def _faults_beyond_schema(value: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the faults of a configuration that a JSON Schema cannot describe. `value` must already match the schema."""
    for block, content in value.items():
        for name, item in content.items():
            # TOML has nan, which is neither above nor below any limit, so the schema does not refuse it.
            if isinstance(item, float) and not math.isfinite(item):
                yield f"{block}.{name}: {item} is not a finite number"
            elif name.endswith("listen") and item and int(item.rpartition(":")[2][:9]) > LAST_PORT:
                yield f"{block}.{name}: the port in {item[:80]!r} is larger than {LAST_PORT}"
    mqtt = Mqtt(**value.get("mqtt", {}))
    if mqtt.host:
        yield from (f"mqtt.{name}: {fault}" for name, fault in mqtt_topics.topic_faults(mqtt.topic_in, mqtt.topic_out))


def _with_tuples(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(item) if isinstance(item, list) else item for name, item in block.items()}
