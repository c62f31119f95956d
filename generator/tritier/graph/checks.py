"""What a model must hold before anything is done with it: names, order, operators.

Faults name the thing shortly: names are data and may have any length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import networkx as nx
import onnx

from tritier.errors import did_you_mean
from tritier.graph.layers import free_names

MAX_NAME = 1000  # characters; more is no name that anyone gave
_SHOWN = 60
_LISTED = 8
# Domains for which ONNX Runtime has kernels, and ONNX's own, about which it speaks for itself.
DOMAINS = (
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training",
    "com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc",
)  # fmt: skip


def quoted(name: str) -> str:
    """A name in quotes; a long one is cut and its length told."""
    if len(name) <= _SHOWN:
        return f"'{name}'"
    return f"'{name[:_SHOWN]}...' ({len(name):,} characters)"


def node_label(node: onnx.NodeProto, index: int) -> str:
    """How messages call a node: by its name or, without one, by its type and place."""
    return quoted(node.name or f"{node.op_type}_{index}")


def name_faults(graph: onnx.GraphProto, unique_nodes: bool) -> list[str]:
    """Names that are too long, or stand for two things. Sub-graphs have names of their own.

    Without `unique_nodes` two nodes may share a name.
    """
    faults = _long_names(graph)
    if faults:
        return faults  # the others would quote them
    for part in _graphs(graph):
        faults += _tensors_with_two_sources(part)
        if unique_nodes:
            faults += _equal_node_names(part)
    return faults


def order_faults(graph: onnx.GraphProto) -> list[str]:
    """Nodes that read what nothing gives or what comes later, and cycles."""
    source = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    known = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    known |= {s.values.name for s in graph.sparse_initializer}
    faults, late = [], []
    for index, node in enumerate(graph.node):
        for name in free_names(node):
            if name in known:
                continue
            if name not in source:
                faults.append(
                    f"node {node_label(node, index)} reads tensor {quoted(name)}, which no node, "
                    "input or constant gives: export the model again"
                )
            elif source[name] >= index:
                late.append((index, name))
    return faults or (_late_faults(graph, source, late) if late else [])


def operator_faults(model: onnx.ModelProto) -> list[str]:
    """Operators that neither ONNX nor ONNX Runtime knows and that are no function of the model."""
    functions = {(item.domain, item.name) for item in model.functions}
    users: dict[tuple[str, str], list[str]] = {}
    bodies = [model.graph.node, *(item.node for item in model.functions)]
    for body in bodies:
        for index, node in enumerate(body):
            for inner in _with_inner(node):
                key = (inner.domain, inner.op_type)
                if key not in functions:
                    users.setdefault(key, []).append(node_label(inner, index))
    faults = [_operator_fault(*key) for key in users]
    return [
        f"operator {quoted('.'.join(filter(None, key)))} of node {_and_more(users[key])}: {fault}"
        for key, fault in zip(users, faults, strict=True)
        if fault
    ]


def _operator_fault(domain: str, op_type: str) -> str:
    if domain not in DOMAINS:
        return (
            f"ONNX Runtime has no kernel of the domain {quoted(domain)}; allowed are ai.onnx, "
            "ai.onnx.ml, com.microsoft and functions that the model holds: export without custom "
            "operators"
        )
    if domain in ("", "ai.onnx") and not onnx.defs.has(op_type):
        hint = did_you_mean(op_type, _onnx_operators())
        return f"ONNX has no such operator{hint}: export the model again"
    return ""


def _onnx_operators() -> set[str]:
    return {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}


def _and_more(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node and those of its sub-graphs."""
    yield node
    for body in bodies_of(node):
        for inner in body.node:
            yield from _with_inner(inner)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The sub-graphs that a node's attributes hold."""
    for item in node.attribute:
        yield from [item.g] if item.HasField("g") else item.graphs


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in bodies_of(node):
            yield from _graphs(body)


def _long_names(graph: onnx.GraphProto) -> list[str]:
    faults = []
    for part in _graphs(graph):
        named = [("node", node.name) for node in part.node]
        named += [("tensor", name) for node in part.node for name in (*node.input, *node.output)]
        named += [("tensor", value.name) for value in (*part.input, *part.output)]
        named += [("tensor", constant.name) for constant in part.initializer]
        faults += [
            f"the name of {what} {quoted(name)} is too long: allowed are {MAX_NAME:,}; rename it"
            for what, name in dict.fromkeys(named)
            if len(name) > MAX_NAME
        ]
    return faults


def _equal_node_names(graph: onnx.GraphProto) -> list[str]:
    counts = Counter(node.name for node in graph.node if node.name)
    return [
        f"{count} nodes are called {quoted(name)}, and ONNX Runtime wants names of nodes to be "
        "unique: `tritier prepare` renames them"
        for name, count in counts.items()
        if count > 1
    ]


def _tensors_with_two_sources(graph: onnx.GraphProto) -> list[str]:
    sources: dict[str, list[str]] = {}
    for value in graph.input:
        sources.setdefault(value.name, []).append("an input")
    constants = [t.name for t in graph.initializer]
    constants += [s.values.name for s in graph.sparse_initializer]
    for name in constants:
        held = sources.setdefault(name, [])
        if held == ["an input"]:  # an input with a default is one tensor
            held.clear()
        held.append("a constant")
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            sources.setdefault(name, []).append(f"node {node_label(node, index)}")
    return [
        f"tensor {quoted(name)} is made {len(made)} times, by {_listed(made)}: give every tensor "
        "a name of its own"
        for name, made in sources.items()
        if len(made) > 1
    ]


def _late_faults(
    graph: onnx.GraphProto, source: dict[str, int], late: Iterable[tuple[int, str]]
) -> list[str]:
    """Nodes that read what comes later: in a cycle, or just not sorted."""
    edges: nx.DiGraph[int] = nx.DiGraph()
    for index, node in enumerate(graph.node):
        edges.add_edges_from((source[n], index) for n in free_names(node) if n in source)
    try:
        cycle = [u for u, _ in nx.find_cycle(edges)]
    except nx.NetworkXNoCycle:
        return [
            f"node {node_label(graph.node[index], index)} stands before the one that makes its "
            f"input {quoted(name)}: sort the nodes, each after those that it reads"
            for index, name in late
        ]
    names = [node_label(graph.node[index], index) for index in cycle]
    if len(names) == 1:
        return [f"node {names[0]} reads what it makes itself: cut this cycle"]
    shown = names if len(names) <= _LISTED else [*names[:_LISTED], f"{len(names) - _LISTED} more"]
    return [f"{len(names)} nodes form a cycle, {' -> '.join([*shown, names[0]])}: cut this cycle"]


def _listed(names: list[str]) -> str:
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return f"{', '.join(names[:-1])} and {names[-1]}"
