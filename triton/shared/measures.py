"""Metrics through the server's custom metrics, where it has them (Triton 23.10 and later).

Telling the server of a change is a round trip, so that changes are added up here and told a few
times a second.
"""

import bisect
import itertools
import os
import threading

import background

try:
    import triton_python_backend_utils as pb_utils
except ImportError:
    pb_utils = None

# In the labels of every metric. When a model is loaded again, the process of the old instance gives
# its metrics back while the new one uses its own: were they the same to the server, it would free
# what is still written to, and crash (Triton 24.10).
_RUN = os.urandom(3).hex()
LATENCY_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

_lock = threading.Lock()
_telling = threading.Lock()  # the server's metrics are used by one thread at a time
_found = {}  # (name, labels) -> measure
_families = {}  # name -> MetricFamily


class Measure:
    """A counter or a gauge."""

    def __init__(self, kind, name, help_text, labels):
        self._kind = kind
        self._name = name
        self._help = help_text
        self._labels = labels
        self._lock = threading.Lock()
        self._value = 0.0
        self._told = None
        self._metric = None
        self._broken = False

    @property
    def value(self):
        """What it is now, whether the server knows or not."""
        return self._value

    def add(self, amount=1):
        """`amount` more; a counter never gets less."""
        with self._lock:
            self._value += amount
        background.worker().wake()

    def set(self, value):
        """A gauge's new value."""
        with self._lock:
            self._value = value
        background.worker().wake()

    def put(self, value):
        """`set`, without a word to the thread in the background."""
        with self._lock:
            self._value = value

    def tell(self):
        """Tell the server, if there is news. It is never asked again after it refused."""
        with self._lock:
            value, told = self._value, self._told
        if self._broken or value == told:
            return
        try:
            if self._metric is None:
                self._metric = _family(self._kind, self._name, self._help).Metric(
                    labels={**self._labels, "run": _RUN}
                )
            if self._kind == "counter":
                self._metric.increment(value - (told or 0.0))
            else:
                self._metric.set(value)
            self._told = value
        except Exception:
            self._broken = True

    def release(self):
        """Let go of the server's metric; from now on it is told nothing."""
        self._broken = True
        self._metric = None


class Histogram:
    """Counters of values up to each bound, of all values, and of their sum."""

    def __init__(self, name, help_text, labels, bounds):
        self._bounds = tuple(bounds)
        ends = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        self._buckets = [
            Measure("counter", f"{name}_bucket", help_text, {**labels, "le": end}) for end in ends
        ]
        self._count = Measure("counter", f"{name}_count", f"number of {help_text}", labels)
        self._sum = Measure("counter", f"{name}_sum", f"sum of {help_text}", labels)
        self._lock = threading.Lock()
        self._counts = [0] * len(ends)
        self._total = 0.0

    def observe(self, value):
        """One more value."""
        index = bisect.bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._total += value
        background.worker().wake()

    def tell(self):
        """Tell the server, if there is news."""
        with self._lock:
            counts, total = list(self._counts), self._total
        for bucket, reached in zip(self._buckets, itertools.accumulate(counts), strict=True):
            bucket.put(reached)
            bucket.tell()
        self._count.put(sum(counts))
        self._count.tell()
        self._sum.put(total)
        self._sum.tell()

    def release(self):
        """Let go of the server's metrics."""
        for measure in (*self._buckets, self._count, self._sum):
            measure.release()


def find(kind, name, help_text, labels):
    """The counter or gauge of that name and those labels; made if there is none."""
    return _find(name, labels, lambda texts: Measure(kind, name, help_text, texts))


def find_histogram(name, help_text, labels, bounds):
    """The same for a histogram."""
    return _find(name, labels, lambda texts: Histogram(name, help_text, texts, bounds))


def flush():
    """Tell the server of all news."""
    with _lock:
        measures = list(_found.values())
    with _telling:
        for measure in measures:
            measure.tell()


def forget():
    """Give the server's metrics back: those before their families, as the server wants it."""
    with _telling, _lock:
        for measure in _found.values():
            measure.release()
        _found.clear()
        _families.clear()


def _find(name, labels, make):
    texts = {key: str(value) for key, value in labels.items()}
    key = (name, tuple(sorted(texts.items())))
    with _lock:
        if key not in _found:
            _found[key] = make(texts)
        measure = _found[key]
    background.worker().register(flush)
    return measure


def _family(kind, name, help_text):
    if name not in _families:
        kinds = {"counter": pb_utils.MetricFamily.COUNTER, "gauge": pb_utils.MetricFamily.GAUGE}
        _families[name] = pb_utils.MetricFamily(name=name, description=help_text, kind=kinds[kind])
    return _families[name]
