"""YAML as it is exported: a header, keys in the order given, no aliases, long texts on one line,
those of several lines as blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - what is equal is written twice
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)  # items of lists stand below their key


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # Engines read YAML 1.1 and 1.2: a text that either would take for something else is quoted.
    odd = value.lower() in ("y", "n", "on", "off", "yes", "no") or value[:1].isdigit()
    style = "|" if "\n" in value else '"' if odd else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(header: str, data: Mapping[str, Any]) -> str:
    """The document with its header as comments."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    body = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return comments + body
