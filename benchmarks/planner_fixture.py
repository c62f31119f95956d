"""Make the fixture of published planning cases from the files that the published system recorded.

    python -m benchmarks.planner_fixture FOLDER [-o FILE]

FOLDER holds `model_profile_*.json`, `exec_profile_*.json`, `plans_*.json`, `generation_*.csv`,
`scale_*.csv`, `pareto_frontier.csv` and `energy_limit.csv` of a master's thesis of the University
of Rome Tor Vergata (2024-25). Only figures are taken over, rounded to 7 digits, in a layout of our
own; names of layers are shortened. `tests.helpers.published` reads what is written here.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import heapq
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.helpers.published import FIXTURE

SOURCE = (
    "Figures recorded by the system of a master's thesis, University of Rome Tor Vergata, 2024-25"
)
MODELS = ("yolo11x-seg", "yolo11m")
SERVERS = ("device", "edge", "cloud")
SCENARIOS = ("Device", "DeviceEdge", "DeviceEdgeCloud")
GENERATOR, RECEIVER = "InputGenerator", "OutputReceiver"
DIGITS = 7
# What the recording system appended to names of tensors behind its own nodes.
_SUFFIXES = ("_QuantizeLinear_Output", "_DequantizeLinear_Output")
Row = dict[str, str]


def rounded(value: float) -> float:
    """To 7 significant digits."""
    return float(f"{value:.{DIGITS}g}")


class Model:
    """A recorded graph in topological order: the generator first, the receiver last."""

    def __init__(self, folder: Path, name: str) -> None:
        data = json.loads((folder / f"model_profile_{name}.json").read_text())
        graph, self.regressor = data["graph"], data["regressor"]
        self.nodes = {node["id"]: node for node in graph["nodes"]}
        self.sizes: dict[str, tuple[str, float]] = graph["graph"]["tensor_size_dict"]
        self.readers: dict[str, set[str]] = {tensor: set() for tensor in self.sizes}
        self.reads: dict[str, set[str]] = {layer: set() for layer in self.nodes}
        for link in graph["links"]:
            for tensor in link["tensor_name_list"]:
                self.readers[tensor].add(link["target"])
                self.reads[link["target"]].add(tensor)
        self.order = self._ordered()
        self.position = {layer: index for index, layer in enumerate(self.order)}
        assert self.order[0] == GENERATOR
        assert self.order[-1] == RECEIVER
        self.quantizable = sorted(
            self.position[layer] for layer, node in self.nodes.items() if node.get("quantizable")
        )

    def _ordered(self) -> list[str]:
        missing = {layer: len(self._before(layer)) for layer in self.nodes}
        after: dict[str, set[str]] = {layer: set() for layer in self.nodes}
        for layer in self.nodes:
            for source in self._before(layer):
                after[source].add(layer)
        ready = [(node["idx"], layer) for layer, node in self.nodes.items() if not missing[layer]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, layer = heapq.heappop(ready)
            order.append(layer)
            for target in after[layer]:
                missing[target] -= 1
                if not missing[target]:
                    heapq.heappush(ready, (self.nodes[target]["idx"], target))
        return order

    def _before(self, layer: str) -> set[str]:
        return {self.sizes[tensor][0] for tensor in self.reads[layer]}

    def mask(self, layers: Iterable[str]) -> int:
        """Bits of the quantizable layers."""
        bit = {layer: index for index, layer in enumerate(self.quantizable)}
        return sum(1 << bit[self.position[layer]] for layer in set(layers))

    def figures(self, folder: Path, name: str) -> dict[str, Any]:
        """What the fixture holds of a model."""
        terms = {
            self.mask(ast.literal_eval(key)): rounded(value)
            for key, value in self.regressor["interactions"].items()
        }
        flows = [
            [self.position[source], sorted(self.position[x] for x in self.readers[tensor]), mib]
            for tensor, (source, mib) in self.sizes.items()
            if self.readers[tensor]
        ]
        return {
            "layers": [layer.removeprefix("/model.") for layer in self.order],
            "flows": sorted(flows),
            "weights_mib": [rounded(self.nodes[layer]["weights_size"]) for layer in self.order],
            "flops": [rounded(self.nodes[layer]["flops"]) for layer in self.order],
            "quantizable": self.quantizable,
            "noise": {"constant": rounded(self.regressor["intercept"]), "terms": terms},
            "times": {server: self._times(folder, name, server) for server in SERVERS},
        }

    def _times(self, folder: Path, name: str, server: str) -> dict[str, Any]:
        """Of both kinds: seconds per layer, those of quantized ones, and of whole models."""
        data = json.loads((folder / f"exec_profile_{name}_{server}.json").read_text())
        found = {}
        for kind, key in (("average", "avg"), ("median", "med")):
            mixed = data.get("MixedModel", {}).get(f"q_{key}_time")
            found[kind] = {
                "float_s": [
                    rounded(data.get(layer, {}).get(f"nq_{key}_time", 0.0)) for layer in self.order
                ],
                "int8_s": [rounded(data[self.order[i]][f"q_{key}_time"]) for i in self.quantizable],
                "whole_s": rounded(data["WholeModel"][f"nq_{key}_time"]),
                "mixed_s": None if mixed is None else rounded(mixed),
            }
        return found

    def servers_of(self, components: Mapping[str, Mapping[str, Any]]) -> list[int]:
        """The server of each layer: what is reached backwards from a component's outputs down to
        its inputs belongs to it."""
        found = {GENERATOR: 0, RECEIVER: 0}
        for text, item in components.items():
            if item["is_only_input"] or item["is_only_output"]:
                continue
            server, size = int(ast.literal_eval(text)[1]), len(found)
            borders = {self._known(tensor) for tensor in item["input_names"]}
            waiting = [self._known(tensor) for tensor in item["output_connections"]]
            while waiting:
                tensor = waiting.pop()
                layer = self.sizes[tensor][0]
                if tensor not in borders and layer not in found:
                    found[layer] = server
                    waiting += self.reads[layer]
            assert len(found) - size == item["component_size"], text
        return [found[layer] for layer in self.order]

    def _known(self, tensor: str) -> str:
        for suffix in _SUFFIXES:
            if tensor not in self.sizes:
                tensor = tensor.removesuffix(suffix)
        return tensor


def plans(folder: Path, models: Mapping[str, Model]) -> list[dict[str, Any]]:
    """Each recorded plan: its parameters, its assignment as runs of [server, layers], its values.

    `cpus` are those of device, edge and cloud; 0 is a GPU, and a server that is not there is left
    out. `generated_s` is the time that it took to plan.
    """
    found = []
    for scenario in SCENARIOS:
        rows = table(folder / f"generation_{scenario}Plan.csv")
        recorded = json.loads((folder / f"plans_{scenario}Plan.json").read_text())
        for key, item in recorded.items():
            model = models[item["model_name"]]
            words = key.removeprefix(item["model_name"] + "_").split("_")
            values = dict(zip(words[::2], map(float, words[1::2]), strict=True))
            found.append(
                {
                    "scenario": scenario,
                    "model": item["model_name"],
                    "latency_weight": values["lw"],
                    "energy_weight": values["ew"],
                    "max_noise": values["mn"],
                    "cpus": [values[x] for x in ("dc", "ec", "cc") if values[x] >= 0],
                    "runs": runs(model.servers_of(item["plan_dict"])),
                    "components": len(item["plan_dict"]),
                    "quantized": model.mask(item["quantized_nodes"]),
                    "latency_s": rounded(item["latency_value"]),
                    "energy_joule": rounded(item["energy_value"]),
                    "device_energy_joule": rounded(item["device_energy"]),
                    "generated_s": _generated(rows, item),
                }
            )
    return found


def _generated(rows: list[Row], item: Mapping[str, Any]) -> float:
    """Of the run that recorded the same values."""
    seconds = [
        float(row["run_time"])
        for row in rows
        if abs(float(row["latency_value"]) - item["latency_value"]) < 1e-12
        and abs(float(row["energy_value"]) - item["energy_value"]) < 1e-12
    ]
    return rounded(statistics.median(seconds))


def runs(values: list[int]) -> list[list[int]]:
    """[value, how often] of equal neighbours."""
    found: list[list[int]] = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return found


def scaling(path: Path) -> list[list[float]]:
    """[layers, servers, runs, median seconds of build, three solves, post-processing, total]."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in table(path):
        size = (int(float(row["num_nodes"])), int(float(row["net_nodes"])))
        groups.setdefault(size, []).append(row)
    parts = ("build_time", "latency_time", "energy_time", "whole_time", "post_time", "total_time")
    return [
        [*size, len(rows), *(rounded(statistics.median(float(r[p]) for r in rows)) for p in parts)]
        for size, rows in sorted(groups.items())
    ]


def table(path: Path) -> list[Row]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def columns(path: Path, *names: str, **wanted: str) -> list[list[float]]:
    """Some columns of the rows that have the wanted values."""
    return [
        [rounded(float(row[name])) for name in names]
        for row in table(path)
        if all(row[key] == value for key, value in wanted.items())
    ]


def fixture(folder: Path) -> dict[str, Any]:
    """All of it."""
    models = {name: Model(folder, name) for name in MODELS}
    return {
        "source": SOURCE,
        "models": {name: model.figures(folder, name) for name, model in models.items()},
        "plans": plans(folder, models),
        "scaling": {
            "chain": scaling(folder / "scale_static.csv"),
            "random": scaling(folder / "scale_random.csv"),
        },
        "pareto": {
            name: columns(
                folder / "pareto_frontier.csv", "latency_weight", "latency_cost", "energy_cost",
                model_name=name,
            )
            for name in MODELS
        },
        "energy_limit": columns(
            folder / "energy_limit.csv", "energy_limit", "device_energy", "device_layers",
            "edge_layers",
        ),
    }  # fmt: skip


def write_fixture(content: object, path: Path) -> None:
    """As compressed JSON, the same bytes each time."""
    text = json.dumps(content, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    """Read the command line and write the file, the same bytes each time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=FIXTURE)
    options = parser.parse_args()
    write_fixture(fixture(options.folder), options.output)


if __name__ == "__main__":
    main()
