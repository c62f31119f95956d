"""The model that is measured: what it takes, what it is made of, and whether it may be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from tritonclient.utils import InferenceServerException

from tritier.deployment.access import access_of, connect, explained
from tritier.deployment.client import TritonServer
from tritier.errors import InputError, ServerError, UsageError, did_you_mean

Batched = Literal["max_batch_size", "first_dimension", "none"]
_CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class InputTensor:
    """An input. `dims` are those of its config, without Triton's batch dimension; all are known.
    `dtype` is Triton's name."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A model at the entry. `open_first` tells whether all inputs and outputs leave their first
    dimension open, so that it may be the batch. `steps` are the models of an ensemble, also those
    of its ensembles."""

    model: str
    url: str
    inputs: tuple[InputTensor, ...]
    max_batch_size: int
    open_first: bool
    plan_id: str | None
    steps: tuple[str, ...]

    @property
    def batched(self) -> Batched:
        """How a batch of more than one is sent."""
        if self.max_batch_size:
            return "max_batch_size"
        return "first_dimension" if self.open_first else "none"

    def shape(self, tensor: InputTensor, batch: int) -> tuple[int, ...]:
        """The shape that is sent, with the batch dimension if Triton has one."""
        if self.max_batch_size:
            return (batch, *tensor.dims)
        if self.open_first:
            return (tensor.dims[0] * batch, *tensor.dims[1:])
        return tensor.dims


def find_target(url: str, model: str, shapes: Mapping[str, Sequence[int]]) -> Target:
    """Read the model's config and those of its steps. `shapes`: input -> dims, for inputs with
    dimensions that the config leaves open.

    Raises ServerError if the server can't be asked, InputError for an unknown model, a shape that
    does not fit, or a response cache.
    """
    require_open(url)
    with TritonServer("entry", url) as server:
        config = _config(server, model)
        configs = {model: config, **_steps(server, config)}
    refuse_cache(configs)
    batch_dims = bool(config.max_batch_size)
    tensors = _inputs(config, shapes)
    sides = [*config.input, *config.output]
    return Target(
        model=model,
        url=url,
        inputs=tensors,
        max_batch_size=config.max_batch_size,
        open_first=not batch_dims and all(t.dims and t.dims[0] == -1 for t in sides),
        plan_id=_parameter(config, "plan_id"),
        steps=tuple(sorted(set(configs) - {model})),
    )


def require_open(url: str) -> None:
    """Make sure that the server answers perf_analyzer, which has no way to send a key; raises
    ServerError that says what to do."""
    access = access_of(url)
    if access.server_name:
        raise ServerError(
            f"server '{access.server}' ({url}): perf_analyzer compares its certificate with the "
            f"address and can't be told `server_name` ({access.server_name}): bench by an address "
            "that the certificate has"
        )
    with closing(connect(url)) as client:  # without the key
        try:
            client.get_server_metadata(client_timeout=_CALL_TIMEOUT_S)
            client.get_inference_statistics("", client_timeout=_CALL_TIMEOUT_S)
        except InferenceServerException as error:
            text = str(error.message())
            if "protocol is restricted" in text:
                raise ServerError(
                    f"{url} wants a key for configs and statistics, which perf_analyzer reads and "
                    "can't send a key for: in a lab, run `tritier lab down` and `tritier lab up "
                    "--no-admin-key`; elsewhere, start the server for the time of the bench "
                    "without --grpc-restricted-protocol for model-config, model-repository and "
                    "statistics, where only the bench reaches it"
                ) from None
            raise ServerError(f"{url} can't be asked: {explained(error, url)}") from None


def refuse_cache(configs: Mapping[str, Any]) -> None:
    """Refuse models that answer from a response cache; raises InputError."""
    on = sorted(name for name, config in configs.items() if config.response_cache.enable)
    if on:
        raise InputError(
            f"the response cache is on for {', '.join(on)} (response_cache in config.pbtxt): a "
            "bench sends the same input again and would measure the cache; deploy without it"
        )


def check_batches(target: Target, batches: Sequence[int]) -> None:
    """Refuse batches that the model does not take; raises UsageError."""
    largest = max(batches)
    if largest == 1:
        return
    if target.batched == "max_batch_size":
        if largest > target.max_batch_size:
            raise UsageError(
                f"--batch {largest}: model '{target.model}' takes batches up to its max_batch_size "
                f"{target.max_batch_size}; generate it with a larger --max-batch-size"
            )
    elif target.batched == "none":
        raise UsageError(
            f"--batch {largest}: model '{target.model}' takes single requests only: its "
            "max_batch_size is 0 and not every input and output leaves its first dimension open "
            "(-1); use --batch 1, or deploy a model whose batch size is open"
        )
    elif any(tensor.dims[0] != 1 for tensor in target.inputs):
        shown = ", ".join(f"{t.name} {list(t.dims)}" for t in target.inputs)
        raise UsageError(
            f"--batch {largest}: max_batch_size of model '{target.model}' is 0, so that a batch is "
            f"the first dimension of the shapes; give shapes that start with 1 (now: {shown})"
        )


def _config(server: TritonServer, model: str) -> Any:
    try:
        return server.config(model)
    except ServerError as error:
        try:
            known = server.loaded()
        except ServerError:
            raise error from None
        if model in known:
            raise
        # Parts of plans have two underscores in their names; people ask for what apps call.
        shown = [name for name in known if "__" not in name] or known
        raise InputError(
            f"model '{model}' is not loaded at {server.url}{did_you_mean(model, known)}; loaded "
            f"are {', '.join(shown) or 'none'}: deploy it with `tritier deploy`"
        ) from None


def _steps(server: TritonServer, config: Any) -> dict[str, Any]:
    """Configs of all models of an ensemble on this server."""
    found: dict[str, Any] = {}
    waiting = [step.model_name for step in config.ensemble_scheduling.step]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = server.config(name)
            waiting += [step.model_name for step in found[name].ensemble_scheduling.step]
    return found


def _inputs(config: Any, shapes: Mapping[str, Sequence[int]]) -> tuple[InputTensor, ...]:
    names = [item.name for item in config.input]
    faults = [
        f"--shape {name}: model '{config.name}' has no such input{did_you_mean(name, names)}; it "
        f"has {', '.join(names)}"
        for name in shapes
        if name not in names
    ]
    found = []
    for item in config.input:
        declared = tuple(item.dims)
        given = tuple(shapes.get(item.name, ()))
        if not given and -1 in declared[1:]:
            faults.append(_missing(item.name, declared))
            continue
        if not given and declared[:1] == (-1,):
            if config.max_batch_size:
                faults.append(_missing(item.name, declared))
                continue
            given = (1, *declared[1:])  # the batch
        dims = given or declared
        if not _fits(dims, declared):
            faults.append(
                f"--shape {item.name}:{_text(dims)}: does not fit the dims {_text(declared)} of "
                "the config (-1 is any size; Triton's batch dimension is not among them)"
            )
        found.append(InputTensor(item.name, _dtype(item.data_type), dims))
    if faults:
        raise InputError(faults)
    return tuple(found)


def _missing(name: str, declared: Sequence[int]) -> str:
    return (
        f"input '{name}' has open dimensions ({_text(declared)}): say which sizes to send with "
        f"--shape {name}:{','.join('N' if d == -1 else str(d) for d in declared)}"
    )


def _fits(dims: Sequence[int], declared: Sequence[int]) -> bool:
    return len(dims) == len(declared) and all(
        size > 0 and want in (-1, size) for size, want in zip(dims, declared, strict=True)
    )


def _text(dims: Sequence[int]) -> str:
    return ",".join(map(str, dims))


def _dtype(number: int) -> str:
    # Imported late: it brings protobuf's generated code along.
    from tritonclient.grpc import model_config_pb2

    name = str(model_config_pb2.DataType.Name(number)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _parameter(config: Any, name: str) -> str | None:
    return config.parameters[name].string_value if name in config.parameters else None
