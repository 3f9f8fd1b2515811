"""Create the model card: what a person should know before using the model (Mitchell et al. 2019).

The card contains nothing that can change while the model stays the same, such as a build time or a latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.metrics.confusion import name_classes
from stages.report.schemas.evaluation import Intervals


@dataclass(frozen=True)
class Groups:
    """The numbers of groups in the test split. A group is, for example, all rows of one person or one device."""

    name: str  # name of the group column
    tested: int  # number of groups in the test split
    trained: int  # number of groups in the test split that are also in the training split


ROWS = {
    "accuracy": "Accuracy",
    "f1_macro": "F1, macro",
    "precision_macro": "Precision, macro",
    "recall_macro": "Recall, macro",
    "calibration_error": "Calibration error",
    "agreement": "Agreement with the compressed torch model",
}


def model_card(
    manifest: Mapping[str, Any],
    limitations: str,
    splits: Mapping[str, int],
    per_class: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    partial: Mapping[str, Mapping[str, Any] | None],
    left_out: Mapping[str, list[str]],
    groups: Groups,
    intervals: Intervals,
) -> str:
    """Return the text of the model card as Markdown.

    Args:
        manifest: The bundle's manifest.
        limitations: The parameter `package.limitations`: known limitations of the model.
        splits: Number of samples in each split, by the split's name.
        per_class: For each target and class: precision, recall, f1 and support.
        partial: For each target: the means over the classes that have a test sample; None if every class has one.
        left_out: For each target that is not in the bundle: the names of its failed checks.
        groups: The numbers of groups in the test split.
        intervals: How the confidence intervals of all targets were computed.
    """
    shape, classes = manifest["input"], manifest["output"]["classes"]
    axes = " x ".join(f"{size} {axis}" for axis, size in zip(shape["axes"], shape["shape"], strict=True))
    channels = ", ".join(f"{channel['name']} ({channel['unit']})" for channel in shape["channels"])
    rate = f", {shape['rate_hz']:g} samples per second" if shape["rate_hz"] else ""
    lines = [
        f"# {manifest['name']}",
        "",
        manifest["description"],
        "",
        f"- **Input**: {shape['kind']}, {axes}, float32 in raw units{rate}; scaling is inside the model. "
        f"Channels: {channels}.",
        f"- **Output**: a probability for each of {len(classes)} classes: {', '.join(classes)}.",
        f"- **Licence**: {manifest['licence']}.",
        "",
        "## Limits",
        "",
        limitations,
        "",
        f"{_reach(groups)} The numbers below are valid only for data like the test data. The drift reference in this "
        "bundle helps to detect when the data changes.",
        "",
        "## Data",
        "",
        f"Snapshot {manifest['data']['snapshot']}: {', '.join(sorted(manifest['data']['sources']))}. "
        f"Samples: {', '.join(f'{count} {split}' for split, count in splits.items())}.",
        "",
        "## Quality, measured on the exported files",
        "",
        *_quality(manifest, partial, groups, intervals),
        *(_classes(per_class)),
    ]
    if left_out:
        lines += [
            "",
            "## Left out",
            "",
            "These targets were built, but are not in this bundle, because they failed the checks that are listed:",
            "",
        ]
        lines += [f"- {target}: {', '.join(checks)}" for target, checks in left_out.items()]
    return "\n".join(lines) + "\n"


def _reach(groups: Groups) -> str:
    if not groups.trained:
        return f"No {groups.name} of the test split was in training, so the quality applies to unseen values."
    return (
        f"{groups.trained} of the {groups.tested} {groups.name} values in the test split were in training too, so "
        "the quality on new values can be lower."
    )


def _quality(
    manifest: Mapping[str, Any],
    partial: Mapping[str, Mapping[str, Any] | None],
    groups: Groups,
    intervals: Intervals,
) -> list[str]:
    targets = manifest["targets"]
    metrics = next(iter(targets.values()))["metrics"]
    head = ["|  | " + " | ".join(targets) + " |", "|---|" + "---:|" * len(targets)]
    size = "| Size | " + " | ".join(f"{own['size_bytes'] / 1000:.1f} kB" for own in targets.values()) + " |"
    rows = []
    first = next(iter(partial.values()))
    for name, title in ROWS.items():
        estimates = [own["metrics"]["estimates"].get(name) for own in targets.values()]
        if not any(estimates) and first and name in first:
            estimates = [own and own[name] for own in partial.values()]
            title += f", over {name_classes(first['classes'], first['absent'])}"
        if any(estimates):
            rows.append(f"| {title} | " + " | ".join(_estimate(estimate) for estimate in estimates) + " |")
    samples = f"{metrics['samples']} test samples"
    interval = f"the {metrics['confidence']:.0%} confidence interval"
    if intervals.unit == "group":
        samples += f" with {groups.tested} {groups.name} values"
        interval += f", which treats all samples of one {groups.name} as a unit"
    caveat = f" Keep in mind: {intervals.caveat}." if intervals.caveat else ""
    note = f"{samples}; in brackets {interval}.{caveat} How fast a file runs depends on the device: measure it there."
    if first:
        note += (
            f" **No test sample is of class {', '.join(first['absent'])}**, so nothing is known about how well the "
            "model recognises it."
        )
    return [note, "", *head, *rows, size]


def _estimate(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]" if estimate else "not measured"


def _score(value: float | None) -> str:
    return "no sample" if value is None else f"{value:.4f}"


def _classes(per_class: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> list[str]:
    if not per_class:
        return []
    names = next(iter(per_class.values()))
    head = ["", "### F1 by class", "", "| Class | test samples | " + " | ".join(per_class) + " |"]
    rows = [
        f"| {name} | {names[name]['support']:.0f} | "
        + " | ".join(_score(classes[name]["f1"]) for classes in per_class.values())
        + " |"
        for name in names
    ]
    return [*head, "|---|---:|" + "---:|" * len(per_class), *rows]
