"""Put what passed into one deterministic bundle: models/bundle/<name>.tar.zst.

Nothing goes in that changes without the model, its data or its parameters: no time, no commit, no latency.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.model import InferenceError
from edge_agent.inference.runtime import open_model
from edge_agent.storage import manifest as bundle_manifest

from stages.core import command
from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import GateError, StageError
from stages.core.files import new_directory, read_model, read_object, rerun_hint, sha256, write_json, write_text
from stages.export.artifact import PREPARED, read_export
from stages.package.archive import pack
from stages.package.model_card import Groups, model_card
from stages.package.sbom import ModelFile, sbom
from stages.params import Params, load
from stages.params.common import TargetName
from stages.report.libraries import libraries
from stages.report.schemas.data import DriftReference
from stages.report.schemas.evaluation import BundledEvaluation, Intervals
from stages.report.verdict import GATE, Verdict, read_verdict

BUNDLE = Path("models/bundle")
EVALUATED = Path("reports/evaluate")
SNAPSHOT = Path("data/snapshot")
DRIFT = Path("data/drift_reference.json")

# What the stages handed to each other on the way to the exported files, and which stage wrote it.
INPUTS = {
    PREPARED: "prepare", DRIFT: "prepare", Path("models/trained"): "train", Path("models/compressed"): "compress",
}  # fmt: skip
# What steers them. `compute` and `device` say where the work is done, not what it is.
BLOCKS = (
    "seed", "targets", "data", "collect", "validate", "prepare", "train", "compress", "export", "evaluate", "gate",
)  # fmt: skip

AXES = {2: ["channel", "time"], 3: ["channel", "height", "width"]}
# Only what repeats exactly: estimates from the test split, not times or memory.
ESTIMATES = (
    "accuracy", "precision_macro", "recall_macro", "f1_macro", "precision_weighted", "recall_weighted", "f1_weighted",
    "calibration_error", "agreement",
)  # fmt: skip


@dataclass(frozen=True)
class Passed:
    """One target that passed: its file, export.json and metrics.json."""

    file: Path
    export: Mapping[str, Any]
    metrics: Mapping[str, Any]


def select(
    name: str, built: Iterable[TargetName], classes: list[str]
) -> tuple[dict[TargetName, Passed], dict[str, list[str]]]:
    """The targets that passed, and for those left out the names of the failed checks.

    Raises GateError when the gate failed or judged another task (`name`) or other files than lie there now.
    """
    judged, verdict = read_verdict()
    if judged != name:
        raise GateError(f"{GATE}: name", f"it judged {judged!r}", f"{name!r}, as the parameters say", "run stages.gate")
    if not verdict.passed:
        raise GateError(str(GATE), "the gate did not pass", "a passed gate", "see reports/index.html, then run again")
    passed: dict[TargetName, Passed] = {}
    left_out: dict[str, list[str]] = {}
    for target in built:
        own = verdict.targets.get(target)
        if own is None:
            raise GateError(str(GATE), f"{target} was not judged", "a verdict for every target", "run stages.gate")
        if not own.passed:
            left_out[target] = own.failed
            continue
        file, export = read_export(target)
        if export["sha256"] != own.sha256:
            raise GateError(str(GATE), f"it judged another file than {file}", "this file's verdict", "run stages.gate")
        passed[target] = Passed(file, export, _metrics(target, export["sha256"], classes, verdict))
    return passed, left_out


def _metrics(target: str, digest: str, classes: list[str], verdict: Verdict) -> dict[str, Any]:
    """What the evaluation wrote of the file with this digest, and the gate judged. Raises StageError."""
    path = EVALUATED / target / "metrics.json"
    report = read_model(path, BundledEvaluation, "evaluate")
    if report.model_sha256 != digest:
        raise StageError(f"{path}: model_sha256", f"found {report.model_sha256}", digest, rerun_hint("evaluate"))
    for field in ("per_class", "prediction_ratios"):
        found = list(getattr(report, field))
        if set(found) != set(classes):
            raise StageError(f"{path}: {field}", f"found {found}", f"the classes {classes}", rerun_hint("evaluate"))
    judged, lies_there = verdict.inputs.get(path.as_posix()), sha256(path)
    if lies_there != judged:
        raise StageError(
            str(path), f"found sha256 {lies_there}", f"{judged}, which the gate judged", rerun_hint("gate")
        )
    return read_object(path, "evaluate")


def read_drift(spec: SampleSpec) -> dict[str, Any]:
    """The drift reference that `prepare` wrote, of this data's channels and classes. Raises StageError."""
    reference = read_model(DRIFT, DriftReference, "prepare")
    if set(reference.labels) != set(spec.classes):
        found = f"found {list(reference.labels)}"
        raise StageError(f"{DRIFT}: labels", found, f"the classes {spec.classes}", rerun_hint("prepare"))
    for i, feature in enumerate(reference.features):
        if feature.channel >= len(spec.channels):
            expected = f"a channel of {len(spec.channels)}"
            raise StageError(
                f"{DRIFT}: features.{i}.channel", f"found {feature.channel}", expected, rerun_hint("prepare")
            )
    return read_object(DRIFT, "prepare")


def golden_indices(labels: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` sample indices, ascending: the first of each class, then the second of each, and so on."""
    labels = np.asarray(labels)
    ranks = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    order = np.lexsort((labels, ranks))
    return np.sort(order[:count])


def golden_outputs(target: Passed, inputs: np.ndarray) -> np.ndarray:
    """Probabilities [N, classes] for `inputs` [N, *shape], one sample at a time, as a device asks for them."""
    try:
        model = open_model(target.file, dict(target.export["io"]), threads=1)
        return np.concatenate([model.predict(inputs[i : i + 1]) for i in range(len(inputs))])
    except InferenceError as error:
        raise StageError(
            str(target.file), str(error), "a model file as export.json describes it", "export it again"
        ) from None


def drift_reference(reference: Mapping[str, Any], passed: Mapping[TargetName, Passed]) -> dict[str, Any]:
    """The reference of the inputs, and of what each target predicts and how sure it is."""
    kept = ("prediction_ratios", "confidence_bins")
    return {**reference, "targets": {name: {k: own.metrics[k] for k in kept} for name, own in passed.items()}}


def canonical_digest(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys and no spaces."""
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
    """The manifest but for `files`, which `main` adds when they are written."""
    blocks = params.model_dump(mode="json", by_alias=True)
    return {
        "schema_version": bundle_manifest.SCHEMA_VERSION,
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
                **_runtime_version(params, name),
                "budget": blocks["package"]["device_budget"],
                "io": own.export["io"],
                "metrics": {
                    "samples": own.metrics["samples"],
                    "confidence": own.metrics["confidence"],
                    "estimates": {k: own.metrics[k] for k in ESTIMATES if k in own.metrics},
                },
                "golden": golden[name],
            }
            for name, own in passed.items()
        },
        "libraries": dict(versions),
    }


def _runtime_version(params: Params, name: TargetName) -> dict[str, str]:
    oldest = params.package.requirements.runtimes.get(params.targets[name].runtime)
    return {"runtime_version": oldest} if oldest else {}


def write_golden(folder: Path, passed: Mapping[TargetName, Passed], test: Split, params: Params) -> dict[str, Any]:
    """Write the golden samples, and each target's answers; what the manifest says of them, by target."""
    samples = test.samples(golden_indices(test.y, params.package.golden_samples))
    (folder / "golden").mkdir()
    np.save(folder / "golden" / "inputs.npy", samples, allow_pickle=False)
    described: dict[str, Any] = {}
    for name, own in passed.items():
        np.save(folder / "golden" / f"{name}.npy", golden_outputs(own, samples), allow_pickle=False)
        described[name] = {
            "inputs": "golden/inputs.npy",
            "outputs": f"golden/{name}.npy",
            "samples": len(samples),
            "tolerance": getattr(params.package.golden_tolerance, params.targets[name].precision),
        }
    return described


def card(
    manifest: Mapping[str, Any], passed: Mapping[TargetName, Passed], left_out: dict[str, list[str]], params: Params
) -> str:
    """The model card, with what the prepared splits say."""
    splits = {split: Split.open(PREPARED, split) for split in SPLITS}
    tested, trained = (set(np.unique(splits[split].group)) for split in ("test", "train"))
    groups = Groups(params.data.group, len(tested), len(tested & trained))
    sizes = {split: len(own) for split, own in splits.items()}
    per_class: dict[str, Any] = {name: own.metrics["per_class"] for name, own in passed.items()}
    intervals = Intervals.model_validate(next(iter(passed.values())).metrics["intervals"])
    return model_card(manifest, params.package.limitations, sizes, per_class, left_out, groups, intervals)


def fill(folder: Path, params: Params) -> dict[str, Any]:
    """Write the bundle's files into `folder`; the checked manifest. Raises StageError, OSError."""
    spec = SampleSpec.read(PREPARED)
    passed, left_out = select(params.name, params.targets, spec.classes)
    reference = read_drift(spec)
    for path, stage in {**INPUTS, SNAPSHOT: "collect"}.items():
        if not path.exists():
            raise StageError(str(path), "there is no such file", f"what the stage {stage} writes", rerun_hint(stage))
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
    with tempfile.TemporaryDirectory() as folder:
        manifest = fill(Path(folder), params)
        with new_directory(BUNDLE) as new:
            archive = new / f"{params.name}.tar.zst"
            pack(Path(folder), archive)
    archive = BUNDLE / archive.name
    print(
        f"{archive}: {', '.join(manifest['targets'])}; {archive.stat().st_size / 1000:.1f} kB, sha256 {sha256(archive)}"
    )
