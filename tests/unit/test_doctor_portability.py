"""Generated repositories against releases of Triton's container, as the release table has them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.golden.cases import CASES, FAMILY, ROOT
from tests.helpers.configs import read_configs
from tests.helpers.portable import replaced, written
from tritier.doctor import check_repositories, release_table
from tritier.doctor.fields import field_paths
from tritier.doctor.releases import ReleaseTable, has, since
from tritier.documents import PortabilityFinding, PortabilityReport
from tritier.errors import InputError

NEW = "26.06"
ONNX_MODEL = "edge/golden__c70393fd__c1"
CALL = "device/golden__c70393fd__c1__call"
ENTRY = "device/golden"
STEPS = "ensemble_scheduling {"
IN_FLIGHT = "ensemble_scheduling {\n max_inflight_requests: 4"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden cases, whole. Do not change them: take a copy."""
    folder = tmp_path_factory.mktemp("trees")
    return {name: written(name, folder / name) for name in (*CASES, FAMILY)}


@pytest.fixture
def tree(trees: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the smallest case, to change."""
    return shutil.copytree(trees["two_servers"], tmp_path / "repos")


def found(report: PortabilityReport, level: str) -> list[PortabilityFinding]:
    """The findings of a level."""
    return [item for item in report.findings if item.level == level]


@pytest.mark.parametrize("name", [*CASES, FAMILY])
def test_generated_repositories_have_no_errors(name: str, trees: dict[str, Path]) -> None:
    report = check_repositories(trees[name], NEW)
    assert found(report, "error") == []
    assert report.errors == 0
    lacking = {item.field for item in found(report, "warning") if item.field.startswith("import")}
    assert lacking == {"import grpc, tritonclient"}
    agent = [x for x in found(report, "info") if x.field.startswith("import")]
    assert {"import onnxruntime", "import pynvml"} <= {item.field for item in agent}
    assert all("pip install" in x.fix for x in report.findings if x.field.startswith("import"))


@pytest.mark.parametrize("name", [*CASES, FAMILY])
def test_every_field_of_a_golden_config_is_in_the_table(name: str) -> None:
    folder = ROOT / "tests" / "golden" / "expected" / name
    configs = read_configs(
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("config.pbtxt")}
    )
    used = {path for config in configs.values() for path in field_paths(config)}
    assert len(used) > 10
    assert [path for path in sorted(used) if since(release_table().fields, path) is None] == []


def test_a_field_that_the_table_lacks_is_told(tree: Path) -> None:
    table = release_table()
    fields = {
        release: tuple(path for path in paths if path != "instance_group.count")
        for release, paths in table.fields.items()
    }
    poorer = ReleaseTable.from_data(table.model_dump(mode="json") | {"fields": fields})
    report = check_repositories(tree, NEW, poorer)
    lacking = [item for item in report.findings if item.field == "instance_group.count"]
    assert {item.model for item in lacking} >= {"golden__c70393fd__c1", "golden__c70393fd__c0"}
    assert {item.level for item in lacking} == {"warning"}


# What is changed -> (config, old, new), and what must be found there: level, field, part of why.
MUTATIONS = {
    "newer field": (ENTRY, STEPS, IN_FLIGHT,
                    "error", "ensemble_scheduling.max_inflight_requests", "25.11"),
    "no such field": (ONNX_MODEL, "max_batch_size", "max_bach_size",
                      "error", "config.pbtxt", "max_bach_size"),
    "wrong enum": (CALL, "KIND_CPU", "KIND_TPU", "error", "config.pbtxt", "KIND_TPU"),
    "gpu on a cpu": (ONNX_MODEL, "KIND_CPU", "KIND_GPU", "error", "instance_group.kind", "cpu"),
    "gpu for Python": (CALL, "KIND_CPU", "KIND_GPU", "error", "instance_group.kind", "KIND_CPU"),
    "any kind": (ONNX_MODEL, "KIND_CPU", "KIND_AUTO", "warning", "instance_group.kind", "AUTO"),
    "another backend": (ONNX_MODEL, '"onnxruntime"', '"tensorrt"', "error", "backend", "tensorrt"),
    "another name": (ONNX_MODEL, 'name: "golden__c70393fd__c1"', 'name: "x"', "error", "name",
                     "'x'"),
    "threads": (ONNX_MODEL, 'key: "intra_op_thread_count" value { string_value: "',
                'key: "intra_op_thread_count" value { string_value: "all',
                "error", "parameters.intra_op_thread_count", "all"),
    "unknown parameter": (ONNX_MODEL, '"inter_op_thread_count"', '"inter_op_threads"',
                          "warning", "parameters.inter_op_threads", "no parameter"),
    "path": (CALL, '"deadline_ms" value { string_value: "',
             '"deadline_ms" value { string_value: "/home/me/', "error", "parameters.deadline_ms",
             "/home/me/"),
    "path of a model": (ONNX_MODEL, "max_batch_size",
                        'default_model_filename: "/m.onnx" max_batch_size', "error",
                        "default_model_filename", "/m.onnx"),
    "loopback": (CALL, "10.0.0.2:8001", "127.0.0.1:8001", "warning", "parameters.url",
                 "127.0.0.1"),
    "no address": (CALL, "10.0.0.2:8001", "", "warning", "parameters.url",
                   "no address of server 'edge'"),
    "wiring": (ENTRY, 'model_name: "golden__c70393fd__c1__call"', 'model_name: "gone"',
               "error", "ensemble_scheduling", "gone"),
    "level": (ONNX_MODEL, "max_batch_size", "optimization { graph { level: 7 } } max_batch_size",
              "error", "optimization.graph.level", "7"),
    "accelerator": (ONNX_MODEL, "max_batch_size",
                    "optimization { execution_accelerators { cpu_execution_accelerator "
                    '[ { name: "acl" } ] } } max_batch_size', "error",
                    "optimization.execution_accelerators", "acl"),
    "openvino": (ONNX_MODEL, "max_batch_size",
                 "optimization { execution_accelerators { cpu_execution_accelerator "
                 '[ { name: "openvino" } ] } } max_batch_size', "warning",
                 "optimization.execution_accelerators", "OpenVINO"),
    "type": (CALL, "TYPE_FP32", "TYPE_BF16", "error", "data_type", "TYPE_BF16"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_config_gives_its_finding(name: str, tree: Path) -> None:
    config, old, new, level, field, why = MUTATIONS[name]
    clean = check_repositories(tree, "25.10")
    replaced(tree, config, old, new)
    report = check_repositories(tree, "25.10")
    fresh = [item for item in report.findings if item not in clean.findings]
    fitting = [item for item in fresh if (item.level, item.field) == (level, field)]
    assert [item for item in fitting if why in item.why], fresh
    assert report.errors == len(found(report, "error"))
    changed = f"{config}/config.pbtxt"
    assert [item for item in fresh if item.field == changed and "deploy" in item.why]


def test_a_newer_field_is_no_error_on_a_newer_release(tree: Path) -> None:
    replaced(
        tree, ENTRY, "ensemble_scheduling {", "ensemble_scheduling {\n max_inflight_requests: 4"
    )
    report = check_repositories(tree, NEW)
    assert [x.field for x in report.findings if "max_inflight" in x.field] == []


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        (lambda model: setattr(model, "ir_version", 99), "1/model.onnx: IR version", "is 99"),
        (lambda model: setattr(model.opset_import[0], "version", 99), "1/model.onnx: opset",
         "is 99"),
        (lambda model: setattr(model.graph.node[0], "domain", "my.ops"),
         "1/model.onnx: domain my.ops", "not part of ONNX Runtime"),
        (lambda model: model.graph.initializer.append(_outside()), "1/model.onnx: external data",
         "/weights/w.bin"),
    ],
)  # fmt: skip
def test_a_sub_model_that_is_too_new_or_of_this_machine(
    change: Callable[[onnx.ModelProto], None], field: str, why: str, tree: Path
) -> None:
    path = tree / ONNX_MODEL / "1" / "model.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    errors = found(check_repositories(tree, NEW), "error")
    assert [item for item in errors if item.field == field and why in item.why], errors


def _outside() -> TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/weights/w.bin")
    return tensor


def test_models_are_refused_by_older_runtimes_only(tree: Path) -> None:
    table = release_table()
    newest = table.facts(max(table.releases))
    path = tree / ONNX_MODEL / "1" / "model.onnx"
    model = onnx.load(path)
    assert isinstance(newest.max_opset, int)
    model.opset_import[0].version = newest.max_opset
    path.write_bytes(model.SerializeToString())
    assert check_repositories(tree, newest.release).errors == 0
    old = found(check_repositories(tree, min(table.releases)), "error")
    assert [item.field for item in old] == ["1/model.onnx: opset"]


def test_missing_and_broken_files_are_told(tree: Path) -> None:
    (tree / CALL / "1" / "model.py").unlink()
    (tree / ONNX_MODEL / "1" / "model.onnx").write_bytes(b"no model")
    (tree / "device" / "golden__whole" / "config.pbtxt").unlink()
    errors = {(item.model, item.field) for item in found(check_repositories(tree, NEW), "error")}
    assert errors == {
        ("golden__c70393fd__c1__call", "1/model.py"),
        ("golden__c70393fd__c1", "1/model.onnx"),
        ("golden__whole", "config.pbtxt"),
    }


def test_a_module_that_is_no_python_is_told(tree: Path) -> None:
    (tree / CALL / "1" / "peer.py").write_text("def (")
    errors = found(check_repositories(tree, NEW), "error")
    assert [(item.field, item.why) for item in errors] == [("1/peer.py", "is not valid Python")]


def test_modules_and_names_that_the_table_lacks_are_told(tree: Path) -> None:
    file = tree / CALL / "1" / "model.py"
    text = file.read_text() + "\nimport torch\npb_utils.Brandnew()\n"
    file.write_text(text)
    warnings = {x.field: x for x in found(check_repositories(tree, NEW), "warning")}
    assert "does not know it" in warnings["import torch"].why
    assert "1/*.py: Brandnew" in warnings


def test_the_security_floor_is_told_of_older_releases(tree: Path) -> None:
    older = [x for x in check_repositories(tree, "26.05").findings if x.field == "release"]
    assert [x.level for x in older if "security" in x.why] == ["warning"]
    newer = [x for x in check_repositories(tree, NEW).findings if x.field == "release"]
    assert not [x for x in newer if "security" in x.why]


def test_a_router_without_an_address_is_told(trees: dict[str, Path], tmp_path: Path) -> None:
    tree = shutil.copytree(trees[FAMILY], tmp_path / "repos")
    assert "parameters.urls" not in {x.field for x in check_repositories(tree, NEW).findings}
    replaced(tree, ENTRY, '\\"edge\\": \\"10.0.0.2:8001\\"', '\\"else\\": \\"localhost:8001\\"')
    found_there = {x.why for x in check_repositories(tree, NEW).findings if "urls" in x.field}
    assert "has no address of server 'edge'" in found_there
    assert any(why.startswith("localhost:8001 is this machine") for why in found_there)


def test_options_of_servers_are_looked_up(tree: Path) -> None:
    table = release_table()
    assert not [x for x in check_repositories(tree, NEW).findings if x.field.startswith("--")]
    options = {"26.05": ["--allow-http"], "26.06": ["--grpc-restricted-protocol"]}
    newer = ReleaseTable.from_data(table.model_dump(mode="json") | {"server_options": options})
    unknown = {x.field for x in check_repositories(tree, "26.05", newer).findings}
    assert "--allow-http" not in unknown
    assert {"--grpc-restricted-protocol", "--grpc-use-ssl"} <= unknown


def test_a_folder_that_was_not_generated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        check_repositories(tmp_path, NEW)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("27.03", "is not in the release table, which goes from 25.01 to"),
        ("24.10", "the nearest are 25.01, 25.02, 25.03"),
        ("latest", "is written YEAR.MONTH"),
        ("26.13", "is written YEAR.MONTH"),
    ],
)
def test_unknown_releases_are_refused_with_the_nearest(target: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        release_table().facts(target)
    assert text in str(caught.value)


def test_the_table_is_whole() -> None:
    table = release_table()
    assert table.cross_faults(table.model_dump(mode="json")) == []
    for release in table.releases:
        facts = table.facts(release)
        assert facts.onnxruntime != "unknown"
        assert isinstance(facts.max_opset, int)
    bad = table.model_dump(mode="json")
    bad["releases"]["25.01"]["onnxruntime"] = "9.9.9"
    with pytest.raises(InputError, match=r"releases\.25\.01: ONNX Runtime 9\.9\.9 has no row"):
        ReleaseTable.from_data(bad)


def test_what_is_not_known_is_said_so() -> None:
    table = release_table()
    bare = table.model_dump(mode="json") | {"releases": {"25.02": {}}}
    facts = ReleaseTable.from_data(bare).facts("25.02")
    assert (facts.triton, facts.max_opset, facts.cuda) == ("unknown", "unknown", "unknown")


def test_releases_are_compared_by_months() -> None:
    assert has("24.10", "25.01")
    assert has("25.11", "25.11")
    assert not has("25.11", "25.10")
    assert since({"25.11": ("b",), "24.10": ("a", "b")}, "b") == "24.10"
