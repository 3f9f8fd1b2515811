"""Decode WAV files to samples."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np

from stages.collect.sources.base import Context


def read_wav(content: bytes, name: str, context: Context) -> np.ndarray:
    """Decode a WAV file with 16-bit PCM to samples from -1 to 1, where 1 is full scale.

    Args:
        content: The bytes of the file.
        name: Path of the file, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Returns:
        The samples as float32 [number of samples].

    Raises:
        SourceError: The WAV file is not valid, is incomplete, or does not have the required format.
    """
    audio = context.data.audio
    if audio is None:
        raise context.error(
            f"`format: wav` is used with data.kind {context.data.kind}", "data.kind: audio", "correct `data:`"
        )
    try:
        with wave.open(io.BytesIO(content)) as stream:
            form = (stream.getnchannels(), stream.getsampwidth(), stream.getframerate())
            count, frames = stream.getnframes(), stream.readframes(stream.getnframes())
    except (wave.Error, EOFError, struct.error) as error:
        raise context.error(
            f"{name}: not readable as WAV ({error})", "a WAV file with 16-bit PCM", "convert or remove the file"
        ) from None
    if form != (1, 2, audio.sample_rate_hz):
        raise context.error(
            f"{name}: {form[0]} channel(s), {8 * form[1]} bit, {form[2]} Hz",
            f"1 channel, 16 bit, {audio.sample_rate_hz} Hz (data.audio.sample_rate_hz)",
            f"convert it: sox IN -c 1 -b 16 -r {audio.sample_rate_hz} OUT",
        )
    if len(frames) < 2 * count:
        raise context.error(
            f"{name}: ends after {len(frames) // 2} of {count} samples",
            "a file with all samples that its header announces",
            "download the file again",
        )
    return np.frombuffer(frames, dtype="<i2").astype(np.float32) / 32768
