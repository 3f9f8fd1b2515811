"""Write pictures that Pillow cannot write: PNG and TIFF files with 16 bits per channel."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by the number of channels


def png_16(levels: np.ndarray, transparent: tuple[int, ...] = (), exif: bytes = b"") -> bytes:
    """Return a PNG file with 16 bits per channel.

    Args:
        levels: The levels [H, W, C].
        transparent: The level of clear pixels, with one number per channel.
        exif: Metadata, as `PIL.Image.Exif.tobytes` returns it.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)  # each row begins with its filter
    clear = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"")
        + clear
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff_16(levels: np.ndarray, order: str = "<", photometric: int | None = None) -> bytes:
    """Return an uncompressed TIFF file with 16 bits per channel of levels [H, W, C]; `order` is "<" or ">"."""
    height, width, channels = levels.shape
    pixels = levels.astype(f"{order}u2").tobytes()
    start = 10 + 12 * 9 + 4  # after the header, the nine tags and the end of their list
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    kind = photometric if photometric is not None else {1: 1, 3: 2}[channels]
    tags: list[tuple[int, str, int, int]] = [
        (256, "I", 1, width), (257, "I", 1, height), (258, "H", channels, 16 if channels == 1 else start),
        (259, "H", 1, 1), (262, "H", 1, kind), (273, "I", 1, start + len(bits)), (277, "H", 1, channels),
        (278, "I", 1, height), (279, "I", 1, len(pixels)),
    ]  # fmt: skip
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, form, count, value in tags:
        short = form == "H" and count == 1
        content += struct.pack(f"{order}HHI", tag, 3 if form == "H" else 4, count)
        content += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    return content + bytes(4) + bits + pixels


def saved(image: Image.Image, form: str = "png", **options: Any) -> bytes:
    """Return the file that Pillow writes for an image."""
    packed = io.BytesIO()
    image.save(packed, form, **options)
    return packed.getvalue()
