"""Measures models on one server: through its agent, and as Triton serves them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tritier.deployment.client import TritonServer
from tritier.deployment.metrics import gpu_energy_joule
from tritier.documents import HostFacts, Server
from tritier.errors import ServerError
from tritier.files import sha256_bytes
from tritier.network.agent import Agent
from tritier.repository import TRITON_TYPES
from tritier.workflow.timing_pieces import Piece, Profiled
from tritier.workflow.timing_store import Store, Stored

# What is being done, and which share of it is done.
Report = Callable[[str, float], None]
_INSTANCE_KINDS = {"cpu": "KIND_CPU", "openvino": "KIND_CPU", "cuda": "KIND_GPU"}
# Triton reads the counters of GPUs every 2 s.
_ENERGY_S, _TICK_S = 10.0, 5.0
_COUNTED_S = 2.0
# What a kind of host changes in times; memory that is free now and the like do not.
_FACTS = ("cores", "cpu_model", "cpu_flags", "onnxruntime", "providers", "slowdown")


@dataclass(frozen=True)
class Runs:
    """How often each thing is done, and how long the server rests before each."""

    warmup: int = 10
    runs: int = 30
    rounds: int = 4  # of profiles, taken in turn
    pause_ms: float = 0.0

    @property
    def of_rounds(self) -> list[int]:
        """Runs in each round of a profile."""
        rounds = min(self.rounds, self.runs)
        return [self.runs // rounds + (index < self.runs % rounds) for index in range(rounds)]


class ServerBench:
    """One server with its agent, and what was measured on it before."""

    def __init__(
        self,
        server: Server,
        triton: TritonServer,
        agent: Agent,
        host: HostFacts,
        store: Store,
        runs: Runs,
        report: Report,
    ) -> None:
        self.server = server
        self.host = host
        self.runs = runs
        self._triton = triton
        self._agent = agent
        self._store = store
        self._report = report
        facts = host.model_dump(mode="json")
        self._key = {
            "server": server.name,
            "facts": {name: facts[name] for name in _FACTS},
            "gpus": [[gpu.name, gpu.memory_total_bytes] for gpu in host.gpus],
            "provider": server.execution_provider,
            "threads": server.threads,
            "warmup": runs.warmup,
            "runs": runs.runs,
        }

    def profile(self, models: Mapping[str, Profiled]) -> Stored:
        """Rounds of kernel times of each model, the models in turn; the first round of each has the
        optimised `graph` (hex)."""

        def measure() -> dict[str, list[dict[str, Any]]]:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
            rounds = self.runs.of_rounds
            for number, runs in enumerate(rounds):
                for name, model in models.items():
                    self._report("profiling", number / len(rounds))
                    order = self._order_to_measure(model.inputs, runs, True, self.runs.pause_ms)
                    answer, graph = self._agent.ask(order, model.data)
                    found[name].append(answer if found[name] else {**answer, "graph": graph.hex()})
            return found

        what = {name: [sha256_bytes(x.data), x.inputs] for name, x in models.items()}
        return self._store.get_or_measure(
            self._key | _rest(self.runs.pause_ms) | {"profile": what, "rounds": self.runs.rounds},
            measure,
        )

    def run_all_alone(self, pieces: Sequence[Piece], pause_ms: float = 0.0) -> list[Stored]:
        """See `run_alone`."""
        found = []
        for number, piece in enumerate(pieces):
            self._report(f"running {len(pieces)} models alone", number / len(pieces))
            found.append(self.run_alone(piece, pause_ms))
        return found

    def run_alone(self, piece: Piece, pause_ms: float = 0.0) -> Stored:
        """The agent's answer (`runs_ns`, `memory`, `energy_joule`) for a piece in a process of its
        own, outside Triton; `pause_ms` before each run."""
        order = self._order_to_measure(piece.inputs, self.runs.runs, False, pause_ms)
        return self._store.get_or_measure(
            self._key | _rest(pause_ms) | {"alone": piece.identity},
            lambda: self._agent.ask(order, piece.data)[0],
        )

    def serve(self, pieces: Sequence[Piece]) -> Stored:
        """By name of the piece: service times (`runs_ns`) in Triton, from its own statistics, and
        `spent_s`, what measuring it took. All are loaded, and asked in turn from inside; there is a
        pause before each that has layers of the model."""
        what = {piece.name: piece.identity for piece in pieces}
        rest = _rest(self.runs.pause_ms if any(piece.layers for piece in pieces) else 0.0)
        return self._store.get_or_measure(
            self._key | rest | {"served": what}, lambda: self._serve(pieces)
        )

    def gpu_joule(self, pieces: Sequence[Piece]) -> dict[str, tuple[float, int]] | None:
        """(GPU energy of one inference, runs) of each piece, by Triton's own counter; None where
        the model does not run on a GPU or the server tells nothing."""
        url = self.server.metrics_url
        on_gpu = self.server.execution_provider == "cuda"
        if not on_gpu or url is None or gpu_energy_joule(url) is None:
            return None

        def measure() -> dict[str, tuple[float, int]]:
            with self._loaded(pieces) as names:
                return {p.name: self._joule_of(names[p.name], p, url) for p in pieces}

        what = {piece.name: piece.identity for piece in pieces}
        found = self._store.get_or_measure(self._key | {"gpu_energy": what}, measure).result
        return {name: (joule, runs) for name, (joule, runs) in found.items()}

    def _joule_of(self, model: str, piece: Piece, url: str) -> tuple[float, int]:
        """From one reading of the counter to another, while nothing but this runs."""
        self._report("energy", 0.0)
        order = self._order_to_serve(model, piece)
        before, _ = self._until_read(order, url, 0.0)
        after, runs = self._until_read(order, url, _ENERGY_S)
        return (after - before) / runs, runs

    def _until_read(self, order: Mapping[str, Any], url: str, least_s: float) -> tuple[float, int]:
        """(counter when it has just been read anew, runs) after `least_s` of running."""
        runs, started, before = 0, time.monotonic(), None
        while True:
            self._agent.ask(order)
            runs += 1
            spent_s = time.monotonic() - started
            if spent_s < least_s:
                continue
            now = gpu_energy_joule(url)
            if now is None or spent_s > least_s + _TICK_S:
                raise ServerError(
                    f"the metrics of server '{self.server.name}' at {url} no longer tell of energy"
                )
            if before is not None and now != before:
                return now, runs
            before = now

    def _serve(self, pieces: Sequence[Piece]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {p.name: {"runs_ns": [], "spent_s": 0.0} for p in pieces}
        started = time.monotonic()
        with self._loaded(pieces) as names:
            loading_s = (time.monotonic() - started) / len(pieces)
            total = self.runs.warmup + self.runs.runs
            for number in range(total):
                self._report(f"serving {len(pieces)} models", number / total)
                for piece in pieces:
                    item, started = found[piece.name], time.monotonic()
                    if piece.layers:
                        time.sleep(self.runs.pause_ms / 1e3)
                    service_ns = self._served_ns(names[piece.name], piece)
                    if number >= self.runs.warmup:
                        item["runs_ns"].append(service_ns)
                    item["spent_s"] += time.monotonic() - started
        for item in found.values():
            item["spent_s"] += loading_s
        return found

    def _served_ns(self, model: str, piece: Piece) -> float:
        before, count = _service(self._triton.statistics(model))
        self._agent.ask(self._order_to_serve(model, piece))
        deadline = time.monotonic() + _COUNTED_S
        while True:
            after, now = _service(self._triton.statistics(model))
            if now == count + 1:
                return after - before
            if now > count + 1 or time.monotonic() > deadline:
                raise ServerError(
                    f"server '{self.server.name}' counted {now - count} requests to '{model}', "
                    "where one was sent: somebody else asks it; measure when nobody does"
                )

    def _order_to_measure(
        self, inputs: Mapping[str, Any], runs: int, profile: bool, pause_ms: float = 0.0
    ) -> dict[str, Any]:
        return {
            "op": "measure",
            "inputs": dict(inputs),
            "provider": self.server.execution_provider,
            "threads": self.server.threads,
            "warmup": self.runs.warmup,
            "runs": runs,
            "idle_s": pause_ms / 1e3,
            "profile": profile,
        }

    def _order_to_serve(self, model: str, piece: Piece) -> dict[str, Any]:
        return {
            "op": "serve",
            "model": model,
            "inputs": piece.inputs,
            "outputs": list(piece.outputs),
        }

    @contextmanager
    def _loaded(self, pieces: Sequence[Piece]) -> Iterator[dict[str, str]]:
        """The pieces in Triton, by name; whatever happens, none stays."""
        names = {piece.name: f"tritier_timing__{piece.name}" for piece in pieces}
        tried: list[str] = []
        try:
            for number, piece in enumerate(pieces):
                self._report(f"loading {len(pieces)} models", number / len(pieces))
                name = names[piece.name]
                tried.append(name)
                config = json.dumps(self._config(name, piece))
                self._triton.load(name, config, {"file:1/model.onnx": piece.data})
            yield names
        finally:
            for name in tried:
                with suppress(ServerError):  # the other ones must go, and what came first is told
                    self._triton.unload(name)

    def _config(self, name: str, piece: Piece) -> dict[str, Any]:
        """As the generator configures a component, for one request at a time."""
        rows = [
            {
                "name": tensor.id,
                "data_type": TRITON_TYPES[tensor.dtype],
                "dims": [d if isinstance(d, int) else -1 for d in tensor.shape] or [1],
            }
            for tensor in piece.tensors
        ]
        config: dict[str, Any] = {
            "name": name,
            "backend": "onnxruntime",
            "max_batch_size": 0,
            "input": [row for row in rows if row["name"] in piece.inputs],
            "output": [row for row in rows if row["name"] not in piece.inputs],
            "instance_group": [
                {"kind": _INSTANCE_KINDS[self.server.execution_provider], "count": 1}
            ],
            "parameters": {
                "intra_op_thread_count": {"string_value": str(self.server.threads)},
                "inter_op_thread_count": {"string_value": "1"},
            },
        }
        if self.server.execution_provider == "openvino":
            accelerators = {"cpu_execution_accelerator": [{"name": "openvino"}]}
            config["optimization"] = {"execution_accelerators": accelerators}
        return config


def _rest(pause_ms: float) -> dict[str, float]:
    """For keys of what is kept: nothing where there was no pause."""
    return {"pause_ms": pause_ms} if pause_ms else {}


def _service(statistics: Any) -> tuple[float, int]:
    """(ns of input, inference and output so far, requests that were answered)."""
    parts = (statistics.compute_input, statistics.compute_infer, statistics.compute_output)
    return float(sum(part.ns for part in parts)), int(statistics.success.count)
