"""Parameters of `collect`: the snapshot's time and where its rows come from."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, field_validator, model_validator

from stages.params.common import Block, Count, Seed, Share, Text, Wait

MAX_GENERATED_ROWS = 100_000_000  # of a generator: a slip of the finger shall not fill the disk


def _check_distinct(columns: dict[str, str] | None) -> dict[str, str] | None:
    twice = sorted({name for name in (columns or {}).values() if list((columns or {}).values()).count(name) > 1})
    if twice:
        raise ValueError(f"every name here once ({', '.join(twice)} is there twice)")
    return columns


def _check_pattern(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    return value


def _check_topic(value: str) -> str:
    """MQTT 5, section 4.7: `+` stands for a whole level, `#` for the last ones."""
    levels = value.split("/")
    whole = all(level in ("+", "#") or not set(level) & {"+", "#"} for level in levels)
    if not value or not whole or "#" in levels[:-1]:
        raise ValueError("an MQTT topic, where + is a whole level and # the last one")
    return value


def _check_encoding(value: str) -> str:
    try:
        "0".encode(value)
    except (LookupError, ValueError) as error:
        raise ValueError(f"an encoding of text that Python knows, such as utf-8 or latin-1 ({error})") from None
    return value


def _check_separator(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in '"\r\n\0':
        raise ValueError("one ASCII character, neither a quote nor the end of a line")
    return value


def _check_year(value: datetime) -> datetime:
    """Nanoseconds since 1970 in 64 bits end in 2262."""
    if not 1970 <= value.year <= 2200:
        raise ValueError("a time between 1970 and 2200")
    return value


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        whole = False
    if not whole or re.search(r"\s", value):
        raise ValueError("a URL: http:// or https://, a host and a path, without spaces")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_check_year)]
Url = Annotated[str, AfterValidator(_check_url)]
Columns = Annotated[dict[str, str] | None, AfterValidator(_check_distinct)]
Pattern = Annotated[str | None, AfterValidator(_check_pattern)]


class Csv(Block):
    """`columns` maps a column's name in the file to its name here and leaves the others out; null keeps all."""

    type: Literal["csv"]
    separator: Annotated[str, AfterValidator(_check_separator)]
    encoding: Annotated[str, AfterValidator(_check_encoding)]
    columns: Columns


class Parquet(Block):
    type: Literal["parquet"]
    columns: Columns


class Images(Block):
    """Anything that Pillow opens; made grey or RGB by the number of channels, resized to `data.image`."""

    type: Literal["images"]


class Wav(Block):
    """16-bit PCM, mono, at `data.audio.sample_rate_hz`."""

    type: Literal["wav"]


Format = Annotated[Csv | Parquet | Images | Wav, Field(discriminator="type")]


class Files(Block):
    """Which files, and what their paths say.

    `select`: shell patterns on the path inside the archive or folder (`*` also matches `/`).
    `path`: a regular expression searched in that path; its named groups become text columns.
    """

    select: list[Text] = Field(min_length=1)
    path: Pattern
    format: Format


class Embedded(Block):
    """A data set that ships inside an installed package; needs no network."""

    type: Literal["embedded"]
    dataset: Literal["sklearn-digits"]


class Cloud(Block):
    """Objects that fsspec reads: `s3://bucket/folder`, `https://host/file`, or a local file or folder.

    S3 credentials come from the environment (AWS_ACCESS_KEY_ID and so on); `endpoint_url` names an
    S3-compatible store.
    """

    type: Literal["cloud"]
    url: Text
    endpoint_url: Url | None = None
    files: Files


class Pages(Block):
    """JSON in pages. `rows` and `next` are dotted paths into a page: to its list of rows, to the next page's URL."""

    rows: Text
    next: Text | None
    columns: Columns


class ExternalApi(Block):
    """An HTTP API: an `archive` to download (tar, zip), or `pages` of JSON. Exactly one of them is written.

    `headers_env`: header name -> environment variable that holds its value; secrets never stand here.
    """

    type: Literal["external_api"]
    url: Url
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    headers_env: dict[str, str] | None = None
    archive: Files | None = None
    pages: Pages | None = None

    @model_validator(mode="after")
    def _one_form(self) -> ExternalApi:
        if (self.archive is None) == (self.pages is None):
            raise ValueError("exactly one of `archive:` and `pages:`")
        return self


class HttpPolling(Block):
    """GET `url` `samples` times, every `interval_s`; the answer is one JSON object (a row) or a list of them."""

    url: Url
    interval_s: float = Field(ge=0, le=1e6)
    samples: Count


class Mqtt(Block):
    """Listen to `topics` until `messages` came or `seconds` are over; a payload is a JSON object or a list.

    `topic`: a regular expression searched in a message's topic; its named groups become text columns.
    `tls`: encrypted, the broker's certificate checked (SSL_CERT_FILE names authorities of one's own).
    `username`, `password_env`: who logs in, and the environment variable that holds the password.
    """

    host: Text
    port: int = Field(gt=0, lt=65536)
    tls: bool = False
    username: str | None = None
    password_env: str | None = None
    topics: list[Annotated[str, AfterValidator(_check_topic)]] = Field(min_length=1)
    topic: Pattern = None
    messages: Count
    seconds: Wait


class Sensors(Block):
    """Live readings, by HTTP polling or by MQTT. Exactly one of them is written."""

    type: Literal["sensors"]
    http: HttpPolling | None = None
    mqtt: Mqtt | None = None
    columns: Columns

    @model_validator(mode="after")
    def _one_form(self) -> Sensors:
        if (self.http is None) == (self.mqtt is None):
            raise ValueError("exactly one of `http:` and `mqtt:`")
        return self


class EdgeDevices(Block):
    """Samples that devices captured, read from each one's `GET {url}/samples` (collect/sources)."""

    type: Literal["edge_devices"]
    devices: dict[Text, Url] = Field(min_length=1)
    since: Moment | None


class Synthetic(Block):
    """A seeded generator of `data.channels`: `groups` machines, `rows` instants each, at `rate_hz`.

    `noise` is the deviation around a signal of amplitude 1; a `fault_share` of the time one of `faults` is on
    and the label is the second class; `drift_per_hour` is added to every channel.
    """

    type: Literal["synthetic"]
    seed: Seed
    groups: Count
    rows: Count
    rate_hz: float = Field(ge=1e-6, le=1e6)  # a row's time is written in microseconds
    noise: float = Field(ge=0, le=1e6)
    fault_share: Share
    faults: list[Literal["spike", "stuck", "offset"]]
    drift_per_hour: float = Field(ge=-1e6, le=1e6)

    @model_validator(mode="after")
    def _fits_a_machine(self) -> Synthetic:
        if self.groups * self.rows > MAX_GENERATED_ROWS:
            raise ValueError(f"groups * rows of at most {MAX_GENERATED_ROWS:g}; found {self.groups * self.rows:g}")
        return self

    @model_validator(mode="after")
    def _years(self) -> Synthetic:
        if self.rows / self.rate_hz > 1e9:
            raise ValueError(f"rows / rate_hz of at most 1e9 s; found {self.rows / self.rate_hz:g} s")
        return self


Source = Annotated[
    Embedded | Cloud | ExternalApi | Sensors | EdgeDevices | Synthetic,
    Field(discriminator="type"),
]


class Retry(Block):
    """`attempts` of a request, first `backoff_s` apart and then twice that; `timeout_s` of silence fails one."""

    attempts: int = Field(gt=0, le=30)
    backoff_s: float = Field(ge=0, le=3600)
    timeout_s: Wait


class Collect(Block):
    """`snapshot` is the time the data stands for; changing it is how new data is taken in."""

    snapshot: Moment
    retry: Retry
    sources: dict[str, Source] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _names_are_folders(cls, value: dict[str, Source]) -> dict[str, Source]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"source names of small letters, digits, - and _ ({name!r} is none)")
        return value
