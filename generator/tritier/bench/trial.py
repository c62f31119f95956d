"""One request before the load: that it is answered, that a batch is one, and how large it is."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.bench.inputs import Sample
from tritier.bench.target import Target
from tritier.deployment.access import connect, explained
from tritier.errors import ServerError, UsageError

_TIMEOUT_S = 120.0


def tensors_of(sample: Sample) -> list[triton.InferInput]:
    """The arrays of a request as tritonclient sends them."""
    made = []
    for name, array in sample.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


@dataclass(frozen=True)
class Trial:
    """What a request told: `values` numbers in it and its answer, sent and answered in
    `latency_s`."""

    values: int
    latency_s: float


def try_request(target: Target, sample: Sample, batch: int) -> Trial:
    """Send a request twice: the first one may have to wait for much that is done once.

    Raises ServerError if it is not answered, UsageError if what is answered to a batch is none.
    """
    with closing(connect(target.url)) as client:
        try:
            tensors = tensors_of(sample)
            client.infer(target.model, tensors, client_timeout=_TIMEOUT_S)
            started = time.perf_counter()
            result = client.infer(target.model, tensors, client_timeout=_TIMEOUT_S)
            latency_s = time.perf_counter() - started
        except InferenceServerException as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.items())
            raise ServerError(
                f"model '{target.model}' at {target.url} does not answer a request of batch "
                f"{batch} ({shapes}): {explained(error, target.url)}"
            ) from None
    outputs = {item.name: tuple(item.shape) for item in result.get_response().outputs}
    if target.batched == "first_dimension" and batch > 1:
        other = [f"{name} {list(shape)}" for name, shape in outputs.items() if shape[0] != batch]
        if other:
            raise UsageError(
                f"--batch {batch}: model '{target.model}' has max_batch_size 0, and to {batch} "
                f"rows it does not answer {batch} ({', '.join(other)}): its first dimension is not "
                "the batch; use --batch 1"
            )
    shapes_of = [*outputs.values(), *(array.shape for array in sample.values())]
    return Trial(sum(math.prod(map(int, shape)) for shape in shapes_of), latency_s)
