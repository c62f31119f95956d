"""Prove that the parts give what the whole gives (rule R4), in ONNX Runtime and live over gRPC."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.divider import (
    Array,
    Arrays,
    Chain,
    Comparison,
    Difference,
    WholeModel,
    random_inputs,
)
from tritier.documents import Plan, Tolerance
from tritier.errors import InputError, ServerError
from tritier.graph import LoadedModel
from tritier.repository import Repositories

Where = Literal["chained", "live"]
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """The differences of one way to run the parts."""

    where: Where
    tolerance: Tolerance
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether every output is within the tolerance."""
        return all(difference.ok for difference in self.differences)


def gather_inputs(
    plan: Plan,
    count: int,
    seed: int,
    files: Iterable[Path] = (),
    dims: Mapping[str, int] | None = None,
) -> list[Arrays]:
    """`count` random inputs and one for each file: an .npz with an array per input, or an .npy for
    a model with one input. A symbolic leading size of all inputs is 1 unless `dims` has it."""
    generator = np.random.default_rng(seed)
    sizes = {**_batch_of_one(plan), **(dims or {})}
    found = [random_inputs(plan, generator, sizes) for _ in range(count)]
    return found + [_read_inputs(plan, path) for path in files]


def verify_chained(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
) -> Verdict:
    """Run the generated sub-models one after the other in ONNX Runtime, next to the whole model."""
    chain = Chain(repositories.plan, repositories.sub_models(), tolerance.optimisation)
    return _compare("chained", model, inputs, tolerance, chain.run)


def verify_live(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
    url: str,
) -> Verdict:
    """Send the inputs to the entry model over gRPC as an app would, next to the whole model."""
    client = triton.InferenceServerClient(url)
    try:
        return _compare(
            "live",
            model,
            inputs,
            tolerance,
            lambda arrays: infer(client, repositories.plan.model.name, arrays),
        )
    finally:
        client.close()


def infer(client: triton.InferenceServerClient, model: str, inputs: Mapping[str, Array]) -> Arrays:
    """One request through plain tritonclient; all outputs by name."""
    request = []
    for name, array in inputs.items():
        content = np.ascontiguousarray(array)  # a scalar becomes one element, as in the configs
        item = triton.InferInput(name, list(content.shape), np_to_triton_dtype(content.dtype))
        item.set_data_from_numpy(content)
        request.append(item)
    try:
        result = client.infer(model, request, client_timeout=_TIMEOUT_S)
    except InferenceServerException as error:
        raise ServerError(f"model '{model}': {error}") from None
    return {out.name: result.as_numpy(out.name) for out in result.get_response().outputs}


def _compare(
    where: Where,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
    run: Callable[[Arrays], Arrays],
) -> Verdict:
    if not inputs:
        raise InputError("there is no input to compare outputs on: ask for at least one")
    whole = WholeModel(model.path, tolerance.optimisation)
    comparison = Comparison(tolerance.absolute, tolerance.relative)
    for arrays in inputs:
        reference = whole.run(arrays)
        split = run(arrays)
        comparison.add(reference, _like(split, reference))
    return Verdict(where, tolerance, tuple(comparison.differences()))


def _like(split: Arrays, reference: Arrays) -> Arrays:
    """A scalar travels as one element through Triton, which has no shape of length 0."""
    return {
        name: array.reshape(()) if name in reference and reference[name].shape == () else array
        for name, array in split.items()
    }


def _batch_of_one(plan: Plan) -> dict[str, int]:
    leading = {plan.tensor(t).shape[0] if plan.tensor(t).shape else 0 for t in plan.inputs}
    symbol = next(iter(leading))
    return {symbol: 1} if len(leading) == 1 and isinstance(symbol, str) else {}


def _read_inputs(plan: Plan, path: Path) -> Arrays:
    tensors = [plan.tensor(t) for t in plan.inputs]
    content = _load_arrays(path)
    if isinstance(content, np.ndarray):
        if len(tensors) != 1:
            names = ", ".join(tensor.name for tensor in tensors)
            raise InputError(f"holds one array, the model needs {names}: give an .npz", str(path))
        arrays = {tensors[0].name: content}
    else:
        arrays = content
    faults = []
    for tensor in tensors:
        array = arrays.get(tensor.name)
        if array is None:
            faults.append(f"has no array '{tensor.name}'; it has {', '.join(arrays) or 'none'}")
        elif array.dtype != np.dtype(tensor.dtype) or not _fits(array.shape, tensor.shape):
            faults.append(
                f"'{tensor.name}' is {array.dtype} of shape {list(array.shape)}; the model needs "
                f"{tensor.dtype} of shape {list(tensor.shape)}"
            )
    if faults:
        raise InputError(faults, str(path))
    return {tensor.name: arrays[tensor.name] for tensor in tensors}


def _load_arrays(path: Path) -> Array | Arrays:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            found = {name: content[name] for name in content.files}
            # What is no array in an archive comes back as its bytes.
            return {name: item for name, item in found.items() if isinstance(item, np.ndarray)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"can't be read as .npy or .npz: {error}", str(path)) from None


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape is as the model wants it; a symbol stands for any size."""
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want for size, want in zip(shape, wanted, strict=True)
    )
