"""Documents, names and sizes of which no placement problem can be made: all are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.planning import (
    CHAIN,
    TIMES,
    build,
    faults,
    link,
    network,
    noise,
    quantizing,
    request,
    servers,
    timing,
)
from tritier.documents import (
    Quantization,
    Ranges,
)
from tritier.errors import UsageError
from tritier.graph import LoadedModel, profile_model
from tritier.workflow.problem import build_problem


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def test_a_server_without_profile_is_left_out(chain: LoadedModel) -> None:
    item = request(chain)
    alone = build_problem(replace(item, timings={"a": item.timings["a"]}))
    assert alone.problem.servers == ("a",)
    assert alone.links == {}
    (warning,) = alone.warnings
    assert "server 'b' has no timing profile and is left out" in warning
    missing = replace(item, timings={"b": item.timings["b"]}, pins={"c1": "a"})
    found = faults(missing)
    assert "the entry 'a' has no timing profile" in found
    assert "the pin of 'c1': 'a' has no timing profile" in found


def test_documents_of_other_models_are_all_named(chain: LoadedModel, tmp_path: Path) -> None:
    other = load(tmp_path, CHAIN.replace("w1 = {1}", "w1 = {5}"))
    item = quantizing(
        chain,
        timings={"a": timing(chain, "a"), "b": timing(other, "b")},
        noise=[noise(other)],
        profile=profile_model(other),
        ranges=Ranges(model_sha256=other.sha256, method="minmax", samples=1, ranges={}),
    )
    found = faults(item).splitlines()
    assert [line.split(" is of another model")[0].split(" are of")[0] for line in found] == [
        "the model profile",
        "the timing profile of 'b'",
        "the noise model with int8 activations, int8 weights",
        "the ranges",
    ]
    assert all(chain.sha256[:12] in line and other.sha256[:12] in line for line in found)


def test_timing_profiles_of_other_layers_settings_sizes_or_servers(chain: LoadedModel) -> None:
    odd = dict(list(TIMES.items())[1:]) | {"extra": (1.0, None)}
    both = {"a": timing(chain, "a"), "b": timing(chain, "a", odd, dims={"N": 2})}
    given = servers(b={"quantization": {"activation_type": "uint8", "per_channel": True}})
    found = faults(request(chain, timings=both, servers=given, pins={"nothing": "a", "c1": "q"}))
    for text in (
        "'b' was measured on 'a'",
        "'b' is for the sizes N=2, the model profile for of the model itself",
        "measured with int8 activations, int8 weights, the servers file has uint8 activations, "
        "int8 weights per channel",
        "'b' lacks 'c1'",
        "'b' has 'extra', which the model does not have",
        "pins: 'nothing' is no layer",
        "the pin of 'c1': 'q' is no server",
    ):
        assert text in found, text
    assert Quantization() == build(chain).request.timings["b"].settings.quantization


def test_another_execution_is_told(chain: LoadedModel) -> None:
    (warning,) = build(chain, servers=servers(b={"threads": 4})).warnings
    assert "'b' was measured with cpu and 1 threads, the servers file has cpu and 4" in warning


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"closed_links": [("a", "q")]}, "closed links: 'q' is no server"),
        ({"closed_links": [("a", "a")]}, "a link from 'a' to itself"),
        ({"wire_codecs": {("a", "b"): ("fp8",)}}, "a -> b: 'fp8'; allowed are as_is, fp16, int8"),
        ({"wire_codecs": {("a", "b"): ()}}, "a -> b: none; allowed are as_is"),
        ({"local_tensors": ["q*"]}, "local_tensors: 'q*' is no tensor and matches none"),
        ({"int8_tensors": ["q"]}, "int8_tensors: 'q' is no tensor"),
        ({"forbidden": {"c1": ["q"]}}, "forbidden servers of 'c1': 'q' is no server"),
        ({"memory_mib": {"q": 1.0}}, "a memory limit: 'q' is no server"),
        ({"server_energy_joule": {"q": 1.0}}, "an energy limit: 'q' is no server"),
        ({"network": network(link("a", "b", 0, 1))}, "has 0.0 MiB/s for a -> b"),
    ],
)
def test_names_and_numbers_that_can_not_be(
    chain: LoadedModel, changes: dict[str, Any], fault: str
) -> None:
    assert fault in faults(request(chain, **changes))


def test_unknown_sizes_are_asked_for(tmp_path: Path) -> None:
    text = "g (float[1,C,H] x) => (float[1,C,H] y) { [r] y = Relu(x) }"
    model = load(tmp_path, text)
    with pytest.raises(UsageError, match=r"the size of .x., .y. is unknown: .*--dim C=N --dim H=N"):
        build(model, times={"r": (1.0, None)})
    sizes = {"C": 3, "H": 5}
    known = {name: timing(model, name, {"r": (1.0, None)}, dims=sizes) for name in "ab"}
    built = build(model, profile=profile_model(model, sizes), timings=known)
    assert built.flow_bytes.tolist() == [60, 60]


def test_sizes_that_hang_on_values_are_refused(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float y) {
        [n] i = NonZero(x) [f] f = Cast<to = 1>(i) [m] y = ReduceSum<keepdims = 0>(f) }"""
    model = load(tmp_path, text)
    times: dict[str, tuple[float, float | None]] = dict.fromkeys("nfm", (1.0, None))
    with pytest.raises(UsageError, match="the size of 'i', 'f' is unknown, as it hangs on values"):
        build(model, times=times)


def test_types_that_can_not_cross_stay(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float[4] y) {
        [s] q = SequenceConstruct(x, x) [c] y = ConcatFromSequence<axis = 0>(q) }"""
    model = load(tmp_path, text.replace("float[4] y", "float[8] y"))
    built = build(model, times={"s": (1.0, None), "c": (1.0, None)})
    assert np.isinf(built.problem.transfer_ms[built.flow_at["q"], 0, 1])
    assert np.isfinite(built.problem.transfer_ms[built.flow_at["x"], 0, 1])
    assert "'q' can't go between servers, by their types" in built.warnings[0]
