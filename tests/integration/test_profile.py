"""Timing profiles through real Tritons: what they hold, that they are resumed, and bad servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.models import load
from tests.integration.conftest import Bench
from tritier.deployment.client import TritonServer
from tritier.documents import TimingProfile
from tritier.errors import ServerError
from tritier.graph import LoadedModel, profile_model
from tritier.network.agent import Agent
from tritier.workflow import ProfileRequest, Runs, profile_on_servers, timing_bench, timing_run

pytestmark = pytest.mark.integration


def request_for(model: LoadedModel, store: Path, **changes: Any) -> ProfileRequest:
    made = ProfileRequest(
        model, profile_model(model, {"batch": 1}), store, runs=Runs(1, 3, 1), components=3
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timing")


@pytest.fixture(scope="module")
def profiles(bench: Bench, espcn: LoadedModel, store: Path) -> list[TimingProfile]:
    """Of two of the servers."""
    return profile_on_servers(request_for(espcn, store), bench.spec.servers[:2], bench.state.urls)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What the agents are asked for. They answer as ever."""
    found: list[Mapping[str, Any]] = []
    original = Agent.ask

    def ask(self: Agent, order: Any, payload: bytes | None = None) -> Any:
        found.append(order)
        return original(self, order, payload)

    monkeypatch.setattr(Agent, "ask", ask)
    return found


def operations(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    return [order["op"] for order in asked]


def test_a_profile_times_every_layer_and_adds_up(
    profiles: list[TimingProfile], espcn: LoadedModel
) -> None:
    for found, server in zip(profiles, ("device", "edge"), strict=True):
        assert found.server == server
        names = [layer.name for layer in profile_model(espcn, {"batch": 1}).layers]
        assert [layer.name for layer in found.layers] == names
        convs = [layer for layer in found.layers if layer.name.startswith("conv")]
        assert all(layer.float_ms > 0 and layer.int8_ms is not None for layer in convs)
        assert found.unmapped_float_ms == 0
        mib = 4 * (224 * 224 + 672 * 672) / 2**20
        serving = found.serving
        serving_ms = serving.call_ms + 2 * serving.tensor_ms + serving.copy_ms_per_mib * mib
        total = sum(layer.float_ms for layer in found.layers)
        assert total + serving_ms == pytest.approx(found.whole.median_ms)
        assert found.mixed is not None
        gained = sum(layer.gain_ms for layer in found.layers)
        # No layer can take less than nothing, so that the sum may fall short where noise is large.
        assert gained <= found.whole.median_ms - found.mixed.median_ms + 1e-6


def test_components_are_checked_float_and_mixed(profiles: list[TimingProfile]) -> None:
    for found in profiles:
        assert [check.quantized for check in found.components] == [False] * 3 + [True] * 3
        assert all(check.layers >= 2 for check in found.components)
        assert all(check.measured_bytes > 0 for check in found.components)
        assert all(check.predicted_bytes for check in found.components)
        # Loose, for a machine that others share: a wrong unit or no layer is off by far more.
        assert all(-0.8 < check.error < 4 for check in found.components)


def test_codecs_have_a_price_on_every_server(profiles: list[TimingProfile]) -> None:
    costs = []
    for found in profiles:
        assert found.codings is not None
        assert [item.codec for item in found.codings] == ["fp16", "int8", "uint8"]
        for item in found.codings:
            costs += [item.encoding_ms, item.encoding_ms_per_mib]
            costs += [item.decoding_ms, item.decoding_ms_per_mib]
    # Of three runs some are 0 by the machine's noise, but not all of 24.
    assert sum(costs) > 0


def test_codecs_are_measured_once_for_all_models(
    bench: Bench,
    profiles: list[TimingProfile],
    tmp_path: Path,
    store: Path,
    asked: list[Mapping[str, Any]],
) -> None:
    # Enough work that the machine's noise in serving it stays small beside it.
    layers = " ".join(f"[l{n}] t{n + 1} = Tanh(t{n})" for n in range(20))
    text = f"g (float[batch,100000] t0) => (float[batch,100000] t20) {{ {layers} }}"
    request = request_for(load(tmp_path, text), store, components=0)
    (found,) = profile_on_servers(request, bench.spec.servers[:1], bench.state.urls)
    assert found.codings == profiles[0].codings
    # What is served is the model and the five models that do nothing, each 1 + 3 times.
    assert operations(asked).count("serve") == 6 * 4


def test_nothing_stays_loaded(bench: Bench, profiles: list[TimingProfile]) -> None:
    assert profiles
    for name, url in bench.state.urls.items():
        with TritonServer(name, url) as server:
            loaded = {x for x, state in server.index().items() if state == "READY"}
        assert not [x for x in loaded if x.startswith("tritier_")]


def test_what_was_measured_is_not_measured_again(
    bench: Bench,
    profiles: list[TimingProfile],
    espcn: LoadedModel,
    store: Path,
    asked: list[Mapping[str, Any]],
) -> None:
    again = profile_on_servers(request_for(espcn, store), bench.spec.servers[:2], bench.state.urls)
    assert set(operations(asked)) == {"facts"}
    assert [x.layers for x in again] == [x.layers for x in profiles]


def test_fresh_measures_all_again_but_each_thing_once(
    bench: Bench,
    profiles: list[TimingProfile],
    espcn: LoadedModel,
    store: Path,
    asked: list[Mapping[str, Any]],
) -> None:
    assert profiles
    request = request_for(espcn, store, components=0, fresh=True)
    profile_on_servers(request, bench.spec.servers[:1], bench.state.urls)
    # Both models are profiled once, and run alone once, as is the one that does nothing.
    assert operations(asked).count("measure") == 2 + 3


def test_other_settings_are_measured_anew(
    bench: Bench,
    profiles: list[TimingProfile],
    espcn: LoadedModel,
    store: Path,
    asked: list[Mapping[str, Any]],
) -> None:
    assert profiles
    request = request_for(espcn, store, components=0)
    threads = bench.spec.servers[0].model_copy(update={"threads": 2})
    profile_on_servers(request, [threads], bench.state.urls)
    assert {"measure", "serve"} <= set(operations(asked))


def test_servers_rest_before_runs_but_not_before_what_has_no_layers(
    bench: Bench,
    espcn: LoadedModel,
    store: Path,
    asked: list[Mapping[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = request_for(espcn, store, components=0)
    (busy,) = profile_on_servers(plain, bench.spec.servers[:1], bench.state.urls)
    asked.clear()
    rested: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=rested.append)
    monkeypatch.setattr(timing_bench, "time", clock)
    runs = Runs(1, 3, 1, pause_ms=2.0)
    (found,) = profile_on_servers(
        replace(plain, runs=runs), bench.spec.servers[:1], bench.state.urls
    )
    assert (busy.settings.pause_ms, found.settings.pause_ms) == (0.0, 2.0)
    assert found.codings == busy.codings  # which no pause changes
    # Profiled, and alone, the model and the one with int8 layers; what does nothing is known.
    assert [x["idle_s"] for x in asked if x["op"] == "measure"] == [0.002] * 4
    assert rested.count(0.002) == 2 * 4


def test_a_run_that_was_cut_off_goes_on(
    bench: Bench,
    espcn: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Mapping[str, Any]],
) -> None:
    """Each layer alone, interrupted after a few: they are not run again."""
    request = request_for(espcn, tmp_path, method="layers", components=0)
    original = Agent.ask

    def ask(self: Agent, order: Any, payload: bytes | None = None) -> Any:
        if operations(asked).count("measure") >= 4:
            raise KeyboardInterrupt
        return original(self, order, payload)

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "ask", ask)
        with pytest.raises(KeyboardInterrupt):
            profile_on_servers(request, bench.spec.servers[:1], bench.state.urls)
    assert operations(asked).count("measure") == 4
    asked.clear()
    (found,) = profile_on_servers(request, bench.spec.servers[:1], bench.state.urls)
    layers = len(found.layers)
    quantized = sum(layer.int8_ms is not None for layer in found.layers)
    others, mixed = 2, 1  # for memory: the whole model, the one that does nothing; the mixed one
    assert operations(asked).count("measure") == layers + quantized + others + mixed - 4
    assert found.serving.call_ms == 0, "the published formula knows of layers only"


def test_a_server_that_can_not_be_reached_does_not_lose_the_others(
    bench: Bench, espcn: LoadedModel, store: Path
) -> None:
    done: list[str] = []
    urls = {**bench.state.urls, "device": "127.0.0.1:9"}
    with pytest.raises(ServerError, match=r"device: .*can't"):
        profile_on_servers(
            request_for(espcn, store), bench.spec.servers[:2], urls,
            done=lambda found: done.append(found.server),
        )  # fmt: skip
    assert done == ["edge"]


def test_after_ctrl_c_nothing_stays_loaded(
    bench: Bench, espcn: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal reaches the thread that waits; those that work end at their next step."""
    request = request_for(espcn, tmp_path, components=0)
    serving = threading.Event()

    def wait(_: object) -> None:
        assert serving.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(timing_run, "wait", wait)

    def report(_server: str, step: str, _share: float) -> None:
        if step.startswith("serving"):
            serving.set()

    with pytest.raises(KeyboardInterrupt):
        profile_on_servers(request, bench.spec.servers[:1], bench.state.urls, report)
    with TritonServer("device", bench.state.urls["device"]) as server:
        loaded = {name for name, state in server.index().items() if state == "READY"}
        assert not [name for name in loaded if name.startswith("tritier_")]
        with pytest.raises(ServerError):
            server.config("tritier_timing__whole")
        with pytest.raises(ServerError):
            server.config("tritier_agent")


def test_one_server_that_fails_does_not_lose_the_others(
    bench: Bench, espcn: LoadedModel, tmp_path: Path
) -> None:
    """A provider that the server does not have."""
    done: list[str] = []
    servers = [
        bench.spec.servers[0].model_copy(update={"execution_provider": "cuda"}),
        bench.spec.servers[1],
    ]
    with pytest.raises(ServerError, match=r"(?s)device.*CUDAExecutionProvider"):
        profile_on_servers(
            request_for(espcn, tmp_path, components=0, method="layers"),
            servers,
            bench.state.urls,
            done=lambda found: done.append(found.server),
        )
    assert done == ["edge"]
