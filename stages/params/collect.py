"""Parameters of the stage `collect`: the snapshot's time, and the sources of its rows."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, field_validator, model_validator

from stages.params.common import Block, Count, Seed, Share, Text, Wait
from stages.params.files import Columns, Files, Pattern

MAX_GENERATED_ROWS = 100_000_000  # limit for one synthetic source, so that a typing error cannot fill the disk


def _check_topic(value: str) -> str:
    """Check an MQTT topic filter (MQTT 5, section 4.7): `+` matches one whole level, `#` all remaining levels."""
    levels = value.split("/")
    whole_levels = all(level in ("+", "#") or not set(level) & {"+", "#"} for level in levels)
    if not value or not whole_levels or "#" in levels[:-1]:
        raise ValueError("an MQTT topic filter, in which each + is a whole level and # can only be the last level")
    return value


def _check_year(value: datetime) -> datetime:
    """Check that the year is from 1970 to 2200, because a 64-bit count of nanoseconds since 1970 overflows in 2262."""
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
        raise ValueError("a URL without spaces that begins with http:// or https:// and has a host")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_check_year)]
Url = Annotated[str, AfterValidator(_check_url)]


class Embedded(Block):
    """A data set that is part of an installed Python package, so no network is needed."""

    type: Literal["embedded"] = Field(description="Type of this source.")
    dataset: Literal["sklearn-digits"] = Field(description="Name of the data set.")


class Cloud(Block):
    """Files in an object store, on a web server or on a local disk. They are read with fsspec.

    Credentials for S3 are read from environment variables such as AWS_ACCESS_KEY_ID.
    """

    type: Literal["cloud"] = Field(description="Type of this source.")
    url: Text = Field(description="`s3://bucket/folder`, `https://host/file`, or the path of a local file or folder.")
    endpoint_url: Url | None = Field(default=None, description="URL of an S3-compatible store; null: Amazon S3.")
    files: Files = Field(description="Which files are read, and in which format.")


class Pages(Block):
    """JSON pages, each of which holds a list of rows and the URL of the next page."""

    rows: Text = Field(description="Dotted path to the list of rows in a page, such as `data.items`.")
    next: Text | None = Field(description="Dotted path to the URL of the next page; null: there is only one page.")
    columns: Columns = Field(
        description=(
            "Fields to keep: a mapping from each field's name in a row to its new name; null keeps all fields and "
            "their names."
        )
    )


class ExternalApi(Block):
    """An HTTP API that serves either one archive (tar or zip) or JSON pages."""

    type: Literal["external_api"] = Field(description="Type of this source.")
    url: Url = Field(description="URL of the archive or of the first page.")
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="Expected SHA-256 of the archive, in hexadecimal digits; null: not checked.",
    )
    headers_env: dict[str, str] | None = Field(
        default=None,
        description=(
            "HTTP headers to send: a mapping from each header's name to the environment variable that holds the "
            "header's value. This keeps secrets out of the file."
        ),
    )
    archive: Files | None = Field(
        default=None,
        description="Which files of the archive are read, and in which format; cannot be combined with `pages`.",
    )
    pages: Pages | None = Field(
        default=None, description="How the JSON pages are read; cannot be combined with `archive`."
    )

    @model_validator(mode="after")
    def _one_form(self) -> ExternalApi:
        if (self.archive is None) == (self.pages is None):
            raise ValueError("exactly one of `archive:` and `pages:`")
        return self


class HttpPolling(Block):
    """Repeated GET requests. Each response is one JSON object, which becomes a row, or a list of such objects."""

    url: Url = Field(description="URL that is requested repeatedly.")
    interval_s: float = Field(ge=0, le=1e6, description="Pause between two requests, in seconds.")
    samples: Count = Field(description="Number of requests.")


class Mqtt(Block):
    """Messages from an MQTT broker. Each payload is one JSON object, which becomes a row, or a list of such objects."""

    host: Text = Field(description="Host name of the broker.")
    port: int = Field(gt=0, lt=65536, description="Port of the broker.")
    tls: bool = Field(
        default=False,
        description=(
            "Whether to use TLS and check the broker's certificate. The environment variable SSL_CERT_FILE can name "
            "a file with other trusted certificate authorities."
        ),
    )
    username: str | None = Field(default=None, description="User name for the broker; null: connect without a login.")
    password_env: str | None = Field(
        default=None, description="Environment variable that holds the password; null: no password."
    )
    topics: list[Annotated[str, AfterValidator(_check_topic)]] = Field(
        min_length=1, description="Topic filters to subscribe to; `+` matches one level, `#` all remaining levels."
    )
    topic: Pattern = Field(
        default=None,
        description=(
            "Regular expression that must match a part of each message's topic; each named group of the expression "
            "becomes a text column. Null: no such columns."
        ),
    )
    messages: Count = Field(description="Maximum number of messages; the collection ends after this number.")
    seconds: Wait = Field(
        description="Maximum duration of the collection, in seconds; the collection then ends even with fewer messages."
    )


class Sensors(Block):
    """Live sensor readings, received either by HTTP polling or by MQTT."""

    type: Literal["sensors"] = Field(description="Type of this source.")
    http: HttpPolling | None = Field(
        default=None, description="How readings are received by HTTP polling; cannot be combined with `mqtt`."
    )
    mqtt: Mqtt | None = Field(
        default=None, description="How readings are received by MQTT; cannot be combined with `http`."
    )
    columns: Columns = Field(
        description=(
            "Fields to keep: a mapping from each field's name in a reading to its new name; null keeps all fields and "
            "their names."
        )
    )

    @model_validator(mode="after")
    def _one_form(self) -> Sensors:
        if (self.http is None) == (self.mqtt is None):
            raise ValueError("exactly one of `http:` and `mqtt:`")
        return self


class EdgeDevices(Block):
    """Labelled samples that edge devices captured. They are read from each device with `GET {url}/samples`."""

    type: Literal["edge_devices"] = Field(description="Type of this source.")
    devices: dict[Text, Url] = Field(
        min_length=1, description="Devices to read: a mapping from each device's name to the base URL of its agent."
    )
    since: Moment | None = Field(
        description="Time of the oldest sample to read, with a time zone; null: all samples are read."
    )


class Synthetic(Block):
    """A seeded generator of artificial sensor data with the channels of `data.channels`."""

    type: Literal["synthetic"] = Field(description="Type of this source.")
    seed: Seed = Field(description="Seed of the generator; the same seed gives the same data.")
    groups: Count = Field(description="Number of simulated machines; each machine is one group.")
    rows: Count = Field(description="Number of rows per machine.")
    # Timestamps have a resolution of one microsecond, so the rate is at most 1e6 Hz.
    rate_hz: float = Field(ge=1e-6, le=1e6, description="Rows per second of each machine, in Hz.")
    noise: float = Field(
        ge=0, le=1e6, description="Standard deviation of the noise that is added to a sine wave of amplitude 1."
    )
    fault_share: Share = Field(
        description="Expected fraction of rows with a fault; their label is the second class of data.classes."
    )
    faults: list[Literal["spike", "stuck", "offset"]] = Field(
        description="Kinds of fault to simulate; the kind of each fault is chosen from this list at random."
    )
    drift_per_hour: float = Field(
        ge=-1e6, le=1e6, description="Drift of every channel: the amount by which its values increase per hour."
    )

    @model_validator(mode="after")
    def _limited_rows(self) -> Synthetic:
        if self.groups * self.rows > MAX_GENERATED_ROWS:
            raise ValueError(f"groups * rows of at most {MAX_GENERATED_ROWS:g}, not {self.groups * self.rows:g}")
        return self

    @model_validator(mode="after")
    def _limited_duration(self) -> Synthetic:
        if self.rows / self.rate_hz > 1e9:
            raise ValueError(f"rows / rate_hz of at most 1e9 s, not {self.rows / self.rate_hz:g} s")
        return self


Source = Annotated[
    Embedded | Cloud | ExternalApi | Sensors | EdgeDevices | Synthetic,
    Field(discriminator="type"),
]


class Retry(Block):
    """The number of attempts for a request, and the pauses between them."""

    attempts: int = Field(gt=0, le=30, description="Maximum number of attempts for each request.")
    backoff_s: float = Field(
        ge=0,
        le=3600,
        description="Pause after the first failed attempt, in seconds; the pause doubles after each further failure.",
    )
    timeout_s: Wait = Field(
        description=(
            "An attempt fails if no data arrives for this time, in seconds; a slow transfer does not fail while data "
            "arrives."
        )
    )


class Collect(Block):
    """The snapshot of raw data: its time, the sources of its rows, and the retries of failed requests."""

    snapshot: Moment = Field(
        description="Date and time of the snapshot, with a time zone; change it to collect new data."
    )
    retry: Retry = Field(description="How often and when failed requests are repeated.")
    sources: dict[str, Source] = Field(
        min_length=1,
        description=(
            "Sources of rows: a mapping from each source's name to its parameters; a name consists of lowercase "
            "letters, digits, `-` and `_`."
        ),
    )

    @field_validator("sources")
    @classmethod
    def _names_are_folders(cls, value: dict[str, Source]) -> dict[str, Source]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"source names of lowercase letters, digits, - and _, not {name!r}")
        return value
