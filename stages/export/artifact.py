"""Look up a target, and read the torch model's logits, an exported model and the model's export.json."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.dataset import NPY_ERRORS, SampleSpec
from stages.core.errors import ParameterError, StageError
from stages.core.files import read_model, read_object, rerun_hint, sha256
from stages.params.common import Target
from stages.report.schemas.export import ExportedFile

PREPARED = Path("data/prepared")
REFERENCE = Path("models/reference.npz")
EXPORTED = Path("models/exported")


def find_target(targets: Mapping[Any, Target], name: str) -> Target:
    """Return the target `name`. Raises ParameterError if `targets` in params.yaml does not list this name."""
    if name not in targets:
        raise ParameterError("--target", f"found {name!r}", f"one of {', '.join(targets)}")
    return targets[name]


def read_reference(split: str, samples: int) -> np.ndarray:
    """Read the torch model's logits for a split from the file that the `compress` stage wrote.

    Args:
        split: "validation" or "test".
        samples: Number of samples in the split.

    Returns:
        Logits [samples, classes], float32 and finite.

    Raises:
        StageError: The file is missing or not readable, or its logits have the wrong shape or type for this split.
    """
    remedy, classes = rerun_hint("compress"), len(SampleSpec.read(PREPARED).classes)
    try:
        with zipfile.ZipFile(REFERENCE) as archive, archive.open(f"{split}.npy") as stream:
            reference: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(
            str(REFERENCE), "there is no such file", "the torch model's logits for each split", remedy
        ) from None
    except (KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, *NPY_ERRORS) as error:
        raise StageError(
            str(REFERENCE), f"not readable: {error}", "the torch model's logits for each split", remedy
        ) from None
    if reference.ndim != 2 or len(reference) != samples:
        count = len(reference) if reference.ndim else "no"
        raise StageError(
            str(REFERENCE),
            f"found logits for {count} samples of {split}",
            f"logits for the {samples} samples in {PREPARED}",
            remedy,
        )
    if reference.dtype != np.float32 or reference.shape[1] != classes or not np.isfinite(reference).all():
        raise StageError(
            str(REFERENCE),
            f"found logits of type {reference.dtype} and shape {list(reference.shape)} for {split}",
            f"finite logits of type float32 and shape [{samples}, {classes}]",
            remedy,
        )
    return reference


def read_export(target: str) -> tuple[Path, dict[str, Any]]:
    """Return the path of a target's exported model and the content of the target's export.json.

    Raises:
        StageError: A file is missing, or export.json describes a different model file.
    """
    path, remedy = EXPORTED / target / "export.json", f"run python -m stages.export --target {target}"
    described = read_model(path, ExportedFile, "export")
    file = path.parent / described.file
    if not file.is_file():
        raise StageError(str(file), "there is no such file", "an exported model", remedy)
    digest = sha256(file)
    if digest != described.sha256:
        raise StageError(str(file), f"found sha256 {digest}", f"{described.sha256}, the sha256 in {path.name}", remedy)
    if file.stat().st_size != described.size_bytes:
        raise StageError(
            f"{path}: size_bytes",
            f"found {described.size_bytes}",
            f"{file.stat().st_size}, the size of {file.name} in bytes",
            remedy,
        )
    return file, read_object(path, "export")
