"""Copies of ONNX nodes that read and write under other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx


def renamed_node(
    node: onnx.NodeProto, rename: Mapping[str, str], of_bodies: Mapping[str, str]
) -> onnx.NodeProto:
    """A copy of the node that reads and writes under other names, in its sub-graphs too.

    Where a sub-graph defines a name, `of_bodies` holds for it, and `rename` does not.
    """
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    rename_in_place(copy, rename, of_bodies)
    return copy


def rename_in_place(
    node: onnx.NodeProto, rename: Mapping[str, str], of_bodies: Mapping[str, str]
) -> None:
    """The same without a copy."""
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            names[index] = rename.get(name, name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            here = {old: new for old, new in rename.items() if old not in own}
            here |= {name: of_bodies[name] for name in own if name in of_bodies}
            for inner in graph.node:
                rename_in_place(inner, here, of_bodies)
            for value in (*graph.input, *graph.value_info, *graph.output):
                value.name = here.get(value.name, value.name)
            for tensor in graph.initializer:
                tensor.name = here.get(tensor.name, tensor.name)


def fresh_names(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """A new name for each of `names`, all different from `taken`, to which they are added."""
    found = {}
    for name in names:
        fresh = name + "_"
        while fresh in taken:
            fresh += "_"
        taken.add(fresh)
        found[name] = fresh
    return found


def names_of_bodies(node: onnx.NodeProto) -> Iterable[str]:
    """Every name that the sub-graphs of a node define."""
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            yield from (v.name for v in graph.input)
            yield from (t.name for t in graph.initializer)
            for inner in graph.node:
                yield from inner.output
                yield from names_of_bodies(inner)
