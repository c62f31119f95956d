"""What cutting a tensor costs besides moving it: changes of memory layout.

ONNX Runtime keeps tensors between convolutions in a blocked layout. Where such a tensor crosses the
border of a component it is brought into the plain layout on one side and back on the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

_TO_BLOCKED, _TO_PLAIN = "ReorderInput", "ReorderOutput"


@dataclass(frozen=True)
class CutCost:
    """What the maker and the readers of a tensor do besides if it crosses a border."""

    making: float
    reading: float


def cut_costs(
    tensors: Mapping[str, int],
    makers: Mapping[str, str],
    optimised: onnx.GraphProto,
    times: Mapping[str, float],
) -> dict[str, CutCost]:
    """Costs, in the unit of `times`, of the tensors that are in the blocked layout.

    `tensors` maps the tensors of the model that was profiled to their bytes, `makers` to the kernel
    that makes them. A change of layout costs, per byte, what those in the profile cost on average.
    """
    to_blocked = _cost_per_byte(_TO_BLOCKED, optimised, tensors, times)
    to_plain = _cost_per_byte(_TO_PLAIN, optimised, tensors, times)
    kernels = {kernel.name: kernel for kernel in optimised.node}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for kernel in optimised.node:
        for name in kernel.input:
            users[name].append(kernel)
    plain = {name for kernel in optimised.node for name in kernel.output}
    found = {}
    for tensor, size in tensors.items():
        maker = kernels.get(makers.get(tensor, ""))
        if maker is None or tensor in maker.output:
            continue
        readers = [user for name in maker.output for user in users[name]]
        making = 0.0 if tensor in plain else size * to_plain
        stays = any(reader.op_type != _TO_PLAIN for reader in readers)
        reading = size * to_blocked if stays else 0.0
        if making or reading:
            found[tensor] = CutCost(making, reading)
    return found


def _cost_per_byte(
    kind: str,
    optimised: onnx.GraphProto,
    tensors: Mapping[str, int],
    times: Mapping[str, float],
) -> float:
    """Mean over the kernels of that kind whose plain tensor is one of the model's."""
    total_time = total_bytes = 0.0
    for kernel in optimised.node:
        plain: Sequence[str] = kernel.input if kind == _TO_BLOCKED else kernel.output
        if kernel.op_type == kind and plain[0] in tensors and kernel.name in times:
            total_time += times[kernel.name]
            total_bytes += tensors[plain[0]]
    return total_time / total_bytes if total_bytes else 0.0
