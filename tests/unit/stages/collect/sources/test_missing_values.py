"""No word means a missing value, unless the parameters of the format say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.stages.collect import CSV, cloud, configure, read_snapshot, refuse, succeed

WORDS = ["NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "nan", "NaN", "-nan", "-NaN", "1.#IND", "1.#QNAN", "<NA>"]


def snapshot(root: Path, text: str, **form: Any) -> dict[str, list[Any]]:
    """Collect a CSV file, and return the columns of the snapshot."""
    (root / "rows.csv").write_text(text)
    configure(root, plant=cloud("rows.csv", format=CSV | form))
    succeed()
    return read_snapshot("plant").to_pydict()


def test_no_word_is_a_missing_value(workspace: Path) -> None:
    """A column of numbers with a word is text, which `validate` reads cell by cell."""
    lines = "".join(f"{word},{word},{word},{number}.5\n" for number, word in enumerate([*WORDS, ""]))
    read = snapshot(workspace, f"machine,state,note,flow\n{lines}")

    assert read["machine"] == read["state"] == read["note"] == [*WORDS, None]
    assert read["flow"] == [i + 0.5 for i in range(len(WORDS) + 1)]
    for word in WORDS:
        assert snapshot(workspace, f"machine,flow\nm1,{word}\nm2,1.5\nm3,\n")["flow"] == [word, "1.5", None]


def test_the_words_of_each_column_are_missing_values(workspace: Path) -> None:
    text = "machine,state,flow,pressure,serial\nNA,NA,NA,-999,7\nm2,ok,1.5,NaN,-999\nm3,ok,,2,9\n"
    words = {"flow": ["NA"], "pressure": ["-999", "NaN"], "serial": ["-999"]}
    read = snapshot(workspace, text, missing_values=words)

    assert read == {
        "machine": ["NA", "m2", "m3"],
        "state": ["NA", "ok", "ok"],
        "flow": [None, 1.5, None],
        "pressure": [None, None, 2.0],
        "serial": [7, None, 9],
    }


def test_the_words_of_all_columns_that_are_not_named(workspace: Path) -> None:
    text = "machine,state,flow,pressure\nNA,NA,NA,none\nm2,ok,1.5,2\n"
    read = snapshot(workspace, text, missing_values={"*": ["NA", "none"], "state": []})

    assert read == {"machine": [None, "m2"], "state": ["NA", "ok"], "flow": [None, 1.5], "pressure": [None, 2.0]}


def test_the_names_are_those_in_the_file(workspace: Path) -> None:
    columns = {"q": "flow", "m": "machine"}
    read = snapshot(workspace, "m,q\nNA,NA\nb,2.5\n", columns=columns, missing_values={"q": ["NA"]})

    assert read == {"flow": [None, 2.5], "machine": ["NA", "b"]}


def test_a_column_that_the_file_lacks_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "rows.csv").write_text("machine,flow\nm1,NA\n")
    configure(workspace, plant=cloud("rows.csv", format=CSV | {"missing_values": {"Flow": ["NA"]}}))

    message = refuse(capsys)

    assert "rows.csv: column Flow is missing; the columns are machine, flow" in message
    assert "every column that `missing_values:` names" in message


def test_words_stay_words_in_parquet_files_and_paths(workspace: Path) -> None:
    (workspace / "rows/NA").mkdir(parents=True)
    pq.write_table(pa.table({"state": WORDS, "flow": [1.5] * len(WORDS)}), workspace / "rows/NA/null.parquet")
    form = {"type": "parquet", "columns": None}
    path = r"(?P<machine>\w+)/(?P<take>\w+)\.parquet$"
    configure(workspace, plant=cloud("rows", select=["*"], path=path, format=form))

    succeed()

    read = read_snapshot("plant").to_pydict()
    assert read["state"] == WORDS
    assert (set(read["machine"]), set(read["take"])) == ({"NA"}, {"null"})
