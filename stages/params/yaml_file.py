"""A file of parameters as plain values. A key that is written twice is refused: YAML would keep the last one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from stages.core.errors import ParameterError

EXPECTED = "a YAML file of parameters"


class Loader(yaml.SafeLoader):
    """The safe loader; knows each key that is written twice in one mapping, at any depth, and where."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int, int]] = []  # dotted field, first line, second line

    def get_single_node(self) -> yaml.Node | None:
        # NOTE: looked for before anything is built: a merge key adds to the mapping that it stands in.
        node = super().get_single_node()
        self._look(node, (), set())
        return node

    def _look(self, node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))  # an alias is the node again
        if isinstance(node, yaml.ScalarNode) and re.search("[\ud800-\udfff]", node.value):
            problem = "found half of a character, which no file can hold: write the character itself"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._look(item, (*path, str(index)), seen)
        if not isinstance(node, yaml.MappingNode):
            return
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            self._look(key, path, seen)
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused when it is built: no such key can be looked up
            here, line = (*path, key.value), key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                self.repeated.append((".".join(here), lines[key.tag, key.value], line))
            lines.setdefault((key.tag, key.value), line)
            self._look(value, here, seen)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`. Raises ParameterError where there is none, or one that cannot be meant."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        remedy = "write it, or bring it back; if it is there, run from the repository's root, where dvc.yaml lies"
        raise ParameterError(str(path), "there is no such file", EXPECTED, remedy) from None
    except OSError as error:
        raise ParameterError(str(path), f"not readable: {error.strerror}", EXPECTED, "put the file there") from None
    except UnicodeDecodeError as error:
        found = f"not readable as text: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise ParameterError(str(path), found, EXPECTED, "save it as UTF-8") from None
    value = _parse(path, text)
    if not isinstance(value, dict):
        found = "found nothing" if value is None else f"found a {type(value).__name__}"
        raise ParameterError(str(path), found, "a mapping of blocks to parameters", "write `name: value` lines")
    return value


def _parse(path: Path, text: str) -> Any:
    remedy = "mend the line; docs/how-to/your-own-task.md has examples"
    try:
        loader = Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ParameterError(str(path), f"not readable as YAML: {where}{what}", EXPECTED, remedy) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"not readable as YAML: line {line}: the character {error.character:#x} is no text"
        raise ParameterError(str(path), found, EXPECTED, remedy) from None
    except (ValueError, OverflowError, LookupError, AttributeError) as error:  # no such date, number, truth value
        found = "not readable as YAML: " + re.sub(r"\s+", " ", str(error))
        raise ParameterError(str(path), found, EXPECTED, "mend the value, or write it in quotes") from None
    except RecursionError:
        raise ParameterError(str(path), "nested too deeply, or in itself", EXPECTED, remedy) from None
    if loader.repeated:
        lines = [f"  {field}: line {first} and again line {second}" for field, first, second in loader.repeated]
        raise ParameterError(
            str(path), "found a key twice\n" + "\n".join(lines), "every key once in its block", "remove one of the two"
        )
    return value
