"""Models are unloaded and loaded again, many times, while requests come: no process dies of it, no
model gets stuck, and what is answered is right.

No app gives up here before it has its answer: on Triton 24.10 that alone can leave a model that is
UNLOADING for ever, whatever its code (see docs/observability.md).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
import tritonclient.grpc as triton

from tests.helpers.hops import ask, load_echo, load_proxy
from tests.integration.router_stage import ROUTER, Stage
from tests.integration.test_mailbox_leaks import load_mailbox, put_and_take
from tritier.deployment.client import TritonServer

pytestmark = pytest.mark.integration
_ROUNDS = 10
_STUCK_S = 30.0
_THREADS = 2
_CLASSES = {"normal": {"plans": ["p1", "p2", "whole"], "deadline_ms": 5000, "hedge": True}}
# What a process says of itself when it dies.
_LAST_WORDS = (
    "malloc",
    "corrupt",
    "free()",
    "Signal (6)",
    "Signal (11)",
    "terminate called",
    "what()",
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage.build(tmp_path_factory.mktemp("reloads"))
    try:
        yield built
    finally:
        built.close()


def test_reloads_under_load(stage: Stage) -> None:
    urls = {server.name: server.grpc_url for server in stage.state.servers}
    stage.script("p1", seconds=0.02)
    stage.script("p2", seconds=0.05)
    with (
        TritonServer("edge", urls["edge"]) as edge,
        TritonServer("device", urls["device"]) as device,
    ):
        load_echo(edge, instances=2)
        loads = {
            "far": partial(load_proxy, device, "far", urls["edge"]),
            "leaky": partial(load_mailbox, device),
            ROUTER: partial(stage.load_router, _CLASSES),
        }
        for load in loads.values():
            load()
        with load_on(stage) as ends:
            for _ in range(_ROUNDS):
                time.sleep(0.3)
                with ThreadPoolExecutor(len(loads)) as pool:
                    list(pool.map(lambda item: reload(device, *item), loads.items()))
        assert {name for name in loads if ends[name, "ok"] < _ROUNDS} == set(), dict(ends)
        wrong = [end for end in ends if end[1] != "ok" and "unknown model" not in end[1]]
        assert wrong == [], dict(ends)
        assert [name for name in loads if not device.serves(name)] == []
    said = [x for x in stage.log().splitlines() if any(words in x for words in _LAST_WORDS)]
    assert said == []


def reload(device: TritonServer, name: str, load: Callable[[], None]) -> None:
    """At times beside the old one, at times after it is gone."""
    if random.random() < 0.6:
        device.unload(name)
        deadline = time.monotonic() + _STUCK_S
        while (state := device.index().get(name, "UNAVAILABLE")) != "UNAVAILABLE":
            assert time.monotonic() < deadline, f"{name} is {state}"
            time.sleep(0.05)
    load()


@contextmanager
def load_on(stage: Stage) -> Iterator[Counter[tuple[str, str]]]:
    """Requests to all three models while this lasts; how they ended, by model."""
    ends: Counter[tuple[str, str]] = Counter()
    stop = threading.Event()

    def far(client: triton.InferenceServerClient, _: int) -> None:
        ask(client, "far", random.choice([0, 0, 0.05]))

    jobs: dict[str, Callable[[triton.InferenceServerClient, int], object]] = {
        "far": far,
        "leaky": put_and_take,
        ROUTER: lambda _, number: stage.ask(seed=number % 50),
    }

    def work(name: str) -> None:
        client = triton.InferenceServerClient(stage.url)
        number = random.randrange(2**40)
        while not stop.is_set():
            number += 1
            try:
                jobs[name](client, number)
                ends[name, "ok"] += 1
            except Exception as error:
                ends[name, str(error)[:200]] += 1
                time.sleep(0.02)
        client.close()

    threads = [
        threading.Thread(target=work, args=(name,)) for name in jobs for _ in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        stop.set()
        for thread in threads:
            thread.join()
