"""Small rewrites of a model that change none of its results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper, version_converter

from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.graph.checks import bodies_of
from tritier.graph.layers import node_names

_IR_OF_FREE_CONSTANTS = 4  # before it, every constant had to be an input


def name_nodes(graph: onnx.GraphProto) -> int:
    """Give nodes without a name one of their type and index, and equal names an index too; returns
    how many. In sub-graphs nodes may stay without a name."""
    return _name(graph, node_names(graph), lambda _: True)


def freeze_constants(model: onnx.ModelProto) -> int:
    """Take constants out of the inputs, where they could be replaced by a caller; returns how
    many they were."""
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    constants |= {s.values.name for s in graph.sparse_initializer}
    kept = [value for value in graph.input if value.name not in constants]
    count = len(graph.input) - len(kept)
    if count:
        kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
        del graph.input[:]
        graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _IR_OF_FREE_CONSTANTS)
    return count


def lift_constant_nodes(model: onnx.ModelProto) -> int:
    """Turn Constant nodes of the main graph into initializers; returns how many. Those that give an
    output of the model, or sparse tensors, stay."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    found: dict[int, onnx.TensorProto] = {}
    for index, node in enumerate(graph.node):
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
            continue
        tensor = _constant_of(node)
        if tensor is not None and node.output[0] not in outputs:
            tensor.name = node.output[0]
            found[index] = tensor
    for index in sorted(found, reverse=True):
        del graph.node[index]
    graph.initializer.extend(found.values())
    if found:
        model.ir_version = max(model.ir_version, _IR_OF_FREE_CONSTANTS)
    return len(found)


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a higher opset. Raises InputError with the reason when that can't be."""
    now = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if opset < now:
        raise InputError(
            f"the model has opset {now} and can't go down to {opset}, since newer operators have "
            f"no older form: allowed are {now} to {newest}"
        )
    if opset > newest:
        raise InputError(f"opset {opset} is not known: allowed are {now} to {newest}")
    if opset == now:
        return model
    ends = _ends(model)
    try:
        result = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's own types, of C++
        text = " ".join(str(error).split())[:300]
        raise InputError(f"the model can't be converted to opset {opset}: {text}") from None
    if _ends(result) != ends:
        raise InputError(f"conversion to opset {opset} changes inputs and outputs of the model")
    needed = onnx.helper.find_min_ir_version_for(list(result.opset_import), ignore_unknown=True)
    result.ir_version = max(result.ir_version, needed)
    return result


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators."""
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else 1


def computation(model: onnx.ModelProto) -> str:
    """Hash of all that the results depend on: two models of one hash compute the same. Names of
    nodes, their order and what is declared about sizes are not in it."""
    graph = model.graph
    parts = [*model.opset_import, *model.functions, *graph.sparse_initializer]
    lines = [part.SerializeToString(deterministic=True) for part in parts]
    lines += [value.name.encode() for value in graph.output]
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("name")
        copy.ClearField("doc_string")
        lines.append(copy.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        own = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        if external_data_helper.uses_external_data(tensor):
            data = tensor.SerializeToString(deterministic=True)
        elif tensor.data_type == onnx.TensorProto.STRING:
            data = repr(list(tensor.string_data)).encode()
        else:
            data = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
        lines.append(own.SerializeToString(deterministic=True) + sha256_bytes(data).encode())
    return sha256_bytes(b"\n".join(sorted(sha256_bytes(line).encode() for line in lines)))


def _ends(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    constants = {t.name for t in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    return inputs, [value.name for value in model.graph.output]


def _name(
    graph: onnx.GraphProto, names: list[str], wanted: Callable[[onnx.NodeProto], bool]
) -> int:
    count = 0
    for node, name in zip(graph.node, names, strict=True):
        if node.name != name and wanted(node):
            node.name = name
            count += 1
        for body in bodies_of(node):
            count += _name(body, node_names(body), lambda inner: bool(inner.name))
    return count


def _constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """A new tensor with what a Constant node holds."""
    (item,) = (a for a in node.attribute if a.name.startswith(("value", "sparse")))
    if item.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(item.t)
        return tensor
    value = onnx.helper.get_attribute_value(item)
    if item.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.array(value, np.float32))
    if item.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.array(value, np.int64))
    if item.name in ("value_string", "value_strings"):
        return numpy_helper.from_array(np.array(value, dtype=object))
    return None
