"""Every error class has a unique exit code and a docstring of one sentence, from which a table is generated."""

from __future__ import annotations

import re

import pytest
from edge_agent.core import errors
from edge_agent.core.errors import AgentError

KINDS = AgentError.__subclasses__()
# Modules that are not imported here may have subclasses of these: they share the exit code.
CLASSES = [kind for kind in KINDS if kind.__module__ == errors.__name__]


def test_the_exit_codes_are_unique() -> None:
    codes = [kind.exit_code for kind in CLASSES]

    assert codes == sorted(set(codes))
    assert not {errors.EXIT_DEFECT, errors.EXIT_USAGE, errors.EXIT_INTERRUPTED} & set(codes)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_names_its_cause_in_one_sentence(kind: type[AgentError]) -> None:
    assert re.fullmatch(r"The [^.]+[.]|Another [^.]+[.]", kind.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_exit_code_is_in_the_help_text(kind: type[AgentError]) -> None:
    assert re.search(rf"^ +{kind.exit_code}  \w", errors.__doc__ or "", re.MULTILINE)


def test_a_message_has_four_parts_and_leaves_out_empty_ones() -> None:
    full = errors.TrustError("file", "bad", "good", "replace it")

    assert str(full) == "file: bad\n  expected: good\n  remedy:   replace it"
    assert str(errors.TrustError("file", "bad")) == "file: bad"
    assert full.as_json() == {
        "error": "TrustError",
        "exit_code": 3,
        "where": "file",
        "found": "bad",
        "expected": "good",
        "remedy": "replace it",
    }
