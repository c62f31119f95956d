"""What three servers tell of a request: one trace, lines in their logs, metrics; and what they do
not run when nobody waits for it any more."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.helpers.otlp import CollectedSpan, Collector
from tests.helpers.shared_models import load_flat
from tests.integration.conftest import Bench, peer_plan, placement, three_servers
from tritier.deployment.lab import Lab
from tritier.documents import Plan
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import GenerateOptions
from tritier.workflow import gather_inputs, plan_from_placement

pytestmark = pytest.mark.integration
TRACE = "0af7651916cd43dd8448eb211c80319c"
APP = "b7ad6b7169203331"
# How late a word of a cancellation may be.
_GRACE_S = 0.5
PARENT = f"00-{TRACE}-{APP}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Bench]:
    """A lab whose servers send spans and log each request; its edge is slow."""
    folder = tmp_path_factory.mktemp("traced")
    lab, spec = Lab(folder / "lab"), three_servers(slowdown=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITIER_OTLP", collector.url)
        patch.setenv("TRITIER_LOG", "requests")
        state = lab.up(spec, None)
    try:
        yield Bench(spec, lab, state, folder)
    finally:
        lab.down()


class App:
    """A plan on the three servers, and an app that calls it."""

    def __init__(self, bench: Bench, plan: Plan, urls: dict[str, str]) -> None:
        self.bench = bench
        self.plan = plan
        self.urls = urls
        self.client = triton.InferenceServerClient(urls["device"])
        self._arrays = gather_inputs(plan, 1, 0)[0]

    def ask(self, **options: Any) -> str:
        """The error text, empty if there was none."""
        inputs = []
        for name, array in self._arrays.items():
            item = triton.InferInput(name, list(array.shape), "FP32")
            item.set_data_from_numpy(array)
            inputs.append(item)
        try:
            self.client.infer("espcn", inputs, **options)
        except InferenceServerException as error:
            return str(error)
        return ""

    def model(self, component: str, suffix: str = "") -> str:
        return f"espcn__{self.plan.id}__{component}{suffix}"


@pytest.fixture(scope="class")
def app(traced: Bench, espcn: LoadedModel) -> Iterator[App]:
    plan = peer_plan(espcn, traced.spec)
    with traced.deployed(plan, espcn, GenerateOptions(deadline_ms=30_000)) as (_, at):
        app = App(traced, plan, dict(at.urls))
        assert app.ask() == ""
        yield app
        app.client.close()


@pytest.fixture(scope="class")
def direct(traced: Bench, espcn: LoadedModel) -> Iterator[App]:
    """The first layers on the edge, called without a stage, and the rest on the device."""
    groups = dict.fromkeys(("conv1", "relu1", "conv2", "relu2"), "edge")
    graph = build_layer_graph(espcn.proto)
    plan = plan_from_placement(
        espcn, graph, placement(espcn, groups, "device"), traced.spec, "espcn"
    )
    # Not batched: six requests are six runs, one after the other.
    options = GenerateOptions(deadline_ms=30_000, max_batch_size=1)
    with traced.deployed(plan, espcn, options) as (_, at):
        app = App(traced, plan, dict(at.urls))
        assert app.ask() == ""
        yield app
        app.client.close()


class TestWhatIsTold:
    @pytest.mark.parametrize("way", ["header", "parameter"])
    def test_one_request_is_one_trace(self, app: App, collector: Collector, way: str) -> None:
        collector.spans.clear()
        told = {"traceparent": PARENT}
        assert app.ask(**{"headers" if way == "header" else "parameters": told}) == ""
        servers = {c.id: c.server for c in app.plan.components}
        # A run of each component, a call of each remote one, and the tensor from edge to cloud.
        remote = [c for c, server in servers.items() if server != "device"]
        spans = collector.wait_for(len(servers) + len(remote) + 2)
        assert {span.trace_id for span in spans} == {TRACE}
        assert {span.service for span in spans} == {"device", "edge", "cloud"}
        by_id = {span.span_id: span for span in spans}
        for component, server in servers.items():
            run = _only(spans, f"run {app.model(component)}")
            assert run.service == server
            if server == "device":
                assert run.parent_id == APP
                continue
            call = _only(spans, f"call {app.model(component, '__stage')}")
            assert (call.service, call.parent_id, call.kind) == ("device", APP, 3)
            assert run.parent_id == call.span_id
            assert call.start_ns <= run.start_ns <= run.end_ns <= call.end_ns + 1_000_000_000
        put = next(s for s in spans if s.service == "edge" and s.name.startswith("call "))
        assert by_id[put.parent_id].attributes["server"] == "edge"
        assert put.attributes["bytes_out"] > 1000
        take = next(s for s in spans if s.service == "cloud" and s.name == "mailbox take")
        assert by_id[take.parent_id].attributes["server"] == "cloud"

    def test_without_a_traceparent_there_are_no_spans(self, app: App, collector: Collector) -> None:
        time.sleep(1)
        collector.spans.clear()
        assert app.ask() == ""
        time.sleep(1.5)
        assert collector.spans == []

    def test_each_hop_is_a_line_in_the_log(self, app: App) -> None:
        assert app.ask(request_id="seen", parameters={"tritier_attempt": 2}) == ""
        lines = _wait_for(
            lambda: [x for x in _log(app.bench, "device") if x.get("request") == "seen"]
        )
        stage = next(x for x in lines if x["model"] == app.model("c0", "__call"))
        assert stage["event"] == "call"
        assert (stage["server"], stage["component"], stage["on"]) == ("edge", "c0", "device")
        assert (stage["plan"], stage["status"]) == (app.plan.id, "OK")
        assert (stage["attempt"], stage["tries"]) == (2, 1)
        assert stage["bytes_out"] > 1000
        assert stage["ms"] > 0
        # The same request, by the same name, on the other servers.
        for server in ("edge", "cloud"):
            _wait_for(
                lambda at=server: [x for x in _log(app.bench, at) if x.get("request") == "seen"]
            )

    def test_metrics_of_hops_and_mailboxes(self, app: App) -> None:
        labels = f'component="c0",model="{app.model("c0", "__call")}",plan="{app.plan.id}"'
        row = f'tritier_calls_total{{{labels},server="edge"}}'
        before = _wait_for(lambda: _metrics(app.bench, "device").get(row))
        assert app.ask() == ""
        _wait_for(lambda: _metrics(app.bench, "device").get(row) == before + 1)
        found = _metrics(app.bench, "device")
        bucket = row.replace("calls_total", "call_ms_bucket").replace(",model", ',le="+Inf",model')
        assert found[bucket] == before + 1
        assert found[row.replace("calls_total", "sent_bytes_total")] > 1000
        names = {name.split("{")[0] for name in _metrics(app.bench, "cloud")}
        assert {"tritier_mailbox_bytes", "tritier_mailbox_waiting"} <= names


class TestNobodyWaits:
    """The edge runs one request at a time, for about a second; six come, and their apps give up."""

    def test_after_the_deadline_nothing_is_run(self, direct: App, collector: Collector) -> None:
        ended, failures = self._six(direct, collector, timeout=1_500_000)
        assert sum("DEADLINE_EXCEEDED" in text for text in failures) >= 2
        starts = self._starts_s(direct, collector)
        assert starts
        assert max(starts) < ended + _GRACE_S

    def test_control_without_a_deadline_all_are_run(
        self, direct: App, collector: Collector
    ) -> None:
        began = time.time()
        _, failures = self._six(direct, collector)
        assert set(failures) == {""}
        starts = self._starts_s(direct, collector)
        assert len(starts) == 6
        assert max(starts) > began + 1.5 + _GRACE_S

    def test_a_withdrawn_request_ends_on_all_servers(
        self, direct: App, collector: Collector
    ) -> None:
        withdrawal = load_flat("withdrawal", "shared")

        def withdraw() -> None:
            for index in range(6):
                assert withdrawal.withdraw("device", direct.plan.id, f"{index:032x}") > 0

        ended, failures = self._six(direct, collector, meanwhile=withdraw)
        assert sum("CANCELLED" in text for text in failures) >= 4
        starts = self._starts_s(direct, collector)
        assert 1 <= len(starts) <= 2
        assert max(starts) < ended + _GRACE_S

    @staticmethod
    def _six(
        app: App, collector: Collector, meanwhile: Any = lambda: None, **options: Any
    ) -> tuple[float, list[str]]:
        """(when the last had its answer, by the clock of the spans; error texts)."""
        assert app.ask() == ""
        collector.spans.clear()
        with ThreadPoolExecutor(6) as pool:
            asked = [
                pool.submit(
                    app.ask,
                    headers={"traceparent": PARENT},
                    parameters={"tritier_request": f"{index:032x}"},
                    **options,
                )
                for index in range(6)
            ]
            time.sleep(0.3)
            meanwhile()
            texts = [job.result(timeout=90) for job in asked]
        return time.time(), texts

    @staticmethod
    def _starts_s(app: App, collector: Collector) -> list[float]:
        """When the edge began to run a request, once it has nothing more to do."""
        assert app.ask() == ""
        time.sleep(1)  # spans come a little later
        name = f"run {app.model('c0')}"
        return [span.start_ns / 1e9 for span in collector.spans if span.name == name]


class TestLateStage:
    def test_what_a_late_stage_made_is_not_sent_on(self, app: App) -> None:
        """Triton runs the component of a stage to its end; its put to the cloud does not start."""
        assert app.ask() == ""
        took_s, before = _took_s(app), self._puts(app)
        text = app.ask(timeout=int(took_s * 0.5e6))
        assert "DEADLINE_EXCEEDED" in text or "deadline" in text
        time.sleep(took_s * 3)
        assert self._puts(app) == before
        assert app.ask() == ""
        assert self._puts(app) == before + 1

    @staticmethod
    def _puts(app: App) -> int:
        """Calls that carried a tensor to the mailbox of the cloud."""
        time.sleep(1)  # metrics come a little later
        found = _metrics(app.bench, "edge")
        sent = [n for n in found if n.startswith("tritier_call_ms_count") and "__put_cloud" in n]
        refused = [n for n in found if n.startswith("tritier_call_failures_total")]
        return int(sum(found[n] for n in sent) - sum(found[n] for n in refused))


def _took_s(app: App) -> float:
    started = time.monotonic()
    assert app.ask() == ""
    return time.monotonic() - started


def _only(spans: list[CollectedSpan], name: str) -> CollectedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def _log(bench: Bench, server: str) -> list[dict[str, Any]]:
    """The JSON lines in a server's log."""
    path = next(s.log_file for s in bench.state.servers if s.name == server)
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"event"')]


def _metrics(bench: Bench, server: str) -> dict[str, float]:
    """Metrics of Tritier by name and labels, without the label that each process draws."""
    url = next(s.metrics_url for s in bench.state.servers if s.name == server)
    with urllib.request.urlopen(f"http://{url}/metrics", timeout=10) as answer:
        text = re.sub(r'run="\w+",', "", answer.read().decode())
    rows = [line.rpartition(" ") for line in text.splitlines()]
    return {name: float(value) for name, _, value in rows if name.startswith("tritier_")}


def _wait_for(look: Any, timeout_s: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found
