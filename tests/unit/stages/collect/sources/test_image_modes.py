"""Images of every kind of pixel: each is read with its right levels, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.stages.collect import IMAGE, configure, read_snapshot, refuse, succeed
from tests.support.stages.pictures import png_16, saved, tiff_16

RGB = IMAGE | {"channels": {name: {"unit": "level"} for name in ("red", "green", "blue")}}
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 65536, (4, 6, 1))
COLOUR = RANDOM.integers(0, 65536, (4, 6, 3))
LUMA = COLOUR @ [[0.299], [0.587], [0.114]]
HALF_CLEAR = np.concatenate([COLOUR, np.full((4, 6, 1), 32768)], axis=2)
TWO_LEVELS = np.array([[1000, 65535] * 3] * 4)[..., None]


def collect(root: Path, content: bytes, name: str, data: dict[str, Any], form: dict[str, Any]) -> None:
    (root / "photos").mkdir()
    (root / "photos" / name).write_bytes(content)
    files = {"select": ["*"], "path": r"(?P<state>\d)", "format": {"type": "images"} | form}
    configure(root, data=data, camera={"type": "cloud", "url": "photos", "files": files})


def levels(root: Path, content: bytes, name: str = "0.png", data: dict[str, Any] = RGB, **form: Any) -> np.ndarray:
    """Collect one picture, and return its levels [H, W, C]."""
    collect(root, content, name, data, form)
    succeed()
    values = np.array(read_snapshot("camera")["values"][0].as_py())
    return values.reshape(len(data["channels"]), 4, 6).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("content", "data", "expected"),
    [
        (png_16(COLOUR), RGB, COLOUR / 257),
        (png_16(COLOUR), IMAGE, LUMA / 257),
        (png_16(GREY), IMAGE, GREY / 257),
        (png_16(GREY), RGB, np.repeat(GREY, 3, axis=2) / 257),
        (tiff_16(COLOUR, "<"), RGB, COLOUR / 257),
        (tiff_16(COLOUR, ">"), RGB, COLOUR / 257),
        (tiff_16(GREY, "<"), IMAGE, GREY / 257),
        (tiff_16(GREY, ">"), IMAGE, GREY / 257),
        (png_16(HALF_CLEAR), RGB, COLOUR / 257 * 32768 / 65535 + 255 * 32767 / 65535),
        (png_16(TWO_LEVELS, (1000,)), IMAGE, np.full((4, 6, 1), 255)),
        (png_16(np.repeat(TWO_LEVELS, 3, axis=2), (1000, 1000, 1001)), RGB, np.repeat(TWO_LEVELS, 3, axis=2) / 257),
    ],
    ids=["png colour", "png colour to grey", "png grey", "png grey to colour", "tiff colour II", "tiff colour MM",
         "tiff grey II", "tiff grey MM", "png alpha", "png clear level", "png other level"],
)  # fmt: skip
def test_all_16_bits_of_a_level_are_read(
    workspace: Path, content: bytes, data: dict[str, Any], expected: np.ndarray
) -> None:
    np.testing.assert_allclose(levels(workspace, content, data=data), expected, rtol=1e-6)


def test_a_compressed_tiff_file_of_16_bits(workspace: Path) -> None:
    grey = Image.fromarray(GREY[..., 0].astype(np.uint16))
    content = saved(grey, "tiff", compression="tiff_adobe_deflate")
    np.testing.assert_allclose(levels(workspace, content, "0.tif", IMAGE), GREY / 257, rtol=1e-6)


def test_an_image_of_16_bits_is_rotated_by_its_metadata(workspace: Path) -> None:
    standing = GREY.reshape(6, 4, 1)
    exif = Image.Exif()
    exif[0x0112] = 8  # a quarter turn to the left
    found = levels(workspace, png_16(standing, exif=exif.tobytes()), data=IMAGE)
    np.testing.assert_allclose(found, np.rot90(standing) / 257, rtol=1e-6)


def test_an_image_of_16_bits_is_resized_without_rounding(workspace: Path) -> None:
    ramp = np.tile(np.arange(12) * 100, (8, 1))[..., None]
    found = levels(workspace, png_16(ramp), data=IMAGE)
    np.testing.assert_allclose(found[:, 1:-1, 0], np.tile([250, 450, 650, 850], (4, 1)) / 257, rtol=1e-6)


def clear(mode: str) -> Image.Image:
    """Return a picture whose left half is opaque and black, and whose right half is transparent and black."""
    image = Image.new("LA" if mode == "LA" else "RGBA", (6, 4), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    image.paste((0, 0) if mode == "LA" else (0, 0, 0, 0), (3, 0, 6, 4))
    return image


def palette() -> bytes:
    image = Image.new("P", (6, 4), 0)
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.paste(1, (3, 0, 6, 4))
    return saved(image, transparency=b"\xff\x00")


def clear_level(mode: str) -> bytes:
    colour: Any = 7 if mode == "L" else (7, 7, 7)
    image = Image.new(mode, (6, 4), 0 if mode == "L" else (0, 0, 0))
    image.paste(colour, (3, 0, 6, 4))
    return saved(image, transparency=colour)


@pytest.mark.parametrize(
    "content",
    [saved(clear("RGBA")), saved(clear("LA")), palette(), clear_level("RGB"), clear_level("L"),
     saved(clear("RGBA"), "tiff"), saved(clear("RGBA"), "webp", lossless=True)],
    ids=["RGBA", "LA", "palette", "clear colour", "clear grey", "tiff", "webp"],
)  # fmt: skip
@pytest.mark.parametrize(("form", "background"), [({}, 255), ({"background": None}, 255), ({"background": 0}, 0)])
def test_transparent_pixels_show_the_background(
    workspace: Path, content: bytes, form: dict[str, Any], background: int
) -> None:
    found = levels(workspace, content, "0.png", **form)
    expected = np.zeros((4, 6, 3))
    expected[:, 3:] = background
    assert found.tolist() == expected.tolist()


def test_half_transparent_pixels_are_mixed(workspace: Path) -> None:
    found = levels(workspace, saved(Image.new("RGBA", (6, 4), (200, 0, 0, 51))), background=100)
    assert found[0, 0].tolist() == [120, 80, 80]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (saved(Image.new("1", (6, 4), 1)), [255, 255, 255]),
        (saved(Image.new("RGB", (6, 4), (1, 2, 3)).quantize(2)), [1, 2, 3]),
        (saved(Image.new("RGB", (6, 4), (1, 2, 3)), "bmp"), [1, 2, 3]),
        (saved(Image.new("RGB", (6, 4), (1, 2, 3)), "ppm"), [1, 2, 3]),
        (b"P1 6 4\n" + b"1 " * 24, [0, 0, 0]),
        (b"P2 6 4 15\n" + b"3 " * 24, [51, 51, 51]),
        (saved(Image.new("RGB", (6, 4), (1, 2, 3)), "gif"), [1, 2, 3]),
    ],
    ids=["1 bit", "palette", "bmp", "ppm", "plain bitmap", "16 grey levels", "gif"],
)
def test_other_pixels_are_converted(workspace: Path, content: bytes, expected: list[int]) -> None:
    assert levels(workspace, content)[0, 0].tolist() == expected


SEQUENCE = [Image.new("L", (6, 4), level) for level in (0, 200)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(Image.new("CMYK", (6, 4)), "jpeg"), "pixels of the type CMYK"),
        (saved(Image.new("LAB", (6, 4)), "tiff"), "pixels of the type LAB"),
        (saved(Image.new("I", (6, 4), 70_000), "tiff"), "pixels of the type I"),
        (saved(Image.new("F", (6, 4), 0.5), "tiff"), "pixels of the type F"),
        (png_16(np.concatenate([GREY, GREY], axis=2)), "more than 8 bits per channel, in the form LA;16B"),
        (tiff_16(GREY, photometric=0), "more than 8 bits per channel, and separate channels or inverted"),
        (b"P6 6 4 65535\n" + COLOUR.astype(">u2").tobytes(), "a PPM file with more than 8 bits per channel"),
        (saved(SEQUENCE[0], "gif", save_all=True, append_images=SEQUENCE[1:]), "the file has 2 pictures"),
        (saved(SEQUENCE[0], "tiff", save_all=True, append_images=SEQUENCE[1:]), "the file has 2 pictures"),
    ],
    ids=["CMYK", "LAB", "32 bit", "float", "16 bit grey and alpha", "white is zero", "16 bit PPM", "gif", "tiff pages"],
)
def test_what_cannot_be_read_completely_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    collect(workspace, content, "0.png", RGB, {})
    message = refuse(capsys)
    assert f"source camera: 0.png: {words}" in message
    assert "expected: one grey or RGB picture, 8 or 16 bits per channel" in message
    assert "remedy: " in message
