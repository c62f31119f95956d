"""What all documents share: strict frozen types, and faults that are reported all together."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tritier.errors import InputError, did_you_mean


class Document(BaseModel):
    """Base of every type in a document: frozen, strict, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # How messages call a document of this type.
    title: ClassVar[str] = "document"

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:  # noqa: ARG003 - for subclasses
        """Faults between fields. Gets the raw data, which may have any shape: it must not raise,
        so that they can be reported together with the faults inside fields."""
        return []

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        faults = self.cross_faults(self.model_dump(mode="json", by_alias=True))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def from_data(cls, data: Any, source: str = "") -> Self:
        """Validate plain data (dicts, lists, numbers, texts); raises InputError with all faults."""
        if not isinstance(data, dict):
            raise InputError(
                f"{_a(cls.title)} is a mapping of keys to values, this is {_kind(data)}", source
            )
        across = cls.cross_faults(data)
        try:
            return cls.model_validate_json(json.dumps(data))
        except ValidationError as error:
            inside = [_fault(cls, item) for item in _own_faults(error.errors())]
            raise InputError([*inside, *across], source) from None
        except (TypeError, ValueError) as error:
            raise InputError(f"cannot be read as {_a(cls.title)}: {error}", source) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML or JSON file; raises InputError with all faults of the file."""
        return cls.from_data(read_data(path), str(path))

    def to_json(self) -> str:
        """The document as a JSON file: indented, fields in order, optional ones only if set."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without silent loss: a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *anchor` brings keys that others may replace
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(
                    problem="a key is a text, not a list or mapping",
                    problem_mark=key_node.start_mark,
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_data(path: Path) -> Any:
    """Plain data of a YAML or JSON file (JSON is read as the YAML that it is)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise InputError("is not a text file: YAML or JSON is expected", str(path)) from None
    try:
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_unique_pairs)
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"is not valid YAML: {error.problem}{where}", str(path)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"cannot be parsed: {error}", str(path)) from None


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' stands twice")
        found[key] = value
    return found


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        type(None): "nothing (an empty file)",
        bool: "a yes/no value",
    }
    return names.get(type(value), "a number")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _own_faults(items: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without what is reported elsewhere: faults of `_check_across` come again, whole, from
    `cross_faults`, and a list is not too short when it only has bad items."""
    return [
        item
        for item in items
        if item["type"] != "value_error" and not (item["type"] == "too_short" and item["input"])
    ]


def _fault(document: type[Document], item: ErrorDetails) -> str:
    """One line: where, what is wrong, what is allowed."""
    location = item["loc"]
    # The fault of a plan's id is found when all else is right, and so stands at the root.
    where = _path(location) or item["type"]
    if item["type"] == "extra_forbidden":
        known = _known_keys(document, location[:-1])
        hint = did_you_mean(str(location[-1]), known)
        return f"{where}: unknown key{hint}; known are {', '.join(known)}"
    if item["type"] == "missing":
        return f"{where}: is missing"
    if item["type"] == "too_short":
        return f"{where}: is empty; give at least one"
    if not location:
        return f"{where}: {item['msg']}"
    return f"{where}: {_shown(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys(document: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the (sub-)document at a location, found by walking the field types."""
    current: type[BaseModel] = document
    for part in location:
        if isinstance(part, int):
            continue
        for name, info in current.model_fields.items():
            if part in (name, info.alias):
                inner = _inner_model(info.annotation)
                if inner is None:
                    return []
                current = inner
    return [info.alias or name for name, info in current.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _inner_model(argument)) is not None:
            return found
    return None
