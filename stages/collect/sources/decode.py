"""Decode CSV, parquet, image and WAV files to tables. Files are read into memory one at a time."""

from __future__ import annotations

import codecs
import io
import re
import struct
import wave
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.collect.sources.base import Context, has_surrogate, select_columns
from stages.core.errors import SourceError
from stages.params.files import Csv, Files, Parquet

SAMPLES_PER_TABLE = 512
BYTES_PER_TABLE = 64 << 20


def read_tables(folder: Path, files: Files, context: Context) -> Iterator[pa.Table]:
    """Yield the contents of the selected files as tables, in the order of the files' paths.

    Args:
        folder: The folder with the files.
        files: The patterns that select files, and the format of the files.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: No file is selected, or a selected file is not valid.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    chosen = [name for name in names if is_selected(name, files)]
    if not chosen:
        raise no_match_error(names, files, context)
    for name in chosen:
        if has_surrogate(name):
            raise context.error(f"{name!a}: its name is not UTF-8", "a name in UTF-8", "rename the file")
    if isinstance(files.format, Csv | Parquet):
        for name in chosen:
            _refuse_html(folder / name, name, context)
            for table in _read_table_file(folder / name, name, files.format, context):
                yield _add_path_columns(table, name, files, context).replace_schema_metadata({"file": name})
        return
    yield from _read_samples(folder, chosen, files, context)


def no_match_error(names: list[str], files: Files, context: Context) -> SourceError:
    """Return the error for the case that the patterns in `select` match no file.

    Args:
        names: Paths of all files in the archive or folder.
        files: The patterns that select files.
        context: Provides the source's name for error messages.
    """
    first = f"; the first are {', '.join(sorted(names)[:3])}" if names else ""
    reason = f"none of {len(names)} files matches {', '.join(files.select)}{first}"
    return context.error(reason, "at least one file that matches", "correct `select:`")


def is_selected(name: str, files: Files) -> bool:
    """Check if at least one of the patterns in `files.select` matches the path `name`."""
    return any(fnmatchcase(name, pattern) for pattern in files.select)


def path_columns(name: str, files: Files, context: Context) -> dict[str, str | None]:
    """Return the columns that the regular expression `files.path` extracts from a file's path.

    Args:
        name: Path of the file, relative to the archive or folder.
        files: The regular expression `path`. Each of its named groups becomes a text column.
        context: Provides the source's name for error messages.

    Raises:
        SourceError: The regular expression does not match the path.
    """
    if files.path is None:
        return {}
    match = re.search(files.path, name)
    if not match:
        reason = f"{name}: its path does not match {files.path}"
        raise context.error(reason, "a path that matches `path:`", "correct `path:` or `select:`")
    return match.groupdict()


def _read_table_file(path: Path, name: str, form: Csv | Parquet, context: Context) -> Iterator[pa.Table]:
    if isinstance(form, Csv):
        yield select_columns(read_csv(path, name, form, context), form.columns, name, context)
        return
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(max(file.num_row_groups, 1)):
                table = file.read_row_group(group) if file.num_row_groups else file.schema_arrow.empty_table()
                yield select_columns(table, form.columns, name, context)
    except (pa.ArrowException, OSError) as error:
        raise context.error(
            f"{name}: not readable as parquet ({error})", "a valid parquet file", "correct the file"
        ) from None


def _add_path_columns(table: pa.Table, name: str, files: Files, context: Context) -> pa.Table:
    for column, value in path_columns(name, files, context).items():
        if column in table.column_names:
            reason = f"{name}: column {column} is in the file and in `path:`"
            raise context.error(reason, "the column in only one of them", "rename the column")
        table = table.append_column(column, pa.array([value] * len(table), pa.string()))
    return table


def read_csv(path: Path, name: str, form: Csv, context: Context) -> pa.Table:
    """Read a CSV file (RFC 4180) with inferred types; an empty field is a missing value.

    The group and label columns are read as text, so that an identifier such as `007` keeps its zeros. In these
    columns, `1.0` becomes `1`, because spreadsheets and pandas write whole numbers as `1.0`.

    Args:
        path: The file.
        name: Path of the file relative to the archive or folder, for error messages.
        form: The CSV file's separator, encoding and columns.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: The file is not valid, or has no rows.
    """
    from pyarrow import csv

    _check_encoding(path, name, form.encoding, context)
    keys = {context.data.group, context.data.label}
    texts = sorted(column for column, name in (form.columns or {n: n for n in keys}).items() if name in keys)
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(encoding=form.encoding),
            parse_options=csv.ParseOptions(delimiter=form.separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True, column_types=dict.fromkeys(texts, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise context.error(
            f"{name}: not readable as CSV ({error})", "a table with one header line", "correct the file"
        ) from None
    if len(table) == 0:
        raise context.error(f"{name}: no rows", "at least one row below the header", "exclude the file (`select:`)")
    for index, column in enumerate(table.column_names):
        if column in texts:
            without_point = pc.replace_substring_regex(table.column(index), r"^(-?\d+)\.0+$", r"\1")
            table = table.set_column(index, column, without_point)
    return table


def _check_encoding(path: Path, name: str, encoding: str, context: Context) -> None:
    """Raise SourceError if the file is not text in `encoding`; the CSV reader would accept it as binary values."""
    try:
        decoder, done = codecs.getincrementaldecoder(encoding)(), 0
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                decoder.decode(chunk)
                done += len(chunk)
            decoder.decode(b"", final=True)
    except (UnicodeError, LookupError) as error:
        raise context.error(
            f"{name}: not readable as {encoding} ({error})", "text in that encoding", "correct `encoding:`"
        ) from None


def _refuse_html(path: Path, name: str, context: Context) -> None:
    with path.open("rb") as stream:
        start = stream.read(512).lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise context.error(
            f"{name}: it is an HTML page",
            "a data file",
            "correct the URL or the request headers (servers answer unauthenticated requests with a login page)",
        )


def _read_samples(folder: Path, names: list[str], files: Files, context: Context) -> Iterator[pa.Table]:
    read = read_image if files.format.type == "images" else read_wav
    columns = list(path_columns(names[0], files, context))
    if reserved := {"file", "values"} & set(columns):
        raise context.error(
            f"column {', '.join(sorted(reserved))} in `path:` has a reserved name",
            "a name other than `file` and `values`",
            "rename the named group in `path:`",
        )
    waiting: list[tuple[str, dict[str, str | None], np.ndarray]] = []
    for name in names:
        _refuse_html(folder / name, name, context)
        waiting.append((name, path_columns(name, files, context), read((folder / name).read_bytes(), name, context)))
        if len(waiting) == SAMPLES_PER_TABLE or sum(v.nbytes for *_, v in waiting) >= BYTES_PER_TABLE:
            yield _samples_table(waiting, columns)
            waiting = []
    if waiting:
        yield _samples_table(waiting, columns)


def _samples_table(samples: list[tuple[str, dict[str, str | None], np.ndarray]], columns: list[str]) -> pa.Table:
    path_texts = {column: pa.array([texts[column] for _, texts, _ in samples], pa.string()) for column in columns}
    values = pa.array([values for *_, values in samples], pa.list_(pa.float32()))
    return pa.table({"file": [name for name, *_ in samples], **path_texts, "values": values})


def read_image(content: bytes, name: str, context: Context) -> np.ndarray:
    """Decode an image to grey or RGB levels from 0 to 255, and resize it to the size in `data.image`.

    Args:
        content: The bytes of the file.
        name: Path of the file, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Returns:
        The levels as float32 [C * H * W], one channel after another.

    Raises:
        SourceError: The file is not a valid image, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    shape = context.data.image
    channels = len(context.data.channels)
    if shape is None or channels not in (1, 3):
        raise context.error(
            f"`format: images` is used with data.kind {context.data.kind} and {channels} channel(s)",
            "data.kind: image with 1 (grey) or 3 (RGB) channels",
            "correct `data:`",
        )
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        if image.mode.startswith(("I", "F")):  # Pillow would clip the values at 255
            raise context.error(
                f"{name}: more than 8 bits per channel", "8 bits per channel", "convert it: magick IN -depth 8 OUT"
            )
        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        image = image.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
    ) as error:
        raise context.error(
            f"{name}: not readable as an image ({error})", "a valid image file", "correct or remove the file"
        ) from None
    pixels = np.asarray(image, dtype=np.float32).reshape(shape.height, shape.width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).ravel()


def read_wav(content: bytes, name: str, context: Context) -> np.ndarray:
    """Decode a WAV file with 16-bit PCM to samples from -1 to 1, where 1 is full scale.

    Args:
        content: The bytes of the file.
        name: Path of the file, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Returns:
        The samples as float32 [number of samples].

    Raises:
        SourceError: The WAV file is not valid, is incomplete, or does not have the required format.
    """
    audio = context.data.audio
    if audio is None:
        raise context.error(
            f"`format: wav` is used with data.kind {context.data.kind}", "data.kind: audio", "correct `data:`"
        )
    try:
        with wave.open(io.BytesIO(content)) as stream:
            form = (stream.getnchannels(), stream.getsampwidth(), stream.getframerate())
            count, frames = stream.getnframes(), stream.readframes(stream.getnframes())
    except (wave.Error, EOFError, struct.error) as error:
        raise context.error(
            f"{name}: not readable as WAV ({error})", "a WAV file with 16-bit PCM", "convert or remove the file"
        ) from None
    if form != (1, 2, audio.sample_rate_hz):
        raise context.error(
            f"{name}: {form[0]} channel(s), {8 * form[1]} bit, {form[2]} Hz",
            f"1 channel, 16 bit, {audio.sample_rate_hz} Hz (data.audio.sample_rate_hz)",
            f"convert it: sox IN -c 1 -b 16 -r {audio.sample_rate_hz} OUT",
        )
    if len(frames) < 2 * count:
        raise context.error(
            f"{name}: ends after {len(frames) // 2} of {count} samples",
            "a file with all samples that its header announces",
            "download the file again",
        )
    return np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32768
