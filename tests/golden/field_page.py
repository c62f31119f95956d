"""`docs/plan_format.md`: every field of every document, read from the JSON schemas."""

from __future__ import annotations

import json
from typing import Any

from tests.golden.command_page import plain, wrapped

_HEAD = """\
# Fields of the documents

Made by `make regen` from the types that read and write the files, and compared with them by a test;
the same as JSON Schemas is in [schemas/](schemas/). What the fields are for stands in
[documents.md](documents.md) and in the pages of the commands that write them. First the plan, then
all others by name. In every document unknown keys are errors.

A type with a capital letter is a part of the document, which stands below it. `?` after a type: may
also be left out or null. *required*: has to be there.
"""
_FIRST = "plan"
_LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "like `{}`",
}


def field_page(schemas: dict[str, dict[str, Any]]) -> str:
    """The whole page, from name -> JSON schema."""
    order = sorted(schemas, key=lambda name: (name != _FIRST, name))
    parts = [_HEAD, *(_document(name, schemas[name]) for name in order)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _document(name: str, schema: dict[str, Any]) -> str:
    """A section of a document, with one table for itself and one for each of its parts."""
    parts = [f"## {name.replace('_', ' ')}", "", f"Schema: [{name}.json](schemas/{name}.json).", ""]
    parts += _fields(schema)
    for title, part in schema.get("$defs", {}).items():
        if "properties" in part:
            parts += [f"**{title}**", "", *_fields(part)]
    return "\n".join(parts)


def _fields(schema: dict[str, Any]) -> list[str]:
    """What it is, and its table."""
    text = schema.get("description", "")
    head = [wrapped(text), ""] if text else []
    required = set(schema.get("required", ()))
    rows = [
        f"| `{key}` | {_type(field)} | {_rest(field, key in required)} |"
        for key, field in schema["properties"].items()
    ]
    return [*head, "| field | type | |", "|---|---|---|", *rows, ""]


def _type(field: dict[str, Any]) -> str:
    """Its type in words; code where the value is fixed."""
    if "anyOf" in field:
        kinds = [_type(kind) for kind in field["anyOf"] if kind.get("type") != "null"]
        null = any(kind.get("type") == "null" for kind in field["anyOf"])
        return " or ".join(dict.fromkeys(kinds)) + ("?" if null else "")
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    return _of_kind(field)


def _of_kind(field: dict[str, Any]) -> str:
    kind = field.get("type", "any")
    if kind == "array":
        places = field.get("prefixItems")
        inner = ", ".join(map(_type, places)) if places else _type(field.get("items", {}))
        return f"list of ({inner})" if places or " " in inner else f"list of {inner}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping of text to {_type(values if isinstance(values, dict) else {})}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(kind, str(kind))


def _rest(field: dict[str, Any], required: bool) -> str:
    """Meaning, limits, default."""
    parts = [plain(field["description"])] if field.get("description") else []
    parts += _limits(field)
    if required:
        parts.append("*required*")
    elif (default := field.get("default")) not in (None, [], {}):
        parts.append(f"default `{json.dumps(default)}`")
    return "; ".join(parts)


def _limits(field: dict[str, Any]) -> list[str]:
    """Of the field, or of the one kind that has some."""
    kinds = [field, *field.get("anyOf", ())]
    texts = [
        "not empty" if (key, kind[key]) == ("minItems", 1) else text.format(_cell(kind[key]))
        for kind in kinds
        for key, text in _LIMITS.items()
        if key in kind and not isinstance(kind[key], dict)
    ]
    return list(dict.fromkeys(texts))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")
