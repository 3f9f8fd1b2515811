"""Read data sets that are included in an installed Python package: real data that needs no download."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata

import numpy as np
import pyarrow as pa

from stages.collect.sources.base import Context, FetchResult, Origin
from stages.params.collect import Embedded


async def fetch(source: Embedded, context: Context) -> FetchResult:
    """Return the digits data set of scikit-learn as one table."""
    return await asyncio.to_thread(_digits)


def _digits() -> FetchResult:
    """Return scikit-learn's copy of a data set of handwritten digits, and its origin.

    The copy is the test set of Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998, UCI). It has 1,797
    images of 8x8 pixels. The value of a pixel, 0 to 16, is the number of set bits in a 4x4 block of the
    scanned image.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.ascontiguousarray(digits.data, dtype=np.float32)
    table = pa.table(
        {
            "sample_id": [f"digits-{number:04d}" for number in range(len(pixels))],
            "digit": [str(digit) for digit in digits.target],
            "values": pa.FixedSizeListArray.from_arrays(pixels.ravel(), pixels.shape[1]).cast(pa.list_(pa.float32())),
        }
    )
    version = importlib.metadata.version("scikit-learn")
    url = f"pkg:pypi/scikit-learn@{version}#sklearn.datasets.load_digits"
    return FetchResult([Origin(url, hashlib.sha256(pixels.tobytes()).hexdigest(), pixels.nbytes)], [table])
