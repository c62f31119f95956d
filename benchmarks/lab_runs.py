"""A lab on which several plans are served side by side, and requests that are timed in turn."""

from __future__ import annotations

import fcntl
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import Addresses, deploy, find_addresses, undeploy
from tritier.deployment.lab import Lab
from tritier.divider import Arrays
from tritier.documents import LabState, Plan, ServersSpec
from tritier.errors import InputError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import generate

Timed = Callable[[], float]
# Images in an execution -> executions, and ns.
Executed = Mapping[int, tuple[int, int]]


class Stage:
    """A running lab, and plans that are put on it and taken off."""

    def __init__(self, spec: ServersSpec, lab: Lab, folder: Path) -> None:
        self.spec, self.lab, self.folder = spec, lab, folder

    @property
    def state(self) -> LabState:
        """Of the lab now."""
        found = self.lab.state()
        assert found is not None
        return found

    @property
    def urls(self) -> dict[str, str]:
        """Addresses (gRPC) for apps, by server."""
        return self.state.urls

    def load(
        self, plan: Plan, model: LoadedModel, options: GenerateOptions | None = None
    ) -> tuple[Repositories, Addresses]:
        """Generate a plan and load it; several may be loaded if their models' names differ."""
        # Behind a slow link and on a slow device a request may take seconds.
        files, _ = generate(plan, model, options or GenerateOptions(deadline_ms=60_000))
        folder = self.folder / "repositories" / plan.id
        write_files(files, folder, force=True)
        repositories = Repositories.open(folder)
        addresses = find_addresses(repositories, self.spec, self.state)
        deploy(repositories, addresses, push="always")
        return repositories, addresses

    @contextmanager
    def loaded(
        self, plans: Sequence[Plan], model: LoadedModel, options: GenerateOptions | None = None
    ) -> Iterator[list[Repositories]]:
        """These plans side by side; they are taken off again at the end."""
        found = []
        try:
            for plan in plans:
                found.append(self.load(plan, model, options))
            yield [repositories for repositories, _ in found]
        finally:
            for repositories, addresses in reversed(found):
                undeploy(repositories, addresses)

    def request(self, plan: Plan, arrays: Arrays) -> Request:
        """Asks the plan as an app does."""
        return Request(self.urls[plan.entry.name], plan.model.name, arrays)

    def service_ms(self, server: str, model: str) -> ServiceTime:
        """The service time of a model on a server, by Triton's own count."""
        return ServiceTime(server, self.urls[server], model)


class Request:
    """One request of an app to a Triton model, over a warm connection of its own."""

    def __init__(self, url: str, model: str, arrays: Arrays) -> None:
        self._client = triton.InferenceServerClient(url)
        self._model = model
        self._arrays = dict(arrays)

    def __call__(self) -> float:
        """Milliseconds from arrays to arrays; all outputs are read."""
        started = time.perf_counter()
        inputs = []
        for name, array in self._arrays.items():
            item = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            item.set_data_from_numpy(array)
            inputs.append(item)
        result = self._client.infer(self._model, inputs)
        self.answer = {o.name: result.as_numpy(o.name) for o in result.get_response().outputs}
        elapsed = time.perf_counter() - started
        assert all(array is not None and array.size for array in self.answer.values())
        return elapsed * 1000.0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class ServiceTime:
    """Mean service time of a model since the last look, as profiles have it: input, inference and
    output, without waiting before."""

    def __init__(self, server: str, url: str, model: str) -> None:
        self._server = TritonServer(server, url)
        self._model = model
        self._before = self._now()

    def since(self) -> float | None:
        """Milliseconds per image since the last call, each execution counted once; None if there
        was none."""
        now, before = self._now(), self._before
        self._before = now
        return per_image_ms(before, now)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _now(self) -> Executed:
        """By images in an execution: how many, and their ns of input, inference and output."""
        found = {}
        for item in self._server.all_statistics():
            for size in item.batch_stats if item.name == self._model else ():
                parts = (size.compute_input, size.compute_infer, size.compute_output)
                found[size.batch_size] = (size.compute_infer.count, sum(x.ns for x in parts))
        return found


def per_image_ms(before: Executed, now: Executed) -> float | None:
    """Of executions in between, of all sizes; None if there was none."""
    images = ns = 0
    for size, (count, spent_ns) in now.items():
        earlier = before.get(size, (0, 0))
        images += size * (count - earlier[0])
        ns += spent_ns - earlier[1]
    return ns / images / 1e6 if images else None


@contextmanager
def running(
    spec: ServersSpec, folder: Path, report: Callable[[str], None] = lambda _: None
) -> Iterator[Stage]:
    """The lab of a servers file in a folder; all its processes are stopped at the end."""
    lab = Lab(folder / "lab")
    try:
        lab.up(spec, None, report)
        yield Stage(spec, lab, folder)
    finally:
        lab.down()


@contextmanager
def scratch_of(output: Path) -> Iterator[Path]:
    """A folder beside results for what is not kept, and for a lab; it is removed at the end.

    It is always the same: a lab that runs there is of a run that was killed, and is stopped.
    SIGTERM ends the run as Ctrl+C does, so that servers are stopped. Raises InputError if
    another run uses the folder.
    """
    folder = output / "scratch"
    output.mkdir(parents=True, exist_ok=True)
    with (output / "scratch.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{output} is in use by another run: wait, or give another -o"
            ) from None
        with ended_by_sigterm():
            try:
                _clear(folder)
                folder.mkdir()
                yield folder
            finally:
                _clear(folder)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit meanwhile, so that what was started is stopped."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _clear(folder: Path) -> None:
    Lab(folder / "lab").down()
    shutil.rmtree(folder, ignore_errors=True)


def in_turn(
    timed: Mapping[str, Timed],
    rounds: int,
    warm_up: int = 3,
    each_round: Callable[[int], None] = lambda _: None,
    until_s: float | None = None,
    seed: int = 0,
    uncounted: int = 0,
) -> dict[str, list[float]]:
    """Milliseconds of requests of all kinds, sent one at a time, in turn: what the machine does
    besides meets all alike. The order is drawn anew for each round, always the same way for a
    `seed`: what a request leaves behind (caches, a clock that went up) meets all alike, too.

    With `uncounted`, each is asked that many times more before the one that counts: it then finds
    the caches as one who asks nothing else does. At most `rounds` rounds; if they take longer than
    `until_s`, no new one is begun, but for the first three.
    """
    order = list(timed)
    dice = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(warm_up):
        for name in order:
            timed[name]()
    each_round(-1)
    found: dict[str, list[float]] = {name: [] for name in timed}
    started = time.monotonic()
    for number in range(rounds):
        if until_s is not None and number >= 3 and time.monotonic() - started > until_s:
            break
        dice.shuffle(order)
        for name in order:
            for _ in range(uncounted):
                timed[name]()
            found[name].append(timed[name]())
        each_round(number)
    return found


def random_inputs(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Arrays:
    """Float inputs drawn at random: times don't hang on them."""
    generator = np.random.default_rng(seed)
    return {name: generator.random(tuple(shape), np.float32) for name, shape in shapes.items()}
