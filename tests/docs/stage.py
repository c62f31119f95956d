"""What lies in the folder in which a page's commands run: stand-ins for what the pages call
`model.onnx`, `photos/` and so on, small enough that every command takes seconds at most."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.docs.pages import ROOT, tokens
from tests.helpers.planning import link, network, timing
from tritier.graph import load_model

EXAMPLE = ROOT / "examples" / "super_resolution"
SERVERS = ("device", "edge", "cloud")
# Layers of the stand-in, named as those of YOLO models are; with the channels that they make.
CONVS = (("/model.0/conv", 8), ("/model.2/cv1/conv", 8), ("/model.4/conv", 8), ("/model.5/conv", 4))
SIDE = 64
SPLIT = 'default: device\nlayers: {"/model.2*": edge}\n'


def set_stage(folder: Path) -> None:
    """The examples, the models, photographs, and documents as if servers had been measured."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "loadtests", folder / "loadtests")
    for name in ("espcn_x3.onnx", "servers.yaml", "assignment.yaml"):
        shutil.copy(EXAMPLE / name, folder / name)
    (folder / "split.yaml").write_text(SPLIT)
    onnx.save(_network("images", SIDE, SIDE), folder / "model.onnx")
    shutil.copy(folder / "model.onnx", folder / "yolo11n.onnx")
    onnx.save(_network("x", "height", "width", "N"), folder / "detector.onnx")
    for name in ("request1", "request2", "a", "b"):
        data = np.random.default_rng(ord(name[-1])).random((1, 3, SIDE, SIDE), dtype=np.float32)
        np.savez(folder / f"{name}.npz", images=data)
    (folder / "my.yaml").write_text(_block_of("docs/calibration.md", "# my.yaml"))
    for place in ("photos", "photos/ranges", "photos/noise"):
        _photographs(folder / place, seed=len(place))
    _measurements(folder)


def _block_of(page: str, begin: str) -> str:
    """The block of a page that begins so."""
    (text,) = [x.content for x in tokens(page) if x.type == "fence" and x.content.startswith(begin)]
    return text


def _network(
    name: str, height: int | str, width: int | str, batch: int | str = 1
) -> onnx.ModelProto:
    """A chain of convolutions from `name` [batch, 3, height, width] to `output0`, weights drawn."""
    draw = np.random.default_rng(11)
    nodes, weights, tensor, channels = [], [], name, 3
    for index, (layer, wide) in enumerate(CONVS):
        kernel = draw.normal(0, 0.3, (wide, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        last = index == len(CONVS) - 1
        made = "output0" if last else f"{layer}/Conv_output_0"
        nodes.append(
            helper.make_node("Conv", [tensor, f"w{index}"], [made], f"{layer}/Conv", pads=[1] * 4)
        )
        tensor, channels = made, wide
        if not last:
            act = layer.replace("conv", "act")
            nodes.append(
                helper.make_node("Relu", [tensor], [f"{act}/Relu_output_0"], f"{act}/Relu")
            )
            tensor = f"{act}/Relu_output_0"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 4, height, width])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _photographs(folder: Path, seed: int, count: int = 6) -> None:
    """Pictures of soft noise, each another."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for index in range(count):
        small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((96, 72)).save(folder / f"{index}.png")


def _measurements(folder: Path) -> None:
    """Profiles and links of the stand-in that no server was asked for; `profile` and `monitor`
    would take a minute."""
    model = load_model(folder / "model.onnx")
    (folder / "profiles" / "model").mkdir(parents=True)
    for server, factor in zip(SERVERS, (4.0, 2.0, 1.0), strict=True):
        times = {
            node.name: (factor * (5.0 if node.op_type == "Conv" else 0.5), None)
            for node in model.proto.graph.node
        }
        document = timing(model, server, times, borders=[])
        (folder / "profiles" / "model" / f"{server}.json").write_text(document.to_json())
    links = [link(a, b, 50, 2) for a in SERVERS for b in SERVERS if a != b]
    (folder / "network.json").write_text(network(*links, names=SERVERS).to_json())
