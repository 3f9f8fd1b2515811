"""The protocol between the `export` stage and its converters: the command line and the files that a converter writes.

A converter is called as

    COMMAND --network model.pt --samples samples.npz --output DIR --methods METHOD ...

`samples.npz` holds `calibration`: training samples in raw units, float32 [N, *shape]. The methods are:

    float           not quantised
    min-max         int8 weights and activations; a range extends from the minimum to the maximum over all calibration
                    samples
    moving-average  int8 weights and activations; a range is a moving average of the minimum and maximum of each
                    calibration sample, so that outliers are clipped
    dynamic         int8 weights; the device determines the ranges of activations in every call

A converter writes one candidate file per method and finally DIR/candidates.json:

    [{"file": "min-max.onnx", "method": "min-max", "io": {...}}, ...]

`io` describes the file's inputs and outputs for device/edge_agent/inference/runtime.py. Exit code 0 means success, but
the stage does not rely on the exit code. It loads every candidate, compares the candidate with the torch model and
keeps the best candidate. Equal requests must give equal bytes.
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

# The converters of each runtime, in the order in which they are tried.
CONVERTERS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "onnxruntime": {"torch.onnx": (sys.executable, "-m", "stages.export.converters.onnx")},
    "litert": {
        "litert-torch": (sys.executable, "-m", "stages.export.converters.tflite"),
        "keras": (sys.executable, "-m", "stages.export.converters.keras"),
    },
}


@dataclass(frozen=True)
class Request:
    """The arguments of a converter program.

    `network` is the file of the network, and `samples` is the file with the calibration samples. `output` is an
    existing folder for the converted files. `methods` are the quantisation methods.
    """

    network: Path
    samples: Path
    output: Path
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A file that a converter wrote.

    `file` is the file's name in the output folder. `method` is the quantisation method. `io` describes the file's
    inputs and outputs for the device's runtime.
    """

    file: str
    method: str
    io: dict[str, Any]


def read_request(program: str, description: str | None) -> Request:
    """Read a converter's arguments from the command line. `program` and `description` appear in the help text."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--network", type=Path, required=True, help="models/compressed/model.pt")
    parser.add_argument("--samples", type=Path, required=True, help="npz file with training samples in `calibration`")
    parser.add_argument("--output", type=Path, required=True, help="an existing folder")
    parser.add_argument("--methods", choices=METHODS, nargs="+", required=True)
    options = parser.parse_args()
    return Request(options.network, options.samples, options.output, tuple(options.methods))


def write_candidates(output: Path, candidates: Sequence[Candidate]) -> None:
    """Write candidates.json, the list of a converter's candidate files, into the folder `output`."""
    write_json(output / CANDIDATES, [asdict(candidate) for candidate in candidates])
