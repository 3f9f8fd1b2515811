"""How the stage export calls a converter, and what a converter writes.

A converter is called as

    COMMAND --network model.pt --samples samples.npz --output DIR --methods METHOD ...

`samples.npz` holds `calibration`: float32 [N, *shape], training samples in raw units. Methods:

    float           not quantised
    min-max         int8 weights and activations; ranges are the extremes over the calibration samples
    moving-average  the same; ranges are a moving average of each sample's extremes, which clips outliers
    dynamic         int8 weights; ranges of activations are taken anew at every call, on the device

It writes one candidate file per method and then, last, DIR/candidates.json:

    [{"file": "min-max.onnx", "method": "min-max", "io": {...}}, ...]

`io` is what device/edge_agent/inference/runtime.py reads. Exit code 0 means "done", and is not believed: the stage
`export` loads every candidate, compares it with torch and keeps the best. Same network, same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.core.files import write_json

CANDIDATES = "candidates.json"
FLOAT = "float"
METHODS = (FLOAT, "min-max", "moving-average", "dynamic")

# Per runtime, the converters in the order in which they are tried.
CONVERTERS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "onnxruntime": {"torch.onnx": (sys.executable, "-m", "stages.export.converters.onnx")},
    "litert": {
        "litert-torch": (sys.executable, "-m", "stages.export.converters.tflite"),
        "keras": (sys.executable, "-m", "stages.export.converters.keras"),
    },
}


@dataclass(frozen=True)
class Request:
    """What a converter is asked for."""

    network: Path
    samples: Path
    output: Path
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """One file that a converter wrote into its output folder, and the method that made it."""

    file: str
    method: str
    io: dict[str, Any]


def read_request(program: str, description: str | None) -> Request:
    """The request on this process's command line."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--network", type=Path, required=True, help="models/compressed/model.pt")
    parser.add_argument("--samples", type=Path, required=True, help="npz with `calibration`, training samples")
    parser.add_argument("--output", type=Path, required=True, help="an existing folder")
    parser.add_argument("--methods", choices=METHODS, nargs="+", required=True)
    given = parser.parse_args()
    return Request(given.network, given.samples, given.output, tuple(given.methods))


def write_candidates(output: Path, candidates: Sequence[Candidate]) -> None:
    write_json(output / CANDIDATES, [asdict(candidate) for candidate in candidates])
