"""Read the manifest of a bundle, check it against its JSON Schema, and check the files of the bundle against it.

The pipeline calls `check` before it writes a manifest, so that devices can read every manifest of the pipeline.

`SCHEMA_VERSION` is the version of the format that the pipeline writes. Version 1 had neither `agent_version` nor the
field `batch` of a target; its targets are read as `single`, because nothing shows that their samples may be joined.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

SCHEMA_VERSION = 2
READABLE = f"1 or {SCHEMA_VERSION}, the versions that this agent can read"
AGENT_VERSION = "0.2.0"  # the first version of the agent that can read SCHEMA_VERSION
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


class UnknownVersionError(ManifestError):
    """The manifest has a newer format than this agent can read.

    `agent_version` is the oldest version of the agent that can read it, or None if the manifest does not state it.
    """

    def __init__(self, file: str | Path, manifest: dict[str, Any]) -> None:
        found = repr(manifest.get("schema_version"))
        super().__init__(file, "schema_version", found, READABLE)
        needed = manifest.get("agent_version")
        self.agent_version = needed if isinstance(needed, str) and re.fullmatch(r"\d+\.\d+\.\d+", needed) else None


@cache
def _validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def check(manifest: Any, file: str | Path = MANIFEST) -> dict[str, Any]:
    """Return the manifest if it matches the schema and its fields do not contradict each other.

    A manifest of version 1 is returned in the format of version 2. `file` is the name of the manifest for error
    messages. Raises ManifestError, and UnknownVersionError for a version that is too new for this agent.
    """
    if isinstance(manifest, dict):
        version = manifest.get("schema_version")
        if type(version) is int and version > SCHEMA_VERSION:
            raise UnknownVersionError(file, manifest)
        if type(version) is not int or version < 1:
            raise ManifestError(file, "schema_version", repr(version), READABLE)
        if version == 1:
            manifest = _upgraded(manifest)
    faults = sorted(_validator().iter_errors(manifest), key=lambda fault: [str(part) for part in fault.absolute_path])
    if faults:
        raise _as_error(faults[0], file)
    _check_sample(manifest["input"], file)
    for name, target in manifest["targets"].items():
        _check_io(manifest, name, file)
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


def _upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of version 1 in the format of version 2.

    If a field of version 2 is present, or the targets are not objects, the manifest is returned with its own version,
    which the schema refuses.
    """
    targets = manifest.get("targets")
    if not isinstance(targets, dict) or any(not isinstance(t, dict) or "batch" in t for t in targets.values()):
        return manifest
    return {
        "agent_version": "0.1.0",
        **manifest,
        "schema_version": SCHEMA_VERSION,
        "targets": {name: {**target, "batch": "single"} for name, target in targets.items()},
    }


def _check_sample(sample: dict[str, Any], file: str | Path) -> None:
    """Check that axes, shape and channels of a sample describe the same array. Raises ManifestError."""
    axes, shape, channels = sample["axes"], sample["shape"], sample["channels"]
    if len(axes) != len(shape):
        expected = f"{len(shape)} axes, one for each number in input.shape {shape}"
        raise ManifestError(file, "input.axes", json.dumps(axes), expected)
    needed = {"image": {"height", "width"}}.get(sample["kind"], {"time"})
    if not needed <= set(axes):
        raise ManifestError(file, "input.axes", json.dumps(axes), f"the axes {', '.join(sorted(needed))}")
    count = shape[axes.index("channel")] if "channel" in axes else 1
    if len(channels) != count:
        names = ", ".join(channel["name"] for channel in channels)
        found = f"{len(channels)} channels ({names})"
        raise ManifestError(file, "input.channels", found, f"{count}, the size of the axis `channel` in input.shape")


def _check_io(manifest: dict[str, Any], name: str, file: str | Path) -> None:
    """Check that the input and output of a target's file match the input and output of the bundle.

    Raises ManifestError.
    """
    io, classes = manifest["targets"][name]["io"], len(manifest["output"]["classes"])
    field = f"targets.{name}.io"
    for part, expected, reason in (
        ("input", manifest["input"]["shape"], "the value of input.shape"),
        ("output", [classes], "one value for each class in output.classes"),
    ):
        if io[part]["shape"] != expected:
            raise ManifestError(file, f"{field}.{part}.shape", f"{io[part]['shape']}", f"{expected}, {reason}")
    recurrent = io["recurrent"]
    if recurrent and io["input"]["shape"][1] < recurrent["frame"]:
        expected = f"at most {io['input']['shape'][1]}, the length of a sample"
        raise ManifestError(file, f"{field}.recurrent.frame", str(recurrent["frame"]), expected)


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
