"""What a request for a prediction holds, as an array: JSON, raw float32, or .npy. Nothing of it is trusted."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

JSON, RAW, NPY = "application/json", "application/octet-stream", "application/x-npy"
TYPES = (JSON, RAW, NPY)
LONGEST_AXIS = (1 << 31) - 1
SMALL_BYTES = 1 << 16  # JSON up to this size is read in milliseconds, whatever it says


class ProblemError(Exception):
    """A request that gets no answer but a problem (RFC 9457): its HTTP status and the reason."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extensions = status, detail, dict(headers or {}), extensions


def decode_input(content: bytes, content_type: str, shape: tuple[int, ...], most: int) -> np.ndarray:
    """The samples, float32 [B, *shape], B at least 1, all numbers finite. What is plainly no JSON of at most `most`
    samples is not read to its end. Raises ProblemError (400, 413, 415, 422).
    """
    if content_type == JSON:
        _plausible(content, shape, most)
    read = {JSON: _from_json, RAW: _from_raw, NPY: _from_npy}.get(content_type)
    if read is None:
        raise ProblemError(
            415,
            "no such content type is read",
            headers={"Accept": ", ".join(TYPES)},
            found=content_type,
            expected=TYPES,
        )
    x = read(content, shape)
    if x.shape[1:] != shape or x.ndim != len(shape) + 1 or not len(x):
        raise ProblemError(422, "the inputs have another shape", found=list(x.shape), expected=["batch", *shape])
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
        raise ProblemError(422, f"sample {row} holds what is no finite float32", expected="finite numbers")
    return x


def parse_json(content: bytes) -> dict[str, Any]:
    """One JSON object (RFC 8259) in UTF-8, every name once; all numbers come as float. Raises ProblemError (400)."""
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"the body is no JSON: {error}", expected="one JSON object in UTF-8") from None
    if not isinstance(value, dict):
        raise ProblemError(422, "the body is no object", found=type(value).__name__, expected="one JSON object")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return value


def require_known_fields(value: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuses names that nobody reads: a misspelt one must not pass in silence."""
    unknown = sorted(set(value) - set(expected))
    if unknown:
        raise ProblemError(422, "unknown names", found=[name[:80] for name in unknown[:5]], expected=list(expected))


# Made once: making one for each request takes as long as reading a small one.
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_no_constant, object_pairs_hook=_once)


def _plausible(content: bytes, shape: tuple[int, ...], most: int) -> None:
    """Refuses large JSON by its punctuation: millions of empty lists hold the process, all threads, for seconds."""
    if len(content) <= SMALL_BYTES:
        return
    lists = sum(math.prod(shape[:axis]) for axis in range(len(shape)))  # of one sample
    found, values = content.count(b"["), content.count(b",") + 1
    if content.count(b"{") > 1 or content.count(b'"') > 2 or (found - 1) * math.prod(shape) > values * lists:
        raise ProblemError(
            422,
            "more lists, names or objects than such inputs have",
            found=f"{found} lists",
            expected=["batch", *shape],
        )
    if found > 1 + most * lists:
        raise ProblemError(413, "too many samples in one request", expected=f"at most {most}")


def _from_json(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """`{"inputs": [sample, ...]}`, or `{"input": sample}` for one."""
    value = parse_json(content)
    require_known_fields(value, ("inputs", "input"))
    if len(value) != 1:
        raise ProblemError(422, "exactly one of `inputs` and `input`", found=sorted(value), expected=["inputs"])
    name, values = next(iter(value.items()))
    # numpy takes true for 1; the word can stand in the text only as a value or in a string, which is refused too.
    if not isinstance(values, list) or b"true" in content or b"false" in content:
        raise ProblemError(422, f"`{name}` is no nested list of numbers", expected="nested lists of numbers")
    try:
        x = np.asarray(values)
    except ValueError:
        raise ProblemError(422, f"`{name}` has lists of different lengths", expected=["batch", *shape]) from None
    if x.dtype != np.float64:
        raise ProblemError(422, f"`{name}` holds what is no number", expected="nested lists of numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that
        x = x.astype(np.float32)
    return x[None] if name == "input" else x


def _from_raw(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Little-endian float32 in C order, sample after sample."""
    size = 4 * math.prod(shape)
    if not content or len(content) % size:
        raise ProblemError(
            422, "not whole samples of float32", found=f"{len(content)} bytes", expected=f"a multiple of {size} bytes"
        )
    return np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False).reshape(-1, *shape)


def _from_npy(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """NumPy's format (NEP 1), float32. Its header is read, never believed: nothing is allocated by what it says."""
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            found, fortran, dtype = header(stream)
    except Exception as error:  # a header is a Python literal: parsing a bad one fails in a dozen ways
        raise ProblemError(400, f"the body is no .npy: {str(error)[:200]}", expected=".npy, version 1 or 2") from None
    if dtype != np.dtype("<f4"):
        raise ProblemError(422, "the array has another type", found=str(dtype), expected="little-endian float32")
    # Python's words for a number, True and thousands of digits among them, are all let through by numpy.
    if any(type(size) is not int or not 0 <= size <= LONGEST_AXIS for size in found):
        raise ProblemError(422, "the header names an impossible shape", expected=["batch", *shape])
    if tuple(found[1:]) != shape or len(found) != len(shape) + 1:
        raise ProblemError(422, "the inputs have another shape", found=list(found)[:16], expected=["batch", *shape])
    values = content[stream.tell() :]
    if found[0] < 1 or len(values) != 4 * math.prod(found):
        expected = f"{4 * math.prod(found)} bytes, as its header says, of at least one sample"
        raise ProblemError(422, "the array is not whole", found=f"{len(values)} bytes", expected=expected)
    x = np.frombuffer(values, dtype="<f4").reshape(found, order="F" if fortran else "C")
    return np.ascontiguousarray(x, dtype=np.float32)
