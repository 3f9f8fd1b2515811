"""Write a JSON Schema as Markdown: one section per block of fields, one table row per field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from docs.generator.markdown import anchor, cell, first_sentence, word_count

Schema = Mapping[str, Any]

CELL_WORDS = 25
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "object": "mapping"}


@dataclass
class SchemaTables:
    """Sections of Markdown for the blocks of one schema.

    Attributes:
        root: the JSON Schema with its `$defs`.
        prefix: text that is written before each dotted name, such as `rollout`.
        defaults: default values of fields whose schema has none, by dotted name; None means the host name.
        show_defaults: whether the tables have a column for default values.
        missing: dotted names of the fields that have no description.
    """

    root: Schema
    prefix: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    show_defaults: bool = False
    missing: list[str] = field(default_factory=list)
    _sections: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def write(self, properties: Iterable[str] | None = None) -> list[str]:
        """Return the lines for the root block.

        Args:
            properties: names of the root's fields to write; None writes all of them.

        Returns:
            Markdown lines: the root's own table first, then a section for each nested block.
        """
        self._lines = []
        names = list(self.root["properties"] if properties is None else properties)
        nested = [name for name in names if self._block(self.root["properties"][name]) is not None]
        for name in nested:  # before the table, so that the table can link to these sections
            self._nested(_join(self.prefix, name), self.root["properties"][name])
        if nested != names:
            sections, self._lines = self._lines, []
            self._table(self.root, self.prefix, names)
            self._lines += sections
        return self._lines

    def _nested(self, path: str, schema: Schema) -> None:
        """Write a section for every type of block that a field can hold, also in a mapping or a list."""
        suffix, variants = self._variants(schema)
        for name, block in variants:
            key = block.get("$ref", "")
            if key and key in self._sections:
                continue
            heading = f"{path}{suffix}"
            chosen = f", type {name}" if name else ""
            if key:
                self._sections[key] = anchor(f"{heading}{chosen}")
            self._section(f"`{heading}`{chosen}", heading, self._resolve(block))

    def _section(self, title: str, path: str, block: Schema) -> None:
        self._lines += [f"### {title}", ""]
        if text := block.get("description"):
            self._lines += [" ".join(text.split()), ""]
        nested = {name: each for name, each in block["properties"].items() if self._block(each) is not None}
        start = len(self._lines)
        for name, each in nested.items():  # before the table, so that the table can link to these sections
            self._nested(_join(path, name), each)
        below, self._lines = self._lines[start:], self._lines[:start]
        self._table(block, path, list(block["properties"]))
        self._lines += below

    def _table(self, block: Schema, path: str, names: Iterable[str]) -> None:
        titles = ["name", "value", *(["default"] if self.show_defaults else []), "meaning"]
        self._lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        notes: list[str] = []
        for name in names:
            schema, dotted = block["properties"][name], _join(path, name)
            text = self._meaning(schema, dotted)
            if word_count(text) > CELL_WORDS:
                notes.append(f"- `{name}`: {text}")
                short = first_sentence(text)
                text = short if word_count(short) <= CELL_WORDS else "See below the table."
            optional = "" if self.show_defaults or name in block.get("required", ()) else " (optional)"
            row = [f"`{name}`", self._value(schema) + optional, text]
            if self.show_defaults:
                row.insert(2, self._default(schema, dotted))
            self._lines.append(f"| {' | '.join(cell(each) for each in row)} |")
        self._lines += ["", *notes, *([""] if notes else [])]

    def _meaning(self, schema: Schema, dotted: str) -> str:
        text = schema.get("description", "")
        if not text:
            text = next((each["description"] for each in self._alternatives(schema) if each.get("description")), "")
        if not text and (block := self._block(schema)):
            text = first_sentence(" ".join(self._resolve(block).get("description", "").split()))
        if not text:
            self.missing.append(dotted)
        text = " ".join(text.split())
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")

    def _default(self, schema: Schema, dotted: str) -> str:
        if dotted in self.defaults:
            default = self.defaults[dotted]
            return "the host name" if default is None else literal(default)
        if self._block(schema) is not None and isinstance(schema.get("default"), dict):
            return ""  # the block's own table shows its default values
        return literal(schema["default"]) if "default" in schema else "required"

    # What a field holds

    def _resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.root["$defs"][schema["$ref"].rpartition("/")[2]]
        return schema

    def _alternatives(self, schema: Schema) -> list[Schema]:
        """Return the schemas that a field's value can have, without null."""
        each = schema.get("anyOf") or schema.get("oneOf")
        return [one for one in each if one.get("type") != "null"] if each else [schema]

    def _variants(self, schema: Schema) -> tuple[str, list[tuple[str, Schema]]]:
        """Return the suffix that leads from a field to its blocks, such as `.<name>`, and each block with its type."""
        alternatives = self._alternatives(schema)
        if len(alternatives) > 1:
            named = [(str(self._resolve(one)["properties"]["type"]["const"]), one) for one in alternatives]
            return "", named
        (only,) = alternatives
        content = self._resolve(only)
        if isinstance(content.get("additionalProperties"), Mapping):
            below, variants = self._variants(content["additionalProperties"])
            return f".<name>{below}", variants
        if content.get("type") == "array" and "items" in content:
            below, variants = self._variants(content["items"])
            return f"[]{below}", variants
        return "", [("", only)]

    def _block(self, schema: Schema) -> Schema | None:
        """Return the first block in a field, a mapping or a list; None if the field holds plain values."""
        for one in self._alternatives(schema):
            content = self._resolve(one)
            if "properties" in content:
                return one
            for inner in (content.get("additionalProperties"), content.get("items")):
                if isinstance(inner, Mapping) and (block := self._block(inner)) is not None:
                    return block
        return None

    def _value(self, schema: Schema) -> str:
        if self._block(schema) is not None:
            return self._link(schema) + self._or_null(schema)
        alternatives = self._alternatives(schema)
        return " or ".join(dict.fromkeys(self._kind(each) for each in alternatives)) + self._or_null(schema)

    def _or_null(self, schema: Schema) -> str:
        return " or null" if any(one.get("type") == "null" for one in schema.get("anyOf", ())) else ""

    def _link(self, schema: Schema) -> str:
        suffix, variants = self._variants(schema)
        kind = {"": "block", "[]": "list of blocks"}.get(suffix, "named blocks")
        targets = [self._sections.get(block.get("$ref", ""), "") for _, block in variants]
        if len(variants) == 1:
            return f"[{kind}](#{targets[0]})" if targets[0] else kind
        names = (
            f"[`{name}`](#{target})" if target else f"`{name}`"
            for (name, _), target in zip(variants, targets, strict=True)
        )
        return f"{kind}: {', '.join(names)}"

    def _kind(self, schema: Schema) -> str:
        schema = self._resolve(schema)
        if "const" in schema:
            return literal(schema["const"])
        if "enum" in schema:
            return ", ".join(literal(each) for each in schema["enum"])
        kind = schema.get("type")
        if kind == "array":
            return f"list of {self._value(schema['items'])}" if "items" in schema else "list"
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"mapping to {self._value(schema['additionalProperties'])}"
        name = "time" if schema.get("format") == "date-time" else TYPES.get(str(kind), str(kind or "any value"))
        return f"{name}{limits(schema)}"


def limits(schema: Schema) -> str:
    """Return the limits of a number as text, such as `, 0 to 1` or `, more than 0`; empty without any."""
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if schema.get("type") == "integer":
        least = above + 1 if above is not None else least
        most = below - 1 if below is not None else most
        above = below = None
    if least is not None and most is not None:
        return f", {number(least)} to {number(most)}"
    parts = (("at least", least), ("more than", above), ("at most", most), ("less than", below))
    return "".join(f", {words} {number(limit)}" for words, limit in parts if limit is not None)


def number(value: float) -> str:
    """Return a number as text: whole numbers below 1e16 without a decimal point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e16 else str(value)


def literal(value: Any) -> str:
    """Return a value as it is written in YAML or TOML, in code marks."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if isinstance(value, (list, tuple)):
        return ", ".join(literal(each) for each in value) if value else "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
