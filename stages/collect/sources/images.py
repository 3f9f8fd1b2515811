"""Decode images to levels from 0 to 255. A picture that cannot be read completely is refused.

Pillow decodes a colour image with 16 bits per channel to 8 bits: it drops the low byte of every number. Such an image
is decoded twice, the second time with the byte order reversed, so that Pillow drops the high bytes instead.
"""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.collect.sources.base import Context

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# Of other formats, Pillow can reduce the levels to 8 bits without notice. An MPO file of a camera is read as JPEG.
FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "GIF", "WEBP", "PPM")
BACKGROUND = 255  # white
MODES_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa")
WIDE = re.compile(r"(I|LA|RGB|RGBA|RGBa|RGBX|CMYK);(12|16)")  # raw modes with more than 8 bits per channel
GREY_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
REVERSED = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B", "RGBA;16B": "RGBA;16L",
            "RGBA;16L": "RGBA;16B", "RGBA;16N": "RGBA;16B"}  # fmt: skip
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and the value for inverted grey levels
PLANAR, SEPARATE = 284, 2  # a tag of TIFF, and the value for channels that are stored one after another


def read_image(content: bytes, name: str, context: Context, background: int | None = None) -> np.ndarray:
    """Decode an image to grey or RGB levels from 0 to 255, and resize it to the size in `data.image`.

    Args:
        content: The bytes of the file.
        name: Path of the file, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.
        background: Level of the grey background on which transparent pixels are composed; None means BACKGROUND.

    Returns:
        The levels as float32 [C * H * W], one channel after another. Levels of 16 bits are divided by 257.

    Raises:
        SourceError: The file is not a valid image, or cannot be converted to grey or RGB levels without a loss.
    """
    from PIL import Image, UnidentifiedImageError

    background = BACKGROUND if background is None else background
    shape = context.data.image
    channels = len(context.data.channels)
    if shape is None or channels not in (1, 3):
        raise context.error(
            f"`format: images` is used with data.kind {context.data.kind} and {channels} channel(s)",
            "data.kind: image with 1 (grey) or 3 (RGB) channels",
            "correct `data:`",
        )
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        raw_mode = _raw_mode(image)
        if problem := _unreadable(image, raw_mode):
            remedy = "convert it: magick 'IN[0]' -colorspace sRGB -depth 8 OUT"
            raise context.error(f"{name}: {problem}", "one grey or RGB picture, 8 or 16 bits per channel", remedy)
        size = (shape.width, shape.height)
        if WIDE.match(raw_mode):
            pixels = _read_16_bit(image, content, raw_mode, channels, size, background)
        else:
            pixels = _read_8_bit(image, channels, size, background)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
    ) as error:
        raise context.error(
            f"{name}: not readable as an image ({error})",
            "a valid image file (PNG, TIFF, JPEG, BMP, GIF, WebP or PPM)",
            "correct or remove the file",
        ) from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).ravel()


def _raw_mode(image: ImageFile) -> str:
    """Return Pillow's name for the form in which the file stores a pixel, such as RGB;16B."""
    arguments: Any = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _unreadable(image: ImageFile, raw_mode: str) -> str | None:
    """Return what prevents the conversion of an image without a loss; None if nothing does."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera adds a preview to the picture in an MPO file
        return f"the file has {frames} pictures"
    arguments: Any = image.tile[0].args if image.tile else ""
    if image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] > 255:
        return "a PPM file with more than 8 bits per channel"
    if image.mode not in (*MODES_8_BIT, *GREY_16_BIT):
        return f"pixels of the type {image.mode}"
    if WIDE.match(raw_mode):
        tags = getattr(image, "tag_v2", {})
        if tags.get(PLANAR) == SEPARATE or tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            return "more than 8 bits per channel, and separate channels or inverted levels"
        if raw_mode not in (*GREY_16_BIT, *REVERSED):
            return f"more than 8 bits per channel, in the form {raw_mode}"
    return None


def _read_8_bit(image: Image, channels: int, size: tuple[int, int], background: int) -> np.ndarray:
    """Return the levels of an image with at most 8 bits per channel, float32 [H, W, C]."""
    from PIL import ImageOps
    from PIL.Image import Resampling, alpha_composite, new

    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        below = new("RGBA", image.size, (background, background, background, 255))
        image = alpha_composite(below, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB").resize(size, Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).reshape(size[1], size[0], channels)


def _read_16_bit(
    image: Image, content: bytes, raw_mode: str, channels: int, size: tuple[int, int], background: int
) -> np.ndarray:
    """Return the levels of an image with 16 bits per channel, float32 [H, W, C].

    Args:
        image: The image, whose pixels are not decoded yet.
        content: The bytes of the file.
        raw_mode: The form in which the file stores a pixel (`_raw_mode`).
        channels: 1 for grey levels, 3 for RGB levels.
        size: The width and the height to which the image is resized.
        background: Level of the grey background, 0 to 255.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling, fromarray
    from PIL.Image import open as open_image

    transparent = image.info.get("transparency")  # the level, or the three levels, of transparent pixels (PNG)
    values = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
    if raw_mode in REVERSED:
        low = open_image(io.BytesIO(content), formats=FORMATS)
        low.tile = [_with_raw_mode(tile, REVERSED[raw_mode]) for tile in low.tile]
        values = values << 8 | np.asarray(ImageOps.exif_transpose(low)).astype(np.int64)
    values = values.reshape(*values.shape[:2], -1)
    colour, alpha = values[..., :3], np.ones((*values.shape[:2], 1))
    if values.shape[2] == 4:
        alpha = values[..., 3:] / 65535
    elif transparent is not None:
        alpha = 1.0 - np.all(colour == np.array(transparent), axis=2, keepdims=True)
    levels = colour / 257 * alpha + background * (1 - alpha)
    if levels.shape[2] > channels:
        levels = levels @ LUMA[:, None]
    planes = [fromarray(levels[..., i].astype(np.float32)) for i in range(levels.shape[2])]
    resized = np.stack([np.asarray(p.resize(size, Resampling.BILINEAR)) for p in planes], axis=2)
    return np.broadcast_to(resized, (size[1], size[0], channels))


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    args = (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode
    return tile._replace(args=args)
