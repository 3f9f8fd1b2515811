"""Files that are a sample each: images and WAV clips."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stages.collect.sources.images import read_image
from stages.collect.sources.sound import read_wav
from stages.core.errors import SourceError
from stages.params import load
from tests.support.stages.collect import AUDIO, IMAGE, cloud, configure, context, lay, read_snapshot, refuse, succeed


def images(name: str = "(?P<state>\\w+)/(?P<machine>\\w+)") -> dict[str, Any]:
    return {"select": ["*.png"], "path": name, "format": {"type": "images"}}


def clips() -> dict[str, Any]:
    return {"select": ["*.wav"], "path": "(?P<state>\\w+)/(?P<machine>\\w+)", "format": {"type": "wav"}}


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as stream:
        stream.setparams((channels, width, rate, 0, "NONE", ""))
        stream.writeframes(samples.tobytes())
    return packed.getvalue()


def png(image: Image.Image) -> bytes:
    packed = io.BytesIO()
    image.save(packed, "png")
    return packed.getvalue()


def test_images_of_a_folder_per_class(workspace: Path) -> None:
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    colour = Image.new("RGBA", (60, 40), (255, 0, 0, 10))
    lay(workspace / "photos", **{"1__m2_png": png(colour), "0__m1_png": png(grey)})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": images()})

    succeed()

    first, second = read_snapshot("camera").to_pylist()
    assert first == {"file": "0/m1.png", "state": "0", "machine": "m1", "values": list(range(24))}
    assert second["values"] == [248.0] * 24  # ITU-R 601 luma of white with 4 % of pure red
    assert read_snapshot("camera").schema.field("values").type == pa.list_(pa.float32())


def test_colour_images_go_channel_by_channel(workspace: Path) -> None:
    lay(workspace / "photos", **{"0__m1_png": png(Image.new("RGB", (6, 4), (1, 2, 3)))})
    colours = {name: {"unit": "level"} for name in ("red", "green", "blue")}
    source = {"type": "cloud", "url": "photos", "files": images()}
    configure(workspace, data=IMAGE | {"channels": colours}, camera=source)

    succeed()

    assert read_snapshot("camera")["values"][0].as_py() == [1.0] * 24 + [2.0] * 24 + [3.0] * 24


def test_a_photo_is_rotated_by_its_metadata(workspace: Path) -> None:
    photo = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(6, 4))
    exif = photo.getexif()
    exif[0x0112] = 8  # a quarter turn to the left
    packed = io.BytesIO()
    photo.save(packed, "png", exif=exif)
    lay(workspace / "photos", **{"0__m1_png": packed.getvalue()})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": images()})

    succeed()

    turned = np.rot90(np.arange(24).reshape(6, 4)).ravel().tolist()
    assert read_snapshot("camera")["values"][0].as_py() == turned


@pytest.mark.parametrize(
    ("content", "files", "words"),
    [
        (png(Image.effect_noise((30, 30), 50))[:200], images(), "0/m1.png: not readable as an image"),
        (b"GIF89a", images(), "0/m1.png: not readable as an image"),
        (b"", images(), "0/m1.png: not readable as an image"),
        (b"<html>log in", images(), "0/m1.png: it is an HTML page"),
        (png(Image.new("L", (6, 4))), images("(?P<values>0)"), "column values in `path:`"),
    ],
    ids=["cut", "header only", "empty", "page", "reserved name"],
)
def test_images_that_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], content: bytes, files: dict[str, Any], words: str
) -> None:
    lay(workspace / "photos", **{"0__m1_png": content})
    configure(workspace, data=IMAGE, camera={"type": "cloud", "url": "photos", "files": files})

    assert words in refuse(capsys)


@pytest.mark.parametrize(("data", "files", "kind"), [(AUDIO, images(), "image"), (IMAGE, clips(), "audio")])
def test_a_format_of_another_kind(
    workspace: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any], files: dict[str, Any], kind: str
) -> None:
    lay(workspace / "samples", **{"0__m1_png": png(Image.new("L", (6, 4))), "0__m1_wav": wav(np.zeros(9, "<i2"))})
    configure(workspace, data=data, samples={"type": "cloud", "url": "samples", "files": files})

    assert f"data.kind: {kind}" in refuse(capsys)


def test_clips_keep_their_length(workspace: Path) -> None:
    loud = wav(np.array([0, 16384, -32768], "<i2"))
    lay(workspace / "clips", **{"1__m1_wav": loud, "0__m1_wav": wav(np.zeros(5, "<i2"))})
    configure(workspace, data=AUDIO, microphone={"type": "cloud", "url": "clips", "files": clips()})

    succeed()

    assert read_snapshot("microphone")["values"].to_pylist() == [[0.0] * 5, [0.0, 0.5, -1.0]]
    assert read_snapshot("microphone")["state"].to_pylist() == ["0", "1"]


SOUND = wav(np.zeros(100, "<i2"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wav(np.zeros(9, "<i2"), rate=16000), "0/m1.wav: 1 channel(s), 16 bit, 16000 Hz"),
        (wav(np.zeros(8, "<i2"), channels=2), "2 channel(s), 16 bit, 8000 Hz"),
        (wav(np.zeros(9, "u1"), width=1), "1 channel(s), 8 bit, 8000 Hz"),
        (SOUND[:-50], "0/m1.wav: "),
        (b"RIFF", "0/m1.wav: not readable as WAV"),
        (b"OggS" + SOUND, "0/m1.wav: not readable as WAV"),
    ],
    ids=["rate", "stereo", "8 bit", "cut", "header only", "ogg"],
)
def test_clips_that_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    lay(workspace / "clips", **{"0__m1_wav": content})
    configure(workspace, data=AUDIO, microphone={"type": "cloud", "url": "clips", "files": clips()})

    assert words in refuse(capsys)


@pytest.mark.parametrize("content", [SOUND, png(Image.effect_noise((6, 4), 50))], ids=["wav", "png"])
def test_a_truncated_sample_is_refused_or_complete(workspace: Path, content: bytes) -> None:
    """A file that ends anywhere never causes a traceback."""
    sound = content is SOUND
    configure(workspace, data=AUDIO if sound else IMAGE, none=cloud("none"))
    written, read = context(load()), read_wav if sound else read_image
    complete = read(content, "whole", written)
    for end in range(len(content)):
        try:
            values = read(content[:end], "cut", written)
        except SourceError as error:
            assert "cut: " in str(error)
        else:
            assert values.tolist() == complete.tolist()
