"""A drift reference that does not fit its release is refused, with file, field, found and expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core.config import Config
from edge_agent.core.errors import SelfTestError
from edge_agent.inference.loading import load
from edge_agent.monitoring import drift

from tests.support.agent.serving import RELEASE, installed

NAN, INFINITE = float("nan"), float("inf")
Reference = dict[str, Any]


def feature(**changes: Any) -> Callable[[Reference], object]:
    """Return a change of the second feature, `vibration.std`."""
    return lambda reference: reference["features"][1].update(changes)


def top(**changes: Any) -> Callable[[Reference], object]:
    return lambda reference: reference.update(changes)


def target(**changes: Any) -> Callable[[Reference], object]:
    return lambda reference: reference["targets"]["onnx-fp32"].update(changes)


BINS = "features.1"
OWN = "targets.onnx-fp32"
CONFIDENCE = f"{OWN}.confidence_bins"
CLASSES = "the classes of the manifest: fine, worn, broken"


@pytest.mark.parametrize(
    ("change", "field", "found", "expected"),
    [
        (feature(channel=2), f"{BINS}.channel", "2", "below 2"),
        (feature(channel=-1), f"{BINS}.channel", "-1", "at least 0"),
        (feature(channel=True), f"{BINS}.channel", "true", "an integer"),
        (feature(channel=0.0), f"{BINS}.channel", "0.0", "an integer"),
        (feature(statistic="median"), f"{BINS}.statistic", "median", "mean, std"),
        (feature(name="vibration.mean"), f"{BINS}.name", "vibration.mean", "no other feature"),
        (feature(name=3), f"{BINS}.name", "3", "a name"),
        (feature(edges=[1.0, 1.0, 2.0]), f"{BINS}.edges.1", "1.0", "above the edge before it, 1"),
        (feature(edges=[3.0, 1.0, 2.0]), f"{BINS}.edges.1", "1.0", "above the edge before it, 3"),
        (feature(edges=[1.0, NAN, 2.0]), f"{BINS}.edges.1", "NaN", "a finite number"),
        (feature(edges=[1.0, 2.0, INFINITE]), f"{BINS}.edges.2", "Infinity", "a finite number"),
        (feature(edges=[1.0, "2", 3.0]), f"{BINS}.edges.1", "2", "a finite number"),
        (feature(edges=[1, 2, 10**400]), f"{BINS}.edges.2", "1000", "a finite number"),
        (feature(edges=[1.0, 2.0]), f"{BINS}.ratios", "4 ratios", "3, one more than edges"),
        (feature(edges=None), f"{BINS}.edges", "null", "a list"),
        (feature(ratios=[0.5, 0.5, NAN, 0.0]), f"{BINS}.ratios.2", "NaN", "a number from 0 to 1"),
        (feature(ratios=[0.5, 0.5, -0.1, 0.1]), f"{BINS}.ratios.2", "-0.1", "a number from 0 to 1"),
        (feature(ratios=[0.5, 0.1, 0.1, 0.1]), f"{BINS}.ratios", "a sum of 0.8", "a sum of 1"),
        (top(features={}), "features", "{}", "a list"),
        (top(features=[3]), "features.0", "3", "an object"),
        (top(samples=0), "samples", "0", "at least 1"),
        (top(samples="6"), "samples", "6", "an integer"),
        (top(schema_version=2), "schema_version", "2", "1, the version that this agent can read"),
        (top(labels={"fine": 0.5, "green": 0.5}), "labels", "green", CLASSES),
        (top(labels={"fine": 1.0}), "labels", "fine", CLASSES),
        (top(labels={"fine": NAN, "worn": 0.5, "broken": 0.5}), "labels.fine", "NaN", "a number from 0 to 1"),
        (top(targets=[]), "targets", "[]", "an object"),
        (top(targets={"onnx-int4": {}}), "targets.onnx-int4", "does not list", "one of onnx-fp32"),
        (target(prediction_ratios={"a": 1.0}), f"{OWN}.prediction_ratios", "a", CLASSES),
        (target(confidence_bins={"edges": [0.9, 0.5], "ratios": [0, 0, 1]}), f"{CONFIDENCE}.edges.1", "0.5", "above"),
        (target(confidence_bins=3), CONFIDENCE, "3", "an object"),
    ],
)  # fmt: skip
def test_a_reference_that_does_not_fit_the_release_is_refused(
    settings: Config, change: Callable[[Reference], object], field: str, found: str, expected: str
) -> None:
    with pytest.raises(SelfTestError) as refused:
        installed(settings, change_reference=change)

    error, file = refused.value, settings.layout.bundle(RELEASE) / "drift_reference.json"
    assert error.where == f"{file}: {field}"
    assert (found in error.found, expected in error.expected) == (True, True), str(error)
    assert error.remedy == "build the release again"


@pytest.mark.parametrize("change", [
    lambda reference: reference.clear() or reference.update(features=[]),
    lambda reference: [reference.pop(name) for name in ("schema_version", "samples", "labels", "targets")],
    lambda reference: reference.update(more={"of": "a later version"}),
])  # fmt: skip
def test_what_a_reference_may_omit_or_add(settings: Config, change: Callable[[Reference], object]) -> None:
    assert installed(settings, change_reference=change).reference is not None


def test_a_reference_that_is_not_listed_does_not_belong_to_the_release(settings: Config) -> None:
    installed(settings)
    manifest_file: Path = settings.layout.bundle(RELEASE) / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    del manifest["files"]["drift_reference.json"]
    manifest_file.write_text(json.dumps(manifest))

    assert load(settings, RELEASE).reference is None


def test_the_statistics_are_those_that_the_agent_computes() -> None:
    from edge_agent.inference import drift_reference

    assert drift_reference.STATISTICS == drift.STATISTICS
