"""Writes a prepared model, with large constants beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import external_data_helper

from tritier.errors import InputError
from tritier.files import write_file
from tritier.graph.tensor_checks import data_bytes, tensors_of

_CHUNK_BYTES = 1 << 24
_ALIGNMENT = 4096  # so that runtimes can map them


def write_model(model: onnx.ModelProto, source: Path, path: Path, large: bool, force: bool) -> None:
    """Write a model; what of a `large` one lies beside `source` goes into `<path>.data`.

    Both files are complete before either takes its place. Raises InputError when one of them exists
    and `force` is not given.
    """
    data = path.with_name(f"{path.name}.data")
    refuse_existing([path, data] if large else [path], force)
    if not large:
        write_file(path, model.SerializeToString(deterministic=True))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    handle, name = tempfile.mkstemp(prefix=f".{data.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            for tensor in tensors_of(moved.graph):
                if external_data_helper.uses_external_data(tensor):
                    _move(tensor, source.parent, target, data.name)
        content = moved.SerializeToString(deterministic=True)
        Path(name).chmod(0o644)  # mkstemp makes it private to this user
        os.replace(name, data)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    write_file(path, content)


def refuse_existing(files: Iterable[Path], force: bool) -> None:
    """Raise InputError for the first file that exists, unless `force`."""
    for file in files:
        if file.exists() and not force:
            raise InputError(f"{file} exists: choose another name or pass --force to replace it")


def _move(tensor: onnx.TensorProto, folder: Path, target: BinaryIO, location: str) -> None:
    """Copy a constant's data in pieces, and say where they lie now."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    left = data_bytes(tensor) or 0
    target.write(bytes(-target.tell() % _ALIGNMENT))
    start = target.tell()
    with (folder / entries["location"]).open("rb") as source:
        source.seek(int(entries.get("offset") or 0))
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise InputError(f"{entries['location']} ends too early: copy it again")
            target.write(chunk)
            left -= len(chunk)
    del tensor.external_data[:]
    for key, value in (
        ("location", location),
        ("offset", start),
        ("length", target.tell() - start),
    ):
        tensor.external_data.add(key=key, value=str(value))
