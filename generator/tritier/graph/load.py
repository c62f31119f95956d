"""Read an ONNX model and refuse what can't be handled, with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tritier.errors import InputError
from tritier.files import sha256_file


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `proto` is not to be changed: it is shared."""

    path: Path
    sha256: str
    proto: onnx.ModelProto

    @property
    def default_name(self) -> str:
        """The file's stem as a name that Triton accepts."""
        kept = "".join(
            c if (c.isalnum() and c.isascii()) or c in "_.-" else "_" for c in self._stem
        )
        # Two underscores together separate the parts of a Triton model name.
        return re.sub("_{2,}", "_", kept).lstrip("_.-")[:100] or "model"

    @property
    def _stem(self) -> str:
        return self.path.stem


def load_model(path: Path) -> LoadedModel:
    """Load and check a model.

    Raises InputError when the file can't be read, is no ONNX model or breaks ONNX's rules.
    """
    if not path.is_file():
        raise InputError("no such file: give the path of an ONNX model", str(path))
    try:
        # Whatever the name ends in: ONNX would read `plan.json` as a model in JSON.
        proto = onnx.load(str(path), format="protobuf")
    except (DecodeError, ValueError, RuntimeError, OSError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"is not a readable ONNX model ({_first_line(error)}): export it again", str(path)
        ) from None
    if not proto.graph.node:
        raise InputError("is not an ONNX model with layers: its graph is empty", str(path))
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"breaks ONNX's rules: {_first_line(error)}", str(path)) from None
    return LoadedModel(path, sha256_file(path), proto)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
