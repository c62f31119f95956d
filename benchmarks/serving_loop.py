"""Requests per second in a closed loop, for `serving_overhead`."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks.lab_runs import Request


def over(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Of the same windows."""
    return [a / b for a, b in zip(values, base, strict=True)]


def medians(windows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each stage over all windows in which it ran."""
    stages = ([x for x in stage if x is not None] for stage in zip(*windows, strict=True))
    return [statistics.median(values) if values else None for values in stages]


def closed_loop(
    connect: Callable[[], Request],
    users: int,
    seconds: float,
    check: Callable[[Request], None] = lambda _: None,
) -> float:
    """Answers per second with that many requests under way, after the first of each user. The last
    answer of each user is checked. What went wrong in a user's request is raised."""
    requests = [connect() for _ in range(users)]
    counts, ready = [0] * users, threading.Barrier(users + 1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            requests[index]()
            ready.wait(timeout=60)
            while not stop.is_set():
                requests[index]()
                if not stop.is_set():
                    counts[index] += 1
        except BaseException as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(users)]
    for thread in threads:
        thread.start()
    try:
        ready.wait(timeout=60)
        started = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - started
    except threading.BrokenBarrierError:
        elapsed = 0.0  # a user failed, or took too long
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for request in requests:
            request.close()
    real = [error for error in failures if not isinstance(error, threading.BrokenBarrierError)]
    if real:
        raise real[0]
    if not elapsed:
        raise SystemExit("broken: a first request took more than a minute")
    for request in requests:
        check(request)
    return sum(counts) / elapsed
