"""Kubernetes objects as YAML files: one object a file, with the reasons for what it says above."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritier.export.yaml_text import yaml_text

_WIDTH = 98


@dataclass(frozen=True)
class Manifest:
    """One file: where it goes below the exported folder, the object, what a reader must know of it,
    and whether `kubectl apply -k` of the folder takes it."""

    path: str
    data: Mapping[str, Any]
    comment: str = ""
    applied: bool = True

    @property
    def kind(self) -> str:
        """Of the object."""
        return str(self.data["kind"])

    def text(self, header: str) -> str:
        """Content of the file. `header` says what wrote it."""
        return yaml_text("\n".join([header, *textwrap.wrap(self.comment, _WIDTH)]), self.data)
