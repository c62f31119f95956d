"""Where models are run to compare int8 formats: on this machine, or on a server."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect
from tritier.divider import Array, Arrays
from tritier.divider.run import open_session
from tritier.errors import InputError, ServerError
from tritier.workflow.timing_bench import ServerBench
from tritier.workflow.timing_pieces import Piece, Profiled

_SERVED_S = 600.0


class Place(Protocol):
    """Runs whole models, by the names of pieces."""

    def times_ns(self, pieces: Sequence[Piece], feed: Arrays) -> dict[str, list[float]]:
        """Times of the pieces, run in turn: the i-th times of all belong together."""
        ...

    def answers(self, pieces: Sequence[Piece], feeds: Sequence[Arrays]) -> Iterator[list[Arrays]]:
        """For each piece its outputs for all inputs, both by the model's own names."""
        ...

    def optimised(self, model: Profiled) -> onnx.GraphProto | None:
        """The graph that ONNX Runtime runs there; None where it does not tell."""
        ...


class Here:
    """The machine that this runs on."""

    def __init__(self, threads: int, warmup: int, runs: int) -> None:
        self._threads, self._warmup, self._runs = threads, warmup, runs

    def times_ns(self, pieces: Sequence[Piece], feed: Arrays) -> dict[str, list[float]]:
        """See Place; at ONNX Runtime's level 'all', as Triton serves."""
        sessions = {p.name: open_session(p.data, "all", self._threads) for p in pieces}
        found: dict[str, list[float]] = {piece.name: [] for piece in pieces}
        for number in range(self._warmup + self._runs):
            # Whoever comes after a model that fills the caches would always pay for it.
            for piece in (*pieces[number % len(pieces) :], *pieces[: number % len(pieces)]):
                inputs = fed(piece, feed)
                started = time.perf_counter_ns()
                sessions[piece.name].run(None, inputs)
                if number >= self._warmup:
                    found[piece.name].append(float(time.perf_counter_ns() - started))
        return found

    def answers(self, pieces: Sequence[Piece], feeds: Sequence[Arrays]) -> Iterator[list[Arrays]]:
        """See Place."""
        yield from answers_here(pieces, feeds, "all", self._threads)

    def optimised(self, model: Profiled) -> onnx.GraphProto:
        """See Place."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        with tempfile.TemporaryDirectory(prefix="tritier-formats-") as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
            return onnx.load(path).graph


class OnServer(ServerBench):
    """A server with its agent."""

    def times_ns(self, pieces: Sequence[Piece], feed: Arrays) -> dict[str, list[float]]:  # noqa: ARG002 - the agent draws inputs
        """See Place; service times by Triton's own statistics."""
        found = self.serve(pieces).result
        return {piece.name: list(found[piece.name]["runs_ns"]) for piece in pieces}

    def answers(self, pieces: Sequence[Piece], feeds: Sequence[Arrays]) -> Iterator[list[Arrays]]:
        """See Place; as Triton answers an app."""
        with self._loaded(pieces) as names:
            client = connect(self._triton.url)
            try:
                for number, piece in enumerate(pieces):
                    self._report("measuring noise", number / len(pieces))
                    yield [self._infer(client, names[piece.name], piece, feed) for feed in feeds]
            finally:
                client.close()

    def optimised(self, model: Profiled) -> onnx.GraphProto | None:
        """See Place; only the processor's own kernels are known."""
        if self.server.execution_provider != "cpu":
            return None
        order = self._order_to_measure(model.inputs, 1, profile=True)
        _, graph = self._agent.ask(order | {"warmup": 0}, model.data)
        return onnx.load_model_from_string(graph).graph

    def _infer(
        self, client: triton.InferenceServerClient, name: str, piece: Piece, feed: Arrays
    ) -> Arrays:
        inputs = []
        for id, array in fed(piece, feed).items():
            item = triton.InferInput(id, list(array.shape), piece.inputs[id]["datatype"])
            item.set_data_from_numpy(np.ascontiguousarray(array))
            inputs.append(item)
        try:
            result = client.infer(name, inputs, client_timeout=_SERVED_S)
        except InferenceServerException as error:
            raise ServerError(
                f"server '{self.server.name}' ({self._triton.url}) can't run '{piece.name}': "
                f"{error.message()}"
            ) from None
        return {model: result.as_numpy(id) for id, model in _outputs(piece)}


def answers_here(
    pieces: Sequence[Piece], feeds: Sequence[Arrays], level: Any, threads: int
) -> Iterator[list[Arrays]]:
    """See Place; at any level of ONNX Runtime's optimisation."""
    for piece in pieces:
        session = open_session(piece.data, level, threads)
        names = _outputs(piece)
        found = []
        for feed in feeds:
            try:
                arrays = session.run([id for id, _ in names], fed(piece, feed))
            except Exception as error:  # ONNX Runtime's own types, one per status code
                raise InputError(f"ONNX Runtime can't run '{piece.name}': {error}") from None
            found.append(dict(zip((model for _, model in names), arrays, strict=True)))
        yield found


def fed(piece: Piece, feed: Mapping[str, Array]) -> Arrays:
    """Inputs of a piece, by its own names, of inputs of the model; no piece has scalars."""
    names = zip(piece.inputs, piece.reads, strict=True)
    return {id: np.atleast_1d(feed[model]) for id, model in names}


def _outputs(piece: Piece) -> list[tuple[str, str]]:
    """(name in the piece, name in the model)."""
    return list(zip(piece.outputs, piece.makes, strict=True))
