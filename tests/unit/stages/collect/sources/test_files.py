"""Contents of CSV and parquet files, and columns from their paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.stages.collect import CSV, ROWS, cloud, configure, lay, read_snapshot, refuse, succeed

PARQUET = {"type": "parquet", "columns": None}


def test_parquet_files_whose_types_widen(workspace: Path) -> None:
    """A column that is empty, then whole numbers, then decimal ones keeps every value."""
    columns = ([None, None], [1, 2], [1.5, 2.5])
    for number, flow in enumerate(columns):
        table = pa.table({"machine": ["007", "7"], "time": [0, 1], "note": pa.array(flow), "state": [0.0, 1.0]})
        (workspace / "rows").mkdir(exist_ok=True)
        pq.write_table(table, workspace / "rows" / f"{number}.parquet")
    configure(workspace, plant=cloud("rows", select=["*.parquet"], format=PARQUET))

    succeed()

    assert read_snapshot("plant")["note"].to_pylist() == [None, None, 1.0, 2.0, 1.5, 2.5]
    assert read_snapshot("plant")["machine"].to_pylist() == ["007", "7"] * 3
    assert read_snapshot("plant")["state"].to_pylist() == ["0", "1"] * 3


def test_a_parquet_file_is_read_group_by_group(workspace: Path) -> None:
    table = pa.table({"machine": [f"m{i}" for i in range(10)], "flow": np.arange(10.0)})
    pq.write_table(table, workspace / "rows.parquet", row_group_size=3)
    configure(workspace, plant=cloud("rows.parquet", select=["*"], format=PARQUET | {"columns": {"flow": "pressure"}}))

    succeed()

    assert read_snapshot("plant").to_pydict() == {"pressure": list(range(10))}


def test_csv_of_a_spreadsheet(workspace: Path) -> None:
    """Another separator and encoding, a byte order mark, quoted line ends, other names, numbers like 1.0."""
    text = 'Größe;Zeit;Maschine;Zustand;Notiz\n1,5;2026-01-01 00:00:00;007;1.0;"zwei\nZeilen"\n;;;;\n'
    names = {"Größe": "size", "Zeit": "time", "Maschine": "machine", "Zustand": "state", "Notiz": "note"}
    for encoding in ("utf-8-sig", "cp1252", "utf-16"):
        (workspace / "rows.csv").write_bytes(text.encode(encoding))
        form = CSV | {"separator": ";", "encoding": encoding, "columns": names}
        configure(workspace, plant=cloud("rows.csv", format=form))

        succeed()

        first, second = read_snapshot("plant").to_pylist()
        assert str(first.pop("time")) == "2026-01-01 00:00:00"
        assert first == {"size": "1,5", "machine": "007", "state": "1", "note": "zwei\nZeilen"}
        assert set(second.values()) == {None}


@pytest.mark.parametrize(
    ("files", "form", "words"),
    [
        ({"a_csv": "machine;time\n1;2\n"}, CSV | {"columns": {"machine": "m"}}, "missing; the columns are machine;"),
        ({"a_csv": ROWS, "b_csv": "machine,flow\n1,2\n"}, CSV, "columns in b.csv are machine, flow"),
        ({"a_csv": "a,a\n1,2\n"}, CSV, "a.csv: column a is a duplicate"),
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

    message = refuse(capsys)

    assert words in message
    assert "expected: " in message
    assert "remedy: " in message


def test_a_whole_number_that_a_double_cannot_hold_is_rounded(workspace: Path) -> None:
    lay(workspace / "rows", a_csv=ROWS.replace(",2,", f",{2**60 + 1},").replace(",2.1,", ",3,"))
    configure(workspace, plant=cloud("rows", format=CSV))

    succeed()

    assert read_snapshot("plant")["pressure"].to_pylist() == [2.0**60, 3.0]


def test_a_word_in_one_file_makes_its_column_text(workspace: Path) -> None:
    words = ROWS.replace("1.6", "hot").replace("2026-01-01T00:00:01Z", "yesterday")
    lay(workspace / "rows", a_csv=ROWS, b_csv=words)
    configure(workspace, plant=cloud("rows", format=CSV))

    succeed()

    table = read_snapshot("plant")
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

    message = refuse(capsys)

    assert "differ in types: column flow first has the type double, then in b.parquet the type list<element" in message


def test_a_file_name_that_is_not_text_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay(workspace / "rows", a_csv=ROWS)
    Path(os.fsdecode(os.fsencode(workspace / "rows") + b"/press-\xff.csv")).write_text(ROWS)
    configure(workspace, plant=cloud("rows", format=CSV))

    assert "'press-\\udcff.csv': its name is not UTF-8" in refuse(capsys)


def test_a_parquet_without_rows(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"flow": pa.array([], pa.float64())}), workspace / "rows.parquet")
    configure(workspace, plant=cloud("rows.parquet", select=["*"], format=PARQUET))

    assert "no rows received" in refuse(capsys)


@pytest.mark.parametrize(
    ("path", "words"),
    [(r"day-\d+", "rows/a.csv: its path does not match"), (r"(?P<flow>\w)\.csv", "column flow is in the file and in")],
)
def test_a_path_that_does_not_match_or_repeats_a_column_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], path: str, words: str
) -> None:
    lay(workspace / "plant", rows__a_csv=ROWS)
    configure(workspace, plant=cloud("plant", path=path))

    assert words in refuse(capsys)


def test_many_small_files_make_few_row_groups(workspace: Path) -> None:
    lay(workspace / "rows", **{f"{number:03d}_csv": ROWS for number in range(100)})
    configure(workspace, plant=cloud("rows"))

    succeed()

    file = pq.ParquetFile(Path("data/snapshot/plant/part-00000.parquet"))
    assert (file.metadata.num_rows, file.num_row_groups) == (200, 1)
