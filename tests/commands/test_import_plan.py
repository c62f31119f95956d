"""Plans of the thesis: reading them, fitting them to a model, and `tritier import-plan`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.coded import measured_ranges
from tests.helpers.models import Split, assert_same_bits, load, save, spec
from tritier.cli import main
from tritier.divider import Arrays
from tritier.documents import Plan
from tritier.documents.thesis_plan import ThesisKey, ThesisPlan
from tritier.errors import InputError, UsageError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions
from tritier.workflow import generate, import_plan, read_recorded_plan, read_recorded_plans

# Two branches behind a stem; the constant node is no layer.
MODEL = """
    g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) <float[2,2,1,1] w = {1, 2, 3, 4}> {
      [stem] s = Conv(x, w)
      [right] r = Neg(s)
      [left] l = Relu(s)
      [factor] k = Constant<value = float[1] {0.5}>()
      [left_conv] m = Conv(l, w)
      [side] z = Mul(r, k)
      [join] y = Add(m, r)
    }
"""
GENERATOR, STEM, JOIN, RECEIVER = (f"('net', '0', {index})" for index in range(4))
LEFT, RIGHT = "('net', '1', 0)", "('net', '2', 0)"
SERVERS_FILE = """
servers:
  - {name: far, tier: cloud, url: "far:8001"}
  - {name: cam, tier: device, url: "cam:8001", entry: true}
  - {name: hub, tier: edge, url: "hub:8001"}
"""

Record = dict[str, Any]


def part(size: int, inputs: list[str], outputs: dict[str, list[str]], **more: Any) -> Record:
    """A component as it is recorded."""
    return {
        "component_size": size,
        "quantized_nodes_num": 0,
        "is_only_input": False,
        "is_only_output": False,
        "input_names": inputs,
        "output_connections": outputs,
        **more,
    }


def record() -> Record:
    """A recorded plan of the model above: stem and join on 0, a branch on 1 and on 2 each."""
    return {
        "model_name": "net",
        "plan_dict": {
            GENERATOR: part(1, ["x"], {"x": [STEM]}, is_only_input=True),
            STEM: part(1, ["x"], {"s": [LEFT, RIGHT]}),
            JOIN: part(1, ["m", "r"], {"y": [RECEIVER]}),
            LEFT: part(2, ["s"], {"m": [JOIN]}),
            RIGHT: part(2, ["s"], {"r": [JOIN], "z": [RECEIVER]}),
            RECEIVER: part(1, ["y", "z"], {"y": [], "z": []}, is_only_output=True),
        },
        "quantized_nodes": [],
        "latency_value": 0.25,
        "energy_value": 1.5,
        "latency_cost": -1e-9,
    }


def quantized_record() -> Record:
    """The same with a quantized layer, whose output is cut behind its QuantizeLinear node."""
    data = record()
    data["quantized_nodes"] = ["left_conv"]
    name = "m_QuantizeLinear_Output"
    data["plan_dict"][LEFT] |= {"quantized_nodes_num": 1, "output_connections": {name: [JOIN]}}
    data["plan_dict"][JOIN]["input_names"] = [name, "r"]
    return data


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return load(tmp_path, MODEL, "net")


def imported(data: Record, model: LoadedModel, **options: Any) -> Plan:
    """The plan of a record, on servers a (the entry), b and c."""
    return import_plan(ThesisPlan.from_data(data), model, options.pop("servers", spec()), **options)


def faults(action: Callable[[], object]) -> tuple[str, ...]:
    """The faults of the InputError that an action raises."""
    with pytest.raises(InputError) as caught:
        action()
    return caught.value.faults


def test_a_recorded_plan_keeps_its_components(model: LoadedModel) -> None:
    plan = imported(record(), model)
    assert [(c.id, c.server, c.layers) for c in plan.components] == [
        ("c0", "a", ("stem",)),
        ("c1", "c", ("right", "side")),
        ("c2", "b", ("left", "left_conv")),
        ("c3", "a", ("join",)),
    ]
    crossing = {(plan.tensor(w.tensor).name, w.source, w.target, w.codec) for w in plan.wires}
    assert crossing == {
        ("s", "a", "b", "as_is"),
        ("s", "a", "c", "as_is"),
        ("m", "b", "a", "as_is"),
        ("r", "c", "a", "as_is"),
        ("z", "c", "a", "as_is"),
    }
    assert plan.is_exact
    assert plan.predictions is not None
    assert plan.predictions.model_dump() == {
        "latency_ms": 250.0,
        "energy_joule": 1.5,
        "noise": None,
    }


def test_the_order_of_the_file_does_not_matter(model: LoadedModel) -> None:
    data = record()
    data["plan_dict"] = dict(reversed(data["plan_dict"].items()))
    assert imported(data, model).id == imported(record(), model).id


def test_the_components_compute_what_the_model_does(model: LoadedModel) -> None:
    plan = imported(record(), model)
    item = Split(model, plan, *generate(plan, model, GenerateOptions()))
    inputs = {"x": np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)}
    assert_same_bits(item.run_whole(inputs), item.run_chain(inputs))


def test_recorded_components_are_not_merged(model: LoadedModel) -> None:
    data = record()
    items = data["plan_dict"]
    first, second = "('net', '1', 0)", "('net', '1', 1)"
    items[LEFT] = part(1, ["s"], {"l": [second]})
    items[second] = part(1, ["l"], {"m": [JOIN]})
    plan = imported(data, model)
    assert [c.layers for c in plan.components if c.server == "b"] == [("left",), ("left_conv",)]
    assert ThesisKey.parse(first) < ThesisKey.parse(second)


def test_layers_are_quantized_as_recorded(model: LoadedModel) -> None:
    rng = np.random.default_rng(0)
    samples: list[Arrays] = [
        {"x": rng.normal(size=(1, 2, 4, 4)).astype(np.float32)} for _ in range(3)
    ]
    plan = imported(quantized_record(), model, ranges=measured_ranges(model, samples))
    assert plan.quantized_layers == ("left_conv",)
    coded = [plan.tensor(wire.tensor).name for wire in plan.wires if wire.codec == "int8"]
    assert coded == ["m"]
    assert plan.predictions is not None


def test_ranges_or_float_are_asked_for_quantized_layers(model: LoadedModel) -> None:
    assert faults(lambda: imported(quantized_record(), model)) == (
        "the recorded plan quantizes layers, which needs calibrated ranges: make them with "
        "`tritier ranges` and pass --ranges, or pass --float to import it without quantization",
    )
    plan = imported(quantized_record(), model, as_float=True)
    assert plan.is_exact
    assert plan.predictions is None
    assert plan.id == imported(record(), model).id


def test_a_tensor_cut_behind_its_dequantization_is_the_tensor(model: LoadedModel) -> None:
    data = record()
    data["plan_dict"][RIGHT]["output_connections"]["r_DequantizeLinear_Output"] = [JOIN]
    del data["plan_dict"][RIGHT]["output_connections"]["r"]
    data["plan_dict"][JOIN]["input_names"] = ["m", "r_DequantizeLinear_Output"]
    assert imported(data, model).id == imported(record(), model).id


def test_servers_are_mapped_in_order_or_by_hand(model: LoadedModel) -> None:
    plan = imported(record(), model, numbers={"1": "c", "2": "b"})
    assert [c.server for c in plan.components] == ["a", "b", "c", "a"]
    # A number that the plan has not is no fault: one set of options serves all plans of a file.
    assert imported(record(), model, numbers={"3": "b"}).id == imported(record(), model).id


@pytest.mark.parametrize(
    ("names", "numbers", "expected"),
    [
        pytest.param(
            "ab",
            {},
            "server '2' of the recorded plan is mapped to none: the servers file has 2; add one, "
            "or pass --server 2=NAME",
            id="too few",
        ),
        pytest.param(
            "abc",
            {"2": "d"},
            "--server 2=d: unknown server; known are a, b, c",
            id="unknown",
        ),
        pytest.param(
            "abc",
            {"2": "b"},
            "servers 1 and 2 of the recorded plan are both mapped to b: give each its own with "
            "--server NUMBER=NAME",
            id="shared",
        ),
        pytest.param(
            "abc",
            {"0": "b", "1": "a"},
            "the inputs start on server '0', mapped to b; rule R2 wants them on the entry: pass "
            "--server 0=a",
            id="not on the entry",
        ),
    ],
)
def test_servers_that_do_not_fit(
    model: LoadedModel, names: str, numbers: dict[str, str], expected: str
) -> None:
    found = faults(lambda: imported(record(), model, servers=spec(names), numbers=numbers))
    assert found[0] == expected


def put(*path: str, value: object) -> Callable[[Record], None]:
    """A change of a record: the value at a path of keys."""

    def change(data: Record) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def rename(old: str, new: str) -> Callable[[Record], None]:
    """A change of a record: another name for a tensor, wherever it stands."""

    def change(data: Record) -> None:
        for item in data["plan_dict"].values():
            item["input_names"] = [new if x == old else x for x in item["input_names"]]
            outputs = item["output_connections"]
            item["output_connections"] = {new if x == old else x: y for x, y in outputs.items()}

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            rename("m", "conv_out"), "tensor 'conv_out' is not in the model", id="unknown tensor"
        ),
        pytest.param(
            rename("z", "y_QuantizeLinear_Outputs"),
            "the recorded outputs are y, y_QuantizeLinear_Outputs, the model's y, z",
            id="other ends",
        ),
        pytest.param(
            put("plan_dict", LEFT, "component_size", value=3),
            f"{LEFT}: component_size is 3; from its inputs to its outputs the model has 2",
            id="size",
        ),
        pytest.param(
            put("quantized_nodes", value=["left_cnv"]),
            "quantized layer 'left_cnv' is not in the model (did you mean 'left_conv'?)",
            id="unknown layer",
        ),
        pytest.param(
            put("plan_dict", LEFT, "quantized_nodes_num", value=1),
            f"{LEFT}: quantized_nodes_num is 1; quantized_nodes has 0 of its layers",
            id="quantized layers",
        ),
        pytest.param(
            rename("m", "l"),
            f"{LEFT}: component_size is 2; from its inputs to its outputs the model has 1",
            id="a tensor further up",
        ),
        pytest.param(
            rename("s", "l"),
            f"{RIGHT}: needs the model's input 'x', which it does not list",
            id="a way around the inputs",
        ),
        pytest.param(
            rename("s", "l"),
            f"{RIGHT}: lists the input 'l', which none of its layers reads",
            id="an input not read",
        ),
        pytest.param(
            rename("s", "l"),
            f"layers in both {STEM} and {RIGHT} (rule R1): 1, the first is 'stem'",
            id="layers twice",
        ),
        pytest.param(
            rename("s", "l"),
            "so many differences mean that it is another model, or that the model was exported "
            "otherwise than the planned one: export it in the same way (exporter, version), "
            "or plan again",
            id="exported otherwise",
        ),
    ],
)
def test_what_does_not_fit_the_model(
    model: LoadedModel, change: Callable[[Record], None], expected: str
) -> None:
    data = record()
    change(data)
    assert expected in faults(lambda: imported(data, model, as_float=True))


def test_layers_in_no_component(model: LoadedModel) -> None:
    data = record()
    items = data["plan_dict"]
    del items[LEFT]
    items[STEM]["output_connections"]["s"] = [RIGHT]
    items[GENERATOR]["output_connections"]["x"] = [STEM]
    items[JOIN]["input_names"] = ["r"]
    items[JOIN]["output_connections"] = {"z": [RECEIVER]}
    items[RIGHT]["output_connections"] = {"r": [JOIN]}
    items[RECEIVER]["input_names"] = ["z"]
    found = faults(lambda: imported(data, model))
    assert "layers in no component (rule R1): 3, the first is 'left'" in found
    assert "the recorded outputs are z, the model's y, z" in found


def test_a_component_without_layers(model: LoadedModel) -> None:
    data = record()
    data["plan_dict"]["('net', '1', 1)"] = part(0, [], {})
    found = faults(lambda: imported(data, model))
    assert found == ("('net', '1', 1): holds no layers",)


def test_all_faults_come_together_and_long_lists_are_cut(model: LoadedModel) -> None:
    data = quantized_record()
    data["quantized_nodes"] = [f"conv{index}" for index in range(12)]
    found = faults(lambda: imported(data, model, servers=spec("ab")))
    assert "quantized layers that are not in the model, besides: 2" in found
    assert any("mapped to none" in fault for fault in found)
    assert any("--ranges" in fault for fault in found)
    assert any("exported otherwise" in fault for fault in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            put("plan_dict", "__import__('os')", value=part(1, [], {})),
            "plan_dict: '__import__('os')' is no (model, server, position) such as ('yolo', '1', "
            "0)",
            id="key",
        ),
        pytest.param(
            put("plan_dict", "('net', '00', 1)", value=part(1, [], {})),
            f"plan_dict: {STEM} stands twice",
            id="key twice",
        ),
        pytest.param(
            put("model_name", value="nets"),
            f"plan_dict: {GENERATOR} is of another model than model_name, 'nets'",
            id="other model",
        ),
        pytest.param(
            put("plan_dict", GENERATOR, "is_only_input", value=False),
            "plan_dict: 0 components are the generator (is_only_input); one must be",
            id="no generator",
        ),
        pytest.param(
            put("plan_dict", value={}), "plan_dict: is empty; give at least one", id="empty"
        ),
        pytest.param(
            put("plan_dict", STEM, "output_connections", "s", value=[LEFT, "('net', '7', 0)"]),
            f"plan_dict: {STEM}: 's' goes to ('net', '7', 0), which is no component of the plan",
            id="unknown target",
        ),
        pytest.param(
            put("plan_dict", STEM, "output_connections", "s", value=[LEFT]),
            f"plan_dict: {RIGHT}: nothing sends its input 's' to it",
            id="input from nowhere",
        ),
        pytest.param(
            put("plan_dict", JOIN, "input_names", value=["m"]),
            f"plan_dict: {RIGHT}: 'r' goes to {JOIN}, which does not have it among its inputs",
            id="connection on one side",
        ),
        pytest.param(
            put("plan_dict", LEFT, "output_connections", "l", value=[]),
            f"plan_dict: {LEFT}: its output 'l' goes to no component",
            id="loose output",
        ),
        pytest.param(
            put("plan_dict", LEFT, "output_connections", "r", value=[JOIN]),
            f"plan_dict: 'r' is an output of {LEFT} and {RIGHT}",
            id="two sources",
        ),
        pytest.param(
            put("plan_dict", LEFT, "output_connections", "m", value=["LEFT", JOIN]),
            f"plan_dict: {LEFT}: the target of 'm': 'LEFT' is no (model, server, position) such as "
            "('yolo', '1', 0)",
            id="unreadable target",
        ),
        pytest.param(
            put("plan_dict", LEFT, "output_connections", "m", value=[LEFT, JOIN]),
            f"plan_dict: {LEFT}: 'm' goes to itself",
            id="to itself",
        ),
        pytest.param(
            put("latency_value", value="fast"),
            'latency_value: "fast": input should be a valid number',
            id="wrong type",
        ),
    ],
)
def test_records_that_are_wrong_in_themselves(
    change: Callable[[Record], None], expected: str
) -> None:
    data = record()
    change(data)
    assert expected in faults(lambda: ThesisPlan.from_data(data))


def test_components_that_wait_for_each_other() -> None:
    data = record()
    data["plan_dict"][JOIN]["output_connections"]["q"] = [RIGHT]
    data["plan_dict"][RIGHT]["input_names"].append("q")
    (fault,) = faults(lambda: ThesisPlan.from_data(data))
    assert fault.startswith("plan_dict: the components wait for each other (rule R2): (")


@pytest.mark.parametrize(
    "text",
    ["", "net", "('net', '0')", "['net', '0', 0]", "('net', 'x', 0)", "('net', '0', -1)", "(" * 500,
     "('net', '0', 0" + " " * 1000 + ")", "('net', 1 + 1, 0)"],
)  # fmt: skip
def test_only_short_literal_keys_are_read(text: str) -> None:
    with pytest.raises(ValueError, match="is no \\(model, server, position\\)"):
        ThesisKey.parse(text)
    assert str(ThesisKey.parse("('net', 1, 0)")) == LEFT


# --- files and the command -------------------------------------------------------------------


def write(folder: Path, data: object, name: str = "plans.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def two(folder: Path) -> Path:
    """A file of two plans."""
    return write(folder, {"net_mn_0.0": record(), "net_mn_0.05": quantized_record()})


def test_a_key_picks_a_plan(tmp_path: Path) -> None:
    path = two(tmp_path)
    assert read_recorded_plan(path, "net_mn_0.0").quantized_nodes == ()  # exact before part
    assert read_recorded_plan(path, "0.05").quantized_nodes == ("left_conv",)
    assert list(read_recorded_plans(path)) == ["net_mn_0.0", "net_mn_0.05"]
    assert list(read_recorded_plans(write(tmp_path, record(), "one.json"))) == ["one"]
    with pytest.raises(UsageError, match="holds 2 plans: pick one with --key; --list shows"):
        read_recorded_plan(path)
    with pytest.raises(
        UsageError, match=r"fits 2 plans .*; give more of the key:\n  net_mn_0\.0\n"
    ):
        read_recorded_plan(path, "net")
    with pytest.raises(UsageError, match=r"fits no plan of .* \(did you mean 'net_mn_0.0'\?\)"):
        read_recorded_plan(path, "nt_mn_0.0")


def test_files_that_hold_no_recorded_plans(tmp_path: Path) -> None:
    for data, expected in (
        ([1], "is neither a recorded plan nor a mapping of keys to such plans"),
        ({}, "is neither a recorded plan nor a mapping of keys to such plans"),
        ({"format": "tritier/plan/1"}, "is a document of Tritier already, which needs no import"),
        ({"a": 3, "b": {}}, "a: a recorded plan is a mapping of keys to values, this is a number"),
        ({"a": 3, "b": {}}, "b: plan_dict: is missing"),
    ):
        path = write(tmp_path, data)
        assert expected in faults(partial(read_recorded_plans, path))


def test_a_bad_plan_does_not_keep_from_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, {"good": record(), "bad": {}})
    assert read_recorded_plan(path, "good") == ThesisPlan.from_data(record())
    with pytest.raises(InputError, match=r"plans\.json: bad: "):
        read_recorded_plan(path, "bad")


def run(*arguments: object) -> int:
    """Exit code of `tritier import-plan`."""
    with pytest.raises(SystemExit) as caught:
        main(["import-plan", *map(str, arguments)])
    return int(str(caught.value.code))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The options that every import needs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "servers.yaml").write_text(SERVERS_FILE)
    return ["--model", save(tmp_path, MODEL, "net"), "--servers", "servers.yaml"]


def test_the_command_writes_the_plan(
    tmp_path: Path, files: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    path = two(tmp_path)
    assert run(path, *files, "--key", "mn_0.0", "--dry-run") == 2  # both keys begin so
    assert run(path, *files, "--key", "net_mn_0.0", "--dry-run") == 0
    assert not (tmp_path / "plan.json").exists()
    capsys.readouterr()
    assert run(path, *files, "--key", "net_mn_0.0", "--json", "--name", "mine") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "plan.json").read_text())
    assert "written to plan.json" in shown.err
    plan = Plan.load(tmp_path / "plan.json")
    assert plan.model.name == "mine"
    assert [c.server for c in plan.components] == ["cam", "hub", "far", "cam"]
    assert run(path, *files, "--key", "0.05", "--float") == 3
    assert "pass --force" in capsys.readouterr().err
    options = ("--force", "--float", "--server", "1=hub", "--server", "2=far")
    assert run(path, *files, "--key", "0.05", *options) == 0
    assert "quantized layers that are imported as float: 1" in capsys.readouterr().err
    assert [c.server for c in Plan.load(tmp_path / "plan.json").components][1] == "far"


def test_the_command_quantizes_with_ranges(tmp_path: Path, files: list[object]) -> None:
    model = load(tmp_path, MODEL, "net")
    ranges = measured_ranges(model, [{"x": np.ones((1, 2, 4, 4), np.float32)}])
    (tmp_path / "ranges.json").write_text(ranges.to_json())
    path = two(tmp_path)
    assert run(path, *files, "--key", "0.05", "--ranges", "ranges.json") == 0
    assert Plan.load(tmp_path / "plan.json").quantized_layers == ("left_conv",)


def test_the_list_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = quantized_record()
    del data["latency_value"]
    path = write(tmp_path, {"first": record(), "second": data})
    assert run(path, "--list", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == {
        "key": "first",
        "components": 4,
        "servers": ["0", "1", "2"],
        "quantized_layers": 0,
        "latency_ms": 250.0,
        "energy_joule": 1.5,
    }
    assert (second["quantized_layers"], second["latency_ms"]) == (1, None)
    assert run(path, "--list") == 0
    rows = [line.split() for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert ["first", "4", "0", "1", "2", "0", "250.0", "1.5"] in rows
    assert ["second", "4", "0", "1", "2", "1", "-", "1.5"] in rows


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--model is missing; only --list does without it"),
        (["--model", "m.onnx"], "--servers is missing; only --list does without it"),
        (["--server", "one=a"], "--server one=a: allowed is NUMBER=NAME with a server number"),
        (["--server", "1=a", "--server", "01=b"], "--server 01=b: 1 is mapped already, to a"),
        (["--float", "--ranges", "r.json"], "--float imports without quantization"),
    ],
)
def test_wrong_calls(
    tmp_path: Path,
    files: list[object],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    common = files if arguments and arguments[0] != "--model" else []
    assert run(write(tmp_path, record()), *common, *arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_fault_names_the_file(
    tmp_path: Path, files: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    data = copy.deepcopy(record())
    data["plan_dict"][LEFT]["component_size"] = 5
    path = write(tmp_path, data)
    assert run(path, *files) == 3
    assert f"error: {path}: {LEFT}: component_size is 5" in capsys.readouterr().err
    assert not (tmp_path / "plan.json").exists()
