"""Read a YAML file of parameters. Duplicate keys are refused, because a parser would silently use the last value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from stages.core.errors import ParameterError

EXPECTED = "a YAML file of parameters"
# YAML 1.1 reads some words without quotes as values: no, off and yes, null and ~, 1 and 1:30, 2026-01-01.
WORDS = {
    "tag:yaml.org,2002:bool": "a truth value",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:timestamp": "a date",
}


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also records the duplicate keys, and the keys that are not text, at any depth."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int, int]] = []  # dotted field, first line, second line
        self.not_text: list[tuple[str, int, str]] = []  # dotted field, line, type

    def get_single_node(self) -> yaml.Node | None:
        # NOTE: Duplicates are searched for before values are built, because a merge key (<<) adds keys to its mapping.
        node = super().get_single_node()
        self._find_repeated(node, (), set())
        return node

    def _find_repeated(self, node: yaml.Node | None, path: tuple[str, ...], visited: set[int]) -> None:
        if node is None or id(node) in visited:
            return
        visited.add(id(node))  # an alias refers to the same node again
        if isinstance(node, yaml.ScalarNode) and re.search("[\ud800-\udfff]", node.value):
            problem = "found half of a character (a surrogate), which UTF-8 cannot encode: write the character itself"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._find_repeated(item, (*path, str(index)), visited)
        if not isinstance(node, yaml.MappingNode):
            return
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            self._find_repeated(key, path, visited)
            if not isinstance(key, yaml.ScalarNode):
                continue  # the loader refuses such a key when it builds the mapping
            field, line = (*path, key.value), key.start_mark.line + 1
            if key.tag in WORDS:
                self.not_text.append((".".join(field), line, WORDS[key.tag]))
            if (key.tag, key.value) in lines:
                self.repeated.append((".".join(field), lines[key.tag, key.value], line))
            lines.setdefault((key.tag, key.value), line)
            self._find_repeated(value, field, visited)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the YAML file `path` and return its mapping. Raises ParameterError if the file is missing or not valid."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        remedy = "write or restore the file; if it exists, run from the root of the repository, which contains dvc.yaml"
        raise ParameterError(str(path), "there is no such file", EXPECTED, remedy) from None
    except OSError as error:
        raise ParameterError(str(path), f"not readable: {error.strerror}", EXPECTED, "make the file readable") from None
    except UnicodeDecodeError as error:
        reason = f"not readable as text: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise ParameterError(str(path), reason, EXPECTED, "save the file as UTF-8") from None
    value = _parse(path, text)
    if not isinstance(value, dict):
        content = "found nothing" if value is None else f"found a {type(value).__name__}"
        raise ParameterError(
            str(path), content, "blocks of parameters, each a mapping", "write lines such as `name: value`"
        )
    return value


def _parse(path: Path, text: str) -> Any:
    remedy = "correct the line; docs/how-to/your-own-task.md has examples"
    try:
        loader = Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise ParameterError(str(path), f"not readable as YAML: {position}{problem}", EXPECTED, remedy) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"not readable as YAML: line {line}: the character {error.character:#x} is not allowed"
        raise ParameterError(str(path), reason, EXPECTED, remedy) from None
    except (ValueError, OverflowError, LookupError, AttributeError) as error:  # not a valid date, number or truth value
        reason = "not readable as YAML: " + re.sub(r"\s+", " ", str(error))
        raise ParameterError(str(path), reason, EXPECTED, "correct the value, or write it in quotes") from None
    except RecursionError:
        raise ParameterError(
            str(path), "values are nested too deeply, or contain themselves", EXPECTED, remedy
        ) from None
    if loader.repeated:
        lines = [f"  {field}: line {first} and line {second}" for field, first, second in loader.repeated]
        raise ParameterError(
            str(path),
            "found a duplicate key\n" + "\n".join(lines),
            "each key only once in its block",
            "remove one of the two lines",
        )
    if loader.not_text:
        lines = [f"  {field}: YAML reads the key in line {line} as {kind}" for field, line, kind in loader.not_text]
        raise ParameterError(
            str(path), "found a key that is not text\n" + "\n".join(lines), "text", "write it in quotes"
        )
    return value
