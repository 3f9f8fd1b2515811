"""Test the stage export with small converters: it checks their results and keeps the best candidate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import CombinedError, ConversionError
from stages.export.conversion import convert
from stages.export.converters.protocol import Candidate, Request
from stages.export.stage import Comparison, Measured, choose, compare, export, spread
from stages.export.stage import description as description_of
from stages.params.export import Export, Quantization
from tests.support.agent.model_files import description, onnx_linear

pytestmark = pytest.mark.slow  # every test starts a converter

WEIGHT = np.array([[1.0, -1.0], [0.5, 2.0]])
X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
REFERENCE = (X @ WEIGHT).astype(np.float32)
PARAMS = Export(
    timeout_s=60, calibration_samples=8, comparison_samples=40, max_difference=1e-4, min_agreement=0.95,
    quantization=Quantization(methods=["min-max", "moving-average", "dynamic"], tie=0.01),
)  # fmt: skip

# Programs that behave as converters. `output` is the output folder of the request.
READ = "import json, os, shutil, signal, subprocess, sys, time; output = sys.argv[sys.argv.index('--output') + 1]\n"
SEGFAULT = READ + "print('about to', flush=True); import ctypes; ctypes.string_at(0)"
KILLED = READ + "os.kill(os.getpid(), signal.SIGKILL)"
REFUSES = READ + "[print('line', i) for i in range(99)]; print('operator Foo is unknown', file=sys.stderr); sys.exit(3)"
HANGS = READ + (
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open(output + '/child', 'w').write(str(child.pid)); child.wait()"
)
NOTHING = READ + "print('done')"
NO_FILE = READ + "json.dump([{'file': 'a.onnx', 'method': 'float', 'io': {}}], open(output + '/candidates.json', 'w'))"
NO_CANDIDATE = READ + "json.dump([], open(output + '/candidates.json', 'w'))"
NOT_JSON = READ + "open(output + '/candidates.json', 'w').write('[{')"


def command(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def converter_writing(file: Path, io: dict[str, Any], method: str = "float") -> list[str]:
    """Return the command of a converter that writes a copy of `file`."""
    candidates = [{"file": "model.onnx", "method": method, "io": io}]
    return command(
        READ + f"shutil.copy({str(file)!r}, output + '/model.onnx')\n"
        f"json.dump(json.loads({json.dumps(json.dumps(candidates))}), open(output + '/candidates.json', 'w'))"
    )


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    output = tmp_path / "output"
    output.mkdir()
    return Request(tmp_path / "model.pt", tmp_path / "samples.npz", output, ("float",))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (SEGFAULT, "killed by SIGSEGV\n    about to"),
        (KILLED, "killed by SIGKILL"),
        (REFUSES, "exit code 3"),
        (NOTHING, "exit code 0, but it wrote no candidates.json\n    done"),
        (NO_FILE, "exit code 0, but it wrote no a.onnx"),
        (NO_CANDIDATE, "exit code 0, but it wrote no candidate"),
        (NOT_JSON, "exit code 0, but it wrote no candidates.json"),
    ],
)
def test_the_error_gives_the_reason_of_a_failed_converter(
    request_: Request, tmp_path: Path, program: str, reason: str
) -> None:
    log = tmp_path / "converter.log"

    with pytest.raises(ConversionError) as caught:
        convert(command(program), request_, 60, log)

    assert reason in str(caught.value)
    assert str(log) in str(caught.value)


def test_the_error_shows_the_end_of_a_long_log(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(command(REFUSES), request_, 60, tmp_path / "converter.log")

    assert "operator Foo is unknown" in str(caught.value)
    assert "line 98" in str(caught.value)
    assert "line 1\n" not in str(caught.value)
    assert "line 1\n" in (tmp_path / "converter.log").read_text()


def test_a_converter_that_hangs_is_killed_with_its_child_processes(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="still running after 2 s"):
        convert(command(HANGS), request_, 2, tmp_path / "converter.log")

    child = int((request_.output / "child").read_text())
    deadline = time.monotonic() + 30  # on a busy machine a killed process takes a moment to end
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)


def running(pid: int) -> bool:
    """Return True if the process runs. A zombie does not run."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def correct_file(tmp_path: Path) -> Path:
    return onnx_linear(tmp_path / "correct.onnx", WEIGHT)


IO = description("onnxruntime", [2], 2)


def test_the_next_converter_is_tried_if_one_fails(work: Path, correct_file: Path) -> None:
    converters = {"first": command(SEGFAULT), "second": converter_writing(correct_file, IO)}

    result = export(converters, ["float"], PARAMS, X, REFERENCE, work)

    assert result.converter == "second"
    assert result.kept.file.read_bytes() == correct_file.read_bytes()
    assert result.kept.comparison == Comparison(40, pytest.approx(0, abs=1e-6), 1.0)


def test_if_all_converters_fail_the_error_gives_the_reason_of_each(work: Path) -> None:
    converters = {"first": command(SEGFAULT), "second": command(NOTHING)}

    with pytest.raises(CombinedError) as caught:
        export(converters, ["float"], PARAMS, X, REFERENCE, work)

    assert "killed by SIGSEGV" in str(caught.value)
    assert "wrote no candidates.json" in str(caught.value)


def test_a_float_file_that_differs_from_torch_is_refused(work: Path, tmp_path: Path) -> None:
    """Weights that are wrong by a thousandth change no predicted class. The file is refused nevertheless."""
    different = onnx_linear(tmp_path / "different.onnx", WEIGHT * 1.001)

    with pytest.raises(CombinedError, match=r"max_difference between this file and torch is 0\.00\d+ on 40 samples"):
        export({"only": converter_writing(different, IO)}, ["float"], PARAMS, X, REFERENCE, work)


def test_an_int8_file_that_disagrees_with_torch_is_refused(work: Path, tmp_path: Path) -> None:
    different = onnx_linear(tmp_path / "different.onnx", WEIGHT[:, ::-1])

    with pytest.raises(
        CombinedError, match=r"agreement between this file and torch is 0 on 40 samples\n  expected: at least 0\.95"
    ):
        export({"only": converter_writing(different, IO, "min-max")}, ["min-max"], PARAMS, X, REFERENCE, work)


def test_a_file_that_does_not_load_or_returns_nan_is_refused(work: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage")
    nan = onnx_linear(tmp_path / "nan.onnx", WEIGHT, operator="Log")

    with pytest.raises(CombinedError) as caught:
        export(
            {"a": converter_writing(garbage, IO), "b": converter_writing(nan, IO)},
            ["float"],
            PARAMS,
            X,
            REFERENCE,
            work,
        )

    assert "not loadable by ONNX Runtime" in str(caught.value)
    assert "found NaN or infinity" in str(caught.value)


def test_a_candidate_that_does_not_load_is_reported_and_another_one_kept(
    work: Path, correct_file: Path, tmp_path: Path
) -> None:
    candidates = [{"file": f"{name}.onnx", "method": name, "io": IO} for name in ("min-max", "dynamic")]
    converter = command(
        READ + "open(output + '/min-max.onnx', 'w').write('garbage')\n"
        f"shutil.copy({str(correct_file)!r}, output + '/dynamic.onnx')\n"
        f"json.dump(json.loads({json.dumps(json.dumps(candidates))}), open(output + '/candidates.json', 'w'))"
    )

    result = export({"only": converter}, ["min-max", "dynamic"], PARAMS, X, REFERENCE, work)
    content = description_of("onnx-int8", result, result.kept.file)

    assert result.kept.candidate.method == "dynamic"
    assert "min-max.onnx: not loadable" in result.failures["min-max"]
    assert [sorted(entry) for entry in content["quantization"]["candidates"]] == [
        ["agreement", "method", "size_bytes"],
        ["fault", "method"],
    ]


def test_a_comparison_computed_by_hand(correct_file: Path) -> None:
    """Two of four samples get another class, and logits differ by at most 3."""
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    logits = x @ WEIGHT

    result = compare(correct_file, IO, x, logits + np.array([[0, 0], [0, 3], [0, 0], [3, 0]], np.float32))

    assert result == Comparison(4, 3.0, 0.5)


def measured(method: str, agreement: float, difference: float = 0.0) -> Measured:
    return Measured(
        Candidate(f"{method}.onnx", method, IO), Path(f"{method}.onnx"), Comparison(40, difference, agreement)
    )


@pytest.mark.parametrize(
    ("agreements", "tie", "kept"),
    [
        ({"min-max": 0.99, "moving-average": 0.995, "dynamic": 1.0}, 0.01, "min-max"),
        ({"min-max": 0.99, "moving-average": 0.995, "dynamic": 1.0}, 0.0, "dynamic"),
        ({"min-max": 0.90, "moving-average": 0.97, "dynamic": 0.96}, 0.01, "moving-average"),
        ({"dynamic": 0.99, "min-max": 0.99}, 0.0, "min-max"),
    ],
)
def test_the_first_method_is_kept_of_the_int8_candidates_that_agree_best(
    agreements: dict[str, float], tie: float, kept: str
) -> None:
    params = PARAMS.model_copy(update={"quantization": PARAMS.quantization.model_copy(update={"tie": tie})})

    result = choose([measured(method, value) for method, value in agreements.items()], params)

    assert result.candidate.method == kept


def test_the_order_of_methods_decides_between_equal_candidates() -> None:
    quantization = PARAMS.quantization.model_copy(update={"methods": ["dynamic", "min-max"]})

    result = choose(
        [measured("min-max", 1.0), measured("dynamic", 1.0)], PARAMS.model_copy(update={"quantization": quantization})
    )

    assert result.candidate.method == "dynamic"


def test_spread_covers_the_whole_split() -> None:
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(100, 3).tolist() == [0, 49, 99]


def run_stage(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.export", *arguments],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_unknown_target_and_a_missing_network_are_refused_and_earlier_files_stay(workspace: Path) -> None:
    from tests.support.stages.export import digits, write_prepared

    earlier = workspace / "models/exported/onnx-fp32"
    earlier.mkdir(parents=True)
    (earlier / "model.onnx").write_bytes(b"earlier")
    write_prepared(workspace / "data/prepared", *digits())

    unknown, missing = run_stage(workspace, "--target", "coreml"), run_stage(workspace, "--target", "onnx-fp32")

    assert unknown.returncode == missing.returncode == 1
    assert "found 'coreml'\n  expected: one of onnx-fp32, onnx-int8" in unknown.stderr
    assert "models/compressed/model.pt: there is no such file" in missing.stderr
    assert "Traceback" not in unknown.stderr + missing.stderr
    assert (earlier / "model.onnx").read_bytes() == b"earlier"
