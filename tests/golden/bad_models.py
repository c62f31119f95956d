"""Models that are refused when they are loaded, made by code, and what users then read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from tritier.errors import InputError
from tritier.graph import build_layer_graph, load_model

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
CHAIN = """
    g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
      [first] h = Neg(x) [second] i = Mul(h, w) [third] y = Abs(i)
    }
"""
Maker = Callable[[Path], Path]


def parse(text: str = CHAIN) -> onnx.ModelProto:
    """A model of a text."""
    return onnx.parser.parse_model(HEADER + text)


def write(folder: Path, content: bytes | onnx.ModelProto, name: str = "model.onnx") -> Path:
    """The file of a case."""
    path = folder / name
    data = content if isinstance(content, bytes) else content.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return path


def _changed(change: Callable[[onnx.ModelProto], object], text: str = CHAIN) -> Maker:
    def make(folder: Path) -> Path:
        model = parse(text)
        change(model)
        return write(folder, model)

    return make


def _bytes(content: bytes, name: str = "model.onnx") -> Maker:
    return lambda folder: write(folder, content, name)


def _text(text: str) -> Maker:
    return _changed(lambda _: None, text)


def _truncated(folder: Path) -> Path:
    return write(folder, parse().SerializeToString()[:-25])


def _node(index: int, **fields: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        for field, value in fields.items():
            setattr(model.graph.node[index], field, value)

    return change


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "i"
    model.graph.node[2].input.append("x")


def _unsorted(model: onnx.ModelProto) -> None:
    nodes = [model.graph.node[index] for index in (1, 0, 2)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _weight(model: onnx.ModelProto, dims: list[int]) -> None:
    model.graph.initializer[0].dims[:] = dims


def _declared(model: onnx.ModelProto, dims: list[int]) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, dims))


def _second_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "w"))


def _many_faults(model: onnx.ModelProto) -> None:
    for index in range(14):
        model.graph.node.append(helper.make_node("Neg", [f"lost{index}"], [f"o{index}"]))


def _external(location: str, length: int | None = None, have: int | None = 8) -> Maker:
    """A model whose weights lie in `location`; `have` are the bytes in `weights.bin`."""

    def make(folder: Path) -> Path:
        model = parse()
        tensor = model.graph.initializer[0]
        tensor.Clear()
        tensor.name, tensor.data_type = "w", TensorProto.FLOAT
        tensor.dims.append(2)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        if length is not None:
            tensor.external_data.add(key="length", value=str(length))
        if have is not None:
            (folder / "weights.bin").write_bytes(bytes(have))
        inner = folder / "model"
        inner.mkdir()
        if have is not None:
            (inner / "weights.bin").write_bytes(bytes(have))
        (inner / "link.bin").symlink_to(folder / "weights.bin")
        return write(inner, model)

    return make


LONG = "layer_" * 1700
BAD_MODELS: dict[str, Maker] = {
    "no such file": lambda folder: folder / "model.onnx",
    "truncated": _truncated,
    "empty": _bytes(b""),
    "an image": _bytes(b"\x89PNG\r\n\x1a\n" + bytes(64), "photo.png"),
    "a plan": _bytes(b'{"format": "tritier/plan/1"}\n', "plan.json"),
    "a PyTorch file": _bytes(b"PK\x03\x04" + bytes(64), "model.pt"),
    "a Git LFS pointer": _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a text": _bytes(b"not a model"),
    "a tensor": _bytes(
        numpy_helper.from_array(np.ones((2, 3), np.float32), "t").SerializeToString(), "t.pb"
    ),
    "no layers": _changed(lambda model: model.graph.ClearField("node")),
    "external data missing": _external("weights.bin", have=None),
    "external data cut off": _external("weights.bin", have=7),
    "external data of another length": _external("weights.bin", length=12, have=12),
    "external data outside": _external("../weights.bin"),
    "external data at an absolute path": _external("/etc/passwd"),
    "external data behind a link": _external("link.bin"),
    "external data with a long name": _external("x" * 5000),
    "cycle": _changed(_cycle),
    "cycle of one": _changed(lambda model: model.graph.node[1].input.append("i")),
    "not sorted": _changed(_unsorted),
    "tensor that nothing makes": _text("g (float[2] x) => (float[2] y) { y = Add(x, z) }"),
    "many faults": _changed(_many_faults),
    "unknown domain": _changed(
        lambda model: (_node(1, domain="com.example")(model), _node(2, domain="com.example")(model),
                       model.opset_import.add(domain="com.example", version=1))
    ),
    "unknown domain in a branch": _text("""
        g (float[2] x, bool c) => (float[2] y) {
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { [inner] a = com.example.Op(x) },
            else_branch = no () => (float[2] b) { b = Neg(x) }
          >
        }
    """),
    "unknown operator": _changed(_node(1, op_type="Mull")),
    "nodes of one name": _changed(_node(2, name="first")),
    "tensor made twice": _text(
        "g (float[2] x) => (float[2] y) { [a] h = Neg(x) [b] h = Abs(x) [c] y = Exp(h) }"
    ),
    "tensor that is an input": _text("g (float[2] x) => (float[2] x) { [a] x = Neg(x) }"),
    "constant given twice": _changed(_second_weight),
    "long node name": _changed(_node(1, name=LONG)),
    "long tensor name": _text(
        f"g (float[2] x) => (float[2] y) {{ {LONG} = Neg(x) y = Abs({LONG}) }}"
    ),
    "sizes that overflow": _changed(lambda model: _weight(model, [2**40, 2**40])),
    "negative size": _changed(lambda model: _weight(model, [-2])),
    "sizes that don't fit the data": _changed(lambda model: _weight(model, [2, 3])),
    "unknown data type": _changed(
        lambda model: setattr(model.graph.initializer[0], "data_type", 99)
    ),
    "declared sizes that overflow": _changed(lambda model: _declared(model, [2**33, 2**33])),
    "declared negative size": _changed(lambda model: _declared(model, [-7])),
    "random numbers": _text(
        "g (float[2] x) => (float[2] y) { [draw] r = RandomUniformLike(x) [add] y = Add(x, r) }"
    ),
}  # fmt: skip


def message_of(name: str) -> str:
    """What a user reads who loads this model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        path = BAD_MODELS[name](folder)
        try:
            build_layer_graph(load_model(path).proto)
        except InputError as error:
            return str(error).replace(f"{path.parent}/", "")
    raise AssertionError(f"{name} is not refused")


def messages() -> str:
    """All messages, as the committed file holds them."""
    blocks = (f"{name}\n  {message_of(name)}\n".replace("\n  -", "\n    -") for name in BAD_MODELS)
    return "\n".join(blocks)
