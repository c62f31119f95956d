"""A plan and its model become repositories."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import onnx

import tritier
from tritier.divider import (
    check_against_model,
    check_loads,
    cut_model,
    decide_batching,
    realise,
    wrap_scalars,
)
from tritier.documents import Batching, Plan, PlanTensor, wire_up
from tritier.errors import InputError
from tritier.graph import (
    LayerGraph,
    LoadedModel,
    TensorInfo,
    border_tensors,
    build_layer_graph,
    load_model,
)
from tritier.pool import Pool
from tritier.repository import GenerateOptions, generate_files


def generate(
    plan: Plan, model: LoadedModel, options: GenerateOptions, pool: Pool | None = None
) -> tuple[dict[str, bytes], Batching]:
    """All files of the repositories of a plan, and what was decided about batching.

    Sub-models come from the pool if it has them, and go there. Raises InputError when plan and
    model don't fit, or a sub-model can't be cut out or loaded.
    """
    graph = build_layer_graph(model.proto)
    models, batching = part_of_plan(plan, model, graph, options, pool)
    whole = served_whole(model) if options.with_whole else None
    return generate_files(plan, models, whole, batching, options), batching


def part_of_plan(
    plan: Plan,
    model: LoadedModel,
    graph: LayerGraph,
    options: GenerateOptions,
    pool: Pool | None = None,
) -> tuple[dict[str, bytes], Batching]:
    """The sub-models of a plan by component, and what was decided about batching."""
    check_against_model(plan, model.sha256, graph)
    _check_tensors(plan, model, graph)
    models = _sub_models(plan, model, graph, pool)
    return models, decide_batching(plan, models, options.max_batch_size, options.dims)


def remember(pool: Pool, plan: Plan, model: LoadedModel) -> None:
    """Keep a plan and its model in the pool."""
    # A model of more than 2 GiB stays where it is: later stages get it with --model.
    with contextlib.suppress(InputError):
        pool.put("model", model.sha256, plan.model.name, model.self_contained())
    pool.put("plan", plan.id, plan.model.name, plan.to_json().encode())


def model_of_plan(plan: Plan, path: Path | None, pool: Pool, scratch: Path) -> LoadedModel:
    """The model of a plan: the given file, or the one that the pool has under the plan's hash.

    A model from the pool is written to `scratch`, because ONNX and ONNX Runtime read files.
    """
    if path is not None:
        return load_model(path)
    data = pool.get("model", plan.model.sha256)
    if data is None:
        raise InputError(
            f"the pool has no model with sha256 {plan.model.sha256[:12]}...: pass the model file "
            "with --model"
        )
    copy = scratch / f"{plan.model.name}.onnx"
    copy.write_bytes(data)
    # One file where there may have been several: its own hash is not the model's.
    return dataclasses.replace(load_model(copy), sha256=plan.model.sha256)


def _check_tensors(plan: Plan, model: LoadedModel, graph: LayerGraph) -> None:
    """Raise InputError unless the plan's tensors are the model's, in type and shape."""
    known = {*graph.inputs, *graph.source}
    faults = [f"the model has no tensor '{t.name}'" for t in plan.tensors if t.name not in known]
    planned = {tensor.name: tensor for tensor in plan.tensors if tensor.name in known}
    for name, info in border_tensors(model.proto, graph, planned).items():
        tensor = planned.get(name)
        if tensor is not None and not _agree(tensor, info):
            faults.append(
                f"tensor '{name}' is {tensor.dtype} of shape {list(tensor.shape)} in the plan, "
                f"{info.dtype} of shape {list(info.shape)} in the model: plan again"
            )
    if faults:
        raise InputError(faults)


def _agree(one: PlanTensor, other: TensorInfo) -> bool:
    """Sizes without a number agree with any: their symbols are only names."""
    return (
        one.dtype == other.dtype
        and len(one.shape) == len(other.shape)
        and all(
            a == b or isinstance(a, str) or isinstance(b, str)
            for a, b in zip(one.shape, other.shape, strict=True)
        )
    )


def served_whole(model: LoadedModel) -> bytes:
    """The uncut model as it is served: as it is, but for scalars at its border."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model.proto)
    if wrap_scalars(wrapped):
        return wrapped.SerializeToString(deterministic=True)
    return model.self_contained()


def _sub_models(
    plan: Plan, model: LoadedModel, graph: LayerGraph, pool: Pool | None
) -> dict[str, bytes]:
    components = wire_up(plan).components
    keys = {c.id: f"{plan.id}/{c.id}/{tritier.__version__}" for c in components}
    if pool is not None:
        found = {component: pool.get("sub-model", key) for component, key in keys.items()}
        kept = {component: data for component, data in found.items() if data is not None}
        if len(kept) == len(keys):
            return kept
    made = {sub.component: sub.data for sub in cut_model(realise(model.proto, graph, plan))}
    for data in made.values():
        check_loads(data)
    if pool is not None:
        for component, key in keys.items():
            pool.put("sub-model", key, f"{plan.model.name} {component}", made[component])
    return made
