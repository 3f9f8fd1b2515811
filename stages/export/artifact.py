"""What the stages around an exported file read: which target, torch's own answers, the file and its description."""

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
    """Raises ParameterError for a name that params.yaml does not have."""
    if name not in targets:
        raise ParameterError("--target", f"found {name!r}", f"one of {', '.join(targets)}")
    return targets[name]


def read_reference(split: str, samples: int) -> np.ndarray:
    """torch's logits of a split, float32 [samples, classes]. Raises StageError."""
    remedy, classes = rerun_hint("compress"), len(SampleSpec.read(PREPARED).classes)
    try:
        with zipfile.ZipFile(REFERENCE) as archive, archive.open(f"{split}.npy") as stream:
            reference: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(str(REFERENCE), "there is no such file", "logits by split", remedy) from None
    except (KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, *NPY_ERRORS) as error:
        raise StageError(str(REFERENCE), f"not readable: {error}", "logits by split", remedy) from None
    if reference.ndim != 2 or len(reference) != samples:
        found = f"found logits of {len(reference) if reference.ndim else 'no'} samples of {split}"
        raise StageError(str(REFERENCE), found, f"those of the {samples} in {PREPARED}", remedy)
    if reference.dtype != np.float32 or reference.shape[1] != classes or not np.isfinite(reference).all():
        found = f"found {reference.dtype} {list(reference.shape)} for {split}"
        raise StageError(str(REFERENCE), found, f"finite float32 [{samples}, {classes}]", remedy)
    return reference


def read_export(target: str) -> tuple[Path, dict[str, Any]]:
    """The exported file of a target and its export.json. Raises StageError where the file is not the one that
    export.json describes.
    """
    path, remedy = EXPORTED / target / "export.json", f"python -m stages.export --target {target}"
    described = read_model(path, ExportedFile, "export")
    file = path.parent / described.file
    if not file.is_file():
        raise StageError(str(file), "there is no such file", "an exported model", remedy)
    found = sha256(file)
    if found != described.sha256:
        raise StageError(str(file), f"found sha256 {found}", f"{described.sha256}, as export wrote it", remedy)
    if file.stat().st_size != described.size_bytes:
        raise StageError(f"{path}: size_bytes", f"found {described.size_bytes}", f"{file.stat().st_size}", remedy)
    return file, read_object(path, "export")
