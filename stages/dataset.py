"""Prepared data on disk: memory-mapped arrays, so that no stage holds a whole split in memory.

data/prepared/
    spec.json                          SampleSpec
    {train,validation,test}/x.npy      samples [N, *shape], or for series the rows [R, channels], float32, raw units
                            y.npy      class index per sample [N], int64
                            group.npy  group name per sample [N], fixed-width unicode
                            starts.npy first row of each sample [N], int64; series only

Overlapping windows are cut from the rows when they are read: they cost no disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from stages.files import read_json, write_json

SPLITS = ("train", "validation", "test")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Channel(_Strict):
    name: str
    unit: str


class Scaling(_Strict):
    """(x - center) / scale per channel, computed inside the exported graph. Training split only."""

    method: Literal["none", "normalise", "standardise"]
    center: list[float]
    scale: list[float]


class AudioFeatures(_Strict):
    """Spectral features computed inside the exported graph; lengths in samples."""

    type: Literal["log-mel", "mfcc"]
    frame: int
    hop: int
    bands: int
    coefficients: int | None = None


class SampleSpec(_Strict):
    """What one sample is. `shape` is without the batch: [C, T] for series and audio, [C, H, W] for images."""

    kind: Literal["series", "image", "audio"]
    shape: list[int]
    channels: list[Channel]
    classes: list[str]
    rate_hz: float | None
    scaling: Scaling
    features: AudioFeatures | None = None

    @classmethod
    def read(cls, prepared: Path) -> SampleSpec:
        return cls.model_validate(read_json(prepared / "spec.json"))

    def write(self, prepared: Path) -> None:
        write_json(prepared / "spec.json", self.model_dump())


class ArrayFile:
    """A .npy file that grows along its first axis; for arrays that are larger than memory.

    The header is written again at the end: numpy leaves room in it for the number of rows to grow.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.rows = 0
        self._row_shape, self._dtype = row_shape, np.dtype(dtype)
        self._stream = path.open("wb")
        self._write_header()
        self._data_at = self._stream.tell()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.seek(0)
        self._write_header()
        assert self._stream.tell() == self._data_at, "the header has grown over the data"
        self._stream.close()

    def append(self, rows: np.ndarray) -> None:
        """rows: [n, *row_shape]."""
        assert rows.shape[1:] == self._row_shape, f"rows of {rows.shape[1:]} for {self._row_shape}"
        self._stream.write(np.ascontiguousarray(rows, dtype=self._dtype))  # type: ignore[arg-type]  # it is a buffer
        self.rows += len(rows)

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        shape = (self.rows, *self._row_shape)
        header = {"descr": description, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)


@dataclass(frozen=True)
class Split:
    """One split, opened without reading it. `x` and `y` are memory maps."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    starts: np.ndarray | None
    window: int | None

    @classmethod
    def open(cls, prepared: Path, name: str) -> Split:
        folder = prepared / name
        spec = SampleSpec.read(prepared)
        starts = folder / "starts.npy"
        windowed = starts.exists()
        return cls(
            x=np.load(folder / "x.npy", mmap_mode="r"),
            y=np.load(folder / "y.npy", mmap_mode="r"),
            group=np.load(folder / "group.npy", mmap_mode="r"),
            starts=np.load(starts, mmap_mode="r") if windowed else None,
            window=spec.shape[-1] if windowed else None,
        )

    def __len__(self) -> int:
        return len(self.y)

    def samples(self, index: np.ndarray | slice) -> np.ndarray:
        """The samples at `index`: float32 [len(index), *shape], a copy in memory."""
        if self.starts is None or self.window is None:
            return np.ascontiguousarray(self.x[index], dtype=np.float32)
        rows = np.asarray(self.starts[index])[:, None] + np.arange(self.window)
        return np.ascontiguousarray(self.x[rows].transpose(0, 2, 1), dtype=np.float32)
