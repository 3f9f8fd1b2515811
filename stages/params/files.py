"""Parameters for the files of a source: which files are read, and in which format."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.params.common import Block, Text


def _check_distinct(columns: dict[str, str] | None) -> dict[str, str] | None:
    names = list((columns or {}).values())
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"a different new name for each column ({', '.join(duplicates)} is a duplicate)")
    return columns


def _check_pattern(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"a valid regular expression ({error})") from None
    return value


def _check_encoding(value: str) -> str:
    try:
        "0".encode(value)
    except (LookupError, ValueError) as error:
        raise ValueError(f"a text encoding that Python supports, such as utf-8 or latin-1 ({error})") from None
    return value


def _check_separator(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in '"\r\n\0':
        raise ValueError("one ASCII character other than a quote or a line break")
    return value


Columns = Annotated[dict[str, str] | None, AfterValidator(_check_distinct)]
Pattern = Annotated[str | None, AfterValidator(_check_pattern)]


class Csv(Block):
    """The format of a CSV file with one header line (RFC 4180)."""

    type: Literal["csv"] = Field(description="Type of this format.")
    separator: Annotated[str, AfterValidator(_check_separator)] = Field(
        description="One ASCII character, which separates two fields."
    )
    encoding: Annotated[str, AfterValidator(_check_encoding)] = Field(
        description="Text encoding of the file, such as utf-8."
    )
    columns: Columns = Field(
        description=(
            "Columns to keep: a mapping from each column's name in the file to its new name; null keeps all columns "
            "and their names."
        )
    )
    missing_values: dict[Text, list[Text]] | None = Field(
        default=None,
        description=(
            "Texts that mean a missing value: a mapping from a column's name in the file to a list; the name `*` "
            "stands for every column that is not named. An empty field is always a missing value; null: nothing else "
            "is, so NA, NaN, null and None are words."
        ),
    )


class Parquet(Block):
    """A parquet file."""

    type: Literal["parquet"] = Field(description="Type of this format.")
    columns: Columns = Field(
        description=(
            "Columns to keep: a mapping from each column's name in the file to its new name; null keeps all columns "
            "and their names."
        )
    )


class Images(Block):
    """Images in the format PNG, TIFF, JPEG, BMP, GIF, WebP or PPM, with 8 or 16 bits per channel.

    Images are converted to grey if `data.channels` has one channel, or to RGB if it has three channels. They are
    resized to the size in `data.image`. The levels are from 0 to 255; those of 16 bits are divided by 257.
    """

    type: Literal["images"] = Field(description="Type of this format.")
    background: int | None = Field(
        default=None,
        ge=0,
        le=255,
        description=(
            "Level of the grey background on which transparent pixels are composed, from 0 (black) to 255 (white); "
            "null: 255."
        ),
    )


class Wav(Block):
    """WAV files: 16-bit PCM, mono, at `data.audio.sample_rate_hz`."""

    type: Literal["wav"] = Field(description="Type of this format.")


Format = Annotated[Csv | Parquet | Images | Wav, Field(discriminator="type")]


class Files(Block):
    """The files to read from an archive or a folder, and their format."""

    select: list[Text] = Field(
        min_length=1,
        description=(
            "Shell patterns that select the files to read by their paths in the archive or folder; `*` also matches "
            "`/`. Upper and lower case are not distinguished. A hidden file (a part of its path begins with a dot) is "
            "read only if the pattern also has such a part."
        ),
    )
    path: Pattern = Field(
        description=(
            "Regular expression that must match a part of each selected file's path; each named group of the "
            "expression becomes a text column. Upper and lower case are not distinguished. Null: no such columns."
        )
    )
    format: Format = Field(description="Format of the files.")
