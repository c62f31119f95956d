"""The parts of a bench that need no server: what is sent, who is asked, what is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.helpers.benches import settings, target
from tritier.bench import fetch, fetch_libraries
from tritier.bench import target as target_module
from tritier.bench.environment import current
from tritier.bench.inputs import InputData, find_inputs
from tritier.bench.loads import parse_loads
from tritier.bench.perf_analyzer import LevelRun, command_line, find_program
from tritier.bench.prepare import _check_rows, raw_folder, result_file
from tritier.bench.statistics import Counted, cached, shares
from tritier.bench.target import InputTensor, Target, check_batches, refuse_cache
from tritier.cli import bench as bench_command
from tritier.deployment.access import Access, Address
from tritier.errors import InputError, TritierError, UsageError


def config(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0:4", "out of range"),
        ("4:1", "ends before"),
        ("1:2:3:4", "too many"),
        ("a", "no number"),
        ("1.5", "out of range"),
        ("", "no number"),
        ("1:100000", "over 1000"),
        ("nan", "out of range"),
    ],
)
def test_bad_loads_are_refused(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as caught:
        parse_loads(text, "--concurrency", whole=True)
    assert "allowed are" in str(caught.value)


def test_loads_are_mixed_sorted_and_each_once() -> None:
    assert parse_loads("8,1:3,2", "--concurrency", whole=True) == (1, 2, 3, 8)


def test_batches_that_the_model_does_not_take_are_refused() -> None:
    check_batches(target(16), [1, 16])
    with pytest.raises(UsageError, match="max_batch_size 16"):
        check_batches(target(16), [17])
    check_batches(target(), [1])
    with pytest.raises(UsageError, match="single requests only"):
        check_batches(target(), [2])
    check_batches(target(0, True), [2])
    wide = target(0, True, InputTensor("x", "FP32", (3, 2)))
    with pytest.raises(UsageError, match="start with 1"):
        check_batches(wide, [2])


def test_open_dimensions_need_a_shape() -> None:
    open_one = config('name: "m" input { name: "x" data_type: TYPE_FP32 dims: [-1, 3, -1] }')
    with pytest.raises(InputError, match=r"--shape x:N,3,N"):
        target_module._inputs(open_one, {})
    found = target_module._inputs(open_one, {"x": (1, 3, 8)})
    assert found == (InputTensor("x", "FP32", (1, 3, 8)),)
    for shapes in ({"x": (1, 4, 8)}, {"x": (1, 3)}, {"y": (1,), "x": (1, 3, 8)}):
        with pytest.raises(InputError, match="--shape"):
            target_module._inputs(open_one, shapes)
    batched = config('name: "m" input { name: "x" data_type: TYPE_STRING dims: [-1, 3] }')
    assert target_module._inputs(batched, {}) == (InputTensor("x", "BYTES", (1, 3)),)


def test_a_response_cache_is_refused_wherever_it_is() -> None:
    plain = config('name: "a"')
    refuse_cache({"a": plain})
    with pytest.raises(InputError, match="on for step"):
        refuse_cache({"a": plain, "step": config("response_cache { enable: true }")})


def counted(requests: int, ns: int, from_cache: int = 0) -> Counted:
    parts = dict.fromkeys(("queue", "compute_input", "compute_infer"), (requests, ns))
    return Counted(requests, 0, requests, from_cache, parts | {"compute_output": (requests, 0)})


def test_shares_are_what_came_in_between() -> None:
    before = {"a": counted(10, 10_000_000), "idle": counted(5, 5)}
    after = {"a": counted(30, 70_000_000), "idle": counted(5, 5), "new": counted(2, 4_000_000)}
    found = {share.model: share for share in shares(before, after)}
    assert set(found) == {"a", "new"}
    assert (found["a"].requests, found["a"].queue_ms) == (20, 3.0)
    assert (found["new"].requests, found["new"].compute_infer_ms) == (2, 2.0)


def test_an_execution_counts_once_for_all_its_requests() -> None:
    # One of 1 and one of 3 requests: 4 requests, which took 10 + 3 x 20 ms by Triton's count.
    (share,) = shares({}, {"a": replace(counted(4, 70_000_000), executing_ns=30_000_000)})
    assert (share.compute_infer_ms, share.executing_ms) == (17.5, 30.0)
    (old,) = shares({}, {"a": counted(4, 70_000_000)})
    assert old.executing_ms is None


def test_a_model_that_was_loaded_anew_counts_from_zero() -> None:
    (share,) = shares({"a": counted(100, 900_000_000)}, {"a": counted(4, 8_000_000)})
    assert (share.requests, share.queue_ms) == (4, 2.0)


@pytest.mark.parametrize("what", ["executions", "failures", "from_cache"])
def test_a_model_that_was_loaded_anew_may_have_had_more_requests(what: str) -> None:
    changed: dict[str, Any] = {what: 500}
    before = dataclasses.replace(counted(100, 900_000_000), **changed)
    after = counted(200, 1_000_000_000, from_cache=3)
    (share,) = shares({"a": before}, {"a": after})
    assert (share.requests, share.queue_ms) == (200, 5.0)
    assert cached({"a": before}, {"a": after}) == ["a"], "counted from zero again"


def test_answers_of_a_cache_are_noticed() -> None:
    assert cached({"a": counted(1, 1)}, {"a": counted(2, 2)}) == []
    assert cached({"a": counted(1, 1)}, {"a": counted(2, 2, from_cache=1)}) == ["a"]


def test_inputs_are_the_same_for_both_clients(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.arange(6, dtype=np.float32).reshape(3, 1, 2))
    batching = target(8)
    data = find_inputs(str(tmp_path / "in.npz"), batching)
    data.write(batching, 2, tmp_path / "in.json")
    rows = json.loads((tmp_path / "in.json").read_text())["data"]
    assert [row["x"]["shape"] for row in rows] == [[1, 2]] * 3
    sent = np.frombuffer(base64.b64decode(rows[1]["x"]["b64"]), np.float32)
    assert sent.tolist() == [2, 3]
    batches = [item["x"] for item in data.batch(batching, 2)]
    assert [b.shape for b in batches] == [(2, 1, 2)] * 3
    assert batches[2].ravel().tolist() == [4, 5, 0, 1]


def test_where_the_first_dimension_is_the_batch_it_is_in_the_data(tmp_path: Path) -> None:
    open_first = target(0, True)
    data = find_inputs("random", open_first)
    data.write(open_first, 3, tmp_path / "in.json")
    (row,) = json.loads((tmp_path / "in.json").read_text())["data"]
    assert row["x"]["shape"] == [3, 2]
    sent = np.frombuffer(base64.b64decode(row["x"]["b64"]), np.float32)
    assert ((sent >= 0) & (sent < 1)).all(), "real numbers, not random bits"


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros((1, 3), np.float32), "shape"),
        (np.zeros((1, 2), np.float64), "float64"),
        (np.zeros((0, 1, 2), np.float32), "shape"),
    ],
)
def test_input_that_does_not_fit_is_refused(tmp_path: Path, array: Any, fault: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=fault):
        find_inputs(str(tmp_path / "x.npy"), target())


def test_input_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no array")
    for text, fault in ((str(tmp_path / "bad.npy"), "can't be read"), ("ones", "allowed are")):
        with pytest.raises(InputError, match=fault):
            find_inputs(text, target())
    with pytest.raises(InputError, match="of texts"):
        find_inputs("zero", target(0, False, InputTensor("t", "BYTES", (1,))))


def test_the_command_of_a_level() -> None:
    run = LevelRun(batch=4, offered=8, window=50, data="../in.json")
    line = " ".join(command_line(Path("/pa"), target(8), settings(), run))
    for part in (
        "/pa -v -m m -i grpc -u 127.0.0.1:1 -b 4 ",
        "--concurrency-range 8:8 --measurement-mode count_windows --measurement-request-count 50",
        "--stability-percentage 10 --max-trials 8 --percentile 95 -f level.csv",
        "--profile-export-file profile.json",
    ):
        assert part in line
    # The batch is in the data, and must not be sent squared.
    assert " -b 1 " in " ".join(command_line(Path("/pa"), target(0, True), settings(), run))


def test_the_command_of_a_rate_and_of_tls(tmp_path: Path) -> None:
    access = Access("s", ca=tmp_path / "ca.pem", admin_key_file=tmp_path / "secret")
    protected = Target("m", Address("127.0.0.1:1", access), (), 0, False, None, ())
    run = LevelRun(1, 2.5, 50, "in.json", stable=False, exported=False)
    line = " ".join(command_line(Path("/pa"), protected, settings(arrivals="poisson"), run))
    assert "--request-rate-range 2.5:2.5 --request-distribution poisson --async" in line
    assert f"--ssl-grpc-root-certifications-file {tmp_path}/ca.pem" in line
    assert "--stability-percentage 100000 --max-trials 3" in line
    assert "profile" not in line
    assert "--percentile" not in line, "else it would not print mean and deviation"
    assert "secret" not in line


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_json_file_has_no_batch_that_is_known() -> None:
    data = InputData("in.json", None, file=Path("in.json"))
    with pytest.raises(UsageError, match=r"--batch 4: --input in\.json goes .* as it is"):
        _check_rows(target(0, True), data, [1, 4])
    _check_rows(target(0, True), data, [1])
    _check_rows(target(8), data, [1, 4])
    _check_rows(target(0, True), find_inputs("zero", target(0, True)), [1, 4])


def test_a_fetch_to_an_impossible_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device", "/x/.tools")

    monkeypatch.setattr(bench_command, "provide", full)
    with pytest.raises(TritierError, match=r"--fetch /x/\.tools: No space left .* give a folder"):
        bench_command._fetch(Path("/x/.tools"))


def test_messages_of_a_fetch_name_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TritierError, match="is not a folder; name another one"):
        fetch.check_replaceable(tmp_path / "file")
    assert "--" not in fetch_libraries.EMBEDDED_HINT


@pytest.mark.parametrize("first", ["#!/nowhere/python\n", "#!/usr/bin/env 'python\n"])
def test_a_script_that_can_not_be_started_is_told(tmp_path: Path, first: str) -> None:
    with pytest.raises(InputError, match=r"does not start: .*--fetch"):
        find_program(script(tmp_path / "perf_analyzer", first))


def test_the_program_is_found_and_tells_its_version(tmp_path: Path) -> None:
    usual = tmp_path / ".tools" / "perf_analyzer" / "perf_analyzer"
    script(usual, "#!/bin/sh\necho 'Perf Analyzer Version 2.51.0 (commit x)' >&2\n")
    assert find_program(None, (tmp_path,)).version == "2.51.0"
    assert find_program(usual.parent).path == usual
    (usual.parent / "lib").mkdir()
    (usual.parent / "lib" / "SOURCE").write_text("tritonclient==2.51.0, libb64 from x\n")
    assert find_program(usual).version == "2.51.0 (tritonclient==2.51.0)"


def test_the_placeholder_is_told_with_the_fix(tmp_path: Path) -> None:
    python = script(tmp_path / "python3", "#!/bin/sh\nexit 1\n")
    placeholder = script(tmp_path / "perf_analyzer", f"#!{python}\nraise SystemExit\n")
    with pytest.raises(InputError, match=r"placeholder.*tritier bench --fetch .tools"):
        find_program(placeholder)


@pytest.mark.parametrize("text", ["#!/bin/sh\necho broken >&2; exit 127\n", "#!/bin/sh\n"])
def test_a_program_that_does_not_start_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"no perf_analyzer that starts.*--fetch"):
        find_program(script(tmp_path / "perf_analyzer", text))


def test_no_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"is not here.*--fetch"):
        find_program(None, (tmp_path,))
    with pytest.raises(InputError, match="no such file"):
        find_program(tmp_path / "nothing")


def test_where_the_result_goes() -> None:
    assert result_file(Path("sweep")) == Path("sweep/bench.json")
    assert result_file(Path("a/b.json")) == Path("a/b.json")
    assert raw_folder(Path("sweep/bench.json")) == "raw"
    assert raw_folder(Path("a/b.json")) == "b_raw"


def test_the_environment_is_known() -> None:
    found = current({"device": "2.51.0"}, "2.51.0")
    assert found.cores >= 1
    assert found.memory_bytes > 0
    assert found.servers == {"device": "2.51.0"}
