"""What files of each format may hold: CSV, parquet, images, WAV."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.errors import SourceError
from stages.params import load
from stages.sources.decode import read_image, read_wav
from tests.collect_fixtures import (
    ARCHIVE,
    AUDIO,
    CSV,
    IMAGE,
    ROWS,
    configure,
    context,
    refuse,
    succeed,
    taken,
)

PARQUET = {"type": "parquet", "columns": None}


def cloud(url: str | Path, endpoint_url: str | None = None, **files: Any) -> dict[str, Any]:
    return {"type": "cloud", "url": str(url), "endpoint_url": endpoint_url, "files": ARCHIVE | files}


def images(name: str = "(?P<state>\\w+)/(?P<machine>\\w+)") -> dict[str, Any]:
    return {"select": ["*.png"], "path": name, "format": {"type": "images"}}


def clips() -> dict[str, Any]:
    return {"select": ["*.wav"], "path": "(?P<state>\\w+)/(?P<machine>\\w+)", "format": {"type": "wav"}}


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as stream:
        stream.setparams((channels, width, rate, 0, "NONE", ""))
        stream.writeframes(samples.tobytes())
    return packed.getvalue()


def png(image: Image.Image) -> bytes:
    packed = io.BytesIO()
    image.save(packed, "png")
    return packed.getvalue()


def lay(root: Path, **files: bytes | str) -> None:
    """Files under `root`; `__` in a name stands for `/`, the last `_` for the dot."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_parquet_files_whose_types_widen(workspace: Path) -> None:
    """Empty in the first file, whole numbers in the second, finer ones in the third: nothing is lost or turned."""
    columns = ([None, None], [1, 2], [1.5, 2.5])
    for number, flow in enumerate(columns):
        table = pa.table({"machine": ["007", "7"], "time": [0, 1], "note": pa.array(flow), "state": [0.0, 1.0]})
        (workspace / "rows").mkdir(exist_ok=True)
        pq.write_table(table, workspace / "rows" / f"{number}.parquet")
    configure(workspace, plant=cloud("rows", select=["*.parquet"], format=PARQUET))

    succeed()

    assert taken("plant")["note"].to_pylist() == [None, None, 1.0, 2.0, 1.5, 2.5]
    assert taken("plant")["machine"].to_pylist() == ["007", "7"] * 3
    assert taken("plant")["state"].to_pylist() == ["0", "1"] * 3


def test_a_parquet_file_is_read_group_by_group(workspace: Path) -> None:
    table = pa.table({"machine": [f"m{i}" for i in range(10)], "flow": np.arange(10.0)})
    pq.write_table(table, workspace / "rows.parquet", row_group_size=3)
    configure(workspace, plant=cloud("rows.parquet", select=["*"], format=PARQUET | {"columns": {"flow": "pressure"}}))

    succeed()

    assert taken("plant").to_pydict() == {"pressure": list(range(10))}


def test_csv_of_a_spreadsheet(workspace: Path) -> None:
    """Another separator and encoding, a byte order mark, quoted line ends, names of its own, numbers like 1.0."""
    text = 'Größe;Zeit;Maschine;Zustand;Notiz\n1,5;2026-01-01 00:00:00;007;1.0;"zwei\nZeilen"\n;;;;\n'
    names = {"Größe": "size", "Zeit": "time", "Maschine": "machine", "Zustand": "state", "Notiz": "note"}
    for encoding in ("utf-8-sig", "cp1252", "utf-16"):
        (workspace / "rows.csv").write_bytes(text.encode(encoding))
        form = CSV | {"separator": ";", "encoding": encoding, "columns": names}
        configure(workspace, plant=cloud("rows.csv", format=form))

        succeed()

        first, second = taken("plant").to_pylist()
        assert str(first.pop("time")) == "2026-01-01 00:00:00"
        assert first == {"size": "1,5", "machine": "007", "state": "1", "note": "zwei\nZeilen"}
        assert set(second.values()) == {None}


@pytest.mark.parametrize(
    ("files", "form", "words"),
    [
        ({"a_csv": "machine;time\n1;2\n"}, CSV | {"columns": {"machine": "m"}}, "missing; there are machine;"),
        ({"a_csv": ROWS, "b_csv": "machine,flow\n1,2\n"}, CSV, "and then in b.csv machine, flow"),
        ({"a_csv": "a,a\n1,2\n"}, CSV, "a.csv: column a is there twice"),
        ({"a_csv": "a,b\n"}, CSV, "a.csv: no rows"),
        ({"a_csv": ""}, CSV, "a.csv: not readable as CSV"),
        ({"a_csv": "a,b\n1,2,3\n"}, CSV, "a.csv: not readable as CSV"),
        ({"a_csv": "Größe\n1\n".encode("latin-1")}, CSV, "not readable as utf-8 ('utf-8' codec can't decode"),
        ({"a_csv": "a,b\nx,Größe\n".encode("latin-1")}, CSV, "a.csv: not readable as utf-8"),
        ({"a_csv": ROWS}, CSV | {"encoding": "utf-7000"}, "unknown encoding: utf-7000"),
        ({"a_csv": " <!DOCTYPE html><p>log in"}, CSV, "a.csv: it is an HTML page"),
        ({"a_txt": ROWS}, CSV, "none of 1 files matches *.csv; the first are a.txt"),
        ({"a_csv": "not parquet"}, PARQUET, "a.csv: not readable as parquet"),
        ({"a_csv": "PAR1 and then something else PAR1"}, PARQUET, "a.csv: not readable as parquet"),
    ],
    ids=["missing column", "other columns", "twice", "no rows", "empty", "ragged", "header encoding",
         "encoding", "unknown encoding", "page", "no match", "no parquet", "broken parquet"],
)  # fmt: skip
def test_tables_that_are_refused(
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, Any],
    form: dict[str, Any],
    words: str,
) -> None:
    lay(workspace / "rows", **files)
    configure(workspace, plant=cloud("rows", format=form))

    said = refuse(capsys)

    assert words in said
    assert "expected: " in said
    assert "remedy: " in said


def test_a_whole_number_that_a_double_cannot_hold_is_rounded(workspace: Path) -> None:
    lay(workspace / "rows", a_csv=ROWS.replace(",2,", f",{2**60 + 1},").replace(",2.1,", ",3,"))
    configure(workspace, plant=cloud("rows", format=CSV))

    succeed()

    assert taken("plant")["pressure"].to_pylist() == [2.0**60, 3.0]


def test_a_word_in_one_file_makes_its_column_text(workspace: Path) -> None:
    words = ROWS.replace("1.6", "hot").replace("2026-01-01T00:00:01Z", "yesterday")
    lay(workspace / "rows", a_csv=ROWS, b_csv=words)
    configure(workspace, plant=cloud("rows", format=CSV))

    succeed()

    table = taken("plant")
    assert table["flow"].to_pylist() == ["1.5", "1.6", "1.5", "hot"]
    assert table["time"].to_pylist() == [
        "2026-01-01 00:00:00.000000", "2026-01-01 00:00:01.000000", "2026-01-01 00:00:00.000000", "yesterday",
    ]  # fmt: skip
    assert table["pressure"].to_pylist() == [2.0, 2.1, 2.0, 2.1]


def test_files_whose_types_have_nothing_in_common(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "rows").mkdir()
    pq.write_table(pa.table({"flow": [1.5]}), workspace / "rows" / "a.parquet")
    pq.write_table(pa.table({"flow": [[1.5]]}), workspace / "rows" / "b.parquet")
    configure(workspace, plant=cloud("rows", select=["*"], format=PARQUET))

    said = refuse(capsys)

    assert "its files differ in types: column flow is double and then in b.parquet list<element: double>" in said


def test_a_file_name_that_is_no_text(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay(workspace / "rows", a_csv=ROWS)
    Path(os.fsdecode(os.fsencode(workspace / "rows") + b"/press-\xff.csv")).write_text(ROWS)
    configure(workspace, plant=cloud("rows", format=CSV))

    assert "'press-\\udcff.csv': its name is not UTF-8" in refuse(capsys)


def test_a_parquet_without_rows(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"flow": pa.array([], pa.float64())}), workspace / "rows.parquet")
    configure(workspace, plant=cloud("rows.parquet", select=["*"], format=PARQUET))

    assert "no rows came" in refuse(capsys)


@pytest.mark.parametrize(
    ("path", "words"),
    [(r"day-\d+", "rows/a.csv: its path does not match"), (r"(?P<flow>\w)\.csv", "column flow is in the file and in")],
)
def test_a_path_that_says_nothing_or_too_much(
    workspace: Path, capsys: pytest.CaptureFixture[str], path: str, words: str
) -> None:
    lay(workspace / "plant", rows__a_csv=ROWS)
    configure(workspace, plant=cloud("plant", path=path))

    assert words in refuse(capsys)


def test_images_of_a_folder_per_class(workspace: Path) -> None:
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    colour = Image.new("RGBA", (60, 40), (255, 0, 0, 10))
    lay(workspace / "photos", **{"1__m2_png": png(colour), "0__m1_png": png(grey)})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": images()})

    succeed()

    first, second = taken("camera").to_pylist()
    assert first == {"file": "0/m1.png", "state": "0", "machine": "m1", "values": list(range(24))}
    assert second["values"] == [76.0] * 24  # ITU-R 601 luma of pure red
    assert taken("camera").schema.field("values").type == pa.list_(pa.float32())


def test_colour_images_go_channel_by_channel(workspace: Path) -> None:
    lay(workspace / "photos", **{"0__m1_png": png(Image.new("RGB", (6, 4), (1, 2, 3)))})
    colours = {name: {"unit": "level"} for name in ("red", "green", "blue")}
    source = {"type": "cloud", "url": "photos", "files": images()}
    configure(workspace, data=IMAGE | {"channels": colours}, camera=source)

    succeed()

    assert taken("camera")["values"][0].as_py() == [1.0] * 24 + [2.0] * 24 + [3.0] * 24


def test_a_photo_is_turned_as_its_camera_says(workspace: Path) -> None:
    photo = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(6, 4))
    exif = photo.getexif()
    exif[0x0112] = 8  # a quarter turn to the left
    packed = io.BytesIO()
    photo.save(packed, "png", exif=exif)
    lay(workspace / "photos", **{"0__m1_png": packed.getvalue()})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": images()})

    succeed()

    turned = np.rot90(np.arange(24).reshape(6, 4)).ravel().tolist()
    assert taken("camera")["values"][0].as_py() == turned


@pytest.mark.parametrize(
    ("content", "files", "words"),
    [
        (png(Image.effect_noise((30, 30), 50))[:200], images(), "0/m1.png: not readable as an image"),
        (b"GIF89a", images(), "0/m1.png: not readable as an image"),
        (b"", images(), "0/m1.png: not readable as an image"),
        (b"<html>log in", images(), "0/m1.png: it is an HTML page"),
        (png(Image.fromarray(np.full((4, 6), 40_000, np.uint16))), images(), "more than 8 bits per channel"),
        (png(Image.new("L", (6, 4))), images("(?P<values>0)"), "column values in `path:`"),
    ],
    ids=["cut", "header only", "empty", "page", "16 bit", "reserved name"],
)
def test_images_that_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], content: bytes, files: dict[str, Any], words: str
) -> None:
    lay(workspace / "photos", **{"0__m1_png": content})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": files})

    assert words in refuse(capsys)


@pytest.mark.parametrize(("data", "files", "kind"), [(AUDIO, images(), "image"), (IMAGE, clips(), "audio")])
def test_a_format_of_another_kind(
    workspace: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any], files: dict[str, Any], kind: str
) -> None:
    lay(workspace / "samples", **{"0__m1_png": png(Image.new("L", (6, 4))), "0__m1_wav": wav(np.zeros(9, "<i2"))})
    configure(workspace, data=data, samples={"type": "cloud", "url": "samples", "files": files})

    assert f"data.kind: {kind}" in refuse(capsys)


def test_clips_keep_their_length(workspace: Path) -> None:
    loud = wav(np.array([0, 16384, -32768], "<i2"))
    lay(workspace / "clips", **{"1__m1_wav": loud, "0__m1_wav": wav(np.zeros(5, "<i2"))})
    configure(workspace, data=AUDIO, microphone={"type": "cloud", "url": "clips", "files": clips()})

    succeed()

    assert taken("microphone")["values"].to_pylist() == [[0.0] * 5, [0.0, 0.5, -1.0]]
    assert taken("microphone")["state"].to_pylist() == ["0", "1"]


SOUND = wav(np.zeros(100, "<i2"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wav(np.zeros(9, "<i2"), rate=16000), "0/m1.wav: 1 channel(s), 16 bit, 16000 Hz"),
        (wav(np.zeros(8, "<i2"), channels=2), "2 channel(s), 16 bit, 8000 Hz"),
        (wav(np.zeros(9, "u1"), width=1), "1 channel(s), 8 bit, 8000 Hz"),
        (SOUND[:-50], "0/m1.wav: "),
        (b"RIFF", "0/m1.wav: not readable as WAV"),
        (b"OggS" + SOUND, "0/m1.wav: not readable as WAV"),
    ],
    ids=["rate", "stereo", "8 bit", "cut", "header only", "ogg"],
)
def test_clips_that_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    lay(workspace / "clips", **{"0__m1_wav": content})
    configure(workspace, data=AUDIO, microphone={"type": "cloud", "url": "clips", "files": clips()})

    assert words in refuse(capsys)


@pytest.mark.parametrize("content", [SOUND, png(Image.effect_noise((6, 4), 50))], ids=["wav", "png"])
def test_a_sample_cut_anywhere_is_refused_or_whole(workspace: Path, content: bytes) -> None:
    """Never a traceback, wherever the file ends."""
    sound = content is SOUND
    configure(workspace, data=AUDIO if sound else IMAGE, none=cloud("none"))
    given, read = context(load()), read_wav if sound else read_image
    whole = read(content, "whole", given)
    for end in range(len(content)):
        try:
            values = read(content[:end], "cut", given)
        except SourceError as error:
            assert "cut: " in str(error)
        else:
            assert values.tolist() == whole.tolist()


def test_many_small_files_make_few_row_groups(workspace: Path) -> None:
    lay(workspace / "rows", **{f"{number:03d}_csv": ROWS for number in range(100)})
    configure(workspace, plant=cloud("rows"))

    succeed()

    file = pq.ParquetFile(Path("data/snapshot/plant/part-00000.parquet"))
    assert (file.metadata.num_rows, file.num_row_groups) == (200, 1)
