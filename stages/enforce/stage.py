"""Fail if the gate refused the model. In an experiment of DVC, only print why the gate refused it.

DVC keeps no result of a run in which a stage fails. So the `gate` stage records its verdict and succeeds, and this last
stage fails instead. In an experiment it succeeds, so that DVC keeps the numbers of a refused model, and
`dvc exp show` can compare them. DVC runs this stage in every run (`always_changed` in dvc.yaml). Otherwise DVC would
remember the success of the experiment, and would skip the stage after `dvc exp apply`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from stages.core import command
from stages.report.verdict import read_verdict, refusal

# DVC sets these variables for the stages of an experiment. A user may export the name alone, which other tools read.
EXPERIMENT = ("DVC_EXP_BASELINE_REV", "DVC_EXP_NAME")


def is_experiment(environment: Mapping[str, str]) -> bool:
    """Check whether `environment` is the environment that DVC gives to the stages of an experiment."""
    return all(environment.get(name) for name in EXPERIMENT)


def main() -> None:
    command.parser("enforce", __doc__).parse_args()
    _, verdict = read_verdict()
    if verdict.passed:
        return
    error = refusal(verdict)
    if not is_experiment(os.environ):
        raise error
    print(f"{error}\nThe experiment is kept: compare it with others by `dvc exp show`.")
