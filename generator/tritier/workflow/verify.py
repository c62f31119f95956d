"""Prove that the parts give what the whole gives (rule R4), in ONNX Runtime and live over gRPC."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.calibration import read_arrays
from tritier.deployment.access import connect
from tritier.divider import (
    Arrays,
    Chain,
    Comparison,
    Difference,
    WholeModel,
    random_inputs,
    realise,
)
from tritier.documents import Optimisation, Plan, Tolerance
from tritier.errors import InputError, ServerError
from tritier.graph import LoadedModel, TensorInfo, build_layer_graph, fits_one_file
from tritier.repository import PlanPart, Repositories

Where = Literal["chained", "live"]
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """The differences of one way to run the parts: from the whole model and, if the plan quantizes
    layers or codes wires, so that this whole model is another, the noise against the original."""

    where: Where
    tolerance: Tolerance
    differences: tuple[Difference, ...]
    noise: tuple[Difference, ...] = ()

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
    tensors = [TensorInfo(t.name, t.dtype, t.shape) for t in map(plan.tensor, plan.inputs)]
    return found + [read_arrays(path, tensors) for path in files]


def verify_chained(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
) -> Verdict:
    """Run the generated sub-models one after the other in ONNX Runtime, next to the whole model."""
    return verify_part_chained(repositories.parts()[0], model, inputs, tolerance)


def verify_part_chained(
    part: PlanPart, model: LoadedModel, inputs: Sequence[Arrays], tolerance: Tolerance
) -> Verdict:
    """As `verify_chained`, for one plan of several."""
    chain = Chain(part.plan, part.sub_models, tolerance.optimisation)
    return compare_runs("chained", part.plan, model, inputs, tolerance, chain.run)


def verify_live(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
    url: str,
) -> Verdict:
    """Send the inputs to the entry model over gRPC as an app would, next to the whole model."""
    client = connect(url)
    try:
        return compare_runs(
            "live",
            repositories.plan,
            model,
            inputs,
            tolerance,
            lambda arrays: infer(client, repositories.plan.model.name, arrays),
        )
    finally:
        client.close()


def infer(client: triton.InferenceServerClient, model: str, inputs: Arrays) -> Arrays:
    """One request through plain tritonclient; all outputs by name."""
    return ask(client, model, inputs)[0]


def ask(
    client: triton.InferenceServerClient,
    model: str,
    inputs: Arrays,
    parameters: Mapping[str, str] | None = None,
) -> tuple[Arrays, dict[str, str]]:
    """As `infer`, with parameters; and the texts among the parameters of the answer."""
    request = []
    for name, array in inputs.items():
        content = np.ascontiguousarray(array)  # a scalar becomes one element, as in the configs
        item = triton.InferInput(name, list(content.shape), np_to_triton_dtype(content.dtype))
        item.set_data_from_numpy(content)
        request.append(item)
    try:
        more = {"parameters": dict(parameters)} if parameters else {}
        result = client.infer(model, request, client_timeout=_TIMEOUT_S, **more)
    except InferenceServerException as error:
        raise ServerError(f"model '{model}': {error}") from None
    answer = result.get_response()
    said = {name: value.string_param for name, value in answer.parameters.items()}
    return {out.name: result.as_numpy(out.name) for out in answer.outputs}, said


def compare_runs(
    where: Where,
    plan: Plan | None,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    tolerance: Tolerance,
    run: Callable[[Arrays], Arrays],
) -> Verdict:
    """How `run` differs from the whole model as the plan quantizes and codes it; from the original
    model without a plan."""
    if not inputs:
        raise InputError("there is no input to compare outputs on: ask for at least one")
    original = WholeModel(model.path, tolerance.optimisation)
    exact = plan is None or plan.is_exact
    whole = original
    if plan is not None and not exact:
        whole = realised_whole(plan, model, tolerance.optimisation)
    comparison = Comparison(tolerance.absolute, tolerance.relative)
    noise = Comparison(0.0, 0.0)
    own_noise = Comparison(0.0, 0.0)
    for arrays in inputs:
        reference = whole.run(arrays)
        split = like(run(arrays), reference)
        comparison.add(reference, split)
        if not exact:
            true = original.run(arrays)
            noise.add(true, split)
            own_noise.add(true, reference)
    slack = {d.output: tolerance.share_of_noise * d.max_abs for d in own_noise.differences()}
    differences = (
        dataclasses.replace(d, slack=slack.get(d.output, 0.0)) for d in comparison.differences()
    )
    return Verdict(where, tolerance, tuple(differences), tuple(noise.differences()))


def realised_whole(plan: Plan, model: LoadedModel, level: Optimisation) -> WholeModel:
    """The uncut model with the plan's quantized layers and codecs."""
    proto = realise(model.proto, build_layer_graph(model.proto), plan).to_proto()
    if fits_one_file(proto):
        return WholeModel(proto.SerializeToString(), level)
    with tempfile.TemporaryDirectory(prefix="tritier-") as scratch:
        path = Path(scratch) / "whole.onnx"
        onnx.save(proto, str(path), save_as_external_data=True, location="whole.data")
        return WholeModel(path, level)


def like(split: Arrays, reference: Arrays) -> Arrays:
    """A scalar travels as one element through Triton, which has no shape of length 0."""
    return {
        name: array.reshape(()) if name in reference and reference[name].shape == () else array
        for name, array in split.items()
    }


def _batch_of_one(plan: Plan) -> dict[str, int]:
    leading = {plan.tensor(t).shape[0] if plan.tensor(t).shape else 0 for t in plan.inputs}
    symbol = next(iter(leading))
    return {symbol: 1} if len(leading) == 1 and isinstance(symbol, str) else {}
