"""Read and check drift_reference.json, the file of a bundle with the distributions that live inputs are compared with.

A release whose file does not fit its manifest is refused before the agent switches to it, because the statistics of the
release would otherwise fail, or count values in wrong bins, while it serves predictions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from edge_agent.core.errors import SelfTestError, TrustError

FILE = "drift_reference.json"
SCHEMA_VERSION = 1
STATISTICS = (
    "mean",
    "std",
)  # as in edge_agent.monitoring.drift, which this package cannot import; a test compares them
SUM_TOLERANCE = 1e-6


def read(release: str, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the drift reference of an unpacked bundle, or None if the bundle has none.

    Args:
        release: Name and version of the release, for error messages.
        folder: The folder of the bundle.
        manifest: The manifest of the bundle.

    Raises:
        TrustError: The file differs from the manifest.
        SelfTestError: The content is not a drift reference, or does not fit the channels and classes in the manifest.
        OSError: The device cannot read the file.
    """
    listed = manifest["files"].get(FILE)
    if listed is None:
        return None
    file = folder / FILE
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != listed["sha256"]:
        remedy = f"run `edge-agent verify`, then install {release} again"
        raise TrustError(str(file), f"sha256 {digest}", listed["sha256"], remedy)
    check = _Check(file)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        check.refuse("", f"not JSON ({error})", "JSON in UTF-8")
    axes, shape = list(manifest["input"]["axes"]), manifest["input"]["shape"]
    channels = int(shape[axes.index("channel")]) if "channel" in axes else 1
    return _checked(check, value, channels, list(manifest["output"]["classes"]), list(manifest["targets"]))


class _Check:
    """Checks of the values in one file. Every method raises SelfTestError for a value that is not as expected."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def refuse(self, field: str, value: object, expected: str) -> NoReturn:
        """Refuse the release because of the value of a field.

        Args:
            field: The path of the field, such as `features.0.channel`; empty for the whole file.
            value: The value that was found there, or its description.
            expected: The value that was expected.
        """
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        where = f"{self.file}: {field}" if field else str(self.file)
        raise SelfTestError(
            where, text if len(text) <= 120 else f"{text[:117]}...", expected, "build the release again"
        )

    def require_object(self, field: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(field, value, "an object")
        return dict(value)

    def require_list(self, field: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(field, value, "a list")
        return list(value)

    def require_integer(self, field: str, value: Any, least: int) -> int:
        if type(value) is not int or value < least:
            self.refuse(field, value, f"an integer of at least {least}")
        return int(value)

    def require_ratio(self, field: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value <= 1:
            self.refuse(field, value, "a number from 0 to 1")
        return float(value)

    def require_whole(self, field: str, ratios: list[float]) -> None:
        """Check that the fractions in `field` are the fractions of a whole."""
        if abs(sum(ratios) - 1) > SUM_TOLERANCE:
            self.refuse(field, f"a sum of {sum(ratios):g}", "a sum of 1")

    def require_bins(self, field: str, value: Mapping[str, Any]) -> None:
        """Check the edges and the fractions of a histogram, whose first and last bins are open."""
        last = -math.inf
        edges = self.require_list(f"{field}.edges", value.get("edges"))
        for i, edge in enumerate(edges):
            if type(edge) not in (int, float) or not -1e308 < edge < 1e308:
                self.refuse(f"{field}.edges.{i}", edge, "a finite number")
            if edge <= last:
                self.refuse(f"{field}.edges.{i}", edge, f"a number above the edge before it, {last:g}")
            last = float(edge)
        ratios = self.require_list(f"{field}.ratios", value.get("ratios"))
        if len(ratios) != len(edges) + 1:
            self.refuse(f"{field}.ratios", f"{len(ratios)} ratios", f"{len(edges) + 1}, one more than edges")
        self.require_whole(
            f"{field}.ratios", [self.require_ratio(f"{field}.ratios.{i}", ratio) for i, ratio in enumerate(ratios)]
        )

    def require_class_ratios(self, field: str, value: Any, classes: list[str]) -> None:
        """Check that `value` has the fraction of each class."""
        ratios = self.require_object(field, value)
        if set(ratios) != set(classes):
            self.refuse(field, list(ratios), f"the classes of the manifest: {', '.join(classes)}")
        self.require_whole(field, [self.require_ratio(f"{field}.{name}", ratio) for name, ratio in ratios.items()])


def _checked(check: _Check, value: Any, channels: int, classes: list[str], targets: list[str]) -> dict[str, Any]:
    """Return the content of the file if it fits a release with these channels, classes and targets."""
    reference = check.require_object("", value)
    version = reference.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        check.refuse("schema_version", version, f"{SCHEMA_VERSION}, the version that this agent can read")
    if "samples" in reference:
        check.require_integer("samples", reference["samples"], 1)
    names: set[str] = set()
    for i, feature in enumerate(check.require_list("features", reference.get("features"))):
        names.add(_checked_feature(check, f"features.{i}", feature, channels, names))
    if "labels" in reference:
        check.require_class_ratios("labels", reference["labels"], classes)
    for target, evaluated in check.require_object("targets", reference.get("targets", {})).items():
        field = f"targets.{target}"
        if target not in targets:
            check.refuse(field, "a target that the manifest does not list", f"one of {', '.join(targets)}")
        distributions = check.require_object(field, evaluated)
        if "prediction_ratios" in distributions:
            check.require_class_ratios(f"{field}.prediction_ratios", distributions["prediction_ratios"], classes)
        if "confidence_bins" in distributions:
            confidence = f"{field}.confidence_bins"
            check.require_bins(confidence, check.require_object(confidence, distributions["confidence_bins"]))
    return reference


def _checked_feature(check: _Check, field: str, value: Any, channels: int, names: set[str]) -> str:
    """Return the name of a feature that fits the release. `names` has the names of the features before it."""
    feature = check.require_object(field, value)
    name = feature.get("name")
    if not isinstance(name, str) or name in names:
        check.refuse(f"{field}.name", name, "a name that no other feature has")
    channel = check.require_integer(f"{field}.channel", feature.get("channel"), 0)
    if channel >= channels:
        check.refuse(f"{field}.channel", channel, f"the index of a channel of the manifest: below {channels}")
    if feature.get("statistic") not in STATISTICS:
        check.refuse(f"{field}.statistic", feature.get("statistic"), f"one of {', '.join(STATISTICS)}")
    check.require_bins(field, feature)
    return str(name)
