"""Check the wiring of ensembles before anything is written, as Triton would, but with names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritier.errors import InputError


def check_wiring(configs: Mapping[tuple[str, str], Any]) -> None:
    """`configs` maps (server, model) to ModelConfig. Raises InputError with all faults.

    For every ensemble: each step's model is on the same server, each of its inputs is mapped (but
    for optional ones), types and sizes agree, each tensor is written once, no step is on a cycle,
    and every output of the ensemble is made.
    """
    faults = []
    for (server, name), config in configs.items():
        if config.platform == "ensemble":
            faults += [
                f"{server}: ensemble '{name}': {x}" for x in _faults(config, server, configs)
            ]
    if faults:
        raise InputError(faults)


def _faults(config: Any, server: str, configs: Mapping[tuple[str, str], Any]) -> list[str]:
    faults: list[str] = []
    known = {tensor.name: _signature(tensor, config) for tensor in config.input}
    waiting = list(config.ensemble_scheduling.step)
    written = set(known)
    while waiting:
        ready = [step for step in waiting if set(step.input_map.values()) <= set(known)]
        if not ready:
            names = ", ".join(f"'{step.model_name}'" for step in waiting)
            return [
                *faults,
                f"steps {names} wait for tensors that nothing makes, or for each other",
            ]
        for step in ready:
            model = configs.get((server, step.model_name))
            if model is None:
                return [*faults, f"step '{step.model_name}' is not a model of this server"]
            faults += _step_faults(step, model, known)
            for tensor in model.output:
                target = step.output_map.get(tensor.name)
                if not target:
                    continue
                if target in written:
                    faults.append(f"tensor '{target}' is written twice")
                written.add(target)
                known[target] = _signature(tensor, model)
        waiting = [step for step in waiting if step not in ready]
    for tensor in config.output:
        if tensor.name not in known:
            faults.append(f"nothing makes the output '{tensor.name}'")
        elif not _agree(known[tensor.name], _signature(tensor, config)):
            faults.append(f"the output '{tensor.name}' has another type or shape than its source")
    return faults


def _step_faults(step: Any, model: Any, known: Mapping[str, Any]) -> list[str]:
    faults = []
    inputs = {tensor.name: tensor for tensor in model.input}
    outputs = {tensor.name for tensor in model.output}
    for name in step.input_map:
        if name not in inputs:
            faults.append(f"step '{step.model_name}' has no input '{name}'")
    for name in step.output_map:
        if name not in outputs:
            faults.append(f"step '{step.model_name}' has no output '{name}'")
    for name, tensor in inputs.items():
        source = step.input_map.get(name)
        if not source:
            if not tensor.optional:
                faults.append(f"input '{name}' of step '{step.model_name}' is not mapped")
        elif not _agree(known[source], _signature(tensor, model)):
            faults.append(
                f"input '{name}' of step '{step.model_name}' has another type or shape than "
                f"'{source}'"
            )
    return faults


def _signature(tensor: Any, config: Any) -> tuple[int, tuple[int, ...]]:
    """(type, whole shape); the batch dimension counts as one of any size."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    return tensor.data_type, (*batch, *tensor.dims)


def _agree(one: tuple[int, tuple[int, ...]], other: tuple[int, tuple[int, ...]]) -> bool:
    return (
        one[0] == other[0]
        and len(one[1]) == len(other[1])
        and all(a == b or -1 in (a, b) for a, b in zip(one[1], other[1], strict=True))
    )
