"""Outputs of a model for many choices of quantized layers, each piece of work done once.

The graph is cut into pieces by which choices can influence them. For each content of a piece there
is one small session, and for each content and inputs one run, whose outputs are kept until the last
subset that needs them. What runs is the nodes of the really quantized model, in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime as ort

from tritier.calibration import Arrays
from tritier.divider import ModelQuantizer, QuantizedBody, in_order, uncut_model
from tritier.documents import Quantization, Ranges
from tritier.errors import InputError
from tritier.graph import DTYPES, LayerGraph, LoadedModel, TensorInfo, infer_tensors
from tritier.noise.design import layers_of
from tritier.noise.pieces import ConstantKeys, Influence, Partition, Piece, piece_model
from tritier.noise.sessions import Sessions, fused_tensors, open_session

Value = TypeVar("Value")
# The same operations on the same tensor.
_ValueKey = bytes


@dataclass(frozen=True)
class _Run:
    """Run a piece: inputs and outputs as (name in the piece, key of the value)."""

    piece: bytes
    inputs: tuple[tuple[str, _ValueKey], ...]
    outputs: tuple[tuple[str, _ValueKey], ...]


@dataclass(frozen=True)
class _Answer:
    """A subset is done: the values of the model's outputs; then these values can go."""

    subset: int
    outputs: tuple[_ValueKey, ...]
    dropped: tuple[_ValueKey, ...]


@dataclass(frozen=True)
class Program:
    """What to run for a list of subsets, whatever the input. `work` is the share of node runs that
    is left, of what the subsets would need one by one."""

    steps: tuple[_Run | _Answer, ...]
    work: float


@dataclass
class Executor:
    """Runs one model with any of `layers` quantized: bit i of a subset stands for layers[i].

    With `kernels`, ONNX Runtime uses the int8 kernels that this machine has; else quantized values
    are computed with floats. Without `memoise`, every subset is a session of its own. Copies that
    go to other processes open sessions of their own.
    """

    model: LoadedModel
    graph: LayerGraph
    layers: tuple[str, ...]
    ranges: Ranges
    settings: Quantization = field(default_factory=Quantization)
    kernels: bool = False
    memoise: bool = True

    def __post_init__(self) -> None:
        self._quantizer = ModelQuantizer(self.model.proto, self.graph, self.ranges.ranges)
        self._influence = Influence(self.graph, ())
        if self.memoise:
            fused = fused_tensors(self.quantized_model(0))
            self._influence = Influence(self.graph, self.layers, fused)
        self._keys = ConstantKeys(self.model.proto)
        self._pieces: dict[bytes, Piece] = {}
        self._sessions = Sessions(self.kernels)
        self._infos: dict[str, TensorInfo] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": None, "_keys": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keys = ConstantKeys(self.model.proto)  # which holds ids of objects
        self._sessions = Sessions(self.kernels)

    def names(self, subset: int) -> tuple[str, ...]:
        """The layers of a subset, in the model's order."""
        return layers_of(self.layers, subset)

    def quantized_model(self, subset: int) -> onnx.ModelProto:
        """The whole model with these layers quantized, as a plan would have it."""
        body = self._quantized(subset).body
        nodes = in_order(body.nodes, body.initializers)
        source = self.model.proto
        return uncut_model(source, nodes, body.initializers, source.opset_import)

    def run_whole(self, subset: int, inputs: Arrays) -> Arrays:
        """Outputs of the whole quantized model, in one session: what `run` is checked against."""
        session = open_session(self.quantized_model(subset), self.kernels)
        return dict(zip(self.graph.outputs, session.run(self.graph.outputs, inputs), strict=True))

    def compile(self, subsets: Sequence[int]) -> Program:
        """What to run for these subsets, in this order. Raises InputError when layers can't be
        quantized."""
        done: set[_ValueKey] = set()
        lists: list[tuple[list[_Run], list[_ValueKey], list[_ValueKey]]] = []
        wanted = made = 0
        for subset in subsets:
            runs, outputs = self._runs(subset)
            used = [key for run in runs for _, key in (*run.inputs, *run.outputs)]
            new = [run for run in runs if run.outputs[0][1] not in done]
            done.update(key for run in runs for _, key in run.outputs)
            wanted += sum(len(self._pieces[run.piece].nodes) for run in runs)
            made += sum(len(self._pieces[run.piece].nodes) for run in new)
            lists.append((new, outputs, used))
        last = {key: index for index, (*_, used) in enumerate(lists) for key in used}
        last |= {key: len(lists) for key in self._input_keys()}
        steps: list[_Run | _Answer] = []
        for index, (subset, (new, outputs, used)) in enumerate(zip(subsets, lists, strict=True)):
            gone = tuple(key for key in dict.fromkeys(used) if last[key] == index)
            steps += [*new, _Answer(subset, tuple(outputs), gone)]
        return Program(tuple(steps), made / max(wanted, 1))

    def compile_singles(self) -> Program:
        """Of the float model and each layer alone."""
        return self.compile([0, *(1 << index for index in reversed(range(len(self.layers))))])

    def run(
        self, program: Program, inputs: Arrays, fold: Callable[[int, Arrays], Value]
    ) -> dict[int, Value]:
        """What `fold` makes of each subset and its outputs, which it must not keep or change.

        Raises InputError when ONNX Runtime refuses the inputs.
        """
        values = {
            key: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(inputs[name]))
            for name, key in zip(self.graph.inputs, self._input_keys(), strict=True)
        }
        found: dict[int, Value] = {}
        for step in program.steps:
            if isinstance(step, _Run):
                self._run_piece(step, values)
                continue
            arrays = [values[key].numpy() for key in step.outputs]
            found[step.subset] = fold(
                step.subset, dict(zip(self.graph.outputs, arrays, strict=True))
            )
            for key in step.dropped:
                del values[key]
        return found

    def _run_piece(self, step: _Run, values: dict[_ValueKey, ort.OrtValue]) -> None:
        def model() -> onnx.ModelProto:
            return piece_model(self.model.proto, self._pieces[step.piece], self._infos)

        session = self._sessions.get(step.piece, model)
        names = [name for name, _ in step.outputs]
        try:
            made = session.run_with_ort_values(
                names, {name: values[key] for name, key in step.inputs}
            )
        except Exception as error:  # ONNX Runtime's own types, one per status code
            raise InputError(f"ONNX Runtime can't run the model: {error}") from None
        values.update(zip((key for _, key in step.outputs), made, strict=True))

    def _runs(self, subset: int) -> tuple[list[_Run], list[_ValueKey]]:
        """The pieces of a subset, and the values of its outputs."""
        quantized = self._quantized(subset)
        pieces = Partition(quantized, self.graph, self._influence, self.kernels).pieces(self._keys)
        self._learn_infos(quantized, pieces)
        keys = dict(zip(self.graph.inputs, self._input_keys(), strict=True))
        runs = []
        for piece in pieces:
            self._pieces.setdefault(piece.key, piece)
            inputs = tuple((name, keys[tensor]) for name, tensor in piece.inputs.items())
            digest = hashlib.sha256(b"".join([piece.key, *(key for _, key in inputs)]))
            made = {name: _key(digest.digest(), name) for name in piece.outputs}
            keys |= made
            runs.append(_Run(piece.key, inputs, tuple(made.items())))
        return runs, [keys[name] for name in self.graph.outputs]

    def _quantized(self, subset: int) -> QuantizedBody:
        layers = self.names(subset)
        return self._quantizer.quantize({self.settings: layers} if layers else {})

    def _learn_infos(self, quantized: QuantizedBody, pieces: Iterable[Piece]) -> None:
        """Types of all tensors that cross from piece to piece, by the model's own."""
        names = {name for piece in pieces for name in (*piece.inputs.values(), *piece.outputs)}
        unknown = names.difference(self._infos)
        if not unknown:
            return
        base = {before: name for name, before in quantized.made.items()}
        source: dict[str, str] = {}
        dtypes: dict[str, int] = {}
        for node in quantized.body.nodes:
            if node.name in quantized.originals:
                continue
            source[node.output[0]] = source.get(node.input[0], node.input[0])
            if node.op_type == "QuantizeLinear":
                zero = quantized.body.initializers[node.input[2]]
                dtypes[node.output[0]] = zero.data_type
        original = {}
        for name in unknown:
            found = source.get(name, name) if name not in self.graph.outputs else name
            original[name] = base.get(found, found)
        infos = infer_tensors(self.model.proto, dict.fromkeys(original.values()))
        for name, known in original.items():
            dtype = DTYPES[dtypes[name]] if name in dtypes else infos[known].dtype
            self._infos[name] = TensorInfo(name, dtype, infos[known].shape)

    def _input_keys(self) -> list[_ValueKey]:
        return [_key(b"input", name) for name in self.graph.inputs]


def _key(*parts: bytes | str) -> _ValueKey:
    data = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(data).digest()
