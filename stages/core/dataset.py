"""The prepared data set on disk: memory-mapped arrays, so that no stage holds a whole split in memory.

data/prepared/
    spec.json                          SampleSpec
    {train,validation,test}/x.npy      samples [N, *shape], or for series the rows [R, channels], float32, raw units
                            y.npy      class index per sample [N], int64
                            group.npy  group name per sample [N], fixed-width unicode
                            starts.npy first row of each sample [N], int64; series only

The windows of a series are cut from its rows when they are read, so overlapping windows take no additional disk space.
"""

from __future__ import annotations

import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

from stages.core.errors import StageError
from stages.core.files import read_model, rerun_hint, write_json

SPLITS = ("train", "validation", "test")
STAGE = "prepare"
# Exceptions that numpy raises for a .npy file with an unexpected header.
NPY_ERRORS = (ValueError, EOFError, OverflowError, SyntaxError, TypeError, tokenize.TokenError)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Channel(_Strict):
    """The name and the unit of one channel of the samples."""

    name: str = Field(description="Name of the channel.")
    unit: str = Field(description="Unit of the channel's values.")


class Scaling(_Strict):
    """The scaling (x - center) / scale of each channel, which is part of the exported model."""

    method: Literal["none", "normalise", "standardise"] = Field(description="How the scaling was computed.")
    center: list[FiniteFloat] = Field(
        description="Center of each channel in the training split, in the unit of the channel."
    )
    scale: list[FiniteFloat] = Field(
        description="Scale of each channel in the training split, in the unit of the channel."
    )


class AudioFeatures(_Strict):
    """Settings of the spectral features of audio. The exported model computes these features itself."""

    type: Literal["log-mel", "mfcc"] = Field(description="Kind of features.")
    frame: int = Field(description="Length of one frame, in audio samples.")
    hop: int = Field(description="Distance between the starts of two consecutive frames, in audio samples.")
    bands: int = Field(description="Number of mel bands.")
    coefficients: int | None = Field(default=None, description="Number of cepstral coefficients; for mfcc only.")


class SampleSpec(_Strict):
    """The format of the samples, which `prepare` writes to spec.json and all later stages read."""

    kind: Literal["series", "image", "audio"] = Field(description="Kind of the samples.")
    shape: list[PositiveInt] = Field(
        min_length=1,
        description="Shape of a sample, without the batch axis: [C, T] for series and audio, [C, H, W] for images.",
    )
    channels: list[Channel] = Field(min_length=1, description="The C channels, in order.")
    classes: list[str] = Field(min_length=2, description="Names of the classes, in the order of their indices.")
    rate_hz: float | None = Field(description="Sampling rate along the time axis T, in Hz; null for images.")
    scaling: Scaling = Field(description="Scaling of each channel.")
    features: AudioFeatures | None = Field(
        default=None, description="Spectral features of audio; null if there are none."
    )

    @model_validator(mode="after")
    def _scales_every_channel(self) -> SampleSpec:
        if not len(self.scaling.center) == len(self.scaling.scale) == len(self.channels):
            raise ValueError(f"scaling must have one center and one scale for each of {len(self.channels)} channels")
        return self

    @classmethod
    def read(cls, prepared: Path) -> SampleSpec:
        """Read spec.json from the folder `prepared`. Raises StageError."""
        return read_model(prepared / "spec.json", cls, STAGE)

    def write(self, prepared: Path) -> None:
        """Write spec.json into the folder `prepared`."""
        write_json(prepared / "spec.json", self.model_dump())


class ArrayFile:
    """A context manager that writes a .npy file row by row, so that the array can be larger than memory.

    The header is rewritten when the `with` block ends, because the number of rows is known only then. numpy reserves
    space in the header for this number.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        """Create the .npy file, still without rows.

        Args:
            path: Path of the file; an existing file is replaced.
            row_shape: Shape of one row.
            dtype: Type of the elements.
        """
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
        """Append the n rows of an array of shape [n, *row_shape] to the file."""
        assert rows.shape[1:] == self._row_shape, f"rows of {rows.shape[1:]} for {self._row_shape}"
        self._stream.write(np.ascontiguousarray(rows, dtype=self._dtype))  # type: ignore[arg-type]  # numpy arrays support the buffer protocol
        self.rows += len(rows)

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        shape = (self.rows, *self._row_shape)
        header = {"descr": description, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)


@dataclass(frozen=True)
class Split:
    """One split of the prepared data (train, validation or test), as memory-mapped arrays.

    x: Samples [N, *shape], or for series the rows [R, channels]; float32, raw units.
    y: Class index of each sample, int64 [N].
    group: Group name of each sample, unicode [N].
    starts: For series, the index in `x` of each sample's first row, int64 [N]; None for images and audio.
    window: For series, the number of rows of each sample; None for images and audio.
    """

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    starts: np.ndarray | None
    window: int | None

    @classmethod
    def open(cls, prepared: Path, name: str) -> Split:
        """Open the split `name` in the folder `prepared`.

        The values in y.npy and starts.npy are checked, but not the values in x.npy. Raises StageError if a file is
        missing, incomplete, of the wrong type or shape, or inconsistent with the other files.
        """
        folder, spec = prepared / name, SampleSpec.read(prepared)
        windowed = (folder / "starts.npy").exists()
        y = _open_array(folder / "y.npy", np.dtype(np.int64), "int64", ())
        group = _open_array(folder / "group.npy", None, "unicode", ())
        _check_length(folder / "group.npy", group, y)
        _check_range(folder / "y.npy", y, len(spec.classes), f"of {len(spec.classes)} classes")
        shape = (spec.shape[0],) if windowed else tuple(spec.shape)
        x = _open_array(folder / "x.npy", np.dtype(np.float32), "float32", shape)
        if not windowed:
            _check_length(folder / "x.npy", x, y)
            return cls(x, y, group, None, None)
        starts, window = _open_array(folder / "starts.npy", np.dtype(np.int64), "int64", ()), spec.shape[-1]
        _check_length(folder / "starts.npy", starts, y)
        _check_range(
            folder / "starts.npy",
            starts,
            len(x) - window + 1,
            f"of windows of {window} rows within the {len(x)} rows of x.npy",
        )
        return cls(x, y, group, starts, window)

    def __len__(self) -> int:
        return len(self.y)

    def samples(self, index: np.ndarray | slice) -> np.ndarray:
        """Return a copy in memory of the samples at `index`, as float32 [number of samples, *shape]."""
        if self.starts is None or self.window is None:
            return np.ascontiguousarray(self.x[index], dtype=np.float32)
        rows = np.asarray(self.starts[index])[:, None] + np.arange(self.window)
        return np.ascontiguousarray(self.x[rows].transpose(0, 2, 1), dtype=np.float32)


def _open_array(path: Path, dtype: np.dtype | None, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Open `path` as a memory-mapped array [N, *shape] of type `dtype` (None means text). Raises StageError."""
    expected = f"{kind} [{', '.join(['N', *map(str, shape)])}]"
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise StageError(str(path), "there is no such file", expected, rerun_hint(STAGE)) from None
    except OSError as error:
        raise StageError(str(path), f"not readable: {error.strerror}", expected, rerun_hint(STAGE)) from None
    except NPY_ERRORS as error:
        raise StageError(str(path), f"not readable as an array: {error}", expected, rerun_hint(STAGE)) from None
    if (
        array.shape[1:] != shape
        or not array.ndim
        or (array.dtype.kind != "U" if dtype is None else array.dtype != dtype)
    ):
        raise StageError(str(path), f"found {array.dtype} {list(array.shape)}", expected, rerun_hint(STAGE))
    return array


def _check_length(path: Path, array: np.ndarray, y: np.ndarray) -> None:
    if len(array) != len(y):
        raise StageError(str(path), f"found {len(array)} samples", f"{len(y)} samples, as in y.npy", rerun_hint(STAGE))


def _check_range(path: Path, index: np.ndarray, end: int, what: str) -> None:
    if len(index) and not 0 <= index.min() <= index.max() < end:
        indices = f"found indices {index.min()} to {index.max()}"
        raise StageError(str(path), indices, f"indices {what}, 0 to {end - 1}", rerun_hint(STAGE))
