"""Files into tables: CSV, parquet, images, WAV. A file at a time is in memory, never all of them."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.params.collect import Csv, Files, Parquet
from stages.sources.raw import Context, choose

SAMPLES_PER_TABLE = 512


def tables(folder: Path, files: Files, context: Context) -> Iterator[pa.Table]:
    """The selected files below `folder`, sorted by path. Raises SourceError."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    chosen = [name for name in names if selected(name, files)]
    if not chosen:
        raise context.error(
            f"none of {len(names)} files matches {', '.join(files.select)}; the first are {', '.join(names[:3])}",
            "at least one",
            "mend `select:`",
        )
    if isinstance(files.format, Csv | Parquet):
        for name in chosen:
            yield _rows(folder / name, name, files, context)
        return
    for start in range(0, len(chosen), SAMPLES_PER_TABLE):
        yield _samples(folder, chosen[start : start + SAMPLES_PER_TABLE], files, context)


def selected(name: str, files: Files) -> bool:
    """Whether one of the patterns matches the path."""
    return any(fnmatchcase(name, pattern) for pattern in files.select)


def from_path(name: str, files: Files, context: Context) -> dict[str, str]:
    """The columns that a file's path says. Raises SourceError where the pattern does not match."""
    if files.path is None:
        return {}
    match = re.search(files.path, name)
    if not match:
        raise context.error(f"{name}: its path does not match {files.path}", "a match", "mend `path:` or `select:`")
    return {column: value for column, value in match.groupdict().items() if value is not None}


def _rows(path: Path, name: str, files: Files, context: Context) -> pa.Table:
    form = files.format
    if isinstance(form, Csv):
        table = read_csv(path.read_bytes(), name, form, context)
    else:
        assert isinstance(form, Parquet)
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise context.error(f"{name}: not readable as parquet ({error})", "a parquet file", "mend it") from None
    table = choose(table, form.columns, name, context)
    for column, value in from_path(name, files, context).items():
        if column in table.column_names:
            raise context.error(f"{name}: column {column} is in the file and in `path:`", "one of them", "rename one")
        table = table.append_column(column, pa.array([value] * len(table), pa.string()))
    return table


def read_csv(content: bytes, name: str, form: Csv, context: Context) -> pa.Table:
    """A CSV file whose types are inferred; an empty field is a missing value. Raises SourceError."""
    from pyarrow import csv

    _refuse_page(content, name, context)
    try:
        text = content.decode(form.encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise context.error(
            f"{name}: not readable as {form.encoding} ({error})", "text in that encoding", "mend `encoding:`"
        ) from None
    try:
        table = csv.read_csv(
            io.BytesIO(text.encode()),
            parse_options=csv.ParseOptions(delimiter=form.separator),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise context.error(
            f"{name}: not readable as CSV ({error})", "a table with one header line", "mend it"
        ) from None
    if len(table) == 0:
        raise context.error(f"{name}: no rows", "at least one below the header", "leave the file out (`select:`)")
    return table


def _refuse_page(content: bytes, name: str, context: Context) -> None:
    if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise context.error(
            f"{name}: it is an HTML page",
            "data",
            "a page instead of data is often a login: mend the URL or its headers",
        )


def _samples(folder: Path, names: list[str], files: Files, context: Context) -> pa.Table:
    read = read_image if files.format.type == "images" else read_wav
    values, columns = [], []
    for name in names:
        values.append(read((folder / name).read_bytes(), name, context))
        columns.append(from_path(name, files, context))
    known = dict.fromkeys(column for row in columns for column in row)
    table = {column: pa.array([row.get(column) for row in columns], pa.string()) for column in known}
    return pa.table({"file": names, **table, "values": pa.array(values, pa.list_(pa.float32()))})


def read_image(content: bytes, name: str, context: Context) -> np.ndarray:
    """Grey or RGB levels 0 to 255: float32 [C * H * W], channel by channel. Raises SourceError."""
    from PIL import Image, UnidentifiedImageError

    shape = context.data.image
    channels = len(context.data.channels)
    if shape is None or channels not in (1, 3):
        raise context.error(
            f"format images with data.kind {context.data.kind} and {channels} channel(s)",
            "data.kind: image with 1 (grey) or 3 (RGB) channels",
            "mend `data:`",
        )
    try:
        image = Image.open(io.BytesIO(content)).convert("L" if channels == 1 else "RGB")
        image = image.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise context.error(f"{name}: not readable as an image ({error})", "an image", "mend or remove it") from None
    pixels = np.asarray(image, dtype=np.float32).reshape(shape.height, shape.width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).ravel()


def read_wav(content: bytes, name: str, context: Context) -> np.ndarray:
    """16-bit PCM as shares of full scale, -1 to 1: float32 [samples]. Raises SourceError."""
    audio = context.data.audio
    if audio is None:
        raise context.error(f"format wav with data.kind {context.data.kind}", "data.kind: audio", "mend `data:`")
    try:
        with wave.open(io.BytesIO(content)) as stream:
            form = (stream.getnchannels(), stream.getsampwidth(), stream.getframerate())
            count, frames = stream.getnframes(), stream.readframes(stream.getnframes())
    except (wave.Error, EOFError) as error:
        raise context.error(f"{name}: not readable as WAV ({error})", "16-bit PCM", "convert or remove it") from None
    if form != (1, 2, audio.sample_rate_hz):
        raise context.error(
            f"{name}: {form[0]} channel(s), {8 * form[1]} bit, {form[2]} Hz",
            f"1 channel, 16 bit, {audio.sample_rate_hz} Hz (data.audio.sample_rate_hz)",
            f"convert it: sox IN -c 1 -b 16 -r {audio.sample_rate_hz} OUT",
        )
    if len(frames) < 2 * count:
        raise context.error(f"{name}: cut off after {len(frames) // 2} of {count} samples", "all", "fetch it again")
    return np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32768
