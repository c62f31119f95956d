"""Users who ask a model, one request after the other, and compare every answer.

A locustfile. `tritier load` starts it; by hand, with a folder that `tritier load ... --prepare`
wrote:

    TRITIER_LOAD=folder locust -f loadtests/infer.py --headless --users 4 --run-time 30s
    TRITIER_LOAD=folder locust -f loadtests/infer.py,loadtests/shape.py --headless

Tags of Locust (`--tags`, `--exclude-tags`): `model:NAME`, `class:NAME`, `plan:ID`.
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import grpc.experimental.gevent
import locust
import numpy as np
import tritonclient.grpc as triton
from locust import User, constant, events, tag
from locust.runners import MasterRunner, WorkerRunner
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.bench.locust_answers import Judge
from tritier.bench.locust_collect import MESSAGE_FLUSH, MESSAGE_SAMPLES, collector
from tritier.bench.locust_samples import FAILED, RIGHT, WRONG, Tag
from tritier.deployment.access import connect, explained
from tritier.errors import TritierError

# Without it the users of one process would wait for each other.
grpc.experimental.gevent.init_gevent()

# Users who are refused at once would keep a core busy with asking.
_AFTER_FAILURE_S = 0.1
_GRACE_S = 5.0  # after its deadline a request is given up
_TELL_EVERY_S = 2.0
_log = logging.getLogger(__name__)

try:
    _collector = collector()
except TritierError as error:
    sys.exit(f"error: {error}")
_job, _questions = _collector.job, _collector.questions
_settings = _job.settings
_judge = Judge(_job, _questions)
_numbers = itertools.count()
# The same class and input for the n-th request of a process, whenever it is repeated.
_offset = 0
_events: Any = events


class App(User):
    """One app: a client of its own, one request after the other."""

    wait_time = constant(_settings.pause_ms / 1000)

    def on_start(self) -> None:
        """Connect, so that no request waits for it."""
        self._client = connect(_job.address, own=True)
        try:
            self._client.is_server_live(client_timeout=_settings.timeout_ms / 1000)
        except InferenceServerException as error:
            _log.warning("%s: %s", _job.url, explained(error, _job.address))

    def on_stop(self) -> None:
        """Disconnect: else the process never ends."""
        if (client := getattr(self, "_client", None)) is not None:
            client.close()

    def ask(self, request_class: str) -> None:
        """Send the next request and count it."""
        k = (next(_numbers) + _offset) % _job.questions
        sent_s, started = _collector.now_s, time.perf_counter()
        failure: Exception | None = None
        said = _job.plan_id or ""
        outcome, message, size = RIGHT, "", 0
        try:
            answer = self._infer(request_class, k)
            ms = (time.perf_counter() - started) * 1000
            response = answer.get_response()
            size = sum(map(len, response.raw_output_contents))
            if "tritier_plan" in response.parameters:
                said = response.parameters["tritier_plan"].string_param
            found = {out.name: answer.as_numpy(out.name) for out in response.outputs}
            said, message = _judge.judge(request_class, said, k, found)
            if message:
                outcome, failure = WRONG, ValueError(message)
        except Exception as error:  # whatever it is, this request failed and the test goes on
            ms = (time.perf_counter() - started) * 1000
            outcome, message, failure = FAILED, _message(error), error
        _collector.add(sent_s, ms, outcome, Tag(request_class, said), message)
        _events.request.fire(
            request_type="grpc",
            name=_name(request_class, said),
            response_time=ms,
            response_length=size,
            exception=failure,
            context={"model": _job.model, "class": request_class, "plan": said},
        )
        if outcome == FAILED:
            gevent.sleep(_AFTER_FAILURE_S)

    def _infer(self, request_class: str, k: int) -> triton.InferResult:
        parameters = {"parameters": {"class": request_class}} if request_class else {}
        return self._client.infer(
            _job.model,
            _requests[k],
            timeout=_settings.timeout_ms * 1000,  # microseconds, for Triton and the router
            client_timeout=_settings.timeout_ms / 1000 + _GRACE_S,
            **parameters,
        )


def _input(name: str, array: Any) -> triton.InferInput:
    content = np.ascontiguousarray(array)  # a scalar becomes one element, as in the configs
    item = triton.InferInput(name, list(content.shape), np_to_triton_dtype(content.dtype))
    item.set_data_from_numpy(content)
    return item


# Read only: all users share them.
_requests = [[_input(n, array) for n, array in arrays.items()] for arrays in _questions.inputs]


def _message(error: Exception) -> str:
    if isinstance(error, InferenceServerException):
        return explained(error, _job.address)
    return f"{type(error).__name__}: {error}"


def _name(request_class: str, plan: str) -> str:
    """How Locust's own tables call a request."""
    parts = [f"class {request_class}"] * bool(request_class) + [f"plan {plan}"] * bool(plan)
    return f"{_job.model} ({', '.join(parts)})" if parts else _job.model


def _task(request_class: str) -> Callable[[App], None]:
    def ask(user: App) -> None:
        user.ask(request_class)

    ask.__name__ = f"ask_{request_class}" if request_class else "ask"
    tags = [f"model:{_job.model}"]
    tags += [f"class:{request_class}"] * bool(request_class)
    tags += [f"plan:{plan}" for plan in _job.class_plans[request_class]]
    marked: Callable[[App], None] = tag(*tags)(ask)
    return marked


# Of a list Locust draws evenly: a class stands in it as often as it weighs.
App.tasks = [
    task
    for name, weight in (_settings.classes or {"": 1}).items()
    for task in [_task(name)] * weight
]


@_events.init.add_listener
def _set_up(environment: Any, runner: Any, **_: Any) -> None:
    is_master, is_worker = isinstance(runner, MasterRunner), isinstance(runner, WorkerRunner)
    _collector.role = "master" if is_master else "worker" if is_worker else "local"
    _collector.locust = locust.__version__
    _collector.led = environment.shape_class is None
    # Importing took its time: what Locust does "in 2 seconds" would be that much too early.
    gevent.get_hub().loop.update_now()
    if not environment.stop_timeout:  # what is in flight at the end is waited for, and counted
        environment.stop_timeout = _settings.timeout_ms / 1000 + _GRACE_S + 1
    if is_master:
        runner.register_message(MESSAGE_SAMPLES, _receive)
    if is_worker:
        runner.register_message(MESSAGE_FLUSH, _flush)
        gevent.spawn(_tell, runner)
    else:
        gevent.spawn(_watch_users, runner)


def _receive(msg: Any, **_: Any) -> None:
    _collector.receive(msg.node_id, msg.data)


def _flush(environment: Any, **_: Any) -> None:
    _collector.send(environment.runner, flushed=True)


def _tell(runner: Any) -> None:
    while True:
        gevent.sleep(_TELL_EVERY_S)
        _collector.send(runner)


def _watch_users(runner: Any) -> None:
    while True:
        _collector.saw_users(runner.user_count)
        gevent.sleep(_AFTER_FAILURE_S)


@_events.test_start.add_listener
def _start(environment: Any, **_: Any) -> None:
    global _numbers, _offset
    index = getattr(environment.runner, "worker_index", 0)
    _numbers, _offset = itertools.count(), max(index, 0)
    random.seed(f"{_settings.seed}-{index}")  # by which Locust draws the next task
    _collector.start()


@_events.cpu_warning.add_listener
def _busy(**_: Any) -> None:
    _collector.busy()


@_events.test_stopping.add_listener
def _stopping(environment: Any, **_: Any) -> None:
    _collector.end()
    if _collector.role == "worker":
        _collector.send(environment.runner)


@_events.test_stop.add_listener
def _stopped(environment: Any, **_: Any) -> None:
    if _collector.role == "worker":
        _collector.send(environment.runner)
    else:
        _collector.write()


@_events.quitting.add_listener
def _quitting(environment: Any, **_: Any) -> None:
    if _collector.role == "worker":
        return
    found = _collector.write()
    # Wrong answers are failures here too: Locust's own exit code tells of both.
    if found.failures or found.wrong:
        environment.process_exit_code = 1
    times = [f"p{p} {value:.3f} ms" for p in (50, 90, 95, 99)
             if (value := getattr(found, f"p{p}_ms")) is not None]  # fmt: skip
    sys.stdout.write(
        f"{found.requests} requests, {found.failures} failed, {found.wrong} wrong, "
        f"{found.infer_per_s:.2f} inferences/s; {', '.join(times) or 'no right answer'}; exact "
        f"figures: {_collector.folder}\n"
    )
