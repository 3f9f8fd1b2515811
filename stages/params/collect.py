"""Parameters of `collect`: the snapshot's time and where its rows come from."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, field_validator, model_validator

from stages.params.common import Block, Count, Seed, Share, Text, Wait
from stages.params.files import Columns, Files, Pattern

MAX_GENERATED_ROWS = 100_000_000  # of one generator, so that a typing error cannot fill the disk


def _check_topic(value: str) -> str:
    """Check a topic filter (MQTT 5, section 4.7): `+` replaces one whole level, `#` all remaining levels."""
    levels = value.split("/")
    whole_levels = all(level in ("+", "#") or not set(level) & {"+", "#"} for level in levels)
    if not value or not whole_levels or "#" in levels[:-1]:
        raise ValueError("an MQTT topic, where + is a whole level and # the last level")
    return value


def _check_year(value: datetime) -> datetime:
    """Check the year: a 64-bit count of nanoseconds since 1970 ends in 2262."""
    if not 1970 <= value.year <= 2200:
        raise ValueError("a time between 1970 and 2200")
    return value


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or an unclosed bracket
        is_complete = False
    if not is_complete or re.search(r"\s", value):
        raise ValueError("a URL: http:// or https://, a host and a path, without spaces")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_check_year)]
Url = Annotated[str, AfterValidator(_check_url)]


class Embedded(Block):
    """A data set that is part of an installed package; it needs no network."""

    type: Literal["embedded"] = Field(description="Type of this source.")
    dataset: Literal["sklearn-digits"] = Field(description="Name of the data set.")


class Cloud(Block):
    """Objects in a store that fsspec reads.

    Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID and so on).
    """

    type: Literal["cloud"] = Field(description="Type of this source.")
    url: Text = Field(description="`s3://bucket/folder`, `https://host/file`, or the path of a local file or folder.")
    endpoint_url: Url | None = Field(default=None, description="URL of an S3-compatible store; null: Amazon's own.")
    files: Files = Field(description="Which objects are read, and how.")


class Pages(Block):
    """Pages of JSON. Each page holds a list of rows and the URL of the next page."""

    rows: Text = Field(description="Dotted path inside a page to its list of rows.")
    next: Text | None = Field(description="Dotted path inside a page to the URL of the next page; null: a single page.")
    columns: Columns = Field(
        description="New name of each field to keep, by its name in a row; null keeps all under their names."
    )


class ExternalApi(Block):
    """An HTTP API: either an archive to download (tar or zip), or pages of JSON."""

    type: Literal["external_api"] = Field(description="Type of this source.")
    url: Url = Field(description="URL of the archive, or of the first page.")
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="Expected SHA-256 of the archive, in hex; null: not checked.",
    )
    headers_env: dict[str, str] | None = Field(
        default=None,
        description="Environment variable that holds the value of each HTTP header; keeps secrets out of this file.",
    )
    archive: Files | None = Field(default=None, description="Which files of the archive are read; excludes `pages`.")
    pages: Pages | None = Field(default=None, description="How the pages of JSON are read; excludes `archive`.")

    @model_validator(mode="after")
    def _one_form(self) -> ExternalApi:
        if (self.archive is None) == (self.pages is None):
            raise ValueError("exactly one of `archive:` and `pages:`")
        return self


class HttpPolling(Block):
    """Repeated GET requests. Each response is one JSON object (a row) or a list of them."""

    url: Url = Field(description="URL that is polled.")
    interval_s: float = Field(ge=0, le=1e6, description="Pause between two requests, in seconds.")
    samples: Count = Field(description="Number of requests.")


class Mqtt(Block):
    """Messages of an MQTT broker. Each payload is one JSON object (a row) or a list of them."""

    host: Text = Field(description="Host name of the broker.")
    port: int = Field(gt=0, lt=65536, description="Port of the broker.")
    tls: bool = Field(
        default=False,
        description=(
            "Whether the connection is encrypted and the broker's certificate checked "
            "(SSL_CERT_FILE names other authorities)."
        ),
    )
    username: str | None = Field(default=None, description="User name at the broker; null: no login.")
    password_env: str | None = Field(default=None, description="Environment variable that holds the password.")
    topics: list[Annotated[str, AfterValidator(_check_topic)]] = Field(
        min_length=1, description="Topics to subscribe to; `+` replaces one level, `#` all remaining levels."
    )
    topic: Pattern = Field(
        default=None,
        description="Regular expression searched in a message's topic, whose named groups become text columns.",
    )
    messages: Count = Field(description="Number of messages after which collection ends.")
    seconds: Wait = Field(description="Time after which collection ends, in seconds.")


class Sensors(Block):
    """Live readings, either by HTTP polling or by MQTT."""

    type: Literal["sensors"] = Field(description="Type of this source.")
    http: HttpPolling | None = Field(default=None, description="Collection by HTTP polling; excludes `mqtt`.")
    mqtt: Mqtt | None = Field(default=None, description="Collection by MQTT; excludes `http`.")
    columns: Columns = Field(
        description="New name of each field to keep, by its name in a reading; null keeps all under their names."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Sensors:
        if (self.http is None) == (self.mqtt is None):
            raise ValueError("exactly one of `http:` and `mqtt:`")
        return self


class EdgeDevices(Block):
    """Labelled samples that devices captured, read from each device's `GET {url}/samples`."""

    type: Literal["edge_devices"] = Field(description="Type of this source.")
    devices: dict[Text, Url] = Field(min_length=1, description="Base URL of each device's agent, by the device's name.")
    since: Moment | None = Field(description="Oldest time of a sample that is read, with a time zone; null: all.")


class Synthetic(Block):
    """A seeded generator of sensor data with the channels of `data.channels`."""

    type: Literal["synthetic"] = Field(description="Type of this source.")
    seed: Seed = Field(description="Seed of the generator; the same seed gives the same data.")
    groups: Count = Field(description="Number of machines, each of which is one group.")
    rows: Count = Field(description="Number of rows per machine.")
    # The upper limit is due to timestamps in microseconds.
    rate_hz: float = Field(ge=1e-6, le=1e6, description="Rows per second of each machine, in Hz.")
    noise: float = Field(ge=0, le=1e6, description="Standard deviation of the noise around a signal of amplitude 1.")
    fault_share: Share = Field(
        description="Share of the time in which a fault is present and the label is the second class."
    )
    faults: list[Literal["spike", "stuck", "offset"]] = Field(description="Kinds of fault, chosen at random.")
    drift_per_hour: float = Field(ge=-1e6, le=1e6, description="Amount added to every channel per hour.")

    @model_validator(mode="after")
    def _limited_rows(self) -> Synthetic:
        if self.groups * self.rows > MAX_GENERATED_ROWS:
            raise ValueError(f"groups * rows of at most {MAX_GENERATED_ROWS:g}; found {self.groups * self.rows:g}")
        return self

    @model_validator(mode="after")
    def _limited_duration(self) -> Synthetic:
        if self.rows / self.rate_hz > 1e9:
            raise ValueError(f"rows / rate_hz of at most 1e9 s; found {self.rows / self.rate_hz:g} s")
        return self


Source = Annotated[
    Embedded | Cloud | ExternalApi | Sensors | EdgeDevices | Synthetic,
    Field(discriminator="type"),
]


class Retry(Block):
    """Repetition of failed requests."""

    attempts: int = Field(gt=0, le=30, description="Number of attempts of each request.")
    backoff_s: float = Field(
        ge=0, le=3600, description="Pause after the first attempt, in seconds; doubled after each further one."
    )
    timeout_s: Wait = Field(
        description="Time without any response after which an attempt fails, in seconds; a slow transfer does not fail."
    )


class Collect(Block):
    """The snapshot of raw data: its time, and the sources of its rows."""

    snapshot: Moment = Field(
        description="Time that the data represents, with a time zone; change it to collect new data."
    )
    retry: Retry = Field(description="How failed requests are repeated.")
    sources: dict[str, Source] = Field(
        min_length=1, description="Sources of rows, by name; names have small letters, digits, `-` and `_`."
    )

    @field_validator("sources")
    @classmethod
    def _names_are_folders(cls, value: dict[str, Source]) -> dict[str, Source]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"source names of small letters, digits, - and _; found {name!r}")
        return value
