"""What the stages around an exported file read: which target, torch's own answers, the file and its description."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.errors import ParameterError, StageError
from stages.files import read_json, sha256
from stages.params.base import Target

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
    remedy = "run the stage compress"
    try:
        with np.load(REFERENCE) as arrays:
            reference: np.ndarray = arrays[split]
    except FileNotFoundError:
        raise StageError(str(REFERENCE), "there is no such file", "logits by split", remedy) from None
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StageError(str(REFERENCE), f"not readable: {error}", "logits by split", remedy) from None
    if len(reference) != samples:
        found = f"found logits of {len(reference)} samples of {split}"
        raise StageError(str(REFERENCE), found, f"those of the {samples} in {PREPARED}", remedy)
    return reference


def read_export(target: str) -> tuple[Path, dict[str, Any]]:
    """The exported file of a target and its export.json. Raises StageError where the file is not the one that
    export.json describes.
    """
    folder, remedy = EXPORTED / target, f"python -m stages.export --target {target}"
    try:
        description = read_json(folder / "export.json")
        file, expected = folder / description["file"], description["sha256"]
        found = sha256(file)
    except FileNotFoundError as error:
        raise StageError(str(error.filename), "there is no such file", "an exported model", remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(str(folder / "export.json"), f"not readable: {error!r}", "what export wrote", remedy) from None
    if found != expected:
        raise StageError(str(file), f"found sha256 {found}", f"{expected}, as export wrote it", remedy)
    return file, description
