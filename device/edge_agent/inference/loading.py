"""Load an installed release into memory, and check its files against the bundle's manifest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.core.config import Config
from edge_agent.core.errors import AgentError, FitError, NoReleaseError, SelfTestError, TrustError
from edge_agent.inference import drift_reference
from edge_agent.inference.golden_replay import JOINABLE, joining_fault, probability_fault
from edge_agent.inference.model import InferenceError, Model, ModelError
from edge_agent.inference.runtime import open_model
from edge_agent.storage import manifest as bundle_manifest
from edge_agent.storage import target_selection

NOT_PROBABILITIES = "correct io.output.activation in the manifest, and build the release again"
EXTRAS = {"onnxruntime": "onnx", "litert": "litert"}


@dataclass(frozen=True)
class LoadedRelease:
    """An installed release whose model is loaded into memory.

    `sha256`: digest of the model file, computed when the file was loaded. `reference`: content of drift_reference.json,
    or None if the bundle has no such file. `golden_inputs`: inputs of the golden samples, float32 [N, *shape].
    `golden_outputs`: stored probabilities of the golden samples, float32 [N, classes]. `tolerance`: the
    release's limit for the difference between a computed and a stored probability. `joining_fault`: the reason why the
    model computes one sample in each run although the manifest says that samples may be joined; None if there is no
    such reason.
    """

    release: str
    target: str
    sha256: str
    manifest: Mapping[str, Any]
    model: Model
    reference: Mapping[str, Any] | None
    classes: tuple[str, ...]
    golden_inputs: np.ndarray
    golden_outputs: np.ndarray
    tolerance: float
    joining_fault: str | None = None

    @property
    def io(self) -> Mapping[str, Any]:
        """Description of the model file's inputs and outputs; edge_agent.inference.runtime documents the format."""
        io: Mapping[str, Any] = self.manifest["targets"][self.target]["io"]
        return io


def load(config: Config, release: str, target: str | None = None) -> LoadedRelease:
    """Load an installed release into memory, and run its model on golden samples. Blocks the calling thread.

    If the manifest says that samples may be joined into one run, and this device finds that a sample's result then
    changes, the model computes one sample in each run.

    Args:
        config: The agent's configuration.
        release: Name and version, such as `digits@1.2.0`.
        target: The target to load; None selects a target that fits this device.

    Raises:
        NoReleaseError: The release is not installed.
        TrustError: A file differs from the manifest.
        FitError: No target fits this device, or the target's runtime is not installed.
        SelfTestError: The model does not load or run, or the drift reference does not fit the release.
        OSError: The device cannot read a file.
    """
    folder = config.layout.bundle(release)
    if not folder.is_dir():
        raise NoReleaseError(str(folder), "not installed", "an installed release", f"edge-agent install {release}")
    try:
        manifest = bundle_manifest.read(folder)
    except bundle_manifest.UnknownVersionError as error:
        needed = error.agent_version or "a newer version"
        raise FitError(error.file, error.found, error.expected, f"install agent {needed} on this device") from None
    except bundle_manifest.ManifestError as error:
        _check_readable(Path(error.file))
        raise _corrupted(release, Path(error.file), f"{error.field}: {error.found}", error.expected) from None
    if target is None:
        target = target_selection.select_target(config, manifest, None)
    if target not in manifest["targets"]:
        raise FitError(
            f"{release}: targets", f"{', '.join(manifest['targets'])}", target, "request a target that the release has"
        )
    described = manifest["targets"][target]
    file = folder / described["file"]
    digest = _digest(file)
    if digest != described["sha256"]:
        raise _corrupted(release, file, f"sha256 {digest}", described["sha256"])
    classes = tuple(manifest["output"]["classes"])
    golden_inputs = _golden(release, folder / described["golden"]["inputs"], tuple(manifest["input"]["shape"]))
    golden_outputs = _golden(release, folder / described["golden"]["outputs"], (len(classes),))
    if len(golden_inputs) != len(golden_outputs):
        outputs_file = folder / described["golden"]["outputs"]
        raise _corrupted(release, outputs_file, f"{len(golden_outputs)} golden outputs", f"{len(golden_inputs)}")
    model = _open(file, described["io"], config.serve.threads)
    tolerance = float(described["golden"]["tolerance"])
    joined = min(config.serve.batch, config.serve.queue) if described["batch"] == JOINABLE else 1
    fault = _check_model(file, model, golden_inputs, tolerance, joined)
    return LoadedRelease(
        release,
        target,
        digest,
        manifest,
        model,
        drift_reference.read(release, folder, manifest),
        classes,
        golden_inputs,
        golden_outputs,
        tolerance,
        fault,
    )


def load_in_background(config: Config, release: str) -> asyncio.Future[LoadedRelease]:
    """Call `load` in a daemon thread, and return a future whose result is the loaded release.

    Because the thread is a daemon thread, the process can exit even if a model hangs while it is loaded.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[LoadedRelease] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may have stopped waiting

    def set_outcome(call: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            call(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (future.set_result, load(config, release))
        except BaseException as error:
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so the result is not needed
            loop.call_soon_threadsafe(set_outcome, *outcome)

    threading.Thread(target=run, name=f"loading {release}", daemon=True).start()
    return future


def _check_readable(file: Path) -> None:
    """Raise OSError if the device cannot read an existing file, for example because the disk fails.

    Callers use this to distinguish a failing disk from a file with invalid content.
    """
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        stream.read(1)


def _corrupted(release: str, file: Path, problem: str, expected: str) -> AgentError:
    remedy = f"run `edge-agent verify`, then install {release} again"
    return TrustError(str(file), problem, expected, remedy)


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _open(file: Path, io: Mapping[str, Any], threads: int) -> Model:
    try:
        return open_model(file, io, threads)
    except ModelError as error:
        _check_readable(file)
        raise SelfTestError(str(file), str(error), "a model file that loads", "build the release again") from None
    except ImportError as error:
        _check_readable(file)
        extra = EXTRAS[io["runtime"]]
        raise FitError(
            str(file),
            f"{io['runtime']} is not installed ({error})",
            f"{io['runtime']}",
            f"install the agent with its extra `{extra}`",
        ) from None


def _check_model(file: Path, model: Model, golden_inputs: np.ndarray, tolerance: float, joined: int) -> str | None:
    """Run the model on golden samples, and set how many samples it computes in one run.

    Args:
        file: The model file.
        model: The opened model.
        golden_inputs: The inputs of the golden samples, float32 [N, *shape].
        tolerance: Largest allowed difference between a computed and a stored probability.
        joined: Number of samples that the service wants to join into one run.

    Returns:
        The reason why the samples of a joinable file must not be joined on this device, or None.

    Raises:
        SelfTestError: The model does not compute the first golden sample, or does not return probabilities.
    """
    try:
        first = model.predict(np.ascontiguousarray(golden_inputs[:1]))
    except InferenceError as error:
        raise SelfTestError(
            str(file), str(error), "a model that computes the first golden sample", "build the release again"
        ) from None
    if problem := probability_fault(first, model.output_dtype):
        raise SelfTestError(str(file), problem, "probabilities", NOT_PROBABILITIES)
    fault = joining_fault(model, golden_inputs, tolerance, joined) if joined > 1 else None
    if joined == 1 or fault:
        model.batch = 1
    return fault


def _golden(release: str, file: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values: np.ndarray = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise _corrupted(release, file, f"not an array ({error})", "a .npy file of float32") from None
    if values.dtype != np.float32 or values.shape[1:] != shape or not len(values):
        raise _corrupted(release, file, f"{values.dtype} {values.shape}", f"float32 (N, {', '.join(map(str, shape))})")
    return values
