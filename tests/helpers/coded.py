"""Plans with quantized layers and coded wires, and the uncut models that they stand for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from tests.helpers.models import Split
from tritier.divider import Arrays, WholeModel, realise
from tritier.documents import Plan, Ranges
from tritier.graph import LoadedModel, build_layer_graph


def measured_ranges(model: LoadedModel, inputs: Iterable[Arrays]) -> Ranges:
    """Least and greatest value of every input and layer output over some inputs."""
    graph = build_layer_graph(model.proto)
    probe = onnx.ModelProto()
    probe.CopyFrom(model.proto)
    names = [name for name in graph.source if name not in graph.outputs]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = WholeModel(probe.SerializeToString(), "disabled")
    found: dict[str, tuple[float, float]] = {}
    for arrays in inputs:
        for name, array in {**arrays, **session.run(arrays)}.items():
            if array.size and array.dtype.kind in "fiu":
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=found)


def realised_proto(model: LoadedModel, plan: Plan) -> onnx.ModelProto:
    """The uncut model with the plan's quantized layers and codecs."""
    return realise(model.proto, build_layer_graph(model.proto), plan).to_proto()


def run_realised(item: Split, inputs: Arrays) -> Arrays:
    """Its outputs, without graph optimisations."""
    proto = realised_proto(item.model, item.plan)
    onnx.checker.check_model(proto)
    return WholeModel(proto.SerializeToString(), "disabled").run(inputs)
