"""Decode the samples in a prediction request (JSON, raw float32 or .npy), which comes from an untrusted client."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

JSON, RAW, NPY = "application/json", "application/octet-stream", "application/x-npy"
TYPES = (JSON, RAW, NPY)
LONGEST_AXIS = (1 << 31) - 1
LONGEST_HEADER = 1 << 17  # of a .npy file; numpy refuses headers of more than 10000 characters
SMALL_BYTES = 1 << 16  # any JSON up to this size is parsed within milliseconds


class ProblemError(Exception):
    """The request fails. The response to the client is a problem document (RFC 9457) with the fields of this error."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
    ) -> None:
        """Describe the problem.

        Args:
            status: HTTP status code of the response.
            detail: The reason why the request fails, as text for people.
            headers: Additional HTTP headers of the response.
            extensions: Additional members of the problem document, such as `found` and `expected`.
        """
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extensions = status, detail, dict(headers or {}), extensions


def decode_input(content: bytes | bytearray, content_type: str, shape: tuple[int, ...], max_samples: int) -> np.ndarray:
    """Decode and check the samples in the body of a request.

    Args:
        content: The body of the request.
        content_type: The media type of the body; media types other than TYPES are refused.
        shape: Shape of one sample.
        max_samples: Maximum number of samples in one request. A large JSON body that clearly has more samples is
            refused before it is parsed; the number of samples in other bodies is not checked here.

    Returns:
        float32 [B, *shape] with B at least 1 and only finite values.

    Raises:
        ProblemError: The body is invalid or too large; the status is 400, 413, 415 or 422.
    """
    if content_type == JSON:
        _check_plausible_json(content, shape, max_samples)
    decode = {JSON: _from_json, RAW: _from_raw, NPY: _from_npy}.get(content_type)
    if decode is None:
        raise ProblemError(
            415,
            "this content type is not supported",
            headers={"Accept": ", ".join(TYPES)},
            found=content_type,
            expected=TYPES,
        )
    x = decode(content, shape)
    if x.shape[1:] != shape or x.ndim != len(shape) + 1 or not len(x):
        raise ProblemError(422, "the inputs have the wrong shape", found=list(x.shape), expected=["batch", *shape])
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
        raise ProblemError(422, f"sample {row} has a value that is not a finite float32", expected="finite numbers")
    return x


def parse_json(content: bytes | bytearray) -> dict[str, Any]:
    """Parse one JSON object (RFC 8259, UTF-8), and refuse duplicate names. All numbers become floats.

    Raises ProblemError with the status 400 or 422.
    """
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"the body is not valid JSON: {error}", expected="one JSON object in UTF-8") from None
    if not isinstance(value, dict):
        raise ProblemError(422, "the body is not a JSON object", found=type(value).__name__, expected="one JSON object")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate name in an object")
    return value


def require_known_fields(value: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Raise ProblemError (422) if a JSON object has a name that is not in `expected`.

    Unknown names are refused, because a misspelt name must not be ignored silently.
    """
    unknown = sorted(set(value) - set(expected))
    if unknown:
        raise ProblemError(422, "unknown names", found=[name[:80] for name in unknown[:5]], expected=list(expected))


_INPUTS = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"inputs"[ \t\n\r]*:[ \t\n\r]*\[')
_SPACE, _END = re.compile(r"[ \t\n\r]*"), re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")
# One instance for all requests: creating one takes as long as parsing a small request.
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant, object_pairs_hook=_unique_names)


def _check_plausible_json(content: bytes | bytearray, shape: tuple[int, ...], max_samples: int) -> None:
    """Refuse a large JSON body that has more lists, objects or names than valid samples need.

    This function only counts the punctuation, because parsing millions of empty lists would block all threads for
    seconds.
    """
    if len(content) <= SMALL_BYTES:
        return
    lists_per_sample = sum(math.prod(shape[:axis]) for axis in range(len(shape)))
    lists, values = content.count(b"["), content.count(b",") + 1
    many_lists = (lists - 1) * math.prod(shape) > values * lists_per_sample
    if content.count(b"{") > 1 or content.count(b'"') > 2 or many_lists:
        raise ProblemError(
            422,
            "more lists, names or objects than inputs of this shape have",
            found=f"{lists} lists",
            expected=["batch", *shape],
        )
    if lists > 1 + max_samples * lists_per_sample:
        raise ProblemError(413, "too many samples in one request", expected=f"at most {max_samples}")


def _from_json(content: bytes | bytearray, shape: tuple[int, ...]) -> np.ndarray:
    """Decode `{"inputs": [sample, ...]}`, or `{"input": sample}` for one sample."""
    if len(content) > SMALL_BYTES and (start := _INPUTS.match(content)):
        return _from_large_json(content, start.end(), shape)
    value = parse_json(content)
    require_known_fields(value, ("inputs", "input"))
    if len(value) != 1:
        raise ProblemError(
            422, "the body must have exactly one of `inputs` and `input`", found=sorted(value), expected=["inputs"]
        )
    name, values = next(iter(value.items()))
    # numpy converts `true` to 1. The words could also be part of a string, but strings are invalid too.
    if not isinstance(values, list) or b"true" in content or b"false" in content:
        raise ProblemError(422, f"`{name}` is not a nested list of numbers", expected="nested lists of numbers")
    try:
        x = np.asarray(values)
    except ValueError:
        raise ProblemError(422, f"`{name}` has lists of different lengths", expected=["batch", *shape]) from None
    if x.dtype != np.float64:
        raise ProblemError(422, f"`{name}` has a value that is not a number", expected="nested lists of numbers")
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused
        x = x.astype(np.float32)
    return x[None] if name == "input" else x


def _from_large_json(content: bytes | bytearray, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """Decode `{"inputs": [sample, ...]}` sample by sample, because Python's numbers need many times more memory.

    `start` is the position after the bracket that opens the list of samples. Raises ProblemError.
    """
    refusal = ProblemError(422, "`inputs` is not a list of samples of the right shape", expected=["batch", *shape])
    count, row = (content.count(b",") + 1) // math.prod(shape), 0
    if not count or b"true" in content or b"false" in content:  # numpy converts `true` to 1
        raise refusal
    x = np.empty((count, *shape), np.float32)
    try:
        text, position = content.decode("utf-8"), start
        while True:
            sample, position = _DECODER.raw_decode(text, _skip_space(text, position))
            try:
                values = np.asarray(sample)
            except ValueError:  # lists of different lengths
                raise refusal from None
            if row == count or values.dtype != np.float64 or values.shape != shape:
                raise refusal
            with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused
                x[row] = values
            row, position = row + 1, _skip_space(text, position)
            if text[position : position + 1] == "]" and _END.fullmatch(text, position + 1):
                return x[:row]
            if text[position : position + 1] != ",":
                raise ValueError(f"found {text[position : position + 10]!r} at position {position}")
            position += 1
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"the body is not valid JSON: {error}", expected="one JSON object in UTF-8") from None


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _from_raw(content: bytes | bytearray, shape: tuple[int, ...]) -> np.ndarray:
    """Decode consecutive samples that are stored as little-endian float32 values in C order."""
    size = 4 * math.prod(shape)
    if not content or len(content) % size:
        raise ProblemError(
            422,
            "the body is not a whole number of float32 samples",
            found=f"{len(content)} bytes",
            expected=f"a multiple of {size} bytes",
        )
    return np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False).reshape(-1, *shape)


def _from_npy(content: bytes | bytearray, shape: tuple[int, ...]) -> np.ndarray:
    """Decode a float32 array in NumPy's format (NEP 1).

    No memory is allocated for the shape in the header, because an untrusted client wrote the header.
    """
    stream = io.BytesIO(content[:LONGEST_HEADER])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            header_shape, fortran, dtype = read_header(stream)
    except Exception as error:  # parsing an invalid header, a Python literal, raises many types of exceptions
        raise ProblemError(
            400, f"the body is not a .npy file: {str(error)[:200]}", expected=".npy, version 1 or 2"
        ) from None
    if dtype != np.dtype("<f4"):
        raise ProblemError(422, "the array has the wrong type", found=str(dtype), expected="little-endian float32")
    # numpy accepts any Python literal as a size, including True and numbers with thousands of digits.
    if any(type(size) is not int or not 0 <= size <= LONGEST_AXIS for size in header_shape):
        raise ProblemError(422, "the header has an impossible shape", expected=["batch", *shape])
    if tuple(header_shape[1:]) != shape or len(header_shape) != len(shape) + 1:
        raise ProblemError(
            422, "the inputs have the wrong shape", found=list(header_shape)[:16], expected=["batch", *shape]
        )
    values = memoryview(content)[stream.tell() :]
    if header_shape[0] < 1 or len(values) != 4 * math.prod(header_shape):
        expected = f"{4 * math.prod(header_shape)} bytes for the header's shape, and at least one sample"
        raise ProblemError(422, "the array is incomplete", found=f"{len(values)} bytes", expected=expected)
    x = np.frombuffer(values, dtype="<f4").reshape(header_shape, order="F" if fortran else "C")
    return np.require(x, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
