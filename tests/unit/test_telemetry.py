"""Log lines, metrics and spans of the models that run inside Triton."""

from __future__ import annotations

import json
import sys
import threading
import types
from typing import Any

import pytest

from tests.helpers.otlp import Collector
from tests.helpers.shared_models import flat_imports

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Server:
    """What the models see of Triton here: it takes lines and metrics, or refuses them."""

    def __init__(self) -> None:
        self.metrics: dict[tuple[str, ...], float] = {}
        self.refuses = False

    def module(self) -> types.ModuleType:
        server = self

        class Metric:
            def __init__(self, name: str, labels: dict[str, str]) -> None:
                # No two processes may have the same metric: the first to end would free it.
                assert labels["run"]
                rest = sorted((k, v) for k, v in labels.items() if k != "run")
                self._key = (name, *(f"{k}={v}" for k, v in rest))

            def increment(self, amount: float) -> None:
                server.metrics[self._key] = server.metrics.get(self._key, 0) + amount

            def set(self, value: float) -> None:
                server.metrics[self._key] = value

        class MetricFamily:
            COUNTER, GAUGE = 0, 1

            def __init__(self, name: str, description: str, kind: int) -> None:
                assert description
                assert kind in (0, 1)
                if server.refuses:
                    raise RuntimeError("metrics are off")
                self._name = name

            def Metric(self, labels: dict[str, str]) -> Metric:  # noqa: N802 - Triton's name
                return Metric(self._name, labels)

        module = types.ModuleType("triton_python_backend_utils")
        vars(module).update(MetricFamily=MetricFamily)
        return module


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server.module())
    monkeypatch.delenv("TRITIER_LOG", raising=False)
    monkeypatch.delenv("TRITIER_OTLP", raising=False)
    return server


@pytest.fixture
def telemetry(server: Server) -> Any:  # noqa: ARG001 - it must be there at the import
    with flat_imports("shared"):
        import telemetry  # type: ignore[import-not-found]

        yield telemetry
        telemetry.close()


class Lines:
    """What was written to standard error since the last time that it was looked at."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._capfd.readouterr().err.splitlines()]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    return Lines(capfd)


class TestLog:
    def test_failures_are_written_and_the_rest_is_not(self, telemetry: Any, lines: Lines) -> None:
        log = telemetry.Log(server="edge", plan=None)
        log.request("call", ms=1.5)
        log.request("call", "UNAVAILABLE", reason='a "quoted"\nline')
        log.event("ejected", plan="1a2b3c4d")
        telemetry.close()
        first, second = lines.read()
        assert (first["event"], second["event"]) == ("call", "ejected")
        assert (first["server"], first["status"]) == ("edge", "UNAVAILABLE")
        assert first["reason"] == 'a "quoted"\nline'
        assert "plan" not in first

    @pytest.mark.parametrize(("level", "count"), [("off", 0), ("failures", 1), ("REQUESTS", 2)])
    def test_levels(
        self,
        telemetry: Any,
        lines: Lines,
        monkeypatch: pytest.MonkeyPatch,
        level: str,
        count: int,
    ) -> None:
        monkeypatch.setenv("TRITIER_LOG", level)
        log = telemetry.Log()
        log.request("call")
        log.request("call", "INTERNAL")
        telemetry.close()
        assert len(lines.read()) == count

    def test_an_unknown_level_is_named(
        self, telemetry: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITIER_LOG", "loud")
        telemetry.Log()
        telemetry.close()
        (line,) = lines.read()
        assert "'loud'; allowed are off, failures, requests" in line["status"]

    def test_a_flood_is_counted_not_kept(self, telemetry: Any, lines: Lines) -> None:
        log = telemetry.Log()
        for _ in range(5000):
            log.event("flood")
        telemetry.close()
        found = lines.read()
        lost = [line for line in found if line["event"] == "log"]
        assert len(found) <= 5000 - 1000
        assert "came too fast" in lost[0]["status"]


class TestMetrics:
    def test_changes_are_added_up(self, telemetry: Any, server: Server) -> None:
        calls = telemetry.counter("tritier_x_total", "calls", {"server": "edge"})
        assert telemetry.counter("tritier_x_total", "calls", {"server": "edge"}) is calls
        for _ in range(100):
            calls.add()
        telemetry.gauge("tritier_y", "now", {}).set(7)
        telemetry.close()
        assert server.metrics == {("tritier_x_total", "server=edge"): 100, ("tritier_y",): 7}

    def test_a_histogram(self, telemetry: Any, server: Server) -> None:
        times = telemetry.histogram("t_ms", "times", {"a": "b"}, bounds=(1, 10))
        for value in (0.5, 1, 2, 30):
            times.observe(value)
        telemetry.close()
        found = {key[-1] if "le=" in key[-1] else key[0]: v for key, v in server.metrics.items()}
        assert found == {"le=1": 2, "le=10": 3, "le=+Inf": 4, "t_ms_count": 4, "t_ms_sum": 33.5}

    def test_a_server_without_metrics_is_no_error(self, telemetry: Any, server: Server) -> None:
        server.refuses = True
        telemetry.counter("tritier_x_total", "calls", {}).add()
        telemetry.close()
        assert server.metrics == {}

    def test_metrics_are_there_before_the_first_request(
        self, telemetry: Any, server: Server
    ) -> None:
        telemetry.counter("tritier_x_total", "calls", {})
        assert server.metrics == {}
        telemetry.begin()
        assert server.metrics == {("tritier_x_total",): 0}

    def test_what_a_hanging_thread_uses_is_not_given_back(
        self, telemetry: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measures = telemetry.measures
        monkeypatch.setattr(telemetry.background, "_CLOSE_PATIENCE_S", 0.05)
        may_end = threading.Event()
        telemetry.counter("tritier_x_total", "calls", {}).add()
        telemetry.background.worker().register(may_end.wait)
        telemetry.close()
        assert measures._families
        may_end.set()
        monkeypatch.undo()
        telemetry.close()
        assert not measures._families

    def test_nothing_starts_after_the_end(self, telemetry: Any, server: Server) -> None:
        telemetry.close()
        telemetry.counter("tritier_x_total", "calls", {}).add()
        telemetry.close()
        assert server.metrics == {}


class TestTraces:
    def test_off_it_hands_on_what_came(self, telemetry: Any) -> None:
        tracer = telemetry.Tracer("device")
        assert not tracer.is_on
        assert tracer.start("x", PARENT).traceparent == PARENT
        assert tracer.start("x", None, root=True).traceparent is None

    def test_a_child_is_sent(self, telemetry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with Collector() as collector:
            monkeypatch.setenv("TRITIER_OTLP", collector.url)
            tracer = telemetry.Tracer("device")
            parent = tracer.start("outer", PARENT, attempt=1, share=0.5, good=True, none=None)
            child = tracer.start("inner", parent.traceparent)
            child.end("it broke", bytes_out=5)
            child.end()
            parent.end()
            telemetry.close()
        inner, outer = sorted(collector.spans, key=lambda span: span.name)
        assert (inner.trace_id, outer.trace_id) == (TRACE, TRACE)
        assert (outer.parent_id, inner.parent_id) == ("b7ad6b7169203331", outer.span_id)
        assert (inner.service, inner.error) == ("device", "it broke")
        assert outer.attributes == {"attempt": 1, "share": 0.5, "good": True}
        assert inner.attributes == {"bytes_out": 5}
        assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns

    @pytest.mark.parametrize(
        "parent",
        [
            None,
            "",
            7,
            PARENT[:-2] + "00",
            PARENT.replace(TRACE, "0" * 32),
            PARENT.upper(),
            "ff" + PARENT[2:],
            PARENT + "-more",
            "00-1-2-01",
        ],
    )
    def test_without_a_sampled_parent_nothing_is_recorded(
        self, telemetry: Any, monkeypatch: pytest.MonkeyPatch, parent: Any
    ) -> None:
        monkeypatch.setenv("TRITIER_OTLP", "http://127.0.0.1:1")
        assert not telemetry.Tracer("device").start("x", parent).is_recorded

    def test_a_root_where_nothing_came(
        self, telemetry: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITIER_OTLP", "http://127.0.0.1:1")
        span = telemetry.Tracer("device").start("x", None, root=True)
        assert span.is_recorded
        assert span.traceparent.startswith("00-")

    @pytest.mark.parametrize("url", ["collector:4318", "file:///etc", "http://u:p@host:1"])
    def test_a_bad_address_is_named_and_nothing_is_sent(
        self, telemetry: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.setenv("TRITIER_OTLP", url)
        assert not telemetry.Tracer("device").is_on
        telemetry.close()
        assert url in lines.read()[0]["status"]

    def test_a_collector_that_is_away_is_a_line_in_the_log(
        self, telemetry: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITIER_OTLP", "http://127.0.0.1:1")
        telemetry.Tracer("device").start("x", PARENT).end()
        telemetry.close()
        assert "1 spans were not taken" in lines.read()[0]["status"]
