"""Prepared data as later stages read it: complete, or refused with its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import networks
from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import StageError
from stages.core.files import read_object
from tests.support.stages.training import recipe, run_stage, spec_of, train_params, write_params, write_prepared

Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def spoil_the_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20:40] = b"(" * 20
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


BROKEN: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x93NUMPY" + bytes(range(256))),
    "text": lambda path: path.write_text("no array"),
    "zip": lambda path: path.write_bytes(b"PK\x03\x04 no array"),
    "cut": cut,
    "cut in the header": cut_in_the_header,
    "header": spoil_the_header,
    "pickled": pickled,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "scalar": lambda path: np.save(path, np.float32(3)),
    "another type": lambda path: np.save(path, np.load(path).astype("S8")),
    "another shape": lambda path: np.save(path, np.load(path)[..., None]),
    "one sample less": lambda path: np.save(path, np.load(path)[:-1]),
}


FILES = [("image", name) for name in ("x", "y", "group")] + [("series", name) for name in ("x", "y", "group", "starts")]


@pytest.mark.parametrize("kind", ["image", "series"])
def test_complete_data_opens(tmp_path: Path, kind: str) -> None:
    prepared = write_prepared(tmp_path, kind)

    for name in SPLITS:
        split = Split.open(prepared, name)
        assert split.samples(slice(0, 3)).shape == (3, *SampleSpec.read(prepared).shape)


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize("damage", BROKEN)
def test_a_corrupted_array_is_reported_with_expectation_and_remedy(
    tmp_path: Path, kind: str, name: str, damage: str
) -> None:
    prepared = write_prepared(tmp_path, kind)
    path = prepared / "train" / f"{name}.npy"
    BROKEN[damage](path)

    with pytest.raises(StageError) as error:
        Split.open(prepared, "train")

    assert error.value.where.startswith(str(prepared / "train"))
    assert error.value.expected
    assert "prepare" in error.value.remedy


@pytest.mark.parametrize("value", [-1, 10, 1 << 40])
def test_labels_are_classes(tmp_path: Path, value: int) -> None:
    path = write_prepared(tmp_path, "image") / "test" / "y.npy"
    y = np.load(path)
    y[3] = value
    np.save(path, y)

    with pytest.raises(StageError, match=r"y\.npy: found indices .*\n.*of 10 classes, 0 to 9"):
        Split.open(tmp_path / "data/prepared", "test")


@pytest.mark.parametrize("value", [-1, 1 << 40])
def test_windows_are_inside_the_rows(tmp_path: Path, value: int) -> None:
    path = write_prepared(tmp_path, "series") / "test" / "starts.npy"
    starts = np.load(path)
    starts[3] = value
    np.save(path, starts)

    with pytest.raises(StageError, match=r"starts\.npy: found indices"):
        Split.open(tmp_path / "data/prepared", "test")


ODD: dict[str, str | None] = {
    "missing": None, "empty": "", "cut": '{"kind": "im', "no JSON": "\x00\x01", "list": "[]", "text": '"spec"',
    "null": "null", "no field": "{}", "NaN": '{"rate_hz": NaN}', "infinite": '{"rate_hz": 1e999}',
    "deep": "[" * 100_000, "long": '{"rate_hz": ' + "9" * 5000 + "}",
}  # fmt: skip


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_corrupted_object_is_reported(tmp_path: Path, content: str | None) -> None:
    path = write_prepared(tmp_path, "image") / "spec.json"
    path.unlink() if content is None else path.write_text(content)

    with pytest.raises(StageError) as error:
        SampleSpec.read(path.parent)

    assert error.value.where.startswith(str(path))
    assert "prepare" in error.value.remedy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "video"), ("shape", []), ("shape", [1, 8, -8]), ("shape", "wide"), ("classes", ["one"]),
        ("channels", []), ("channels", [{"name": "ink"}]), ("scaling", None), ("surplus", 1),
        ("scaling", {"method": "normalise", "center": [0.0, 1.0], "scale": [1.0]}),
    ],
)  # fmt: skip
def test_an_inconsistent_specification_is_reported_by_field(tmp_path: Path, field: str, value: Any) -> None:
    path = write_prepared(tmp_path, "image") / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    with pytest.raises(StageError, match=r"spec\.json") as error:
        SampleSpec.read(path.parent)

    assert field in str(error.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b'{"a": "\xff\xfe"}')

    with pytest.raises(StageError, match="not readable as JSON"):
        read_object(tmp_path / "report.json", "gate")


def test_a_network_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    networks.save(networks.build(spec_of("image"), train_params("cnn")), path)
    content = path.read_bytes()

    for end in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:end])
        with pytest.raises(StageError, match=r"model\.pt: not readable as a network"):
            networks.load(path)


def test_a_file_with_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save({"architecture": Path("x"), "weights": {}}, tmp_path / "model.pt")

    with pytest.raises(
        StageError, match=r"model\.pt: not readable as a network: it contains more than plain values"
    ) as refused:
        networks.load(tmp_path / "model.pt")

    assert "weights_only" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "damaged"),
    [
        ("train", "data/prepared/validation/y.npy"),
        ("train", "data/prepared/spec.json"),
        ("compress", "data/prepared/test/x.npy"),
        ("compress", "models/trained/model.pt"),
    ],
)
def test_the_stage_ends_with_a_message_and_keeps_earlier_outputs(workspace: Path, stage: str, damaged: str) -> None:
    write_prepared(workspace, "image")
    write_params(workspace, train=recipe("cnn"))
    (workspace / "models/trained").mkdir(parents=True)
    networks.save(networks.build(spec_of("image"), train_params("cnn")), workspace / "models/trained/model.pt")
    cut(workspace / damaged)
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}

    done = run_stage(workspace, f"stages.{stage}")

    assert done.returncode == 1
    assert damaged in done.stderr
    assert "Traceback" not in done.stderr
    after = {path: path.read_bytes() for path in before}
    assert after == before
