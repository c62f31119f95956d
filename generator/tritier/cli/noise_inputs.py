"""What `tritier noise` measures: the format, the layers and the inputs that options choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import joblib

from tritier.calibration import Inputs
from tritier.cli.common import load_servers, named_servers
from tritier.cli.inputs import sizes_of_first
from tritier.cli.output import say
from tritier.documents import Quantization
from tritier.errors import InputError, UsageError
from tritier.graph import (
    LoadedModel,
    Quantizable,
    build_layer_graph,
    profile_model,
)
from tritier.workflow import without_unquantizable
from tritier.workflow.noise_spread import BACKENDS, Where
from tritier.workflow.noise_wires import LOSSY_CODECS, LossyCodec


def chosen_format(
    activation_type: str | None,
    weight_type: str | None,
    per_channel: bool,
    reduce_range: bool,
    servers: Path | None,
    server: str | None,
) -> Quantization:
    """The format that options or a server's entry name."""
    if servers is None and server is None:
        return Quantization.from_data(
            {
                "activation_type": activation_type or "int8",
                "weight_type": weight_type or "int8",
                "per_channel": per_channel,
                "reduce_range": reduce_range,
            }
        )
    if activation_type or weight_type or per_channel or reduce_range:
        raise UsageError("give the format by --server or by options, not both")
    if servers is None or server is None:
        raise UsageError("--servers FILE and --server NAME go together")
    return named_servers(load_servers(servers), [server])[0].quantization


def chosen_layers(
    model: LoadedModel, choice: Quantizable, dims: dict[str, int], all_convs: bool, inputs: Inputs
) -> tuple[str, ...]:
    """Layers that may be quantized; an error if the user named one that can't be. Symbolic sizes
    that the user does not give, by which layers are ranked, are those of the first input."""
    if all_convs:
        convs = [x.name for x in build_layer_graph(model.proto).layers if x.op_type == "Conv"]
        if not convs:
            raise InputError("--all-convs: the model has no Conv; choose with --quantize-type")
        choice = dataclasses.replace(choice, layers=tuple(convs))
    profile, reasons = without_unquantizable(
        model, profile_model(model, {**sizes_of_first(inputs), **dims}, choice)
    )
    if reasons and choice.layers and not all_convs:
        raise InputError(reasons, "--quantize-layer")
    for reason in reasons:
        say(f"not quantized: {reason}")
    if not profile.quantizable_layers:
        types = ", ".join(choice.types or ("Conv",))
        raise InputError(
            f"no layer can be quantized: of type {types}, none is float32 with known FLOPs; choose "
            "others with --quantize-type or --quantize-layer, and at least 1 with --quantizable"
        )
    return profile.quantizable_layers


def chosen_where(backend: str, jobs: int, scheduler: str) -> Where:
    """The threads, processes or workers that measure. Raises UsageError for what goes not together;
    no scheduler is asked."""
    chosen = next((item for item in BACKENDS if item == backend), None)
    if chosen is None:
        raise UsageError(f"--backend {backend}: allowed are {', '.join(BACKENDS)}")
    if chosen == "dask" and not scheduler:
        raise UsageError(
            "--backend dask: give the address of its scheduler, as --scheduler tcp://HOST:8786"
        )
    return Where(chosen, jobs or joblib.cpu_count(), scheduler)


def parse_wires(texts: Sequence[str]) -> list[tuple[str, LossyCodec]]:
    """`TENSOR` or `TENSOR=CODEC` -> (name or pattern, codec); raises UsageError for others."""
    found = []
    for text in texts:
        name, equals, codec = text.rpartition("=")
        if not equals:
            name, codec = text, LOSSY_CODECS[0]
        chosen = next((item for item in LOSSY_CODECS if item == codec), None)
        if chosen is None or not name:
            raise UsageError(
                f"--wire {text}: give a tensor, or TENSOR=CODEC with one of "
                f"{', '.join(LOSSY_CODECS)}"
            )
        found.append((name, chosen))
    return found
