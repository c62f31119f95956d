"""Small ONNX models as text, and the way from such a text to a plan and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import onnx.printer

from tritier.divider import Array, Arrays, Chain, WholeModel
from tritier.documents import Assignment, Batching, Manifest, Plan, ServersSpec
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions
from tritier.workflow import generate, plan_from_assignment

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
MEAN_SHIFT = """
    g (float[N,4] x) => (float[N,4] y) {
      [relu] h = Relu(x)
      [mean] m = ReduceMean<axes = [0]>(h)
      [sub] y = Sub(h, m)
    }
"""

# Every tensor has 16 bytes.
DIAMOND = """
    g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
      [relu] h = Relu(x)
      [neg] n = Neg(h)
      [mul] m = Mul(h, w)
      [add] s = Add(n, m)
      [sub] y = Sub(s, w)
    }
"""


def parse(text: str) -> onnx.ModelProto:
    """The model of a text `g (inputs) => (outputs) { [layer name] out = Op(in) ... }`."""
    return onnx.parser.parse_model(HEADER + text)


def save(folder: Path, model: str | onnx.ModelProto, name: str = "m") -> Path:
    """Write a model as `<name>.onnx`."""
    proto = parse(model) if isinstance(model, str) else model
    path = folder / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def load(folder: Path, model: str | onnx.ModelProto, name: str = "m") -> LoadedModel:
    """Write a model and read it back as a user's file."""
    return load_model(save(folder, model, name))


def layers_of(model: str | onnx.ModelProto) -> LayerGraph:
    """The layer graph of a model."""
    return build_layer_graph(parse(model) if isinstance(model, str) else model)


def spec(names: str = "abc") -> ServersSpec:
    """Servers with one letter each; the first is the entry."""
    servers = [
        {"name": name, "tier": "edge", "entry": index == 0, "url": f"{name}:8001"}
        for index, name in enumerate(names)
    ]
    return ServersSpec.from_data({"servers": servers})


@dataclass(frozen=True, repr=False)
class Planned:
    """A model and a plan for it."""

    model: LoadedModel
    plan: Plan

    def __repr__(self) -> str:
        """The model as text, and where its layers run."""
        placed = [f"{c.id} on {c.server}: {', '.join(c.layers)}" for c in self.plan.components]
        return "\n".join(["", onnx.printer.to_text(self.model.proto), *placed])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """For Hypothesis, which would show all fields of a dataclass, 100 kB of them."""
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Split(Planned):
    """A model, a plan and what was generated from them."""

    files: dict[str, bytes]
    batching: Batching

    @cached_property
    def manifest(self) -> Manifest:
        """The generated manifest."""
        return Manifest.from_data(json.loads(self.files["manifest.json"]))

    @cached_property
    def sub_models(self) -> dict[str, bytes]:
        """Component -> generated ONNX model."""
        return {
            model.component: self.files[f"{model.server}/{model.name}/1/model.onnx"]
            for model in self.manifest.models
            if model.kind == "component" and model.component is not None
        }

    def sub_model(self, component: str) -> onnx.ModelProto:
        """The generated ONNX model of a component."""
        return onnx.load_model_from_string(self.sub_models[component])

    def run_whole(self, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs of the whole model, without graph optimisations."""
        return WholeModel(self.model.proto.SerializeToString(), "disabled").run(inputs)

    def run_chain(self, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs of the sub-models, one after the other, without graph optimisations."""
        return Chain(self.plan, self.sub_models, "disabled").run(inputs)


def split(
    folder: Path,
    model: str | onnx.ModelProto,
    where: Mapping[str, str],
    servers: ServersSpec | None = None,
    options: GenerateOptions | None = None,
) -> Split:
    """Everything from a model to its files; `where` maps layer names or patterns to servers."""
    return split_loaded(load(folder, model), where, servers or spec(), options)


def split_loaded(
    model: LoadedModel,
    where: Mapping[str, str],
    servers: ServersSpec,
    options: GenerateOptions | None = None,
) -> Split:
    """The same for a model that is loaded already."""
    plan = plan_from_assignment(model, Assignment(layers=dict(where)), servers)
    files, batching = generate(plan, model, options or GenerateOptions())
    return Split(model, plan, files, batching)


def assert_same_bits(whole: Mapping[str, Array], parts: Mapping[str, Array]) -> None:
    """Fail unless both have the same names, types, shapes and bytes (NaN payloads, -0.0 too)."""
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        other = parts[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), name
        assert array.tobytes() == other.tobytes(), name
