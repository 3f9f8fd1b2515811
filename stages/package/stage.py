"""Put the targets that passed the gate into one deterministic bundle: models/bundle/<name>.tar.zst.

The bundle contains nothing that can change while model, data and parameters stay the same, such as a time or a commit.

If the gate refused the model, the folder models/bundle has no bundle, but a text with the reasons. So a bundle of an
earlier build cannot be taken for a bundle of this build.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.storage import manifest as bundle_manifest

from stages.core import command
from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import StageError
from stages.core.files import new_directory, read_model, read_object, rerun_hint, sha256, write_json, write_text
from stages.export.artifact import PREPARED
from stages.package.archive import pack
from stages.package.golden import write_golden
from stages.package.model_card import Groups, model_card
from stages.package.passed import Passed, read_own_verdict, select
from stages.package.sbom import ModelFile, sbom
from stages.params import Params, load
from stages.params.common import TargetName
from stages.report.libraries import libraries
from stages.report.schemas.data import DriftReference
from stages.report.schemas.evaluation import Intervals
from stages.report.verdict import Verdict, refusal

BUNDLE = Path("models/bundle")
NO_BUNDLE = "NO_BUNDLE.txt"
SNAPSHOT = Path("data/snapshot")
DRIFT = Path("data/drift_reference.json")

# The outputs of earlier stages from which the exported files were built. The value is the stage that wrote the output.
INPUTS = {
    PREPARED: "prepare", DRIFT: "prepare", Path("models/trained"): "train", Path("models/compressed"): "compress",
}  # fmt: skip
# The parameters that affect results. `compute` and `device` only select where the work is done.
BLOCKS = (
    "seed", "targets", "data", "collect", "validate", "prepare", "train", "compress", "export", "evaluate", "gate",
)  # fmt: skip

AXES = {2: ["channel", "time"], 3: ["channel", "height", "width"]}
# Only numbers that are the same in every run: estimates from the test split, not times or memory.
ESTIMATES = (
    "accuracy", "precision_macro", "recall_macro", "f1_macro", "precision_weighted", "recall_weighted", "f1_weighted",
    "calibration_error", "agreement",
)  # fmt: skip


def read_drift(spec: SampleSpec) -> dict[str, Any]:
    """Read the drift reference that the `prepare` stage wrote, and check that its channels and classes match `spec`.

    Raises:
        StageError: The file is missing or not valid, or it has different classes or unknown channels.
    """
    reference = read_model(DRIFT, DriftReference, "prepare")
    if set(reference.labels) != set(spec.classes):
        labels = list(reference.labels)
        raise StageError(f"{DRIFT}: labels", f"found {labels}", f"the classes {spec.classes}", rerun_hint("prepare"))
    for i, feature in enumerate(reference.features):
        if feature.channel >= len(spec.channels):
            expected = f"an index below {len(spec.channels)}"
            raise StageError(
                f"{DRIFT}: features.{i}.channel", f"found {feature.channel}", expected, rerun_hint("prepare")
            )
    return read_object(DRIFT, "prepare")


def drift_reference(reference: Mapping[str, Any], passed: Mapping[TargetName, Passed]) -> dict[str, Any]:
    """Return the drift reference for the bundle: the distributions of inputs, predictions and confidences.

    Args:
        reference: The drift reference that the `prepare` stage wrote, with the distributions of the inputs.
        passed: The targets that passed the gate, with the distributions of their predictions and confidences.
    """
    kept = ("prediction_ratios", "confidence_bins")
    return {**reference, "targets": {name: {k: own.metrics[k] for k in kept} for name, own in passed.items()}}


def canonical_digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON text, which has sorted keys and no spaces."""
    return digest_of(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_of(
    params: Params,
    spec: SampleSpec,
    passed: Mapping[TargetName, Passed],
    golden: Mapping[str, Any],
    inputs: Mapping[str, str],
    sources: Mapping[str, str],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the bundle's manifest without the key `files`, which `fill` adds after it has written the files.

    Args:
        params: All parameters of the pipeline.
        spec: The description of a sample: shape, channels and classes.
        passed: The targets that passed the gate.
        golden: The fields `batch` and `golden` of each target, as `write_golden` returns them.
        inputs: SHA-256 of the outputs of earlier stages, by path.
        sources: SHA-256 of each source of the snapshot, by the source's name.
        versions: The version of each library, by the library's name.
    """
    blocks = params.model_dump(mode="json", by_alias=True)
    return {
        "schema_version": bundle_manifest.SCHEMA_VERSION,
        "agent_version": bundle_manifest.AGENT_VERSION,
        "name": params.name,
        "task": f"{spec.kind}-classification",
        "description": params.package.description,
        "licence": params.package.licence,
        "input": {
            "kind": spec.kind,
            "dtype": "float32",
            "axes": AXES[len(spec.shape)],
            "shape": spec.shape,
            "channels": [channel.model_dump() for channel in spec.channels],
            "rate_hz": spec.rate_hz,
        },
        "output": {"meaning": "probability of each class", "classes": spec.classes},
        "data": {"snapshot": blocks["collect"]["snapshot"], "sources": dict(sources)},
        "inputs": dict(inputs),
        "parameters": {block: canonical_digest(blocks[block]) for block in BLOCKS},
        "requirements": {k: v for k, v in blocks["package"]["requirements"].items() if k != "runtimes"},
        "targets": {
            name: {
                "file": f"targets/{name}/{own.file.name}",
                "sha256": own.export["sha256"],
                "size_bytes": own.export["size_bytes"],
                "precision": params.targets[name].precision,
                "batch": golden[name]["batch"],
                **_runtime_version(params, name),
                "budget": blocks["package"]["device_budget"],
                "io": own.export["io"],
                "metrics": {
                    "samples": own.metrics["samples"],
                    "confidence": own.metrics["confidence"],
                    "estimates": {k: own.metrics[k] for k in ESTIMATES if own.metrics.get(k) is not None},
                },
                "golden": golden[name]["golden"],
            }
            for name, own in passed.items()
        },
        "libraries": dict(versions),
    }


def _runtime_version(params: Params, name: TargetName) -> dict[str, str]:
    oldest = params.package.requirements.runtimes.get(params.targets[name].runtime)
    return {"runtime_version": oldest} if oldest else {}


def card(
    manifest: Mapping[str, Any], passed: Mapping[TargetName, Passed], left_out: dict[str, list[str]], params: Params
) -> str:
    """Return the text of the model card. The sizes and groups of the splits are read from the prepared data.

    Args:
        manifest: The bundle's manifest.
        passed: The targets that passed the gate.
        left_out: For each target that is not in the bundle: the names of its failed checks.
        params: All parameters of the pipeline. The card shows the model's limitations and the name of the group column.
    """
    splits = {split: Split.open(PREPARED, split) for split in SPLITS}
    tested, trained = (set(np.unique(splits[split].group)) for split in ("test", "train"))
    groups = Groups(params.data.group, len(tested), len(tested & trained))
    sizes = {split: len(own) for split, own in splits.items()}
    per_class: dict[str, Any] = {name: own.metrics["per_class"] for name, own in passed.items()}
    intervals = Intervals.model_validate(next(iter(passed.values())).metrics["intervals"])
    partial: dict[str, Any] = {name: own.metrics.get("partial") for name, own in passed.items()}
    return model_card(manifest, params.package.limitations, sizes, per_class, partial, left_out, groups, intervals)


def fill(folder: Path, params: Params, verdict: Verdict) -> dict[str, Any]:
    """Write all files of the bundle into a folder, check them, and return the manifest.

    Args:
        folder: The empty folder in which the bundle's files are collected.
        params: All parameters of the pipeline.
        verdict: The gate's verdict, which passed.

    Raises:
        StageError: A file that belongs into the bundle is missing or not valid.
        OSError: A file cannot be written.
    """
    spec = SampleSpec.read(PREPARED)
    passed, left_out = select(verdict, params.targets, spec.classes)
    reference = read_drift(spec)
    for path, stage in {**INPUTS, SNAPSHOT: "collect"}.items():
        if not path.exists():
            raise StageError(
                str(path), "there is no such file", f"the files that the `{stage}` stage writes", rerun_hint(stage)
            )
    for name, own in passed.items():
        (folder / "targets" / name).mkdir(parents=True)
        shutil.copyfile(own.file, folder / "targets" / name / own.file.name)
    golden = write_golden(folder, passed, Split.open(PREPARED, "test"), params)
    versions = libraries()
    inputs = {path.as_posix(): sha256(path) for path in INPUTS}
    sources = {path.name: sha256(path) for path in sorted(SNAPSHOT.iterdir())}
    manifest = manifest_of(params, spec, passed, golden, inputs, sources, versions)
    write_json(folder / "drift_reference.json", drift_reference(reference, passed))
    write_text(folder / "model_card.md", card(manifest, passed, left_out, params))
    models = {
        name: ModelFile(own["file"], own["sha256"], own["io"]["runtime"]) for name, own in manifest["targets"].items()
    }
    write_text(folder / "sbom.cdx.json", sbom(params.name, params.package.licence, models, versions))
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / bundle_manifest.MANIFEST, manifest)
    try:
        checked: dict[str, Any] = bundle_manifest.read(folder)
        bundle_manifest.verify(folder, checked)
    except bundle_manifest.ManifestError as error:
        raise StageError(f"{error.file}: {error.field}", error.found, error.expected) from None
    return checked


def main() -> None:
    command.parser("package", __doc__).parse_args()
    params = load()
    verdict = read_own_verdict(params.name)
    if not verdict.passed:
        with new_directory(BUNDLE) as new:
            write_text(new / NO_BUNDLE, f"{refusal(verdict)}\n")
        print(f"no bundle, because the gate did not pass; {BUNDLE / NO_BUNDLE} has the reasons")
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = fill(Path(folder), params, verdict)
        with new_directory(BUNDLE) as new:
            archive = new / f"{params.name}.tar.zst"
            pack(Path(folder), archive)
    archive = BUNDLE / archive.name
    print(
        f"{archive}: {', '.join(manifest['targets'])}; {archive.stat().st_size / 1000:.1f} kB, sha256 {sha256(archive)}"
    )
