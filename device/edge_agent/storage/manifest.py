"""Read the manifest of a bundle, check it against its JSON Schema, and check the files of the bundle against it.

The pipeline calls `check` before it writes a manifest, so that devices can read every manifest of the pipeline.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")


class ManifestError(Exception):
    """The manifest is invalid, or the files of the bundle differ from it."""

    def __init__(self, file: str | Path, field: str, found: str, expected: str) -> None:
        """Build the error's message from its parts.

        Args:
            file: The path of the manifest, or of the bundle's folder.
            field: The field of the manifest, or the name of the file in the bundle; empty for the whole manifest.
            found: The value that was found.
            expected: The value that was expected.
        """
        self.file, self.field, self.found, self.expected = str(file), field, found, expected
        where = f"{file}: {field}" if field else f"{file}"
        super().__init__(f"{where}: found {found}; expected {expected}")


@cache
def _validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def check(manifest: Any, file: str | Path = MANIFEST) -> dict[str, Any]:
    """Return the manifest if it matches the schema and its fields do not contradict each other.

    `file` is the name of the manifest for error messages. Raises ManifestError.
    """
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if isinstance(manifest, dict) and version != SCHEMA_VERSION:
        raise ManifestError(
            file, "schema_version", repr(version), f"{SCHEMA_VERSION}, the version that this agent can read"
        )
    faults = sorted(_validator().iter_errors(manifest), key=lambda fault: [str(part) for part in fault.absolute_path])
    if faults:
        raise _as_error(faults[0], file)
    for name, target in manifest["targets"].items():
        golden = target["golden"]
        for field, path in (("file", target["file"]), *((f"golden.{k}", golden[k]) for k in ("inputs", "outputs"))):
            if path not in manifest["files"]:
                raise ManifestError(file, f"targets.{name}.{field}", repr(path), "a path listed under `files`")
        listed = manifest["files"][target["file"]]
        for field in ("sha256", "size_bytes"):
            if target[field] != listed[field]:
                raise ManifestError(
                    file, f"targets.{name}.{field}", repr(target[field]), f"{listed[field]!r}, the value in `files`"
                )
    return dict(manifest)


def _as_error(fault: ValidationError, file: str | Path) -> ManifestError:
    field = ".".join(str(part) for part in fault.absolute_path)
    value = json.dumps(fault.instance, default=str)
    if len(value) > 120:
        value = value[:117] + "..."
    expected = {
        "required": f"the fields {', '.join(map(str, fault.validator_value))}" if fault.validator == "required" else "",
        "additionalProperties": "only fields that the schema lists",
        "pattern": f"text that matches {fault.validator_value}",
        "type": f"type {fault.validator_value}",
        "const": f"{fault.validator_value!r}",
        "enum": f"one of {fault.validator_value}",
    }.get(str(fault.validator), fault.message)
    return ManifestError(file, field, value, expected)


def read(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of an unpacked bundle. Raises ManifestError."""
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(path, "", error.strerror or str(error), "a readable file") from None
    except ValueError as error:
        raise ManifestError(path, "", f"not JSON ({error})", "JSON in UTF-8") from None
    return check(value, path)


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Check that a bundle's folder contains exactly the files that its manifest lists, byte for byte.

    Raises ManifestError.
    """
    listed = set(manifest["files"]) | {MANIFEST}
    entries = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in sorted(entries.items()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ManifestError(folder, name, "a link or special file", "regular files only")
        if path.is_file() and name not in listed:
            raise ManifestError(folder, name, "a file that the manifest does not list", "only files that it lists")
    for name, expected in sorted(manifest["files"].items()):
        if name not in entries or not entries[name].is_file():
            raise ManifestError(folder, name, "nothing", "the file that the manifest lists")
        size = entries[name].stat().st_size
        if size != expected["size_bytes"]:
            raise ManifestError(folder, name, f"{size} bytes", f"{expected['size_bytes']} bytes")
        with entries[name].open("rb") as stream:
            digest = _sha256(stream)
        if digest != expected["sha256"]:
            raise ManifestError(folder, name, f"sha256 {digest}", f"sha256 {expected['sha256']}")


def _sha256(stream: Any) -> str:
    """Return the SHA-256 digest of an open file in hexadecimal digits.

    The file is read in blocks, because devices have little memory. hashlib.file_digest is not used, because
    Python 3.10 does not have it.
    """
    total = hashlib.sha256()
    while block := stream.read(1 << 20):
        total.update(block)
    return total.hexdigest()
