"""Write the model in one target form, compare what was written with torch, keep the best form.

Nothing here imports torch: converters are programs (stages/export/converters), and what they wrote is run by the
device's own runtime and compared with models/reference.npz.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
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
from stages.core.files import new_directory, read_json, sha256, write_json
from stages.export.artifact import EXPORTED, PREPARED, find_target, read_reference
from stages.export.converters.protocol import CANDIDATES, CONVERTERS, FLOAT, Candidate, Request
from stages.params import load
from stages.params.export import Export

NETWORK = Path("models/compressed/model.pt")
WORK = Path(".work/export")
TAIL = 15  # lines of a converter's log that its error shows


@dataclass(frozen=True)
class Comparison:
    """A candidate against torch, on samples of the validation split. `max_difference` is of logits."""

    samples: int
    max_difference: float
    agreement: float


@dataclass(frozen=True)
class Measured:
    """A candidate that loads and answers, and how it compares."""

    candidate: Candidate
    file: Path
    comparison: Comparison


@dataclass(frozen=True)
class Exported:
    """The converter that succeeded, the candidate to keep, all that could be measured, and by method why others not."""

    converter: str
    kept: Measured
    measured: list[Measured]
    broken: dict[str, str]


def convert(command: Sequence[str], request: Request, limit_s: float, log: Path) -> list[Candidate]:
    """Run one converter for at most `limit_s` seconds; its output goes to `log`.

    Raises ConversionError where it fails, is killed, takes too long, or says that it is done and did not
    write what it should have.
    """
    arguments = [
        "--network", str(request.network), "--samples", str(request.samples),
        "--output", str(request.output), "--methods", *request.methods,
    ]  # fmt: skip
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise _failure(log, f"still running after {limit_s:g} s", "raise export.timeout_s") from None
        finally:
            # A converter may have started others: the whole group ends with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code < 0:
        raise _failure(log, f"killed by {signal.Signals(-code).name}")
    if code > 0:
        raise _failure(log, f"exit code {code}")
    try:
        candidates = [Candidate(**entry) for entry in read_json(request.output / CANDIDATES)]
    except (OSError, ValueError, TypeError):
        raise _failure(log, f"exit code 0, but it wrote no {CANDIDATES}") from None
    missing = [c.file for c in candidates if not (request.output / c.file).is_file()]
    if missing or not candidates:
        raise _failure(log, f"exit code 0, but it wrote no {', '.join(missing) or 'candidate'}")
    return candidates


def _failure(log: Path, found: str, remedy: str = "") -> ConversionError:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-TAIL:]
    shown = "".join(f"\n    {line}" for line in lines)
    return ConversionError(f"converter, log in {log}", found + shown, "exit code 0 and a file", remedy)


def compare(file: Path, io: Mapping[str, Any], x: np.ndarray, reference: np.ndarray) -> Comparison:
    """The file's logits for samples x [N, *shape] against torch's [N, classes]. Raises InferenceError."""
    logits = open_model(file, io).logits(x)
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
    """The candidates that load and answer, and of the others, by method, why they do not.

    Raises ConversionError where none does.
    """
    measured, faults = [], {}
    for candidate in candidates:
        file = folder / candidate.file
        try:
            measured.append(Measured(candidate, file, compare(file, candidate.io, x, reference)))
        except InferenceError as fault:
            faults[candidate.method] = str(fault)
    if not measured:
        raise ConversionError(str(folder), "; ".join(faults.values()), "a file that loads and answers")
    return measured, faults


def choose(measured: Sequence[Measured], params: Export) -> Measured:
    """The candidate to keep. Raises ConversionError where none agrees with torch as the parameters ask.

    Float: the one with the smallest difference. int8: those whose agreement is within `quantization.tie` of
    the best count as equal; of these, the one whose method comes first in `quantization.methods`.
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
    return ConversionError(
        str(measured.file),
        f"{name} with torch is {getattr(measured.comparison, name):.6g} on {measured.comparison.samples} samples",
        expected,
        f"look at the converter's log in {WORK}; or change export.{'min_' if name == 'agreement' else ''}{name}",
    )


def export(
    converters: Mapping[str, Sequence[str]],
    methods: Sequence[str],
    params: Export,
    x: np.ndarray,
    reference: np.ndarray,
    work: Path,
) -> Exported:
    """Try the converters in order.

    `work` holds samples.npz. Raises CombinedError with every converter's fault.
    """
    faults: list[StageError] = []
    for name, converter in converters.items():
        output = work / name
        output.mkdir()
        request = Request(NETWORK, work / "samples.npz", output, tuple(methods))
        try:
            candidates = convert(converter, request, params.timeout_s, work / f"{name}.log")
            measured, broken = measure(output, candidates, x, reference)
            return Exported(name, choose(measured, params), measured, broken)
        except ConversionError as fault:
            faults.append(fault)
    raise CombinedError(faults)


def description(target: str, exported: Exported, file: Path) -> dict[str, Any]:
    """What export.json holds."""
    kept = exported.kept
    candidates: list[dict[str, Any]] = [
        {"method": m.candidate.method, "size_bytes": m.file.stat().st_size, "agreement": m.comparison.agreement}
        for m in exported.measured
    ]
    candidates += [{"method": method, "fault": fault} for method, fault in exported.broken.items()]
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
            # Two digits: the last bits differ between processors, and what is written should not.
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
        raise StageError(str(NETWORK), "there is no such file", "the compressed network", "run the stage compress")
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
    """Lines for a person."""
    compared = written["comparison"]
    lines = [f"warning: {exported.converter}, {method}: {fault}" for method, fault in exported.broken.items()]
    lines.append(
        f"{written['target']}: {exported.converter}, {exported.kept.candidate.method}, "
        f"{written['size_bytes'] / 1000:.1f} kB, against torch: max difference {compared['max_difference']:g}, "
        f"agreement {compared['agreement']:.4f}"
    )
    return "\n".join(lines)


def spread(samples: int, most: int) -> np.ndarray:
    """At most `most` indices, evenly spread over all samples."""
    return np.unique(np.linspace(0, samples - 1, min(samples, most)).astype(np.int64))
