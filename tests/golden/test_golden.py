"""Golden files: a change of what is generated, said or documented shows as a diff to review."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.golden.cases import (
    BAD,
    CASES,
    FAMILY,
    ROOT,
    SCHEMAS,
    committed,
    differences,
    generated,
    golden,
)
from tests.helpers.configs import crossings, read_configs
from tritier.documents import Manifest, Plan, ServersSpec, wire_up
from tritier.files import write_file
from tritier.resources import triton_dir

HINT = "run `make regen` and review the diff"


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    """What the golden files must hold; for reading only."""
    return golden()


def test_golden_files_are_up_to_date(made: dict[str, bytes]) -> None:
    lines = differences(committed(), made)
    assert not lines, "\n".join([HINT, *lines])


def test_every_kind_of_difference_is_found(tmp_path: Path, made: dict[str, bytes]) -> None:
    wanted = made
    for path, data in wanted.items():
        write_file(tmp_path / path, data)
    assert differences(committed(tmp_path), wanted) == []
    gone, changed, *_ = sorted(path for path in wanted if path.endswith("config.pbtxt"))
    (tmp_path / gone).unlink()
    (tmp_path / changed).write_bytes(wanted[changed].replace(b"backend", b"Backend", 1))
    for extra in ("tests/golden/expected/two_servers/more.txt", "docs/schemas/more.json"):
        write_file(tmp_path / extra, b"")
    assert differences(committed(tmp_path), wanted) == [
        f"missing: {gone}",
        "too many: docs/schemas/more.json",
        "too many: tests/golden/expected/two_servers/more.txt",
        f"differs: {changed}",
    ]


@pytest.mark.parametrize("name", [*CASES, FAMILY])
def test_python_models_are_those_of_the_checkout(name: str) -> None:
    files = generated(name)
    manifest = Manifest.from_data(json.loads(files["manifest.json"]))
    copies = {path: data for path, data in files.items() if path.endswith(".py")}
    expected = {
        f"{model.server}/{model.name}/1/{source.name}": source.read_bytes()
        for model in manifest.models
        if model.kind in ("remote", "mailbox", "key", "router")
        for folder in (triton_dir() / "models" / model.kind, triton_dir() / "shared")
        for source in folder.glob("*.py")
    }
    assert expected
    assert copies == expected
    assert set(copies) <= {file.path for file in manifest.files}


@pytest.mark.parametrize("name", CASES)
def test_the_golden_trees_are_what_their_cases_are_for(name: str) -> None:
    folder = ROOT / "tests" / "golden" / "expected" / name
    plan = Plan.load(folder / "plan.json")
    configs = read_configs(
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("config.pbtxt")}
    )
    wired = wire_up(plan)
    assert crossings(configs) == {(w.tensor, w.source, w.target): 1 for w in wired.wires}
    kinds = {model_name.rsplit("__", 1)[-1] for _, model_name in configs}
    servers = [component.server for component in plan.components]
    if name == "two_servers":
        assert servers == ["device", "edge", "device"]
        assert not kinds & {"mailbox", "key", "stage"}
        assert configs["device", "golden"].max_batch_size == 16
    else:
        assert servers == ["edge", "cloud", "edge", "device"]
        assert {"mailbox", "key", "stage"} <= kinds
        (shared,) = [t.id for t in plan.tensors if t.name == "f"]
        assert [c.id for c in plan.consumers(shared)] == ["c1", "c2", "c3"]
    if name == "coded":
        assert {wire.codec for wire in plan.wires} == {"fp16", "int8", "uint8"}
        assert [c.server for c in wired.components if not c.layers] == ["device", "device"]


@pytest.mark.parametrize("name", CASES)
def test_golden_sub_models_are_valid(name: str) -> None:
    folder = ROOT / "tests" / "golden" / "expected" / name
    models = sorted(folder.rglob("model.onnx"))
    assert len(models) >= 4
    for path in models:
        onnx.checker.check_model(str(path), full_check=True)


def test_golden_configs_are_read_by_triton_s_schema() -> None:
    configs = sorted((ROOT / "tests" / "golden" / "expected").rglob("config.pbtxt"))
    assert len(configs) > 10
    for path in configs:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert config.name == path.parent.name


@pytest.mark.parametrize("folder", sorted(BAD.iterdir()), ids=lambda folder: folder.name)
def test_an_error_names_no_path_of_this_machine(folder: Path) -> None:
    text = (folder / "error.txt").read_text(encoding="utf-8")
    assert "/tmp" not in text
    assert str(ROOT) not in text


def test_every_document_has_a_schema() -> None:
    assert {"assignment", "lab_state", "manifest", "plan", "servers_file"} <= set(SCHEMAS)


def test_the_schema_knows_the_keys_that_files_use() -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / "servers_file.json").read_text())
    assert schema == ServersSpec.model_json_schema()
    assert set(schema["$defs"]["Link"]["properties"]) == {
        "from",
        "to",
        "bandwidth_mib_s",
        "latency_ms",
    }
    assert schema["additionalProperties"] is False
