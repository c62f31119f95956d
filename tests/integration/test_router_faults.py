"""The router when servers, stubs and real plans fail: none wrong, none late, and back again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.router_stage import Stage

pytestmark = pytest.mark.integration

_CLASSES = {"normal": {"plans": ["p1", "whole"], "deadline_ms": 4000}}


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage.build(tmp_path_factory.mktemp("faults"))
    try:
        yield built
    finally:
        built.close()


class Load:
    """Threads that ask on and on. `ended` has (when, seconds, error or None) of each request."""

    def __init__(self, stage: Stage, threads: int) -> None:
        self.ended: list[tuple[float, float, str | None]] = []
        self.wrong: list[str] = []
        self._stage = stage
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._running: list[Future[None]] = [self._pool.submit(self._run) for _ in range(threads)]

    def stop(self) -> None:
        self._stop.set()
        for item in self._running:
            item.result()
        self._pool.shutdown()

    def failed_since(self, when: float) -> list[str]:
        return [error for end, took, error in self.ended if end - took >= when and error]

    def _run(self) -> None:
        while not self._stop.is_set():
            started, error = time.monotonic(), None
            try:
                self._stage.ask(seed=len(self.ended))
            except InferenceServerException as caught:
                error = str(caught)
            except AssertionError as caught:
                self.wrong.append(str(caught))
            now = time.monotonic()
            self.ended.append((now, now - started, error))


def test_a_killed_stub_takes_its_plan_out_and_nothing_else(stage: Stage) -> None:
    """What waits for a killed stub is never answered by Triton, and keeps its BLS thread."""
    stage.load_router(_CLASSES)
    for _ in range(3):
        stage.ask()
    stage.script("p1", seconds=0.3)
    load = Load(stage, 40)
    time.sleep(1)
    os.kill(stage.pid("p1"), signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(6)
    load.stop()
    assert not load.wrong
    assert max(took for _, took, _ in load.ended) < 4.5
    assert not load.failed_since(killed + 2)
    # The router goes on, though Triton will never return the calls that were in flight.
    stage.forget()
    for seed in range(10):
        stage.ask(seed=seed)
    assert stage.asked("whole") == 10


def test_a_server_that_stands_still_is_noticed_and_comes_back(stage: Stage) -> None:
    stage.load_router(_CLASSES)
    stage.ask()
    edge = stage.state.servers[1].process.pid
    os.kill(edge, signal.SIGSTOP)
    try:
        time.sleep(1.0)  # two probe intervals of 200 ms, and some
        stage.forget()
        for seed in range(10):
            stage.ask(seed=seed)
        assert stage.asked("p1") == 0
        assert stage.asked("whole") == 10
    finally:
        os.kill(edge, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while stage.asked("p1") == 0:
        assert time.monotonic() < deadline, "p1 did not return"
        stage.ask()
        time.sleep(0.1)


def test_what_is_in_flight_on_a_lost_server_goes_to_the_fallback(stage: Stage) -> None:
    stage.load_router({"normal": {"plans": ["p1", "whole"], "deadline_ms": 20_000}})
    stage.ask()
    stage.script("p1", seconds=30)  # as if its answer would never come
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(stage.ask, seed=seed) for seed in range(8)]
        time.sleep(0.5)
        os.kill(stage.state.servers[1].process.pid, signal.SIGKILL)
        assert all(item.result() < 5 for item in waiting)  # half the deadline would be 10 s
    assert stage.asked("whole") == 8


def test_an_unloaded_plan_is_left_out(stage: Stage) -> None:
    stage.load_router(_CLASSES)
    stage.ask()
    stage.client.unload_model("m__p1")
    for seed in range(10):
        stage.ask(seed=seed)
    stage.client.load_model("m__p1")
    stage.forget()
    deadline = time.monotonic() + 10
    while stage.asked("p1") == 0:
        assert time.monotonic() < deadline, "p1 did not return"
        stage.ask()
        time.sleep(0.1)


def test_outputs_that_an_ensemble_cannot_give_alone(stage: Stage) -> None:
    """A fault of Triton: an output that another step reads can't be left out. The router asks for
    all then, and answers what was wanted; without it the app gets an error."""
    name = "m__p2"
    step = "m__p2__c0"
    maps = 'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }'
    more = 'input_map { key: "x" value: "y" } output_map { key: "z" value: "z" }'
    folder = stage.folder / "repos" / "device" / name
    text = (folder / "config.pbtxt").read_text()
    head = text[: text.index("ensemble_scheduling")]
    steps = "".join(f'step {{ model_name: "{step}" model_version: -1 {m} }}' for m in (maps, more))
    (folder / "config.pbtxt").write_text(f"{head} ensemble_scheduling {{ {steps} }}")
    stage.client.load_model(name)
    stage.load_router({"normal": {"plans": ["p2"]}})
    x = np.arange(4, dtype=np.float32)
    item = triton.InferInput("x", [4], "FP32")
    item.set_data_from_numpy(x)
    for wanted in (["y"], ["z"], ["y", "z"], ["y"]):
        outputs = [triton.InferRequestedOutput(n) for n in wanted]
        answer = stage.client.infer("m", [item], outputs=outputs)
        expected = {"y": 2 * x + 1, "z": -(2 * x + 1)}
        for output in wanted:
            assert np.array_equal(answer.as_numpy(output), expected[output])
