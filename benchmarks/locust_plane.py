"""What Locust sends: requests to a split model, each answer compared with the right one.

Started by `benchmarks.soak` with a file of questions; see there.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import grpc.experimental.gevent
import numpy as np
import tritonclient.grpc as triton
from locust import User, constant, events, task
from locust.exception import StopUser

# Without it the users of one process would wait for each other.
grpc.experimental.gevent.init_gevent()

_SETTINGS = json.loads(Path(os.environ["TRITIER_LOCUST_SETTINGS"]).read_text(encoding="utf-8"))
_QUESTIONS = np.load(_SETTINGS["questions"])
_LIMIT = int(_SETTINGS["requests"])
_sent, _answered = itertools.count(), itertools.count(1)
_last = gevent.event.Event()
_events: Any = events


def _end_after_the_last(environment: Any, **_: Any) -> None:
    def wait() -> None:
        _last.wait()
        environment.runner.quit()

    gevent.spawn(wait)


def _write_result(environment: Any, **_: Any) -> None:
    total = environment.stats.total
    result = {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "median_ms": total.median_response_time,
        "p99_ms": total.get_response_time_percentile(0.99),
        "per_s": total.total_rps,
        "messages": [str(error.error) for error in environment.stats.errors.values()][:5],
    }
    Path(_SETTINGS["result"]).write_text(json.dumps(result), encoding="utf-8")


_events.test_start.add_listener(_end_after_the_last)
_events.quitting.add_listener(_write_result)


class App(User):
    """One app: a client of its own, one request after the other."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Connect."""
        self._client = triton.InferenceServerClient(_SETTINGS["url"])

    def on_stop(self) -> None:
        """Disconnect: else the process never ends."""
        self._client.close()

    @task
    def infer(self) -> None:
        """Send the next request; after the last this user is done."""
        number = next(_sent)
        if number >= _LIMIT:
            raise StopUser
        index = number % len(_QUESTIONS["x"])
        item = triton.InferInput("x", list(_QUESTIONS["x"][index].shape), "FP32")
        item.set_data_from_numpy(_QUESTIONS["x"][index])
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            answer = self._client.infer(_SETTINGS["model"], [item], client_timeout=30)
            if not np.array_equal(answer.as_numpy("y"), _QUESTIONS["y"][index]):
                failure = ValueError("a wrong answer")
        except Exception as error:
            failure = error
        _events.request.fire(
            request_type="grpc",
            name=_SETTINGS["model"],
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )
        if next(_answered) >= _LIMIT:
            _last.set()
