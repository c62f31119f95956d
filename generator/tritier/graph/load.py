"""Read an ONNX model and refuse what can't be handled, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from tritier.errors import InputError
from tritier.files import sha256_bytes, sha256_file


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `proto` is not to be changed: it is shared."""

    path: Path
    sha256: str
    proto: onnx.ModelProto
    has_external_data: bool = False

    def self_contained(self) -> bytes:
        """The model as one file, its external data within.

        Raises InputError above 2 GiB, which no protobuf message can hold.
        """
        if not self.has_external_data:
            return self.path.read_bytes()
        size = self.proto.ByteSize()
        if size > onnx.checker.MAXIMUM_PROTOBUF:
            raise InputError(
                f"has {size} bytes with its external data; one file can hold "
                f"{onnx.checker.MAXIMUM_PROTOBUF}: pass the model file itself with --model, and do "
                "not ask for --with-whole",
                str(self.path),
            )
        return self.proto.SerializeToString(deterministic=True)

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
    external = _external_files(path)
    return LoadedModel(path, _hash(path, external), proto, bool(external))


def _external_files(path: Path) -> list[Path]:
    """The files beside the model that hold its weights, in order of their names."""
    bare = onnx.load(str(path), format="protobuf", load_external_data=False)
    names = {
        entry.value
        for tensor in _tensors(bare.graph)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(names)]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph holds, in its nodes and sub-graphs too."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from _tensors(inner)


def _hash(path: Path, external: list[Path]) -> str:
    """Of the file; with external data, of the hashes of all files in order."""
    own = sha256_file(path)
    if not external:
        return own
    parts = [own, *(sha256_file(item) for item in external)]
    return sha256_bytes("\n".join(parts).encode())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
