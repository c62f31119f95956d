"""Orders of the agent: what is accepted, and that all else is refused with the reason."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.agent import load_agent

orders, arrays, peers = load_agent("orders", "arrays", "peers")

LIMITS = orders.Limits(1000, 60.0, {"edge": "10.0.0.7:8001", "cloud": "cloud:8001"})
TENSOR = {"datatype": "FP32", "shape": [1, 3]}
MEASURE = {"op": "measure", "inputs": {"x": TENSOR}}
SERVE = {"op": "serve", "model": "m", "inputs": {"x": TENSOR}, "outputs": ["y"]}
PROBE = {"op": "probe", "server": "edge", "bytes": [1]}
PATHS = ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "~", "a\0b", "", "a b", "\ud800", "é"]


def parse(order: object) -> Any:
    return orders.parse_order(json.dumps(order).encode(), LIMITS)


def with_input(**changes: object) -> dict[str, Any]:
    return {"op": "measure", "inputs": {"x": {**TENSOR, **changes}}}


@pytest.mark.parametrize(
    ("order", "full"),
    [
        ({"op": "facts"}, {"power_s": 0}),
        ({"op": "take"}, {}),
        ({"op": "ping", "server": "edge"}, {"server": "edge", "repeats": 1, "limit_s": 60.0}),
        (
            {**PROBE, "limit_s": 5},
            {"server": "edge", "bytes": [1], "in_flight": 1, "idle_s": 0, "limit_s": 5},
        ),
        (
            MEASURE,
            {
                "inputs": {"x": {**TENSOR, "values": None}},
                "provider": "cpu",
                "threads": 1,
                "warmup": 10,
                "runs": 20,
                "idle_s": 0,
                "profile": False,
                "limit_s": 60.0,
            },
        ),
        (
            SERVE,
            {
                "model": "m",
                "inputs": {"x": {**TENSOR, "values": None}},
                "outputs": ["y"],
                "runs": 1,
                "limit_s": 60.0,
            },
        ),
    ],
    ids=lambda x: x.get("op", ""),
)
def test_an_order_gets_its_defaults(order: dict[str, Any], full: dict[str, Any]) -> None:
    assert parse(order) == {"op": order["op"], **full}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"op": "take"} x', "not JSON"),
        (b'{"op": "facts", "power_s": NaN}', "not JSON"),
        (b'{"op": "facts", "power_s": Infinity}', "not JSON"),
        (b'{"op": "facts", "power_s": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 150_000, "nested too deeply"),
        (b" " * (1 << 20) + b"{}", "1048578 bytes; allowed are 1048576"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"take"', "not a JSON object"),
    ],
    ids=range(13),
)
def test_what_is_no_json_object_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(orders.Refused, match=reason):
        orders.parse_order(text, LIMITS)


def test_a_value_that_is_read_and_too_deep_to_be_shown() -> None:
    reasons = set()
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        text = b'{"op": "facts", "power_s": ' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(orders.Refused) as caught:
            orders.parse_order(text, LIMITS)
        reasons.add(str(caught.value)[:30])
    assert len(reasons) >= 2  # the border between shown and too deep lies here


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({}, "op null is unknown; allowed are facts, take, ping, probe, measure, serve"),
        ({"op": "reboot"}, 'op "reboot" is unknown'),
        ({"op": ["take"]}, "is unknown"),
        ({"op": "_input"}, "is unknown"),
        ({"op": "take", "path": "/etc"}, 'unknown key "path"; allowed are none'),
        ({**MEASURE, "script": "x"}, 'measure: unknown key "script"'),
        ({"op": "ping"}, "ping: server is missing"),
        ({"op": "measure"}, "measure: inputs is missing"),
        ({"op": "serve", "model": "m"}, "serve: inputs is missing"),
        ({"op": "ping", "server": "10.0.0.9:22"}, "no peer of this server; known are cloud, edge"),
        ({"op": "ping", "server": ["edge"]}, "is no peer"),
        ({"op": "ping", "server": None}, "is no peer"),
        ({**PROBE, "bytes": []}, "list of 1 to 10000"),
        ({**PROBE, "bytes": [1] * 10_001}, "list of 1 to 10000"),
        ({**PROBE, "bytes": 5}, "list of 1 to 10000"),
        ({**PROBE, "bytes": [1001]}, "from 1 to 1000"),
        ({**PROBE, "bytes": [10, 0]}, "from 1 to 1000"),
        ({**PROBE, "bytes": [True]}, "a whole number"),
        ({**PROBE, "bytes": [300], "in_flight": 4}, "4 messages of 300 bytes at once"),
        ({**MEASURE, "provider": "tensorrt"}, "allowed are cpu, openvino, cuda"),
        ({**MEASURE, "provider": ["cpu"]}, "allowed are cpu, openvino, cuda"),
        ({**MEASURE, "profile": 1}, "true and false"),
        ({**MEASURE, "profile": "yes"}, "true and false"),
        ({**MEASURE, "inputs": []}, "an object of inputs"),
        ({**MEASURE, "inputs": {"": TENSOR}}, "names of 1 to 1000"),
        ({**MEASURE, "inputs": {"x" * 1001: TENSOR}}, "names of 1 to 1000"),
        ({**MEASURE, "inputs": {"x\udc00": TENSOR}}, "characters of Unicode"),
        ({**SERVE, "outputs": ["y\ud800"]}, "a list of names"),
        ({**MEASURE, "inputs": {"x": None}}, "datatype, shape and values"),
        (with_input(file="/etc/passwd"), "datatype, shape and values"),
        (with_input(datatype="BYTES"), "allowed are BOOL"),
        (with_input(datatype=None), "allowed are BOOL"),
        (with_input(shape=3), "a list of sizes"),
        (with_input(shape=[-1]), "a list of sizes"),
        (with_input(shape=[2**40]), "a list of sizes"),
        (with_input(shape=[True]), "a list of sizes"),
        (with_input(shape=[1.0]), "a list of sizes"),
        (with_input(shape=[1] * 33), "a list of sizes"),
        (with_input(shape=[251]), "inputs of 1004 bytes; this agent takes 1000"),
        (with_input(shape=[2**39] * 32), "bytes; this agent takes 1000"),
        (with_input(shape=[0, 2**39, 2**39]), "bytes; this agent takes 1000"),
        ({**MEASURE, "inputs": {"x": with_input(shape=[200])["inputs"]["x"], "y": TENSOR,
                                "z": {"datatype": "UINT8", "shape": [200]}}}, "of 1012 bytes"),
        ({**SERVE, "outputs": []}, "a list of names"),
        ({**SERVE, "outputs": "y"}, "a list of names"),
        ({**SERVE, "outputs": [1]}, "a list of names"),
        ({**SERVE, "outputs": ["y" * 1001]}, "a list of names"),
    ],
)  # fmt: skip
def test_a_bad_order_is_refused(order: object, reason: str) -> None:
    with pytest.raises(orders.Refused) as caught:
        parse(order)
    assert reason in str(caught.value)


NUMBERS = [
    ({"op": "facts"}, "power_s", float, 0, 10),
    ({"op": "ping", "server": "edge"}, "repeats", int, 1, 100_000),
    ({"op": "ping", "server": "edge"}, "limit_s", float, 0.01, 60),
    (PROBE, "in_flight", int, 1, 16),
    (PROBE, "idle_s", float, 0, 60),
    (PROBE, "limit_s", float, 0.01, 60),
    (MEASURE, "threads", int, 1, 1024),
    (MEASURE, "warmup", int, 0, 100_000),
    (MEASURE, "runs", int, 1, 100_000),
    (MEASURE, "idle_s", float, 0, 60),
    (MEASURE, "limit_s", float, 0.01, 60),
    (SERVE, "runs", int, 1, 100_000),
    (SERVE, "limit_s", float, 0.01, 60),
]


@pytest.mark.parametrize(("order", "key", "kind", "low", "high"), NUMBERS)
def test_numbers_keep_to_their_type_and_range(
    order: dict[str, Any], key: str, kind: type, low: float, high: float
) -> None:
    for good in (low, high):
        assert parse({**order, key: good})[key] == good
    bad: list[object] = [
        low - 1,
        high + 0.5,
        10**4000,
        -(10**4000),
        True,
        False,
        None,
        "1",
        [1],
        {},
    ]
    if kind is int:
        bad.append(float(high))
    for value in bad:
        with pytest.raises(orders.Refused, match=rf"{key}: .*; allowed is a .*number from"):
            parse({**order, key: value})
    text = json.dumps(order).encode()[:-1] + f', "{key}": 1e999}}'.encode()
    with pytest.raises(orders.Refused, match=r"Infinity; allowed"):
        orders.parse_order(text, LIMITS)


@pytest.mark.parametrize("name", PATHS)
def test_what_looks_like_a_path_is_no_model(name: str) -> None:
    with pytest.raises(orders.Refused, match=r"serve: model: .*; allowed are letters"):
        parse({**SERVE, "model": name})


@pytest.mark.parametrize("key", ["op", "server", "provider", "datatype"])
@pytest.mark.parametrize("name", PATHS)
def test_what_looks_like_a_path_is_no_choice(key: str, name: str) -> None:
    order = {
        "op": {"op": name},
        "server": {**PROBE, "server": name},
        "provider": {**MEASURE, "provider": name},
        "datatype": with_input(datatype=name),
    }[key]
    with pytest.raises(orders.Refused, match=r"known|allowed"):
        parse(order)


VALUES: list[tuple[str, list[Any], list[Any]]] = [
    ("BOOL", [True, False, 0, 1], [2, -1, 0.5, "1", None]),
    ("INT8", [-128, 127], [-129, 128, True, 1.0]),
    ("UINT8", [0, 255], [-1, 256, False]),
    ("INT64", [-(2**63), 2**63 - 1], [2**63, 1e3]),
    ("UINT64", [0, 2**64 - 1], [-1, 2**64]),
    ("FP16", [65504, -0.5], [65505, True]),
    ("FP32", [3.4e38, 7], [3.5e38, 10**400, False]),
    ("FP64", [1.7e308, -1], [10**400, [1.0]]),
]


@pytest.mark.parametrize(("datatype", "good", "bad"), VALUES, ids=lambda x: str(x)[:6])
def test_values_are_of_their_datatype(datatype: str, good: list[Any], bad: list[Any]) -> None:
    order = parse(with_input(datatype=datatype, shape=[len(good)], values=good))
    assert arrays.array_of(order["inputs"]["x"]).tolist() == pytest.approx(good, rel=1e-3)
    for value in bad:
        with pytest.raises(orders.Refused, match=rf"values: .* is no {datatype}; allowed are"):
            parse(with_input(datatype=datatype, shape=[1], values=[value]))


@pytest.mark.parametrize(
    ("shape", "values"),
    [([2], [1]), ([2], [1, 2, 3]), ([], []), ([2], [[1, 2]]), ([1], "1"), ([1], {"0": 1})],
)
def test_values_are_as_many_as_the_shape_says(shape: list[int], values: object) -> None:
    with pytest.raises(orders.Refused, match="values: "):
        parse(with_input(shape=shape, values=values))


def test_very_many_values_are_drawn_not_sent() -> None:
    limits = orders.Limits(1 << 30, 60.0, {})
    order = with_input(datatype="UINT8", shape=[65_537], values=[0] * 65_537)
    with pytest.raises(orders.Refused, match="at most 65536"):
        orders.parse_order(json.dumps(order).encode(), limits)


@pytest.mark.parametrize("datatype", orders.ITEM_BYTES)
def test_drawn_arrays_have_their_type_and_shape(datatype: str) -> None:
    order = parse(with_input(datatype=datatype, shape=[2, 0, 3]))
    assert arrays.array_of(order["inputs"]["x"]).shape == (2, 0, 3)
    array = arrays.array_of({"datatype": datatype, "shape": [50], "values": None})
    assert array.itemsize == orders.ITEM_BYTES[datatype]
    assert 0 <= array.min() < array.max() <= 1


@pytest.mark.parametrize(
    ("op", "size_bytes", "reason"),
    [
        ("take", None, "the payload is missing"),
        ("measure", None, "the payload is missing"),
        ("measure", 1001, "1001 bytes; this agent takes 1000"),
        ("take", 1001, "1001 bytes; this agent takes 1000"),
        ("facts", 0, "takes no payload"),
        ("ping", 5, "takes no payload"),
        ("serve", 5, "takes no payload"),
    ],
)
def test_payloads_that_do_not_fit(op: str, size_bytes: int | None, reason: str) -> None:
    with pytest.raises(orders.Refused, match=reason):
        orders.check_payload({"op": op}, size_bytes, LIMITS)


def test_payloads_that_fit() -> None:
    for op, size_bytes in (("take", 0), ("measure", 1000), ("facts", None), ("probe", None)):
        orders.check_payload({"op": op}, size_bytes, LIMITS)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["power_s", "server", "repeats", "limit_s", "bytes", "in_flight", "idle_s", "inputs", "runs",
     "provider", "threads", "warmup", "profile", "model", "outputs", "x"]
)  # fmt: skip
LIKELY = st.sampled_from(
    ["edge", "cpu", "m", [1], ["y"], 1, {"x": TENSOR}, {"x": {**TENSOR, "values": [1, 2, 3]}}]
)
DRAWN = st.fixed_dictionaries(
    {"op": st.sampled_from(["facts", "take", "ping", "probe", "measure", "serve"]) | JSON_VALUES}
).flatmap(lambda op: st.dictionaries(KEYS, LIKELY | JSON_VALUES).map(lambda keys: {**keys, **op}))


def parses_or_is_refused(text: bytes) -> None:
    try:
        order = orders.parse_order(text, LIMITS)
    except orders.Refused:
        return
    # A worker reads it as it was checked.
    assert orders.parse_order(json.dumps(order).encode(), LIMITS) == order


@given(st.binary(max_size=200))
def test_any_bytes_are_an_order_or_refused(text: bytes) -> None:
    parses_or_is_refused(text)


@given(DRAWN | JSON_VALUES)
def test_any_json_is_an_order_or_refused(order: object) -> None:
    parses_or_is_refused(json.dumps(order).encode())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"edge": 1}', '{"edge": null}', '"edge"', "NaN"])
def test_addresses_of_peers_are_names_and_texts(text: str) -> None:
    with pytest.raises(ValueError, match="TRITIER_PEERS: "):
        peers.read_peers(text, "TRITIER_PEERS")
    assert peers.read_peers('{"edge": "h:1"}', "x") == {"edge": "h:1"}
