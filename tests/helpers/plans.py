"""Plans without a model, written as one line per component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritier.documents import Batching, Plan, required_wires
from tritier.repository import GenerateOptions, generate_files

SHA256 = "0" * 64


def plan_data(
    components: Sequence[str],
    inputs: str = "t0",
    outputs: str = "t9",
    servers: str = "abc",
    names: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
) -> dict[str, Any]:
    """A plan as plain data; components are lines like `b: t0 t1 -> t2`, c0 first.

    Servers have one letter each, the first is the entry. Tensors are float32 of shape [2] unless
    `shapes` says else, and are called `n5` in the model unless `names` says else. The layers of
    component c3 are `l3`. Wires are what the components need.
    """
    rows = [_component(index, line) for index, line in enumerate(components)]
    tensors = dict.fromkeys([*inputs.split(), *(t for row in rows for t in row["outputs"])])
    wires = required_wires(
        {row["id"]: row["server"] for row in rows},
        [(row["id"], row["inputs"], row["outputs"]) for row in rows],
        inputs.split(),
        outputs.split(),
        servers[0],
    )
    return {
        "format": "tritier/plan/1",
        "model": {"name": "m", "sha256": SHA256},
        "servers": [
            {"name": name, "entry": index == 0, "url": f"{name}:8001"}
            for index, name in enumerate(servers)
        ],
        "inputs": inputs.split(),
        "outputs": outputs.split(),
        "tensors": [
            {
                "id": tensor,
                "name": (names or {}).get(tensor, f"n{tensor[1:]}"),
                "dtype": "float32",
                "shape": list((shapes or {}).get(tensor, [2])),
            }
            for tensor in tensors
        ],
        "components": rows,
        "wires": [{"tensor": t, "from": k, "to": h} for t, k, h in wires],
    }


def make_plan(components: Sequence[str], **options: Any) -> Plan:
    """The plan of `plan_data`."""
    return Plan.from_data(plan_data(components, **options))


def files_of(
    plan: Plan, batch: int = 0, options: GenerateOptions | None = None
) -> dict[str, bytes]:
    """All files of a plan whose sub-models are only said to be there."""
    batching = Batching(max_batch_size=batch, reason="for a test")
    models = {component.id: component.id.encode() for component in plan.components}
    whole = b"whole" if options and options.with_whole else None
    return generate_files(plan, models, whole, batching, options or GenerateOptions())


def _component(index: int, line: str) -> dict[str, Any]:
    server, _, flow = line.partition(":")
    needs, _, makes = flow.partition("->")
    return {
        "id": f"c{index}",
        "server": server.strip(),
        "layers": [f"l{index}"],
        "inputs": needs.split(),
        "outputs": makes.split(),
    }
