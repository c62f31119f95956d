"""Models in a process of their own: what comes back, and that nothing is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.agent import (
    ENDLESS,
    ENDLESS_INPUTS,
    HUGE,
    HUGE_INPUTS,
    SMALL,
    SMALL_INPUTS,
    load_agent,
    model_bytes,
)
from tests.helpers.processes import processes_with

orders, standalone, work = load_agent("orders", "standalone", "work")

LIMITS = orders.Limits(1 << 20, 20.0, {})
WORKER = Path(work.__file__).with_name("worker.py")
# Where in a model a tensor may stand.
PLACES = ["initializer", "constant", "sparse", "loop", "function", "training"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the agent's folders are made; none of them, and no process, may stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.glob("tritier-agent-*")) == []
    assert processes_with(f"{tmp_path}/tritier-agent-") == []


def run(model: bytes, inputs: dict[str, Any], **keys: object) -> tuple[dict[str, Any], bytes]:
    order = {"op": "measure", "inputs": inputs, "warmup": 1, "runs": 2, **keys}
    result: tuple[dict[str, Any], bytes] = work.run_worker(
        orders.parse_order(json.dumps(order).encode(), LIMITS), model
    )
    return result


def test_times_kernels_and_the_graph_come_back() -> None:
    result, graph = run(model_bytes(SMALL), SMALL_INPUTS, profile=True, runs=3)
    assert len(result["runs_ns"]) == 3
    assert min(result["runs_ns"]) > 0
    kernels = {kernel["op_type"]: kernel for kernel in result["kernels"]}
    assert kernels.keys() >= {"Conv", "Sin"}
    assert kernels["Conv"]["n"] == 3
    assert kernels["Conv"]["provider"] == "CPUExecutionProvider"
    assert 0 < kernels["Conv"]["median_ns"] <= result["profiled_run_ns"]["median_ns"]
    assert {node.op_type for node in onnx.load_from_string(graph).graph.node} == set(kernels)


def test_without_a_profile_there_is_none() -> None:
    result, graph = run(model_bytes(SMALL), SMALL_INPUTS)
    assert len(result["runs_ns"]) == 2
    assert "kernels" not in result
    assert graph == b""


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, r"has the inputs \['x'\], not \[\]"),
        ({**SMALL_INPUTS, "../z": SMALL_INPUTS["x"]}, r"not \['../z', 'x'\]"),
        ({"x": {"datatype": "FP32", "shape": [1, 2, 9, 8]}}, "Got invalid dimensions"),
    ],
    ids=["missing", "extra", "wrong shape"],
)
def test_inputs_that_are_not_the_models(inputs: dict[str, Any], reason: str) -> None:
    with pytest.raises(orders.Refused, match=reason):
        run(model_bytes(SMALL), inputs)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"#!/bin/sh\nreboot\n", "the model is not ONNX"),
        (b"\x08\x08", "ONNX Runtime: "),  # the number of a format, and nothing else
    ],
)
def test_a_model_that_is_not_onnx(model: bytes, reason: str) -> None:
    with pytest.raises(orders.Refused, match=reason):
        run(model, {})


def test_a_provider_that_is_not_there() -> None:
    with pytest.raises(orders.Refused, match="CUDAExecutionProvider is not available"):
        run(model_bytes(SMALL), SMALL_INPUTS, provider="cuda")


def test_a_model_that_runs_for_ever_is_ended() -> None:
    with pytest.raises(orders.Refused, match=r"after the time limit of 0\.8 s"):
        run(model_bytes(ENDLESS), ENDLESS_INPUTS, limit_s=0.8)


def test_a_model_that_wants_terabytes_is_refused() -> None:
    with pytest.raises(orders.Refused, match=r"ONNX Runtime: .*ConstantOfShape"):
        run(model_bytes(HUGE), HUGE_INPUTS)


def test_a_model_that_takes_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    little = {"memory_available_bytes": 1 << 20}  # Python alone takes more
    monkeypatch.setattr(work.facts, "host_facts", lambda: little)
    with pytest.raises(orders.Refused, match="more memory than the allowed 838860 bytes"):
        run(model_bytes(SMALL), SMALL_INPUTS)


def test_an_order_that_is_given_up() -> None:
    order = {"op": "measure", "inputs": ENDLESS_INPUTS}
    asked = iter([False, False, True])
    with pytest.raises(orders.Refused, match="cancelled"):
        work.run_worker(
            orders.parse_order(json.dumps(order).encode(), LIMITS),
            model_bytes(ENDLESS),
            lambda: next(asked),
        )


@pytest.mark.parametrize(
    ("script", "how"),
    [("echo oh no >&2; exit 3", "with 3: oh no"), ("kill -9 $$", "by the signal Killed: no word")],
)
def test_a_worker_that_dies(
    place: Path, monkeypatch: pytest.MonkeyPatch, script: str, how: str
) -> None:
    python = place / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(work, "_python", lambda: str(python))
    with pytest.raises(orders.Refused, match=f"process ended {how}"):
        run(model_bytes(SMALL), SMALL_INPUTS)


def test_a_worker_whose_agent_is_gone_does_nothing(place: Path) -> None:
    job = {"parent": os.getpid() + 1, "provider": "cpu"}
    (place / "job.json").write_text(json.dumps(job))
    ended = subprocess.run(
        [sys.executable, str(WORKER), str(place)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "the agent is gone" in ended.stderr
    assert not (place / "result.json").exists()


def test_folders_of_killed_agents_are_removed(place: Path) -> None:
    for name in ("dead", "alive", "new"):
        (place / f"tritier-agent-{name}").mkdir()
    other = place / "other"
    other.mkdir()
    (other / "lock").touch()
    (place / "tritier-agent-link").symlink_to(other)
    for name in ("dead", "alive"):
        (place / f"tritier-agent-{name}" / "lock").touch()
    with (place / "tritier-agent-alive" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work.remove_leftovers()
        left = {path.name for path in place.iterdir()}
    expected = {"other", "tritier-agent-alive", "tritier-agent-link", "tritier-agent-new"}
    assert left == expected
    assert (other / "lock").exists()
    (place / "tritier-agent-new" / "lock").touch()
    work.remove_leftovers()
    (place / "tritier-agent-link").unlink()


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def with_tensor(tensor: TensorProto, where: str) -> bytes:
    """A model with the tensor at that place; y, if it can be asked, is its value."""
    result = [helper.make_tensor_value_info("y", TensorProto.UINT8, [16])]
    node = helper.make_node("Identity", ["w"], ["y"])
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    graph = helper.make_graph([node], "g", [], result)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.insert(0, constant)
    elif where == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif where == "loop":
        body = helper.make_graph([constant], "b", [], [])
        model.graph.node.add(op_type="Loop").attribute.append(helper.make_attribute("body", body))
    elif where == "function":
        model.functions.add(name="f", domain="d").node.append(constant)
    else:
        model.training_info.add().initialization.initializer.append(tensor)
    return bytes(model.SerializeToString())


# ONNX Runtime 1.31 refuses paths out of the model's folder, and reads all in it: our own files.
@pytest.mark.parametrize("location", ["/etc/passwd", "job.json"])
def test_a_model_that_names_another_file_is_refused(location: str) -> None:
    with pytest.raises(orders.Refused, match="keeps tensors in other files"):
        run(with_tensor(outside(location), "initializer"), {})


@pytest.mark.parametrize("where", PLACES)
def test_tensors_in_other_files_are_found_wherever_they_stand(where: str) -> None:
    standalone.check_standalone(with_tensor(TensorProto(name="w", data_type=2), where))
    half = TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    rest = outside("x")
    rest.ClearField("data_location")
    for tensor in (outside("x"), half, rest):
        with pytest.raises(ValueError, match="in other files"):
            standalone.check_standalone(with_tensor(tensor, where))


def test_a_node_that_names_a_file_is_refused() -> None:
    graph = helper.make_graph([helper.make_node("EPContext", [], ["y"])], "g", [], [])
    with pytest.raises(ValueError, match="EPContext"):
        standalone.check_standalone(helper.make_model(graph).SerializeToString())


def test_the_way_to_every_tensor_is_known() -> None:
    """All messages of ONNX that may hold a tensor or a node are walked."""
    found: dict[str, dict[int, str]] = {}
    waiting: list[Any] = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        kind = waiting.pop()
        if kind.name not in found:
            parts = [field for field in kind.fields if field.message_type is not None]
            found[kind.name] = {field.number: field.message_type.name for field in parts}
            waiting += [field.message_type for field in parts]
    for name, fields in found.items():
        leading = {n: part for n, part in fields.items() if part in standalone.PARTS}
        assert standalone.PARTS.get(name, {}) == leading


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",  # a graph without its length
        b"\x3a\x05\x0a",  # a graph that is longer than the file
        b"\x3a\xff\xff\xff\xff\x7f",
        b"\xff" * 20,
        b"\x00\x00",  # field 0
        b"\x3b\x3c",  # a group
        b"\xba\x80\x80\x80\x10\x00",  # field 7, once the tag is cut to 32 bits
        b"\x0d\x00",  # 4 bytes of which 1 is there
    ],
)
def test_bytes_that_are_no_protobuf(data: bytes) -> None:
    with pytest.raises(ValueError, match="not ONNX"):
        standalone.check_standalone(data)
