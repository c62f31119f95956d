"""Read an ONNX model and refuse what can't be handled, with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from tritier.errors import InputError
from tritier.files import sha256_bytes, sha256_file
from tritier.graph.checks import name_faults, operator_faults, order_faults
from tritier.graph.sizes import constant_bytes, fits_one_file
from tritier.graph.tensor_checks import tensor_faults, tensors_of
from tritier.graph.tensors import without_weights

_MOST_FAULTS = 10
_MOST_TEXT = 300  # characters of a message of ONNX
# How other files that people pass begin.
_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a ZIP archive, as PyTorch's .pt files are",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"{": "a JSON text",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
}


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
        if not fits_one_file(self.proto):
            raise InputError(
                f"has {constant_bytes(self.proto):,} bytes of constants in external data; one file "
                f"can hold {onnx.checker.MAXIMUM_PROTOBUF:,}: pass the model file itself with "
                "--model, and do not ask for --with-whole",
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
    proto = read_model(path)
    external = external_files(proto, path.parent)
    if external:
        load_external_data(proto, path)
    return LoadedModel(path, _hash(path, external), proto, bool(external))


def read_model(path: Path, unique_nodes: bool = True) -> onnx.ModelProto:
    """A checked model; external data stay where they are.

    Without `unique_nodes` two nodes may share a name, which ONNX Runtime does not run. Raises
    InputError when the file can't be read, is no ONNX model or breaks ONNX's rules.
    """
    if not path.is_file():
        raise InputError("no such file: give the path of an ONNX model", str(path))
    proto = _parsed(path)
    if not proto.graph.node:
        raise InputError("is not an ONNX model with layers: its graph is empty", str(path))
    _refuse_faults(proto, path, unique_nodes)
    try:
        # Large constants, which have been looked at above, would have to be copied for it.
        onnx.checker.check_model(without_weights(proto).SerializeToString())
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        text = _first_line(error).replace(f"{path.parent}/", "")
        raise InputError(f"breaks ONNX's rules: {text}", str(path)) from None
    return proto


def load_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Read the external data of a model that was read from `path` into it."""
    try:
        external_data_helper.load_external_data_for_model(proto, str(path.parent))
    except (ValueError, RuntimeError, OSError, onnx.checker.ValidationError) as error:
        text = _first_line(error).replace(f"{path.parent}/", "")
        raise InputError(f"its external data can't be read: {text}", str(path)) from None


def external_files(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    """The files beside a model that hold its weights, in order of their names."""
    names = {
        entry.value
        for tensor in tensors_of(proto.graph)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [folder / name for name in sorted(names)]


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        # Whatever the name ends in: ONNX would read `plan.json` as a model in JSON.
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError:
        reason = _known_format(path) or _tensor(path) or "its protobuf ends too early or is none"
    except (ValueError, RuntimeError, OSError) as error:
        reason = _first_line(error).replace(f"{path.parent}/", "")
    raise InputError(f"is not a readable ONNX model ({reason}): export it again", str(path))


def _known_format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    return next((f"it is {what}" for start, what in _FORMATS.items() if head.startswith(start)), "")


def _tensor(path: Path) -> str:
    """Not empty if the file is a single tensor, as models' inputs are often kept."""
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
    except DecodeError:
        return ""
    known = tensor.data_type and tensor.data_type in onnx.TensorProto.DataType.values()
    return "it is a single tensor" if known else ""


def _refuse_faults(proto: onnx.ModelProto, path: Path, unique_nodes: bool) -> None:
    faults = name_faults(proto.graph, unique_nodes)
    if not faults:
        faults = [
            *order_faults(proto.graph),
            *operator_faults(proto),
            *tensor_faults(proto.graph, path.parent),
        ]
    if len(faults) > _MOST_FAULTS:
        faults = [*faults[:_MOST_FAULTS], f"and {len(faults) - _MOST_FAULTS} more like these"]
    if len(faults) == 1:
        raise InputError(f"breaks ONNX's rules: {faults[0]}", str(path))
    if faults:
        raise InputError(faults, str(path))


def _hash(path: Path, external: list[Path]) -> str:
    """Of the file; with external data, of the hashes of all files in order."""
    own = sha256_file(path)
    if not external:
        return own
    parts = [own, *(sha256_file(item) for item in external)]
    return sha256_bytes("\n".join(parts).encode())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
