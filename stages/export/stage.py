"""Convert the network for one target, compare the candidate files with the torch model, and keep the best candidate.

This module does not import torch. Converters are separate programs (stages/export/converters). The device's runtime
runs the converted files, and the resulting logits are compared with the torch model's logits in models/reference.npz.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.model import InferenceError
from edge_agent.inference.runtime import open_model

from stages.core import command
from stages.core.dataset import Split
from stages.core.errors import CombinedError, ConversionError, StageError
from stages.core.files import new_directory, rerun_hint, sha256, write_json
from stages.export.artifact import EXPORTED, PREPARED, find_target, read_reference
from stages.export.conversion import convert
from stages.export.converters.protocol import CONVERTERS, FLOAT, Candidate, Request
from stages.params import load
from stages.params.export import Export

NETWORK = Path("models/compressed/model.pt")
WORK = Path(".work/export")


@dataclass(frozen=True)
class Comparison:
    """The comparison of a candidate file with the torch model on samples of the validation split.

    `samples` is the number of samples. `max_difference` is the largest absolute difference between a logit of the
    candidate and the same logit of the torch model. `agreement` is the fraction of samples for which both predict the
    same class.
    """

    samples: int
    max_difference: float
    agreement: float


@dataclass(frozen=True)
class Measured:
    """A candidate file that the device's runtime can run, and its comparison with the torch model."""

    candidate: Candidate
    file: Path
    comparison: Comparison


@dataclass(frozen=True)
class Exported:
    """The candidate files of the first converter that succeeded.

    `measured` holds all candidates that the device's runtime can run, and `kept` is the best of these candidates. For
    each candidate that does not run, `failures` maps the candidate's method to the reason.
    """

    converter: str
    kept: Measured
    measured: list[Measured]
    failures: dict[str, str]


def compare(file: Path, io: Mapping[str, Any], x: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compare the logits of an exported file with the torch model's logits.

    Args:
        file: The exported file.
        io: The description of the file's inputs and outputs, as in export.json.
        x: Samples [N, *shape] in raw units.
        reference: The torch model's logits for these samples [N, classes].

    Raises:
        InferenceError: The file does not load, or its logits are not finite or have a different shape.
    """
    model = open_model(file, io)
    model.batch = 1  # as `evaluate` measures and as a device serves a file whose samples must not be joined
    logits = model.logits(x)
    if logits.shape != reference.shape:
        raise InferenceError(f"{file}: found logits of shape {logits.shape}, expected {reference.shape}")
    return Comparison(
        samples=len(x),
        max_difference=float(np.abs(logits - reference).max()),
        agreement=float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
    )


def measure(
    folder: Path, candidates: Sequence[Candidate], x: np.ndarray, reference: np.ndarray
) -> tuple[list[Measured], dict[str, str]]:
    """Compare each candidate file with the torch model.

    Args:
        folder: The folder with the candidate files.
        candidates: The descriptions of the candidate files.
        x: Samples [N, *shape] in raw units.
        reference: The torch model's logits for these samples [N, classes].

    Returns:
        The candidates that run, with their comparisons. Also a mapping from the method of each other candidate to
        the reason why it does not run.

    Raises:
        ConversionError: No candidate runs.
    """
    measured, reasons = [], {}
    for candidate in candidates:
        file = folder / candidate.file
        try:
            measured.append(Measured(candidate, file, compare(file, candidate.io, x, reference)))
        except InferenceError as error:
            reasons[candidate.method] = str(error)
    if not measured:
        raise ConversionError(
            str(folder), "; ".join(reasons.values()), "a file that the device's runtime can load and run"
        )
    return measured, reasons


def choose(measured: Sequence[Measured], params: Export) -> Measured:
    """Return the candidate file to keep.

    Of several float candidates, the candidate with the smallest difference from the torch model is kept. Int8
    candidates whose agreement is within `quantization.tie` of the highest agreement count as equally good. Of these
    candidates, the candidate whose method comes first in `quantization.methods` is kept.

    Raises:
        ConversionError: The best candidate agrees less with the torch model than the parameters require.
    """
    if measured[0].candidate.method == FLOAT:
        best = min(measured, key=lambda m: m.comparison.max_difference)
        if best.comparison.max_difference > params.max_difference:
            raise _disagreement(best, "max_difference", f"at most {params.max_difference:g}")
        return best
    highest = max(m.comparison.agreement for m in measured)
    equal = [m for m in measured if m.comparison.agreement >= highest - params.quantization.tie]
    order: list[str] = [*params.quantization.methods]
    best = min(equal, key=lambda m: order.index(m.candidate.method))
    if best.comparison.agreement < params.min_agreement:
        raise _disagreement(best, "agreement", f"at least {params.min_agreement:g}")
    return best


def _disagreement(measured: Measured, name: str, expected: str) -> ConversionError:
    """Return the error for a candidate whose comparison does not meet the limit for the field `name`."""
    return ConversionError(
        str(measured.file),
        f"{name} between this file and torch is {getattr(measured.comparison, name):.6g} "
        f"on {measured.comparison.samples} samples",
        expected,
        f"read the converter's log in {WORK}, or change export.{'min_' if name == 'agreement' else ''}{name}",
    )


def export(
    converters: Mapping[str, Sequence[str]],
    methods: Sequence[str],
    params: Export,
    x: np.ndarray,
    reference: np.ndarray,
    work: Path,
) -> Exported:
    """Run the converters in order until a converter writes a candidate file that agrees with the torch model.

    Args:
        converters: The command line of each converter, by the converter's name.
        methods: The quantisation methods to try, or only `FLOAT`.
        params: The time limit, and the required agreement with the torch model.
        x: Samples [N, *shape] in raw units, for the comparison.
        reference: The torch model's logits [N, classes] for these samples.
        work: A folder that contains samples.npz. Each converter's output folder and log are created in this folder.

    Raises:
        CombinedError: No converter succeeded. The error contains the errors of all converters.
    """
    errors: list[StageError] = []
    for name, converter in converters.items():
        output = work / name
        output.mkdir()
        request = Request(NETWORK, work / "samples.npz", output, tuple(methods))
        try:
            candidates = convert(converter, request, params.timeout_s, work / f"{name}.log")
            measured, failures = measure(output, candidates, x, reference)
            return Exported(name, choose(measured, params), measured, failures)
        except ConversionError as error:
            errors.append(error)
    raise CombinedError(errors)


def description(target: str, exported: Exported, file: Path) -> dict[str, Any]:
    """Return the content of export.json.

    Args:
        target: Name of the target.
        exported: The candidates, and the candidate that is kept.
        file: The copy of the kept candidate's file that later stages read.
    """
    kept = exported.kept
    candidates: list[dict[str, Any]] = [
        {
            "method": measured.candidate.method,
            "size_bytes": measured.file.stat().st_size,
            "agreement": measured.comparison.agreement,
        }
        for measured in exported.measured
    ]
    candidates += [{"method": method, "fault": reason} for method, reason in exported.failures.items()]
    floating = kept.candidate.method == FLOAT
    return {
        "target": target,
        "file": file.name,
        "sha256": sha256(file),
        "size_bytes": file.stat().st_size,
        "converter": exported.converter,
        "io": kept.candidate.io,
        "quantization": None if floating else {"calibration": kept.candidate.method, "candidates": candidates},
        "comparison": {
            "samples": kept.comparison.samples,
            # Rounded to two digits, because export.json must not depend on the processor, but the last bits do.
            "max_difference": float(f"{kept.comparison.max_difference:.2g}"),
            "agreement": kept.comparison.agreement,
        },
    }


def main() -> None:
    parser = command.parser("export", __doc__)
    parser.add_argument("--target", required=True, help="a key of `targets` in params.yaml")
    name = parser.parse_args().target
    params = load()
    target = find_target(params.targets, name)

    training, validation = Split.open(PREPARED, "train"), Split.open(PREPARED, "validation")
    if not NETWORK.is_file():
        raise StageError(
            str(NETWORK),
            "there is no such file",
            "the network that the `compress` stage writes",
            rerun_hint("compress"),
        )
    compared = spread(len(validation), params.export.comparison_samples)
    reference = read_reference("validation", len(validation))[compared]

    work = WORK / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    chosen = np.random.default_rng(params.seed).permutation(len(training))[: params.export.calibration_samples]
    np.savez(work / "samples.npz", calibration=training.samples(np.sort(chosen)))

    methods = [FLOAT] if target.precision == "fp32" else params.export.quantization.methods
    exported = export(CONVERTERS[target.runtime], methods, params.export, validation.samples(compared), reference, work)
    with new_directory(EXPORTED / name) as folder:
        file = folder / f"model{exported.kept.file.suffix}"
        shutil.copyfile(exported.kept.file, file)
        written = description(name, exported, file)
        write_json(folder / "export.json", written)
    print(summary(written, exported))


def summary(written: Mapping[str, Any], exported: Exported) -> str:
    """Return the lines that the stage prints: a warning per candidate that does not run, and the kept candidate."""
    compared = written["comparison"]
    lines = [f"warning: {exported.converter}, {method}: {reason}" for method, reason in exported.failures.items()]
    lines.append(
        f"{written['target']}: {exported.converter}, {exported.kept.candidate.method}, "
        f"{written['size_bytes'] / 1000:.1f} kB, against torch: max difference {compared['max_difference']:g}, "
        f"agreement {compared['agreement']:.4f}"
    )
    return "\n".join(lines)


def spread(samples: int, limit: int) -> np.ndarray:
    """Return at most `limit` sample indices, evenly spread over 0 to `samples` - 1."""
    return np.unique(np.linspace(0, samples - 1, min(samples, limit)).astype(np.int64))
