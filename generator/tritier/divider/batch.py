"""Decide, with proof, whether requests to a plan's model may be batched.

If the leading size of every border tensor is one and the same symbol, a batch may pass through all
components. Whether it passes *unchanged* is tried: a batched run must equal single runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tritier.divider.run import Chain, random_inputs
from tritier.documents import Batching, Plan, wire_up
from tritier.errors import InputError

_TRIAL_BATCH = 3
# Sizes tried for other symbolic dimensions: one of them usually suits the model.
_SEED = 0


def batch_symbol(plan: Plan) -> tuple[str | None, str]:
    """(symbol of the batch dimension or None, reason if None)."""
    leading = {tensor.id: tensor.shape[0] if tensor.shape else None for tensor in plan.tensors}
    first = leading[plan.inputs[0]]
    name = plan.tensor(plan.inputs[0]).name
    if first is None:
        return None, f"input '{name}' is a scalar"
    if not isinstance(first, str) or first == "?":
        kind = "an unknown leading size" if first == "?" else f"the fixed leading size {first}"
        return None, f"input '{name}' has {kind}"
    for tensor in plan.tensors:
        if len(tensor.shape) == 1:
            return None, f"'{tensor.name}' has no dimension besides the batch"
        if leading[tensor.id] != first:
            found = leading[tensor.id]
            return None, (
                f"the leading size of '{tensor.name}' is "
                f"{'missing' if found is None else repr(found)}, not '{first}'"
            )
    return first, ""


def decide_batching(
    plan: Plan, models: Mapping[str, bytes], max_batch_size: int, dims: Mapping[str, int]
) -> Batching:
    """`max_batch_size` if batching is proven right for the plan's sub-models, else 0."""
    if max_batch_size == 0:
        return Batching(max_batch_size=0, reason="batching was switched off")
    symbol, reason = batch_symbol(wire_up(plan))
    if symbol is None:
        return Batching(max_batch_size=0, reason=reason)
    generator = np.random.default_rng(_SEED)
    try:
        batch = random_inputs(plan, generator, {**dims, symbol: _TRIAL_BATCH})
    except InputError as error:
        return Batching(max_batch_size=0, reason=f"a batch can't be tried: {error}")
    chain = Chain(plan, models, "disabled")
    singles = [
        {name: array[index : index + 1] for name, array in batch.items()}
        for index in range(_TRIAL_BATCH)
    ]
    try:
        together, *apart = [chain.run(inputs) for inputs in (batch, *singles)]
    except Exception as error:  # ONNX Runtime's own types; any refusal means no batching
        first = str(error).splitlines()[0]
        reason = f"a batch of {_TRIAL_BATCH} or one of its parts fails: {first}"
        return Batching(max_batch_size=0, reason=reason)
    for index, alone in enumerate(apart):
        for name, array in alone.items():
            if not np.array_equal(array, together[name][index : index + 1], equal_nan=True):
                reason = f"a batch of {_TRIAL_BATCH} differs from single runs in '{name}'"
                return Batching(max_batch_size=0, reason=reason)
    return Batching(
        max_batch_size=max_batch_size,
        reason=f"a batch of {_TRIAL_BATCH} equals single runs bit for bit",
    )
