"""Every field that a config uses, against what a release is known to have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritier.doctor.releases import ReleaseTable, has, since
from tritier.doctor.subjects import Subject
from tritier.documents import PortabilityFinding


def used_fields(message: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of all that is set in a protobuf message; of maps the path of the map
    with each key, and what is inside its values."""
    for descriptor, value in message.ListFields():
        path = f"{prefix}{descriptor.name}"
        inner = descriptor.message_type
        if inner is None:
            yield path, value
        elif inner.GetOptions().map_entry:
            for key in sorted(value):
                yield path, key
                if inner.fields_by_name["value"].message_type is not None:
                    yield from used_fields(value[key], f"{path}.")
        else:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield path, item
                yield from used_fields(item, f"{path}.")


def field_paths(config: Any) -> set[str]:
    """The different fields of a config."""
    return {path for path, _ in used_fields(config)}


def field_findings(subject: Subject, table: ReleaseTable, target: str) -> list[PortabilityFinding]:
    """Fields and the backend that the release lacks, or of which nothing is known."""
    findings = []
    for path in sorted(field_paths(subject.config)):
        first = since(table.fields, path)
        if first is None:
            why = f"the release table does not know this field: nothing is known of {target}"
            fix = "look it up in model_config.proto of that release, then add it to the table"
            findings.append(subject.says("warning", path, why, fix))
        elif not has(first, target):
            why = f"is there from {first} on, not in {target}"
            fix = f"take {first} or newer, or take the field out"
            findings.append(subject.says("error", path, why, fix))
    return findings + _backend_findings(subject, table, target)


def _backend_findings(
    subject: Subject, table: ReleaseTable, target: str
) -> list[PortabilityFinding]:
    first = since(table.backends, subject.backend)
    if first is None:
        known = ", ".join(name for names in table.backends.values() for name in names)
        why = f"'{subject.backend}' is no backend that the release table knows; known are {known}"
        return [subject.says("error", "backend", why, "tritier generate, again")]
    if not has(first, target):
        why = f"'{subject.backend}' is there from {first} on, not in {target}"
        return [subject.says("error", "backend", why, f"take {first} or newer")]
    return []
