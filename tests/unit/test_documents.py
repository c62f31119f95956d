"""Documents: every fault is found, all are told together, and each says what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tritier.documents import Assignment, Quantization, ServersSpec, read_data
from tritier.errors import InputError, did_you_mean

SERVERS: dict[str, Any] = {
    "servers": [
        {"name": "cam", "tier": "device", "entry": True},
        {"name": "edge", "tier": "edge", "url": "10.0.0.2:8001"},
    ],
    "links": [{"from": "cam", "to": "edge", "bandwidth_mib_s": 12.5, "latency_ms": 3}],
}


def servers(**changes: Any) -> dict[str, Any]:
    """The good servers file with some top-level keys replaced."""
    return {**copy.deepcopy(SERVERS), **changes}


def with_second(**changes: Any) -> dict[str, Any]:
    """The good servers file with some keys of the second server replaced."""
    data = servers()
    data["servers"][1] |= changes
    return data


def faults_of(data: Any) -> tuple[str, ...]:
    """What is said about bad servers."""
    with pytest.raises(InputError) as caught:
        ServersSpec.from_data(data, "servers.yaml")
    assert str(caught.value).startswith("servers.yaml: ")
    return caught.value.faults


def test_a_good_file_is_read_whole() -> None:
    spec = ServersSpec.from_data(SERVERS)
    assert spec.names == ("cam", "edge")
    assert spec.entry.name == "cam"
    assert spec.server("edge").url == "10.0.0.2:8001"
    (link,) = spec.links
    assert (link.source, link.target, link.bandwidth_mib_s) == ("cam", "edge", 12.5)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(
            with_second(thread=2),
            "servers[1].thread: unknown key (did you mean 'threads'?); known are name, url, "
            "metrics_url, tier, entry, execution_provider, threads, instances, quantization, "
            "slowdown, memory_mib, compute_power_watt, tx_self_power_watt, tx_other_power_watt, "
            "price_per_hour_usd, security",
            id="unknown key with a near one",
        ),
        pytest.param(
            servers(zzz=1),
            "zzz: unknown key; known are servers, links, security",
            id="unknown key without a near one",
        ),
        pytest.param(
            servers(links=[{"source": "cam", "to": "edge"}]),
            "links[0].from: is missing",
            id="the name that a key has in Python is not its name in files",
        ),
        pytest.param(
            with_second(tier="edg"),
            "servers[1].tier: \"edg\": input should be 'device', 'edge' or 'cloud'",
            id="a word that is not one of the allowed",
        ),
        pytest.param(
            with_second(threads="4"),
            'servers[1].threads: "4": input should be a valid integer',
            id="a text for a number",
        ),
        pytest.param(
            with_second(threads=True),
            "servers[1].threads: true: input should be a valid integer",
            id="yes/no for a number",
        ),
        pytest.param(
            with_second(threads=0),
            "servers[1].threads: 0: input should be greater than or equal to 1",
            id="below the smallest",
        ),
        pytest.param(
            with_second(memory_mib=float("nan")),
            "servers[1].memory_mib: NaN: input should be a finite number",
            id="NaN",
        ),
        pytest.param(
            with_second(price_per_hour_usd=float("inf")),
            "servers[1].price_per_hour_usd: Infinity: input should be a finite number",
            id="infinity",
        ),
        pytest.param(
            with_second(url="10.0.0.2"),
            'servers[1].url: "10.0.0.2": string should match pattern '
            r"'^[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5}$'",
            id="a url without a port",
        ),
        pytest.param(
            servers(servers=[]),
            "servers: is empty; give at least one",
            id="no server",
        ),
        pytest.param(
            servers(servers=[{"name": "cam", "tier": "device"}], links=[]),
            "servers: none is the entry; set `entry: true` on exactly one",
            id="no entry",
        ),
        pytest.param(
            with_second(entry=True),
            "servers: cam and edge are all the entry; set `entry: true` on exactly one",
            id="two entries",
        ),
        pytest.param(
            servers(links=[{"from": "cam", "to": "egde"}]),
            "links[0].to: unknown server 'egde'; known are cam, edge",
            id="link to an unknown server",
        ),
        pytest.param(
            servers(links=[{"from": "edge", "to": "edge"}]),
            "links[0]: joins 'edge' to itself; a link has two servers",
            id="self link",
        ),
        pytest.param(
            servers(links=[{"from": "cam", "to": "edge"}] * 2),
            "links[1]: cam -> edge stands twice; give it once",
            id="link twice",
        ),
        pytest.param(
            with_second(quantization={"wieght_type": "uint8"}),
            "servers[1].quantization.wieght_type: unknown key (did you mean 'weight_type'?); known "
            "are activation_type, per_channel, reduce_range, weight_type",
            id="unknown key of an inner document",
        ),
        pytest.param(
            with_second(quantization={"weight_type": "uint8"}),
            'servers[1].quantization: {"weight_type": "uint8"}: weight_type uint8 needs '
            "activation_type uint8: ONNX Runtime has no kernels for int8 activations with uint8 "
            "weights",
            id="types that no kernel takes together",
        ),
        pytest.param({}, "servers: is missing", id="an empty mapping"),
        pytest.param(
            ["cam"], "a servers file is a mapping of keys to values, this is a list", id="a list"
        ),
        pytest.param(
            None,
            "a servers file is a mapping of keys to values, this is nothing (an empty file)",
            id="an empty file",
        ),
    ],
)
def test_a_fault_is_told(data: Any, fault: str) -> None:
    assert fault in faults_of(data)


def test_a_weight_type_is_written_only_where_it_is_not_the_default() -> None:
    # So that plans from before there was one keep their ids.
    known = {"activation_type": "uint8", "per_channel": False, "reduce_range": False}
    assert Quantization.from_data({**known, "weight_type": "int8"}).model_dump() == known
    other = Quantization.from_data({**known, "weight_type": "uint8"})
    assert other.model_dump() == {**known, "weight_type": "uint8"}
    assert Quantization.from_data(other.model_dump()) == other


def test_a_name_that_stands_twice_is_told() -> None:
    data = with_second(name="cam")
    assert "servers: the name 'cam' stands 2 times; names are unique" in faults_of(data)


@pytest.mark.parametrize("name", ["Edge", "edge\n", "../edge", "", "-edge", "e" * 64])
def test_names_that_are_no_safe_folder_are_refused(name: str) -> None:
    assert any(f.startswith("servers[1].name: ") for f in faults_of(with_second(name=name)))


def test_all_faults_are_told_together() -> None:
    data = with_second(tier="moon", entry=True, colour="red")
    data["links"] = [{"from": "cam", "to": "mars"}, {"from": "edge", "to": "edge"}, {"to": "cam"}]
    found = faults_of(data)
    starts = (
        "servers[1].tier: ",
        "servers[1].colour: unknown key",
        "links[2].from: is missing",
        "servers: cam and edge are all the entry",
        "links[0].to: unknown server 'mars'",
        "links[1]: joins 'edge' to itself",
    )
    assert len(found) == len(starts)
    for start in starts:
        assert any(fault.startswith(start) for fault in found), start


def test_a_missing_key_is_told_once() -> None:
    data = servers(servers=[{"tier": "device", "entry": True}, {"tier": "edge"}], links=[{}, {}])
    assert sorted(faults_of(data)) == [
        "links[0].from: is missing",
        "links[0].to: is missing",
        "links[1].from: is missing",
        "links[1].to: is missing",
        "servers[0].name: is missing",
        "servers[1].name: is missing",
    ]


def test_one_fault_stands_on_the_line_of_the_file_and_several_below_it() -> None:
    assert str(InputError("is bad", "a.yaml")) == "a.yaml: is bad"
    assert str(InputError(["one", "two"], "a.yaml")) == "a.yaml: 2 faults\n  - one\n  - two"


@pytest.mark.parametrize(
    ("word", "hint"), [("srevers", " (did you mean 'servers'?)"), ("qqqq", "")]
)
def test_only_a_near_word_is_suggested(word: str, hint: str) -> None:
    assert did_you_mean(word, ["servers", "links"]) == hint


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.yaml",
            "servers: []\nlinks: []\nservers: []\n",
            "is not valid YAML: the key 'servers' stands twice in line 3, column 1",
        ),
        (
            "a.yaml",
            "layers:\n  conv: edge\n  conv: cam\n",
            "is not valid YAML: the key 'conv' stands twice in line 3, column 3",
        ),
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', "cannot be parsed: the key 'c' stands twice"),
        ("a.yaml", "? [a, b]\n: x\n", "is not valid YAML: a key is a text, not a list or mapping"),
        ("a.yaml", "a: [1\n", "is not valid YAML: expected ',' or ']'"),
        ("a.yaml", "a: \x00", "cannot be parsed: "),
        ("a.yaml", "a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a.json", "{'a': 1}", "cannot be parsed: Expecting property name"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_data(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text file"):
        read_data(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_data(tmp_path / "none.yaml")


def test_yaml_anchors_and_merges_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(
        "servers:\n"
        "  - &one {name: cam, tier: device, threads: 2, entry: true}\n"
        "  - {<<: *one, name: edge, entry: false}\n"
    )
    spec = ServersSpec.load(path)
    assert [(s.name, s.threads, s.entry) for s in spec.servers] == [
        ("cam", 2, True),
        ("edge", 2, False),
    ]


def test_a_value_that_json_does_not_know_is_told(tmp_path: Path) -> None:
    path = tmp_path / "assignment.yaml"
    path.write_text("default: 2026-01-01\n")
    with pytest.raises(InputError, match=r"cannot be read as an assignment: .*date"):
        Assignment.load(path)


def test_an_unset_optional_field_is_left_out_of_the_file() -> None:
    text = ServersSpec.from_data(SERVERS).to_json()
    assert "memory_mib" not in text
    assert '"from": "cam"' in text
