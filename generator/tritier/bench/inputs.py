"""What is sent: the same arrays for perf_analyzer (a JSON file) and for this tool's generator."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tritonclient.utils import triton_to_np_dtype

from tritier.bench.target import InputTensor, Target
from tritier.errors import InputError
from tritier.files import sha256_bytes, sha256_file, write_file

Array = npt.NDArray[np.generic]
Sample = Mapping[str, Array]
_MOST_SAMPLES = 64


@dataclass(frozen=True)
class InputData:
    """Requests that are sent in turn.

    `samples` have the shapes of the config's dims, without a batch dimension. They are None if a
    JSON file is passed on to perf_analyzer as it is. `name` tells where they are from.
    """

    name: str
    samples: tuple[Sample, ...] | None
    sha256: str | None = None
    file: Path | None = None

    def batch(self, target: Target, batch: int) -> list[Sample]:
        """What a request of that batch holds: samples in turn, none if they are not known."""
        found: list[Sample] = []
        for start in range(len(self.samples or ())):
            found.append(
                {
                    tensor.name: self._tensor(target, tensor, start, batch)
                    for tensor in target.inputs
                }
            )
        return found

    def _tensor(self, target: Target, tensor: InputTensor, start: int, batch: int) -> Array:
        samples = self.samples or ()
        rows = [samples[(start + index) % len(samples)][tensor.name] for index in range(batch)]
        if target.max_batch_size:
            return np.stack(rows)
        return np.concatenate(rows) if target.open_first else rows[0]

    def write(self, target: Target, batch: int, path: Path) -> None:
        """Write what perf_analyzer reads: samples of which it makes the batch itself, or whole
        requests where the batch is the first dimension."""
        if self.file is not None:
            write_file(path, self.file.read_bytes())
            return
        samples: Sequence[Sample] = self.samples or ()
        if not target.max_batch_size:
            samples = self.batch(target, batch)
        data = [{name: _encoded(array) for name, array in item.items()} for item in samples]
        write_file(path, json.dumps({"data": data}))


def find_inputs(text: str, target: Target, seed: int = 0) -> InputData:
    """`zero`, `random` (floats from 0 to 1, whole numbers 0 or 1, the same for a seed), or a file:
    .npy (of a model with one input), .npz (by the names of the inputs), .json (perf_analyzer's).

    Arrays have the dims of the inputs, or one dimension more in front, for several samples that are
    sent in turn. Raises InputError.
    """
    if text in ("zero", "random"):
        generator = np.random.default_rng(seed)
        faults = [
            f"input '{t.name}' is of texts: give a JSON file of perf_analyzer with --input"
            for t in target.inputs
            if t.dtype == "BYTES"
        ]
        if faults:
            raise InputError(faults)
        made = {t.name: _made(t, generator if text == "random" else None) for t in target.inputs}
        return InputData(text, (made,))
    path = Path(text)
    if not path.is_file():
        raise InputError(
            f"--input {text}: is no file; allowed are zero, random, and .npy, .npz and .json files"
        )
    if path.suffix == ".json":
        return InputData(path.name, None, sha256_file(path), path)
    arrays = _arrays(path, target)
    return InputData(path.name, _samples(arrays, target, path), sha256_bytes(path.read_bytes()))


def _made(tensor: InputTensor, generator: np.random.Generator | None) -> Array:
    dtype = np.dtype(_np_dtype(tensor))
    if generator is None:
        return np.zeros(tensor.dims, dtype)
    if dtype.kind == "f":
        return generator.random(tensor.dims).astype(dtype)
    return generator.integers(0, 2, tensor.dims).astype(dtype)


def _np_dtype(tensor: InputTensor) -> npt.DTypeLike:
    if tensor.dtype == "BF16":
        raise InputError(
            f"input '{tensor.name}' is of type BF16: give a JSON file of perf_analyzer with --input"
        )
    found: npt.DTypeLike = triton_to_np_dtype(tensor.dtype)
    return found


def _arrays(path: Path, target: Target) -> dict[str, Array]:
    names = [tensor.name for tensor in target.inputs]
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if len(names) != 1:
                raise InputError(
                    f"holds one array and the model has {len(names)} inputs: give a .npz with "
                    f"{', '.join(names)}",
                    str(path),
                )
            return {names[0]: loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read as .npy or .npz: {error}", str(path)) from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"lacks {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}", str(path)
        )
    return {name: arrays[name] for name in names}


def _samples(arrays: Mapping[str, Array], target: Target, path: Path) -> tuple[Sample, ...]:
    faults, counts = [], {}
    for tensor in target.inputs:
        array, dtype = arrays[tensor.name], np.dtype(_np_dtype(tensor))
        if array.dtype != dtype:
            faults.append(f"'{tensor.name}' is {array.dtype}; the model takes {dtype}")
        if array.shape == tensor.dims:
            counts[tensor.name] = 0
        elif array.shape[1:] == tensor.dims and len(array):
            counts[tensor.name] = len(array)
        else:
            faults.append(
                f"'{tensor.name}' has the shape {list(array.shape)}; allowed is "
                f"{list(tensor.dims)}, or the same with the number of samples in front"
            )
    if not faults and len(set(counts.values())) > 1:
        faults.append(f"inputs have different numbers of samples: {counts}")
    if faults:
        raise InputError(faults, str(path))
    count = next(iter(counts.values()), 0)
    if not count:
        return (dict(arrays),)
    return tuple(
        {name: array[index] for name, array in arrays.items()}
        for index in range(min(count, _MOST_SAMPLES))
    )


def _encoded(array: Array) -> dict[str, object]:
    data = np.ascontiguousarray(array).tobytes()
    return {"b64": base64.b64encode(data).decode(), "shape": list(array.shape)}
