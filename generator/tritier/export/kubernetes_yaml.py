"""Kubernetes objects as YAML files: one object a file, with the reasons for what it says above."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Object = Mapping[str, Any]
_WIDTH = 100


@dataclass(frozen=True)
class Manifest:
    """One file: where it goes below the exported folder, the object, what a reader must know of it,
    and whether `kubectl apply -k` of the folder takes it."""

    path: str
    data: Object
    comment: str = ""
    applied: bool = True

    @property
    def kind(self) -> str:
        """Of the object."""
        return str(self.data["kind"])

    def text(self, header: str) -> str:
        """Content of the file. `header` says what wrote it."""
        lines = [header, *textwrap.wrap(self.comment, _WIDTH - 2)]
        return "".join(f"# {line}\n" for line in lines) + dump(self.data)


def dump(data: Object) -> str:
    """YAML in the given order of keys, with texts of several lines as blocks and no anchors."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )


class _Dumper(yaml.SafeDumper):
    """Without `&id001`, which nobody wants to read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
