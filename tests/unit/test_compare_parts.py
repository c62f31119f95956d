"""Rounds, intervals, traces and files of comparisons; nothing is started."""

from __future__ import annotations

import itertools
import json
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.compared import compared, known_of, placed
from tests.helpers.models import load
from tests.helpers.planned import mixed
from tests.helpers.planning import CHAIN
from tritier.bench.environment import current
from tritier.documents import Comparison, Plan
from tritier.errors import InputError
from tritier.graph import LoadedModel
from tritier.workflow.compare import Known
from tritier.workflow.compare_files import written_measurement, written_prediction
from tritier.workflow.compare_memory import memory_of
from tritier.workflow.compare_rounds import (
    Rounds,
    duration_of,
    interval_text,
    latency_of,
    median_interval,
)
from tritier.workflow.compare_spans import Span, SpanCollector, Trace, local_port
from tritier.workflow.compare_traces import (
    Counted,
    TracedRequest,
    messages_of,
    timeline_of,
)

MS = 1_000_000


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


@pytest.fixture(scope="module")
def plan(chain: LoadedModel) -> Plan:
    return placed(mixed(chain), "abbaa")


@pytest.fixture(scope="module")
def known(chain: LoadedModel) -> Known:
    return known_of(mixed(chain))


def test_models_are_asked_in_turn_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    after: list[tuple[str, int]] = []
    rounds = Rounds(
        {name: lambda name=name: order.append(name) for name in "ab"},  # type: ignore[misc]
        lambda name, number: after.append((name, number)),
    )
    found = rounds.run(rounds=2, warmup=1)
    assert order == list("ababab")
    assert after == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert {name: len(times) for name, times in found.items()} == {"a": 2, "b": 2}


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    """Ranks of 15 values: those of the 4th and the 12th hold the median in 96.5 % of all draws."""
    assert median_interval([float(x) for x in range(15)]) == (3.0, 11.0)
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # The median is between the second and the last but one of 8 in 93 of 100 cases only.
    for count in (6, 7, 8):
        assert median_interval([float(x) for x in range(count)]) == (0.0, count - 1.0)
    assert median_interval([float(x) for x in range(9)]) == (1.0, 7.0)
    assert median_interval([float(x) for x in range(1000)]) == (468.0, 531.0)
    assert interval_text(5, 1.0, 2.0) == "1.00 to 2.00, least to greatest"
    assert interval_text(6, 1.0, 2.0, 1) == "1.0 to 2.0"
    found = latency_of([float(x) for x in range(101)])
    assert (found.median_ms, found.p90_ms, found.p99_ms, found.n) == (50.0, 90.0, 99.0, 101)
    assert found.low_ms < 50 < found.high_ms


def test_figures_of_few_times() -> None:
    assert duration_of([2.0]).std_ms == 0.0
    assert duration_of([-0.1, 1.0, 4.0]).median_ms == 1.0


def span(on: str, name: str, start: int, end: int, parent: str, own: str, **more: object) -> Span:
    return Span(on, name, "t", own, parent, start * MS, end * MS, False, more)


def request(**counted: Counted) -> TracedRequest:
    return TracedRequest(Trace("t", ""), 0, 30 * MS, counted)


def test_messages_are_what_a_call_takes_besides_its_component(plan: Plan) -> None:
    """The run is from 10 to 18; input takes 1 ms before it, output 2 after, and inference 4 ms
    besides, of which half is before."""
    spans = [
        span("a", "call m__x__c1", 2, 30, "app", "s1", component="c1", server="b",
             bytes_out=1000, bytes_in=50),
        span("b", "run m__x__c1", 10, 18, "s1", "s2"),
        span("a", "run m__x__c0", 0, 1, "app", "s3"),
    ]  # fmt: skip
    traced = request(c1=Counted(1, 0, 1 * MS, 12 * MS, 2 * MS))
    call, answer = messages_of(plan, [(traced, spans)])
    assert call.key == ("call", "c1", "a", "b")
    assert call.time is not None
    assert call.time.median_ms == pytest.approx(10 - 1 - 2 - 2)
    assert call.bytes == 1000
    assert answer.key == ("answer", "c1", "b", "a")
    assert answer.time is not None
    assert answer.time.median_ms == pytest.approx(30 - (18 + 2 + 2))
    rows = [(x.kind, x.name, x.place) for x in timeline_of(plan, traced, spans)]
    assert rows == [
        ("compute", "c0", ("a",)),
        ("send", "call c1", ("a", "b")),
        ("compute", "c1", ("b",)),
        ("send", "answer c1", ("b", "a")),
    ]


def test_puts_are_told_from_calls_and_from_fetches(plan: Plan) -> None:
    spans = [
        span("b", "call m__x__mailbox", 4, 9, "app", "s1", component="c1", server="c",
             bytes_out=7, bytes_in=1),
        span("a", "call m__x__mailbox", 4, 9, "app", "s2", component="c1", server="b",
             bytes_out=7, bytes_in=1),
    ]  # fmt: skip
    (put,) = messages_of(plan, [(request(), spans)])
    assert put.key == ("put", "c1", "b", "c")
    assert put.time is not None
    assert put.time.median_ms == 5.0


def test_a_message_that_is_missing_in_a_request_is_not_reported(plan: Plan) -> None:
    spans = [span("a", "call m__x__c1", 2, 30, "app", "s1", component="c1", server="b",
                  bytes_out=1, bytes_in=1)]  # fmt: skip
    assert messages_of(plan, [(request(), spans)]) == ()


def test_the_collector_keeps_spans_and_refuses_what_is_none() -> None:
    value = {"key": "service.name", "value": {"stringValue": "edge"}}
    item = {"traceId": "t1", "spanId": "s", "name": "run m", "startTimeUnixNano": "5",
            "endTimeUnixNano": "9"}  # fmt: skip
    body = {"resourceSpans": [{"resource": {"attributes": [value]},
                               "scopeSpans": [{"spans": [item]}]}]}  # fmt: skip
    with SpanCollector() as collector:
        sending = urllib.request.Request(collector.url + "/v1/traces", json.dumps(body).encode())
        with urllib.request.urlopen(sending) as answer:
            assert answer.status == 200
        assert not collector.add(b"[1]")
        (found,) = collector.of_trace("t1", 1)
        assert (found.server, found.start_ns, found.end_ns) == ("edge", 5, 9)
        assert local_port(collector.url) == int(collector.url.rpartition(":")[2])


def test_collectors_elsewhere_are_not_ours() -> None:
    for url in (None, "http://collector:4318", "http://127.0.0.1:4318/other", ""):
        assert local_port(url) is None


def test_a_prediction_is_written_before_and_never_replaced_after(
    tmp_path: Path, plan: Plan, known: Known
) -> None:
    path = tmp_path / "comparison.json"
    done = compared(plan, known, known)
    first = written_prediction(path, plan, done.predicted)
    assert Comparison.load(path) == first
    assert first.measured is None
    again = written_prediction(path, plan, done.predicted)
    assert again.predicted_at == first.predicted_at
    other = done.predicted.model_copy(update={"latency_ms": 1.0})
    with pytest.raises(InputError, match="has another prediction"):
        written_prediction(path, plan, other)
    assert written_prediction(path, plan, other, force=True).predicted == other
    assert done.measured is not None
    written_measurement(path, again, done.measured, current({"a": "2.51.0"}))
    found = Comparison.load(path)
    assert found.latency_error == pytest.approx(0.0)
    assert found.environment is not None
    assert found.environment.servers == {"a": "2.51.0"}
    for force in (False, True):
        with pytest.raises(InputError, match="was measured at"):
            written_prediction(path, plan, done.predicted, force)


def test_rows_and_errors_are_of_what_was_measured(plan: Plan, known: Known) -> None:
    found = compared(plan, known, known)
    assert found.measured is not None
    messages = itertools.islice(found.measured.messages, 1)
    part = found.measured.model_copy(update={"messages": tuple(messages)})
    row = found.model_copy(update={"measured": part})
    assert [x.error is None for x in row.wires] == [False, True]
    assert set(row.errors) == {"latency", "components", "wires"}
    assert row.errors["components"].n == 3
    bare = found.model_copy(update={"measured": None})
    assert bare.errors == {}
    assert [x.measured for x in bare.components] == [None] * 3


def test_memory_elsewhere_is_not_invented(plan: Plan) -> None:
    found, why = memory_of(plan, None)
    assert found == {}
    assert "only servers of the lab" in why[0]
